"""Reads are tried where datagrams wait, and rarely elsewhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers, lists
from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram.read_budget import MAX_READS, ReadBudget


def wake_up(budget: ReadBudget, waiting: int) -> tuple[int, bool]:
    """
    Read as a port does; return the number of reads that found a datagram, and whether one did not.
    """
    found = min(waiting, budget.allowed)
    has_met_end = found < budget.allowed
    budget.note(found, has_met_end=has_met_end)
    return found, has_met_end


class ReadBudgetTests(SynchronousTestCase):
    """The number of reads of a wake-up."""

    def setUp(self) -> None:
        self.budget = ReadBudget()

    def test_the_first_wake_up_has_one_read(self) -> None:
        """There is no earlier result."""
        self.assertEqual(self.budget.allowed, 1)

    def test_one_datagram_in_flight_needs_one_read(self) -> None:
        """Over time one wake-up of 64 tries a read in vain, and no fewer."""
        for _ in range(20_000):
            wake_up(self.budget, 1)
        vain = sum(has_met_end for _, has_met_end in (wake_up(self.budget, 1) for _ in range(6400)))
        self.assertLessEqual(vain, 100)
        self.assertGreater(vain, 90)

    def test_tries_become_rarer(self) -> None:
        """At the beginning there are only a few tries more than the powers of two."""
        vain = sum(has_met_end for _, has_met_end in (wake_up(self.budget, 1) for _ in range(128)))
        self.assertLessEqual(vain, 8)

    def test_waiting_datagrams_raise_the_number_of_reads(self) -> None:
        """After a few wake-ups it is the maximum, and never more."""
        allowed = []
        for _ in range(10):
            wake_up(self.budget, 1000)
            allowed.append(self.budget.allowed)
        self.assertEqual(allowed, sorted(allowed))
        self.assertEqual(allowed[-1], MAX_READS)

    def test_a_load_after_silence_is_found(self) -> None:
        """Within the longest interval between two tries."""
        for _ in range(1000):
            wake_up(self.budget, 1)
        for _ in range(64 + 6):
            wake_up(self.budget, 1000)
        self.assertEqual(self.budget.allowed, MAX_READS)

    def test_the_end_of_a_load_resets_to_one_read(self) -> None:
        """At the first wake-up with a single datagram."""
        for _ in range(10):
            wake_up(self.budget, 1000)
        wake_up(self.budget, 1)
        self.assertEqual(self.budget.allowed, 1)

    def test_a_wake_up_without_datagrams_resets_to_one_read(self) -> None:
        """For example if other code has read them."""
        for _ in range(10):
            wake_up(self.budget, 1000)
        wake_up(self.budget, 0)
        self.assertEqual(self.budget.allowed, 1)

    @given(lists(integers(min_value=0, max_value=100)))
    def test_the_number_of_reads_stays_within_its_bounds(self, loads: list[int]) -> None:
        """At least one read, and at most the maximum."""
        budget = ReadBudget()
        for waiting in loads:
            wake_up(budget, waiting)
            self.assertTrue(1 <= budget.allowed <= MAX_READS, waiting)
