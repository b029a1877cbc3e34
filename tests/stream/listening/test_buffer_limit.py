"""A `BufferLimit` bounds the bytes that all connections hold; past it the largest is aborted."""

from __future__ import annotations

import weakref

from hypothesis import given
from hypothesis.strategies import integers, lists, tuples
from twisted.trial.unittest import SynchronousTestCase

from twsock.stream.counters import NOT_COUNTED
from twsock.stream.listening.buffer_limit import BufferLimit


class Holder:
    """Holds as many bytes as the test says."""

    def __init__(self, limit: BufferLimit) -> None:
        self.limit = limit
        self.counters = NOT_COUNTED
        self.asked = 0
        self.size = 0
        self.aborted: list[tuple[int, int, int]] = []

    @property
    def buffered(self) -> int:
        self.asked += 1
        return self.size

    def abort_as_largest(self, buffered: int, total: int, limit: int) -> None:
        self.aborted.append((buffered, total, limit))
        self.size = 0

    def hold(self, size: int) -> None:
        """Hold ``size`` bytes, and note it."""
        self.size = size
        self.limit.note(self, size)


class BufferLimitTests(SynchronousTestCase):
    """Connections that share one limit."""

    def setUp(self) -> None:
        self.limit = BufferLimit(1000)

    def make(self, *sizes: int) -> list[Holder]:
        holders = [Holder(self.limit) for _ in sizes]
        for holder, size in zip(holders, sizes, strict=True):
            holder.hold(size)
        return holders

    def test_up_to_the_limit_no_connection_is_asked_or_aborted(self) -> None:
        """The limit itself is allowed."""
        holders = self.make(400, 300, 200, 100)
        self.assertEqual(self.limit.total, 1000)
        self.assertEqual([holder.asked for holder in holders], [0] * 4)
        self.assertEqual([holder.aborted for holder in holders], [[]] * 4)

    def test_past_the_limit_the_largest_is_aborted(self) -> None:
        """It receives the numbers; the connection that crossed the limit stays open."""
        holders = self.make(400, 300, 200, 101)
        self.assertEqual([len(holder.aborted) for holder in holders], [1, 0, 0, 0])
        self.assertEqual(holders[0].aborted, [(400, 1001, 1000)])
        self.assertEqual(self.limit.total, 601)

    def test_a_connection_that_holds_nothing_is_not_referenced(self) -> None:
        """After a note of 0, or an abort, the limit has no reference to it."""
        holders = self.make(400, 300, 200, 300)
        holders[1].hold(0)
        references = [weakref.ref(holder) for holder in holders[:2]]
        del holders[:2]
        self.assertEqual([reference() for reference in references], [None, None])
        self.assertEqual(self.limit.total, 500)

    def test_as_many_are_aborted_as_it_takes(self) -> None:
        """Connections that grew without a note count with their present size."""
        holders = self.make(300, 300, 300)
        for holder in holders:
            holder.size = 600
        self.make(200)
        self.assertEqual(sum(len(holder.aborted) for holder in holders), 2)
        self.assertEqual(self.limit.total, 800)

    def test_connections_that_shrank_without_a_note_are_asked_before_an_abort(self) -> None:
        """Their present sizes may be within the limit, and then none is aborted."""
        holders = self.make(400, 300, 200)
        for holder in holders:
            holder.size = 10
        (last,) = self.make(900)
        self.assertEqual(self.limit.total, 930)
        self.assertEqual([holder.aborted for holder in (*holders, last)], [[]] * 4)

    def test_a_lost_connection_is_forgotten(self) -> None:
        """A size of 0 takes a connection out."""
        first, second = self.make(400, 600)
        first.hold(0)
        self.assertEqual(self.limit.total, 600)
        second.hold(1000)
        self.assertEqual((first.asked, second.aborted), (0, []))

    def test_many_connections_are_asked_rarely(self) -> None:
        """At the limit, a note costs no more than asking a few connections."""
        self.limit = BufferLimit(100_000)
        holders = self.make(*[100] * 999)
        first, second = self.make(0, 0)
        notes = 1000
        for _ in range(notes // 2):
            for one, other in ((first, second), (second, first)):
                other.size = 0  # without a note
                one.hold(60)
        asked = sum(holder.asked for holder in (*holders, first, second))
        self.assertLess(asked, 10 * notes)

    def test_an_abort_may_note_again(self) -> None:
        """The end of a connection causes another write past the limit."""
        other = Holder(self.limit)

        class Chained(Holder):
            def abort_as_largest(self, buffered: int, total: int, limit: int) -> None:
                super().abort_as_largest(buffered, total, limit)
                other.hold(600)

        first, second = Chained(self.limit), Chained(self.limit)
        first.hold(500)
        second.hold(501)
        self.assertLessEqual(self.limit.total, 1000)
        self.assertEqual(len(second.aborted), 1)

    @given(lists(tuples(integers(0, 5), integers(0, 1500)), max_size=30))
    def test_any_notes_keep_the_sum_and_abort_only_the_largest(
        self, notes: list[tuple[int, int]]
    ) -> None:
        """Sizes of any value, in any order."""
        limit = BufferLimit(1000)
        held = [0] * 6

        check = self.assertEqual

        class Checked(Holder):
            def abort_as_largest(self, buffered: int, total: int, limit: int) -> None:
                check(buffered, max(held))
                check(total, sum(held))
                held[holders.index(self)] = self.size = 0

        holders: list[Holder] = [Checked(limit) for _ in held]
        for place, size in notes:
            held[place] = size
            holders[place].hold(size)
            self.assertEqual(limit.total, sum(held), f"{place=}, {size=}")
            self.assertLessEqual(limit.total, 1000, f"{place=}, {size=}")

    def test_a_limit_out_of_bounds_is_refused(self) -> None:
        """The limit is a whole number of bytes, 1 or more."""
        self.assertRaises(ValueError, BufferLimit, 0)
        self.assertRaises(TypeError, BufferLimit, 1.5)
