"""Tests of `benchmarks.handshake_report`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.handshake_report import HandshakeReport
from benchmarks.handshaking import HandshakeCost
from benchmarks.pending import PendingCost


def _cost(rate: float, resumed: int = 0) -> HandshakeCost:
    return HandshakeCost(handshakes=10, cpu=int(10e9 / rate), resumed=resumed, cipher="AES")


def _add(
    report: HandshakeReport,
    server: str,
    *,
    full: float = 1000,
    resumed: float = 1000,
    taken_up: int = 10,
    beside: float = 40_000,
) -> None:
    pending = PendingCost(pending=1000, alone=20_000, beside=beside)
    report.add(server, _cost(full), _cost(resumed, taken_up), pending)


class HandshakeReportTests(SynchronousTestCase):
    """Handshakes and round trips become medians and ratios."""

    def setUp(self) -> None:
        self.report = HandshakeReport()

    def test_rates_are_the_medians_of_the_rounds(self) -> None:
        """One slow round does not change the figures."""
        for full, resumed in ((1000, 4000), (10, 40), (2000, 5000)):
            _add(self.report, "echo", full=full, resumed=resumed)
        self.assertEqual(self.report.full_rate("echo"), 1000)
        self.assertEqual(self.report.resumed_rate("echo"), 4000)

    def test_ratios_compare_within_a_round(self) -> None:
        """A round in which the machine was slow for all servers has the same ratios."""
        for slowness in (1, 10, 2):
            _add(self.report, "echo", full=1000 / slowness, resumed=4000 / slowness)
            _add(self.report, "int32", full=2000 / slowness, resumed=1000 / slowness)
        self.assertEqual(self.report.full_ratio("echo"), 0.5)
        self.assertEqual(self.report.resumed_ratio("echo"), 4)

    def test_without_the_baseline_there_is_no_ratio(self) -> None:
        """A run of other servers only still has its figures."""
        _add(self.report, "echo")
        self.assertIsNone(self.report.full_ratio("echo"))
        self.assertIsNone(self.report.resumed_ratio("echo"))

    def test_unless_all_were_resumed_there_is_no_rate(self) -> None:
        """A single full one in any round is enough, as it would be in the figure."""
        _add(self.report, "int32")
        _add(self.report, "int32")
        _add(self.report, "echo")
        _add(self.report, "echo", taken_up=9)
        self.assertEqual(self.report.taken_up("echo"), (19, 20))
        self.assertIsNone(self.report.resumed_rate("echo"))
        self.assertIsNone(self.report.resumed_ratio("echo"))

    def test_unless_the_baseline_resumed_all_there_is_no_ratio(self) -> None:
        """The rate stands by itself."""
        _add(self.report, "echo", resumed=2000)
        _add(self.report, "int32", taken_up=0)
        self.assertEqual(self.report.resumed_rate("echo"), 2000)
        self.assertIsNone(self.report.resumed_ratio("echo"))

    def test_slowdown_is_the_median_of_the_rounds(self) -> None:
        """Each round compares with its own time alone."""
        for beside in (40_000, 400_000, 30_000):
            _add(self.report, "echo", beside=beside)
        self.assertEqual(self.report.slowdown("echo"), 2)

    def test_tables_have_a_row_for_each_server(self) -> None:
        """What there is no figure for is a dash."""
        _add(self.report, "int32")
        _add(self.report, "echo", full=2000, taken_up=0)
        baseline = "Twisted Int32StringReceiver"
        handshakes, round_trips = self.report.tables()
        self.assertEqual(
            handshakes.rows,
            [
                [baseline, "1,000", "1.00", "1,000", "1.00", "10 of 10", "AES"],
                ["twsock FrameEcho", "2,000", "2.00", "-", "-", "0 of 10", "AES"],
            ],
        )
        self.assertEqual(
            round_trips.rows,
            [
                [baseline, "1,000", "20.0", "40.0", "2.00"],
                ["twsock FrameEcho", "1,000", "20.0", "40.0", "2.00"],
            ],
        )

    def test_json_has_the_rounds_too(self) -> None:
        """Whoever wants other figures than medians finds what was measured."""
        _add(self.report, "echo", taken_up=0)
        _add(self.report, "echo", full=2000, taken_up=0)
        echo = self.report.to_json()["servers"]["echo"]
        self.assertEqual(echo["full_per_cpu_second"], 1500)
        self.assertIsNone(echo["resumed_per_cpu_second"])
        self.assertEqual([each["full"]["cpu"] for each in echo["rounds"]], [10**7, 5 * 10**6])
