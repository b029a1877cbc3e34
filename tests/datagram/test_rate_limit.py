"""A `RateLimit` bounds the tokens of each peer."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis.strategies import integers, lists, tuples
from twisted.trial.unittest import SynchronousTestCase

from twsock.protocols import RateLimit

PEER, OTHER = "192.0.2.1", "192.0.2.2"

#: Time since the previous call in 1/64 seconds (exact as a float), and the wanted count.
TAKES = lists(tuples(integers(0, 640), integers(0, 20)), max_size=30)


def take_all(limit: RateLimit, takes: list[tuple[int, int]]) -> list[tuple[Fraction, int]]:
    """Take tokens for one peer; return the time and the result of each call."""
    now, taken = Fraction(0), []
    for pause, count in takes:
        now += Fraction(pause, 64)
        taken.append((now, limit.take(PEER, count, float(now))))
    return taken


class ShareTests(SynchronousTestCase):
    """One peer."""

    def test_a_new_peer_has_the_whole_burst(self) -> None:
        """In one call or in several."""
        limit = RateLimit(rate=1.0, burst=5)
        self.assertEqual([limit.take(PEER, count, 0.0) for count in (2, 2, 2, 2)], [2, 2, 1, 0])

    def test_tokens_are_added_at_the_rate(self) -> None:
        """At two a second, one each half second; a fraction of a token does not count."""
        limit = RateLimit(rate=2.0, burst=1)
        times = (0.0, 0.25, 0.5, 0.75, 1.0)
        self.assertEqual([limit.take(PEER, 9, now) for now in times], [1, 0, 1, 0, 1])

    def test_a_pause_fills_the_bucket_up_to_the_burst(self) -> None:
        """An hour fills no more than the burst."""
        limit = RateLimit(rate=10.0, burst=3)
        self.assertEqual([limit.take(PEER, 9, now) for now in (0.0, 3600.0, 3600.0)], [3, 3, 0])

    def test_a_clock_that_goes_back_changes_nothing(self) -> None:
        """No token is added or removed."""
        limit = RateLimit(rate=1.0, burst=4)
        self.assertEqual(
            [limit.take(PEER, count, now) for count, now in ((1, 9.0), (9, 2.0))], [1, 3]
        )

    def test_remaining_tokens_are_kept(self) -> None:
        """The next call can take them."""
        limit = RateLimit(rate=1.0, burst=4)
        self.assertEqual([limit.take(PEER, count, 7.0) for count in (1, 0, 9)], [1, 0, 3])

    @given(integers(1, 8), integers(1, 10), TAKES)
    def test_no_window_has_more_than_burst_and_rate(
        self, rate: int, burst: int, takes: list[tuple[int, int]]
    ) -> None:
        """Between any two times, both included, at most ``burst + rate * seconds``."""
        taken = take_all(RateLimit(rate, burst), takes)
        for first in range(len(taken)):
            total = 0
            for now, count in taken[first:]:
                total += count
                self.assertLessEqual(total, burst + rate * (now - taken[first][0]), (now, count))

    @given(integers(1, 8), integers(1, 10), TAKES)
    def test_a_result_is_between_zero_and_the_wanted_count(
        self, rate: int, burst: int, takes: list[tuple[int, int]]
    ) -> None:
        """For any sequence of calls."""
        taken = take_all(RateLimit(rate, burst), takes)
        for (_, wanted), (_, count) in zip(takes, taken, strict=True):
            self.assertTrue(0 <= count <= wanted, (wanted, count))

    @given(integers(1, 8), integers(1, 10), TAKES)
    def test_all_available_tokens_are_returned(
        self, rate: int, burst: int, takes: list[tuple[int, int]]
    ) -> None:
        """After a call that returned less than wanted, less than one token is left."""
        level, before = Fraction(burst), Fraction(0)
        taken = take_all(RateLimit(rate, burst), takes)
        for (_, wanted), (now, count) in zip(takes, taken, strict=True):
            level, before = min(Fraction(burst), level + (now - before) * rate), now
            self.assertEqual(count, min(wanted, int(level)), (wanted, now, count))
            level -= count


class PeersTests(SynchronousTestCase):
    """Several peers."""

    def test_peers_have_separate_buckets(self) -> None:
        """One peer cannot use the tokens of another."""
        limit = RateLimit(rate=1.0, burst=3)
        self.assertEqual([limit.take(peer, 9, 0.0) for peer in (PEER, OTHER, PEER)], [3, 3, 0])

    def test_the_least_recently_seen_peer_is_dropped(self) -> None:
        """With room for two peers. The dropped peer starts with a full bucket."""
        limit = RateLimit(rate=1.0, burst=1, max_peers=2)
        for peer in (PEER, OTHER, PEER, "192.0.2.3"):
            limit.take(peer, 1, 0.0)
        self.assertEqual([limit.take(peer, 1, 0.0) for peer in (PEER, OTHER)], [0, 1])

    def test_max_peers_peers_are_kept(self) -> None:
        """One more peer replaces the first."""
        limit = RateLimit(rate=1.0, burst=1, max_peers=100)
        peers = [f"192.0.2.{number}" for number in range(100)]
        self.assertEqual(sum(limit.take(peer, 1, 0.0) for peer in peers), 100)
        self.assertEqual(sum(limit.take(peer, 1, 0.0) for peer in peers), 0)
        limit.take("198.51.100.1", 1, 0.0)
        self.assertEqual(limit.take(peers[0], 1, 0.0), 1)


class BoundsTests(SynchronousTestCase):
    """Invalid arguments are refused."""

    def test_a_rate_that_is_not_above_zero_is_refused(self) -> None:
        """Zero, a negative number, and NaN."""
        for rate in (0.0, -1.0, float("nan")):
            self.assertRaises(ValueError, RateLimit, rate, 1)

    def test_a_burst_and_the_number_of_peers_are_one_or_more(self) -> None:
        """With 0 no datagram would ever be answered."""
        self.assertRaises(ValueError, RateLimit, 1.0, 0)
        self.assertRaises(ValueError, RateLimit, 1.0, 1, 0)
        self.assertEqual(RateLimit(0.001, 1, 1).take(PEER, 1, 0.0), 1)
