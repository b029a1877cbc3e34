"""The order of the targets of SRV records; test_resolving.py tests the lookups."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis.strategies import integers, lists, tuples
from twisted.trial.unittest import SynchronousTestCase

from twsock.sockets.service_records import order_targets

Record = tuple[int, int, str, int]


def choosing(*numbers: int) -> Callable[[int], int]:
    """Return a function that returns these numbers instead of random ones."""
    left = iter(numbers)
    return lambda _limit: next(left)


class OrderTests(SynchronousTestCase):
    """The order in which to try the targets of a service."""

    def test_priorities_ascend(self) -> None:
        """Weight matters within one priority only."""
        records = [(2, 100, "c", 1), (1, 0, "a", 2), (1, 0, "b", 3)]
        self.assertEqual(order_targets(records, lambda _: 0), [("a", 2), ("b", 3), ("c", 1)])

    def test_the_random_number_selects_by_weight(self) -> None:
        """With weights 1 and 3: 0 and 1 choose the first, 2 to 4 the second."""
        records = [(0, 1, "light", 1), (0, 3, "heavy", 2)]
        first = [order_targets(records, choosing(number, 0))[0][0] for number in range(5)]
        self.assertEqual(first, ["light", "light", "heavy", "heavy", "heavy"])

    def test_weight_0_is_chosen_by_0_alone(self) -> None:
        """A target with weight 0 has a small chance at any place in the answer."""
        records = [(0, 2, "heavy", 1), (0, 0, "none", 2)]
        first = [order_targets(records, choosing(number, 0))[0][0] for number in range(3)]
        self.assertEqual(first, ["none", "heavy", "heavy"])

    def test_the_random_number_is_at_most_the_sum_of_weights(self) -> None:
        """Chosen targets no longer count; the sum itself is included (RFC 2782)."""
        limits: list[int] = []

        def choose(limit: int) -> int:
            limits.append(limit)
            return limit - 1

        order_targets([(0, 1, "a", 1), (0, 3, "b", 2), (1, 5, "c", 3)], choose)
        self.assertEqual(limits, [5, 2, 6])

    @given(lists(tuples(integers(0, 3), integers(0, 9), integers(0, 99))), integers(0, 2**32))
    def test_every_order_has_all_targets_by_priority(
        self, records: list[tuple[int, int, int]], chance: int
    ) -> None:
        """No target is lost or repeated, and priorities ascend."""
        targets: list[Record] = [(*each[:2], str(n), each[2]) for n, each in enumerate(records)]
        ordered = order_targets(targets, lambda limit: chance % limit)
        self.assertEqual(sorted(ordered), sorted(target[2:] for target in targets))
        priorities = [records[int(name)][0] for name, _ in ordered]
        self.assertEqual(priorities, sorted(priorities))

    def test_the_default_random_number_is_within_bounds(self) -> None:
        """Python makes the random number."""
        self.assertEqual(
            sorted(order_targets([(0, 1, "a", 1), (0, 1, "b", 2)])), [("a", 1), ("b", 2)]
        )
