"""
Medians and ratios out of handshakes and round trips, as tables and as JSON.

Fed by `benchmarks.handshakes` with what `benchmarks.handshaking` and `benchmarks.pending` measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.handshaking import HandshakeCost
from benchmarks.pending import PendingCost
from benchmarks.servers import BASELINE, SERVERS
from benchmarks.tables import Table

__all__ = ["HandshakeReport"]

_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class _Round:
    full: HandshakeCost
    resumed: HandshakeCost
    pending: PendingCost


class HandshakeReport:
    """What servers did in handshakes, and beside silent ones."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[_Round]] = {}

    def add(
        self, server: str, full: HandshakeCost, resumed: HandshakeCost, pending: PendingCost
    ) -> None:
        """Note what one round measured."""
        self._rounds.setdefault(server, []).append(_Round(full, resumed, pending))

    def full_rate(self, server: str) -> float:
        """Full handshakes for a second of processor time, the median of the rounds."""
        return median(each.full.rate for each in self._rounds[server])

    def resumed_rate(self, server: str) -> float | None:
        """Resumed handshakes for a second of processor time; None unless all were resumed."""
        resumed, offered = self.taken_up(server)
        if resumed < offered:
            return None
        return median(each.resumed.rate for each in self._rounds[server])

    def full_ratio(self, server: str) -> float | None:
        """The rate beside the `BASELINE` of the same round, the median of the rounds."""
        return self._ratio(server, lambda each: each.full.rate)

    def resumed_ratio(self, server: str) -> float | None:
        """The same of resumed handshakes; None unless both resumed all."""
        if self.resumed_rate(server) is None:
            return None
        if BASELINE not in self._rounds or self.resumed_rate(BASELINE) is None:
            return None
        return self._ratio(server, lambda each: each.resumed.rate)

    def taken_up(self, server: str) -> tuple[int, int]:
        """Of the sessions that were offered, how many were resumed; and how many these were."""
        costs = [each.resumed for each in self._rounds[server]]
        return sum(cost.resumed for cost in costs), sum(cost.handshakes for cost in costs)

    def slowdown(self, server: str) -> float:
        """How many times longer a round trip takes beside silent handshakes, the median."""
        return median(each.pending.ratio for each in self._rounds[server])

    def tables(self) -> list[Table]:
        """For people."""
        return [
            Table(
                "Handshakes for each second of server CPU, and as a ratio to "
                f"{SERVERS[BASELINE].title}",
                ["server", "full", "ratio", "resumed", "ratio", "taken up", "cipher"],
                [self._rate_cells(server) for server in self._rounds],
            ),
            Table(
                "Round trip of an established connection in µs, alone and beside silent handshakes",
                ["server", "silent", "alone", "beside", "ratio"],
                [self._pending_cells(server) for server in self._rounds],
            ),
        ]

    def legend(self) -> str:
        """What the columns stand for."""
        return (
            "Each handshake includes to accept, to echo a frame of 64 bytes, and to close. "
            "Taken up: how many of the sessions offered were resumed; unless all were, there is "
            "no rate. Silent: half sent nothing, the others half a ClientHello."
        )

    def to_json(self) -> dict[str, Any]:
        """For programs: medians, and each round as it was."""
        return {
            "baseline": BASELINE,
            "servers": {
                server: {
                    "title": SERVERS[server].title,
                    "full_per_cpu_second": self.full_rate(server),
                    "full_ratio": self.full_ratio(server),
                    "resumed_per_cpu_second": self.resumed_rate(server),
                    "resumed_ratio": self.resumed_ratio(server),
                    "pending_ratio": self.slowdown(server),
                    "rounds": [asdict(each) for each in rounds],
                }
                for server, rounds in self._rounds.items()
            },
        }

    def _rate_cells(self, server: str) -> list[str]:
        resumed, offered = self.taken_up(server)
        return [
            SERVERS[server].title,
            _figure(self.full_rate(server), ",.0f"),
            _figure(self.full_ratio(server), ".2f"),
            _figure(self.resumed_rate(server), ",.0f"),
            _figure(self.resumed_ratio(server), ".2f"),
            f"{resumed:,} of {offered:,}",
            self._rounds[server][-1].full.cipher,
        ]

    def _pending_cells(self, server: str) -> list[str]:
        pending = [each.pending for each in self._rounds[server]]
        return [
            SERVERS[server].title,
            f"{pending[-1].pending:,}",
            _figure(median(each.alone for each in pending) / 1000, ".1f"),
            _figure(median(each.beside for each in pending) / 1000, ".1f"),
            _figure(self.slowdown(server), ".2f"),
        ]

    def _ratio(self, server: str, rate: Callable[[_Round], float]) -> float | None:
        baseline = self._rounds.get(BASELINE)
        if baseline is None:
            return None
        pairs = zip(self._rounds[server], baseline, strict=True)
        return median(rate(ours) / rate(theirs) for ours, theirs in pairs)


def _figure(value: float | None, layout: str) -> str:
    return _NOTHING if value is None else format(value, layout)
