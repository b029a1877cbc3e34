"""Reads are spent where something waits, and seldom elsewhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists
from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram.read_budget import MAX_READS, ReadBudget


def wake_up(budget: ReadBudget, waiting: int) -> tuple[int, bool]:
    """Read as a port does; give how many reads brought something, and whether one did not."""
    found = min(waiting, budget.allowed)
    has_met_end = found < budget.allowed
    budget.note(found, has_met_end=has_met_end)
    return found, has_met_end


class ReadBudgetTests(SynchronousTestCase):
    """How many reads a wake-up has."""

    def setUp(self) -> None:
        self.budget = ReadBudget()

    def test_the_first_wake_up_has_one_read(self) -> None:
        """Nothing is known yet."""
        self.assertEqual(self.budget.allowed, 1)

    def test_one_in_flight_is_one_read(self) -> None:
        """In the long run a read finds nothing in one wake-up of 64, and not less often."""
        for _ in range(20_000):
            wake_up(self.budget, 1)
        vain = sum(has_met_end for _, has_met_end in (wake_up(self.budget, 1) for _ in range(6400)))
        self.assertLessEqual(vain, 100)
        self.assertGreater(vain, 90)

    def test_tries_become_rarer(self) -> None:
        """Not many are made until then either: a few more than the powers of two."""
        vain = sum(has_met_end for _, has_met_end in (wake_up(self.budget, 1) for _ in range(128)))
        self.assertLessEqual(vain, 8)

    def test_more_are_allowed_where_more_waits(self) -> None:
        """A few wake-ups later as many as there may be, and never more."""
        allowed = []
        for _ in range(10):
            wake_up(self.budget, 1000)
            allowed.append(self.budget.allowed)
        self.assertEqual(allowed, sorted(allowed))
        self.assertEqual(allowed[-1], MAX_READS)

    def test_a_load_that_comes_after_silence_is_found(self) -> None:
        """However long there was one in flight: in as many wake-ups as a try may be away."""
        for _ in range(1000):
            wake_up(self.budget, 1)
        for _ in range(64 + 6):
            wake_up(self.budget, 1000)
        self.assertEqual(self.budget.allowed, MAX_READS)

    def test_a_load_that_ends_leaves_one_read(self) -> None:
        """At the first wake-up that brings a single one."""
        for _ in range(10):
            wake_up(self.budget, 1000)
        wake_up(self.budget, 1)
        self.assertEqual(self.budget.allowed, 1)

    def test_a_wake_up_for_nothing_leaves_one_read(self) -> None:
        """As where somebody else has read."""
        for _ in range(10):
            wake_up(self.budget, 1000)
        wake_up(self.budget, 0)
        self.assertEqual(self.budget.allowed, 1)

    @given(lists(integers(min_value=0, max_value=100)))
    def test_whatever_comes_the_bounds_hold(self, loads: list[int]) -> None:
        """There is always a read, and the reactor always has its turn."""
        budget = ReadBudget()
        for waiting in loads:
            wake_up(budget, waiting)
            self.assertTrue(1 <= budget.allowed <= MAX_READS)
