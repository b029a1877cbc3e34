"""Tests of `benchmarks.datagram_report`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.datagram_client import DatagramMeasurement
from benchmarks.datagram_report import DatagramReport


def _measurement(cost: float, lost: int = 0) -> DatagramMeasurement:
    """Of so many microseconds for a datagram."""
    return DatagramMeasurement(
        frames=1000, cpu=int(cost * 1_000_000), wall=10**8, memory=0, lost=lost
    )


class DatagramReportTests(SynchronousTestCase):
    """Measurements become medians and ratios."""

    def setUp(self) -> None:
        self.report = DatagramReport()

    def test_cpu_time_is_the_median_of_the_rounds(self) -> None:
        """One slow round does not change the figure."""
        for cost in (2, 90, 3):
            self.report.add("echo", "A", _measurement(cost))
        self.assertEqual(self.report.cpu("echo", "A"), 3)
        self.assertEqual(self.report.rate("echo", "A"), 10_000)

    def test_ratios_compare_within_a_round(self) -> None:
        """A round in which the machine was slow for all servers has the same ratios."""
        for slowness in (1, 10, 2):
            self.report.add("echo", "B", _measurement(1 * slowness))
            self.report.add("twisted", "B", _measurement(8 * slowness))
            self.report.add("c", "B", _measurement(4 * slowness))
        self.assertEqual(self.report.ratio("echo", "B", "twisted"), 0.125)
        self.assertEqual(self.report.ratio("echo", "B", "c"), 0.25)

    def test_without_a_baseline_there_is_no_ratio(self) -> None:
        """Nor a table of such ratios; a run of other servers still has its figures."""
        self.report.add("echo", "A", _measurement(1))
        self.report.add("c", "A", _measurement(1))
        self.assertIsNone(self.report.ratio("echo", "A", "twisted"))
        captions = " ".join(table.caption for table in self.report.tables())
        self.assertNotIn("Twisted", captions)
        self.assertIn("ratio to C", captions)

    def test_aims_stand_below_the_ratios(self) -> None:
        """Where there is none, there is a dash."""
        for case in ("A", "B", "B-single", "C"):
            for server in ("twisted", "c"):
                self.report.add(server, case, _measurement(1))
        _, beside_twisted, beside_c, _ = self.report.tables()
        self.assertEqual(list(beside_twisted.rows[-1][1:]), ["1.00", "0.10", "-", "0.10"])
        self.assertEqual(list(beside_c.rows[-1][1:]), ["-", "0.40", "-", "0.40"])

    def test_lost_datagrams_are_summed_up(self) -> None:
        """Of all rounds and cases: a single one is seen in the legend."""
        for case, lost in (("A", 0), ("B", 2), ("B", 3)):
            self.report.add("echo", case, _measurement(1, lost))
        self.assertEqual(self.report.lost("echo"), 5)
        self.assertIn("lost by all servers together: 5,", self.report.legend())
        self.assertEqual(self.report.to_json()["servers"]["echo"]["lost"], 5)
