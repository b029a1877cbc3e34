"""Tests of `benchmarks.report`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.client import Measurement
from benchmarks.report import LoadReport


def _measurement(cpu_per_frame: int, memory: int = 0) -> Measurement:
    return Measurement(frames=1000, cpu=cpu_per_frame * 1_000_000, wall=10**9, memory=memory)


class LoadReportTests(SynchronousTestCase):
    """Measurements become medians and ratios."""

    def test_cpu_time_is_the_median_of_the_rounds(self) -> None:
        """One slow round does not change the figure."""
        report = LoadReport()
        for cost in (2, 90, 3):
            report.add("echo", "A", _measurement(cost))
        self.assertEqual(report.cpu("echo", "A"), 3)

    def test_ratio_compares_within_a_round(self) -> None:
        """A round in which the machine was slow for all servers has the same ratio."""
        report = LoadReport()
        for ours, theirs in ((1, 4), (10, 40), (3, 6)):
            report.add("echo", "A", _measurement(ours))
            report.add("int32", "A", _measurement(theirs))
        self.assertEqual(report.ratio("echo", "A"), 0.25)

    def test_without_the_baseline_there_is_no_ratio(self) -> None:
        """A run of other servers only still has its figures."""
        report = LoadReport()
        report.add("echo", "A", _measurement(1))
        self.assertIsNone(report.ratio("echo", "A"))

    def test_memory_is_the_most_after_any_case(self) -> None:
        """The case that needs most decides, and of the rounds the median."""
        report = LoadReport()
        for first, second in ((5, 9), (7, 2), (8, 1)):
            report.add("echo", "A", _measurement(1, first))
            report.add("echo", "B", _measurement(1, second))
        self.assertEqual(report.memory("echo"), 8)
