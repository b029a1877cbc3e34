"""
Medians and ratios out of measurements, as tables and as JSON.

Fed by `benchmarks.stream` with what `benchmarks.client` and `benchmarks.idle` measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.cases import CASES
from benchmarks.client import Measurement
from benchmarks.idle import IdleCost
from benchmarks.servers import BASELINE, SERVERS
from benchmarks.tables import Table

__all__ = ["IdleReport", "LoadReport"]

_KIB = 1024
_NOTHING = "-"


class LoadReport:
    """
    What servers did under load.

    :ivar measurements: by server and case, one for each round, in the order of the rounds.
    """

    def __init__(self) -> None:
        self.measurements: dict[tuple[str, str], list[Measurement]] = {}

    def add(self, server: str, case: str, measurement: Measurement) -> None:
        """Note the measurement of one round."""
        self.measurements.setdefault((server, case), []).append(measurement)

    @property
    def servers(self) -> list[str]:
        """In the order in which they came."""
        return list(dict.fromkeys(server for server, _ in self.measurements))

    @property
    def cases(self) -> list[str]:
        """In the order in which they came."""
        return list(dict.fromkeys(case for _, case in self.measurements))

    def cpu(self, server: str, case: str) -> float:
        """Microseconds of processor time for a frame, the median of the rounds."""
        return median(each.cpu_per_frame for each in self.measurements[server, case])

    def ratio(self, server: str, case: str) -> float | None:
        """Processor time beside the `BASELINE` of the same round, the median of the rounds."""
        baseline = self.measurements.get((BASELINE, case))
        if baseline is None:
            return None
        pairs = zip(self.measurements[server, case], baseline, strict=True)
        return median(ours.cpu_per_frame / theirs.cpu_per_frame for ours, theirs in pairs)

    def rate(self, server: str, case: str) -> float:
        """Frames a second, the median of the rounds."""
        return median(each.rate for each in self.measurements[server, case])

    def memory(self, server: str) -> float:
        """Resident bytes: the most after any case, of which the median of the rounds."""
        by_case = (self.measurements[server, case] for case in self.cases)
        most = [max(each.memory for each in of_round) for of_round in zip(*by_case, strict=True)]
        return float(median(most))

    def tables(self) -> list[Table]:
        """For people."""
        cases = self.cases
        return [
            Table(
                f"Server CPU per echoed frame in µs, and as a ratio to {SERVERS[BASELINE].title}",
                ["server", *(cell for case in cases for cell in (case, "ratio"))],
                [
                    [
                        SERVERS[server].title,
                        *(cell for case in cases for cell in self._cpu_cells(server, case)),
                    ]
                    for server in self.servers
                ],
            ),
            Table(
                "Thousand frames a second, and resident memory of the server in MiB",
                ["server", *cases, "memory"],
                [
                    [
                        SERVERS[server].title,
                        *(_figure(self.rate(server, case) / 1000) for case in cases),
                        _figure(self.memory(server) / _KIB / _KIB),
                    ]
                    for server in self.servers
                ],
            ),
        ]

    def legend(self) -> str:
        """What the letters stand for."""
        return "; ".join(f"{case}: {CASES[case].title}" for case in self.cases) + "."

    def to_json(self) -> dict[str, Any]:
        """For programs: medians, and each round as it was."""
        return {
            "cases": {case: asdict(CASES[case]) for case in self.cases},
            "baseline": BASELINE,
            "servers": {
                server: {
                    "title": SERVERS[server].title,
                    "memory_bytes": self.memory(server),
                    "cases": {case: self._case_to_json(server, case) for case in self.cases},
                }
                for server in self.servers
            },
        }

    def _cpu_cells(self, server: str, case: str) -> tuple[str, str]:
        ratio = self.ratio(server, case)
        return (
            _figure(self.cpu(server, case)),
            _NOTHING if ratio is None else f"{ratio:.2f}",
        )

    def _case_to_json(self, server: str, case: str) -> dict[str, Any]:
        rounds = self.measurements[server, case]
        return {
            "cpu_us_per_frame": self.cpu(server, case),
            "ratio": self.ratio(server, case),
            "frames_per_second": self.rate(server, case),
            "busy": median(each.busy for each in rounds),
            "rounds": [asdict(each) for each in rounds],
        }


class IdleReport:
    """What servers need for connections that do nothing."""

    def __init__(self, costs: Mapping[str, IdleCost]) -> None:
        self.costs = costs

    def tables(self) -> Sequence[Table]:
        """For people."""
        return [
            Table(
                "Resident memory of the server for each idle connection in KiB",
                ["server", "connections", "connected only", "after one echo each"],
                [
                    [
                        SERVERS[server].title,
                        f"{cost.connections:,}",
                        _figure(cost.connected / _KIB),
                        _figure(cost.echoed / _KIB),
                    ]
                    for server, cost in self.costs.items()
                ],
            )
        ]

    def legend(self) -> str:
        """What the columns stand for."""
        return "Each echo is one frame of 64 bytes."

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "idle": {
                server: {
                    "title": SERVERS[server].title,
                    "connections": cost.connections,
                    "connected_bytes": cost.connected,
                    "echoed_bytes": cost.echoed,
                }
                for server, cost in self.costs.items()
            }
        }


def _figure(value: float) -> str:
    """Three digits that count, more where the value is large."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
