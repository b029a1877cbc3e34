"""
Medians and ratios out of batches of datagrams that were sent, as tables and as JSON.

Fed by `benchmarks.batched_datagrams` with what `benchmarks.sending` and `benchmarks.system_calls`
measured.
"""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from benchmarks.sending import LOOP, SEND_CASES, WAYS, SendMeasurement
from benchmarks.tables import Table

__all__ = ["BatchReport"]

_NOTHING = "-"


class BatchReport:
    """
    What ways to send cost.

    :ivar measurements: by way and case, one for each round, in the order of the rounds.
    :ivar calls: by way and case, system calls for each batch; empty when they were not counted.
    """

    def __init__(self) -> None:
        self.measurements: dict[tuple[str, str], list[SendMeasurement]] = {}
        self.calls: dict[tuple[str, str], float] = {}

    def add(self, way: str, case: str, measurement: SendMeasurement) -> None:
        """Note the measurement of one round."""
        self.measurements.setdefault((way, case), []).append(measurement)

    @property
    def ways(self) -> list[str]:
        """In the order in which they came."""
        return list(dict.fromkeys(way for way, _ in self.measurements))

    @property
    def cases(self) -> list[str]:
        """In the order in which they came."""
        return list(dict.fromkeys(case for _, case in self.measurements))

    @property
    def lost(self) -> int:
        """Datagrams that did not arrive."""
        return sum(each.lost for rounds in self.measurements.values() for each in rounds)

    def cpu(self, way: str, case: str) -> float:
        """Microseconds of processor time for a datagram, the median of the rounds."""
        return median(each.cpu_per_datagram for each in self.measurements[way, case])

    def ratio(self, way: str, case: str) -> float | None:
        """Processor time beside the loop of the same round, the median of the rounds."""
        theirs = self.measurements.get((LOOP, case))
        if theirs is None:
            return None
        pairs = zip(self.measurements[way, case], theirs, strict=True)
        return median(one.cpu_per_datagram / other.cpu_per_datagram for one, other in pairs)

    def tables(self) -> list[Table]:
        """For people."""
        cases = self.cases
        aims = [cell for case in cases for cell in (_NOTHING, f"{SEND_CASES[case].aim:.2f}")]
        tables = [
            Table(
                f"Sender CPU per datagram in µs, and as a ratio to {WAYS[LOOP].title}",
                ["way", *(cell for case in cases for cell in (case, "ratio"))],
                [
                    *([WAYS[way].title, *self._cpu_cells(way)] for way in self.ways),
                    ["aim of the socket, at most", *aims],
                ],
            )
        ]
        if self.calls:
            tables.append(
                Table(
                    "System calls for each batch",
                    ["way", *cases],
                    [
                        [WAYS[way].title, *(self._calls(way, case) for case in cases)]
                        for way in self.ways
                    ],
                )
            )
        return tables

    def legend(self) -> str:
        """What the columns stand for, and what is to be seen at once."""
        titles = "; ".join(f"{case}: {SEND_CASES[case].title}" for case in self.cases)
        return f"{titles}. Datagrams lost: {self.lost:,}, to be 0."

    def to_json(self) -> dict[str, Any]:
        """For programs: medians, and each round as it was."""
        return {
            "cases": {case: asdict(SEND_CASES[case]) for case in self.cases},
            "baseline": LOOP,
            "lost": self.lost,
            "ways": {
                way: {
                    "title": WAYS[way].title,
                    "cases": {case: self._case_to_json(way, case) for case in self.cases},
                }
                for way in self.ways
            },
        }

    def _cpu_cells(self, way: str) -> list[str]:
        cells = []
        for case in self.cases:
            ratio = self.ratio(way, case)
            cells.append(f"{self.cpu(way, case):.2f}")
            cells.append(_NOTHING if ratio is None else f"{ratio:.2f}")
        return cells

    def _calls(self, way: str, case: str) -> str:
        calls = self.calls.get((way, case))
        return _NOTHING if calls is None else f"{calls:g}"

    def _case_to_json(self, way: str, case: str) -> dict[str, Any]:
        return {
            "cpu_us_per_datagram": self.cpu(way, case),
            "ratio": self.ratio(way, case),
            "calls_per_batch": self.calls.get((way, case)),
            "rounds": [asdict(each) for each in self.measurements[way, case]],
        }
