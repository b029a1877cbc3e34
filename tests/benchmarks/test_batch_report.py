"""Tests of `benchmarks.batch_report`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.batch_report import BatchReport
from benchmarks.sending import SendMeasurement


def _measurement(cost: float, lost: int = 0) -> SendMeasurement:
    """Of so many microseconds for a datagram."""
    return SendMeasurement(datagrams=1000, lost=lost, cpu=int(cost * 1_000_000))


class BatchReportTests(SynchronousTestCase):
    """Measurements become medians and ratios."""

    def setUp(self) -> None:
        self.report = BatchReport()

    def test_ratio_compares_within_a_round(self) -> None:
        """A round in which the machine was slow for all ways has the same ratio."""
        for slowness in (1, 10, 2):
            self.report.add("socket", "small", _measurement(1 * slowness))
            self.report.add("loop", "small", _measurement(4 * slowness))
        self.assertEqual(self.report.cpu("socket", "small"), 2)
        self.assertEqual(self.report.ratio("socket", "small"), 0.25)

    def test_without_the_loop_there_is_no_ratio(self) -> None:
        """A run of other ways only still has its figures, and the aim."""
        self.report.add("socket", "small", _measurement(1))
        (table,) = self.report.tables()
        self.assertEqual([list(row[1:]) for row in table.rows], [["1.00", "-"], ["-", "0.30"]])

    def test_system_calls_have_a_table(self) -> None:
        """Where they were counted."""
        self.report.add("socket", "small", _measurement(1))
        self.report.calls["socket", "small"] = 1.0
        _, table = self.report.tables()
        self.assertEqual([list(row[1:]) for row in table.rows], [["1"]])

    def test_lost_datagrams_are_summed_up(self) -> None:
        """Of all rounds and cases: a single one is seen in the legend."""
        for case, lost in (("small", 0), ("large", 2), ("large", 3)):
            self.report.add("socket", case, _measurement(1, lost))
        self.assertIn("Datagrams lost: 5,", self.report.legend())
        self.assertEqual(self.report.to_json()["lost"], 5)
