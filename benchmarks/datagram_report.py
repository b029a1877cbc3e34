"""
Medians and ratios out of datagrams that were echoed, as tables and as JSON.

Fed by `benchmarks.datagram` with what `benchmarks.datagram_client` measured.
"""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.datagram_cases import DATAGRAM_CASES
from benchmarks.datagram_client import DatagramMeasurement
from benchmarks.servers import DATAGRAM_BASELINES, DATAGRAM_SERVERS
from benchmarks.tables import Table

__all__ = ["DatagramReport"]

_NOTHING = "-"


class DatagramReport:
    """
    What servers did with datagrams.

    :ivar measurements: by server and case, one for each round, in the order of the rounds.
    """

    def __init__(self) -> None:
        self.measurements: dict[tuple[str, str], list[DatagramMeasurement]] = {}

    def add(self, server: str, case: str, measurement: DatagramMeasurement) -> None:
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
        """Microseconds of processor time for a datagram, the median of the rounds."""
        return median(each.cpu_per_frame for each in self.measurements[server, case])

    def ratio(self, server: str, case: str, baseline: str) -> float | None:
        """Processor time beside another server in the same round, the median of the rounds."""
        theirs = self.measurements.get((baseline, case))
        if theirs is None:
            return None
        pairs = zip(self.measurements[server, case], theirs, strict=True)
        return median(one.cpu_per_frame / other.cpu_per_frame for one, other in pairs)

    def rate(self, server: str, case: str) -> float:
        """Datagrams a second, the median of the rounds."""
        return median(each.rate for each in self.measurements[server, case])

    def lost(self, server: str) -> int:
        """Datagrams that did not come back, in all cases and rounds."""
        return sum(each.lost for case in self.cases for each in self.measurements[server, case])

    def tables(self) -> list[Table]:
        """For people."""
        return [
            Table(
                "Server CPU per echoed datagram in µs",
                ["server", *self.cases],
                [
                    [
                        DATAGRAM_SERVERS[server].title,
                        *(_figure(self.cpu(server, case)) for case in self.cases),
                    ]
                    for server in self.servers
                ],
            ),
            *(
                self._ratio_table(baseline)
                for baseline in DATAGRAM_BASELINES
                if baseline in self.servers
            ),
            Table(
                "Thousand datagrams a second, and how many were lost",
                ["server", *self.cases, "lost"],
                [
                    [
                        DATAGRAM_SERVERS[server].title,
                        *(_figure(self.rate(server, case) / 1000) for case in self.cases),
                        f"{self.lost(server):,}",
                    ]
                    for server in self.servers
                ],
            ),
        ]

    def legend(self) -> str:
        """What the letters stand for, and what is to be seen at once."""
        letters = "; ".join(f"{case}: {DATAGRAM_CASES[case].title}" for case in self.cases)
        lost = sum(map(self.lost, self.servers))
        return f"{letters}. Datagrams lost by all servers together: {lost:,}, to be 0."

    def to_json(self) -> dict[str, Any]:
        """For programs: medians, and each round as it was."""
        return {
            "cases": {case: asdict(DATAGRAM_CASES[case]) for case in self.cases},
            "baselines": list(DATAGRAM_BASELINES),
            "servers": {
                server: {
                    "title": DATAGRAM_SERVERS[server].title,
                    "lost": self.lost(server),
                    "cases": {case: self._case_to_json(server, case) for case in self.cases},
                }
                for server in self.servers
            },
        }

    def _ratio_table(self, baseline: str) -> Table:
        aims = [DATAGRAM_CASES[case].aims.get(baseline) for case in self.cases]
        return Table(
            f"Server CPU per echoed datagram as a ratio to {DATAGRAM_SERVERS[baseline].title}",
            ["server", *self.cases],
            [
                *(
                    [
                        DATAGRAM_SERVERS[server].title,
                        *(_ratio(self.ratio(server, case, baseline)) for case in self.cases),
                    ]
                    for server in self.servers
                ),
                ["aim of twsock, at most", *map(_ratio, aims)],
            ],
        )

    def _case_to_json(self, server: str, case: str) -> dict[str, Any]:
        rounds = self.measurements[server, case]
        return {
            "cpu_us_per_datagram": self.cpu(server, case),
            "ratios": {
                baseline: self.ratio(server, case, baseline) for baseline in DATAGRAM_BASELINES
            },
            "datagrams_per_second": self.rate(server, case),
            "busy": median(each.busy for each in rounds),
            "rounds": [asdict(each) for each in rounds],
        }


def _figure(value: float) -> str:
    """Three digits that count, more where the value is large."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.2f}"
