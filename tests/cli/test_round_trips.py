"""Round trip times become one line."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.round_trips import RoundTrips


class RoundTripsTests(SynchronousTestCase):
    """Shortest, median, longest."""

    def summarize(self, *seconds: float, max_samples: int = 8) -> str:
        round_trips = RoundTrips(max_samples)
        for one in seconds:
            round_trips.add(one)
        return round_trips.summary

    def test_the_line_has_milliseconds(self) -> None:
        """Two digits after the point, whatever the order they came in."""
        self.assertEqual(
            self.summarize(0.0006, 0.00018, 0.00021),
            "3 echoes, round trip min/median/max 0.18/0.21/0.60 ms",
        )

    def test_an_even_number_has_its_median_in_the_middle(self) -> None:
        """Half way between the two in the middle."""
        self.assertEqual(
            self.summarize(0.001, 0.002), "2 echoes, round trip min/median/max 1.00/1.50/2.00 ms"
        )

    def test_nothing_has_no_times(self) -> None:
        """An empty input is told as such, and one echo is not many."""
        self.assertEqual(self.summarize(), "0 echoes")
        self.assertTrue(self.summarize(1).startswith("1 echo,"))

    def test_a_long_run_keeps_a_bounded_sample_of_the_whole(self) -> None:
        """Count and extremes stay exact, and the median comes from all parts of the run."""
        times = [0.5, *(number / 1000 for number in range(1, 1000))]
        self.assertEqual(
            self.summarize(*times, max_samples=64)[:42],
            "1000 echoes, round trip min/median/max 1.0",
        )
        median = float(self.summarize(*times, max_samples=64).split("/")[3])
        self.assertAlmostEqual(median, 500, delta=40)

    def test_the_figures_have_the_slowest_hundredth(self) -> None:
        """The time that 99 of 100 do not exceed; where there are none, nothing."""
        times = [number / 1000 for number in range(100, 0, -1)]
        round_trips = RoundTrips()
        self.assertEqual((round_trips.figures, round_trips.longest), ("", 0.0))
        for one in times:
            round_trips.add(one)
        self.assertEqual(
            round_trips.figures, "round trip min/median/p99/max 1.00/50.50/99.00/100.00 ms"
        )
        self.assertEqual(round_trips.longest, 0.1)
