"""Durations are counted by their length."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.stream.histogram import BOUNDS, Histogram


class HistogramTests(SynchronousTestCase):
    """The buckets."""

    def test_a_bound_is_in_its_bucket(self) -> None:
        """What is longer than all bounds is in the last bucket."""
        histogram = Histogram()
        for seconds in (*BOUNDS, 0.0, BOUNDS[-1] + 1):
            histogram.observe(seconds)
        self.assertEqual(histogram.counts, [2, *[1] * (len(BOUNDS) - 1), 1])
        self.assertAlmostEqual(histogram.total, sum(BOUNDS) + BOUNDS[-1] + 1)

    def test_two_histograms_are_added(self) -> None:
        """Bucket by bucket; the other one does not change."""
        one, other = Histogram(), Histogram()
        one.observe(BOUNDS[0])
        other.observe(BOUNDS[0])
        other.observe(BOUNDS[2])
        one.add(other)
        self.assertEqual(one.counts[:3], [2, 0, 1])
        self.assertAlmostEqual(one.total, 2 * BOUNDS[0] + BOUNDS[2])
        self.assertEqual(sum(other.counts), 2)
