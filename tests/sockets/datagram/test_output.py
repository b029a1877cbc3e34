"""An output stream sends every write as a datagram, in order, and says when that is done."""

from __future__ import annotations

import gc
import itertools
import random
import socket
import weakref
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from hypothesis import given, settings
from hypothesis.strategies import (
    binary,
    integers,
    just,
    lists,
    one_of,
    sampled_from,
    tuples,
)
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.datagram.cases import LOCALHOST, ConnectedStream
from twsock import (
    BusyError,
    ClosedError,
    DataWriter,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.datagram.network.packet_info import source_control
from twsock.datagram.send_queue import OUTPUT_HIGH_WATER
from twsock.sockets.waiting import operation_cancelled

GREETING = b"Hello, World!"
TOO_LONG = bytes(65_508)

#: Writes that are cancelled in one test.
_MANY = 2000


def shuffled(writes: list[Deferred[int]]) -> list[Deferred[int]]:
    """Return them in an order without a pattern, the same each time."""
    return random.Random(1).sample(writes, len(writes))


def conduct(work: Callable[[], Any]) -> Deferred[Any]:
    """Run a coroutine function."""
    return Deferred.fromCoroutine(work())


class OutputCase(SynchronousTestCase):
    """A stream on a real kernel, whose room the test decides on."""

    def setUp(self) -> None:
        self.connected = ConnectedStream()
        self.addCleanup(self.connected.close)
        self.kernel = self.connected.kernel
        self.output = self.connected.output

    def status_of(self, operation: Deferred[Any]) -> SocketErrorStatus:
        error: SocketError = self.failureResultOf(operation, SocketError).value
        return error.status


class WriteTests(OutputCase):
    """When a write leaves, and what it gives."""

    def test_nothing_leaves_before_somebody_waits_for_it(self) -> None:
        """So that what is written in one go can leave together."""
        write = self.output.write(GREETING)
        self.assertNoResult(write)
        self.assertEqual((self.kernel.calls, self.connected.received(0)), (0, []))

    def test_what_nobody_waits_for_leaves_in_the_next_turn(self) -> None:
        """A turn is asked for once, by the first of several."""
        writes = [self.output.write(GREETING) for _ in range(3)]
        self.assertEqual(self.connected.pending, [self.output])
        self.connected.next_turn()
        self.assertEqual([self.successResultOf(write) for write in writes], [13] * 3)
        self.assertEqual(self.connected.received(3), [GREETING] * 3)

    def test_an_awaited_write_leaves_at_once(self) -> None:
        """With all that was written before it."""

        async def work() -> int:
            self.output.write(b"before")
            return await self.output.write(GREETING)

        self.assertEqual(self.successResultOf(conduct(work)), 13)
        self.assertEqual(self.connected.received(2), [b"before", GREETING])

    def test_every_write_is_a_datagram(self) -> None:
        """Whatever their sizes, nothing is merged or cut."""
        sizes = (13, 0, 1200, 1200, 7, 0, 65_507, 13)
        for size in sizes:
            self.output.write(bytes(size))
        self.successResultOf(self.output.flush())
        self.assertEqual([len(data) for data in self.connected.received(8)], list(sizes))

    @given(lists(binary(max_size=9), max_size=40))
    @settings(max_examples=50, deadline=None)
    def test_any_sizes_arrive_in_order(self, datagrams: list[bytes]) -> None:
        """Each write tells its own size."""
        writes = [self.output.write(data) for data in datagrams]
        self.output.flush()
        self.connected.next_turn()
        self.assertEqual(self.connected.received(len(datagrams)), datagrams)
        self.assertEqual([self.successResultOf(w) for w in writes], [*map(len, datagrams)])

    def test_an_empty_datagram_is_one(self) -> None:
        """It is sent, and done with 0."""
        write = self.output.write(b"")
        self.successResultOf(self.output.flush())
        self.assertEqual(self.successResultOf(write), 0)
        self.assertEqual(self.connected.received(1), [b""])

    def test_what_can_change_is_copied(self) -> None:
        """What was in a buffer when it was written arrives, whatever becomes of it."""
        buffer = bytearray(GREETING)
        self.output.write(buffer)
        self.output.write(memoryview(buffer)[:5])
        buffer[:] = b"?" * 13
        self.successResultOf(self.output.flush())
        self.assertEqual(self.connected.received(2), [GREETING, b"Hello"])

    def test_text_is_no_buffer(self) -> None:
        """It is refused at once."""
        self.assertRaises(TypeError, self.output.write, "Hello")

    def test_a_loop_of_awaited_writes_leaves_the_reactor_its_turn(self) -> None:
        """After 64 of them the next waits for it."""

        async def work() -> None:
            for _ in range(100):
                await self.output.write(b"x")

        loop = conduct(work)
        self.assertNoResult(loop)
        self.assertEqual(self.kernel.calls, 64)
        self.connected.next_turn()
        self.successResultOf(loop)
        self.assertEqual(len(self.connected.received(100)), 100)

    def test_with_too_much_waiting_a_write_is_refused(self) -> None:
        """What waits is sent all the same."""
        self.output.max_unsent = 10
        self.output.write(bytes(10))
        self.failureResultOf(self.output.write(b"x"), BusyError)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.successResultOf(self.output.send_all(b"x")), 1)
        self.assertEqual(self.connected.received(2), [bytes(10), b"x"])

    def test_with_too_many_waiting_a_write_is_refused(self) -> None:
        """Empty ones too take room."""
        for _ in range(100_000):
            self.output.write(b"")
        self.failureResultOf(self.output.write(b""), BusyError)
        # They need not all be sent for that.
        self.output.lost(lambda: ClosedError("enough"))

    def test_a_stream_is_full_with_128_kib_or_a_kernel_without_room(self) -> None:
        """A loop that asks for that stays within bounds."""
        self.assertFalse(self.output.is_full)
        for _ in range(4):
            self.output.write(bytes(OUTPUT_HIGH_WATER // 4))
        self.assertTrue(self.output.is_full)
        self.successResultOf(self.output.flush())
        self.assertFalse(self.output.is_full)
        self.kernel.room = 0
        self.output.send_all(b"x")
        self.assertTrue(self.output.is_full)
        self.connected.make_room()
        self.assertFalse(self.output.is_full)


class CallTests(OutputCase):
    """How many system calls it takes."""

    def setUp(self) -> None:
        super().setUp()
        if not self.connected.has_runs:
            self.skipTest("this kernel cuts no runs")

    def sent_with(self, *datagrams: bytes) -> int:
        """Send them with a flush; give the number of calls."""
        before = self.kernel.calls
        for data in datagrams:
            self.output.write(data)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.connected.received(len(datagrams)), list(datagrams))
        return self.kernel.calls - before

    def test_equal_ones_are_one_call(self) -> None:
        """Five of them, or 64."""
        self.assertEqual(self.sent_with(*[GREETING] * 5), 1)
        self.assertEqual(self.sent_with(*[GREETING] * 64), 1)

    def test_the_last_of_a_call_may_be_shorter(self) -> None:
        """The one after it begins another."""
        self.assertEqual(self.sent_with(GREETING, GREETING, b"Hello"), 1)
        self.assertEqual(self.sent_with(GREETING, b"Hello", GREETING, b"Hello"), 2)

    def test_a_65th_is_another_call(self) -> None:
        """The kernel cuts no more at a time."""
        self.assertEqual(self.sent_with(*[GREETING] * 65), 2)


class WithoutRunsTests(OutputCase):
    """A kernel that refuses runs, as it turns out."""

    def setUp(self) -> None:
        super().setUp()
        if not self.connected.has_runs:
            self.skipTest("this kernel cuts no runs, so none is tried")
        self.kernel.has_runs = False

    @given(lists(binary(max_size=3), max_size=40))
    @settings(max_examples=50, deadline=None)
    def test_nobody_can_tell_from_the_result(self, datagrams: list[bytes]) -> None:
        """Every write is a datagram, in order, and tells its size."""
        self.kernel.has_runs = False
        writes = [self.output.write(data) for data in datagrams]
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.connected.next_turn()
        self.assertEqual([self.successResultOf(w) for w in writes], [*map(len, datagrams)])
        self.assertEqual(self.connected.received(len(datagrams)), datagrams)

    def test_it_goes_on_where_there_was_no_room(self) -> None:
        """The flush waits for all of them."""
        self.kernel.room = 3
        writes = [self.output.write(b"%02d" % number) for number in range(5)]
        flush = self.output.flush()
        self.assertNoResult(flush)
        self.connected.make_room()
        self.assertIs(self.successResultOf(flush), True)
        self.assertEqual([self.successResultOf(write) for write in writes], [2] * 5)
        expected = [b"%02d" % number for number in range(5)]
        self.assertEqual(self.connected.received(5), expected)

    def test_a_callback_that_closes_the_port(self) -> None:
        """What was not sent by then fails with `ClosedError`, as it does elsewhere."""
        writes = [self.output.write(b"xx") for _ in range(3)]
        writes[0].addCallback(lambda _: self.connected.port.stopListening())
        self.output.send()
        for write in writes[1:]:
            self.failureResultOf(write, ClosedError)


class FailureTests(OutputCase):
    """Datagrams that do not leave."""

    def test_one_that_is_too_long_fails_alone(self) -> None:
        """C11: the others of its batch arrive."""
        writes = [self.output.write(data) for data in (b"1", TOO_LONG, b"2", b"2")]
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.assertIs(self.status_of(writes[1]), SocketErrorStatus.MESSAGE_TOO_LONG)
        self.assertEqual([self.successResultOf(writes[n]) for n in (0, 2, 3)], [1, 1, 1])
        self.assertEqual(self.connected.received(3), [b"1", b"2", b"2"])

    def test_what_nobody_awaits_fails_in_one_line(self) -> None:
        """It is told to the owner once, and no traceback is logged when it is collected."""
        self.output.write(TOO_LONG)
        self.connected.next_turn()
        gc.collect()
        (error,) = self.connected.unawaited
        self.assertIs(error.status, SocketErrorStatus.MESSAGE_TOO_LONG)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_what_somebody_hears_of_is_not_told_twice(self) -> None:
        """Whether it is awaited or has a callback."""
        write = self.output.write(TOO_LONG)
        statuses: list[object] = []

        def hear(failure: Any) -> None:
            statuses.append(failure.value.status)

        write.addErrback(hear)
        self.connected.next_turn()
        self.assertEqual(statuses, [SocketErrorStatus.MESSAGE_TOO_LONG])
        self.assertEqual(self.connected.unawaited, [])

    def test_a_failure_can_be_awaited_later(self) -> None:
        """The owner was told of it by then; the write still has it."""
        write = self.output.write(TOO_LONG)
        self.connected.next_turn()
        self.assertIs(self.status_of(write), SocketErrorStatus.MESSAGE_TOO_LONG)

    def test_before_it_is_open_nothing_can_be_written(self) -> None:
        """Nor flushed: the error says why."""
        output = self.connected.make_output()
        for operation in (output.write(b"x"), output.send_all(b"x"), output.flush()):
            self.failureResultOf(operation, LocalProtocolError)

    def test_a_lost_stream_fails_what_waits(self) -> None:
        """Writes and flushes that were under way, and all that come later."""
        self.kernel.room = 0
        self.output.write(b"1")
        flush = self.output.flush()
        write = self.output.write(b"2")
        self.output.lost(lambda: ClosedError("closed"))
        for operation in (flush, write, self.output.write(b"3"), self.output.flush()):
            self.failureResultOf(operation, ClosedError)

    def test_a_lost_flush_that_nobody_awaits_is_not_logged(self) -> None:
        """The end of the socket is no news to whoever ended it."""
        self.kernel.room = 0
        self.output.write(b"1")
        self.output.flush()
        self.output.lost(lambda: ClosedError("closed"))
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])


class FlushTests(OutputCase):
    """A flush is done when all before it is done."""

    def test_with_nothing_pending_it_is_done(self) -> None:
        """C15: it fires with True, at once."""
        self.assertIs(self.successResultOf(self.output.flush()), True)

    def test_it_fires_after_every_earlier_write(self) -> None:
        """In the order in which they were begun."""
        order: list[object] = []
        for number in (1, 2):
            self.output.write(b"x").addCallback(lambda _, n: order.append(n), number)
        self.output.flush().addCallback(order.append)
        self.assertEqual(order, [1, 2, True])

    def test_it_waits_for_a_kernel_without_room(self) -> None:
        """Until the last of the writes before it has left, and no longer."""
        self.kernel.room = 1
        for data in (b"1", b"22", b"333"):
            self.output.write(data)
        flush = self.output.flush()
        self.output.write(b"later")
        self.assertNoResult(flush)
        self.assertEqual(self.connected.received(1), [b"1"])
        self.connected.make_room()
        self.assertIs(self.successResultOf(flush), True)
        self.assertEqual(self.connected.received(2), [b"22", b"333"])

    def test_what_is_written_later_is_not_waited_for(self) -> None:
        """C15: it has not even left."""
        self.kernel.room = 0
        self.output.write(b"1")
        flush = self.output.flush()
        later = self.output.write(b"2")
        self.connected.make_room()
        self.assertIs(self.successResultOf(flush), True)
        self.assertNoResult(later)

    def test_it_is_done_when_the_writes_have_failed(self) -> None:
        """Their errors are theirs."""
        write = self.output.write(TOO_LONG)
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.status_of(write)

    def test_several_are_done_in_order(self) -> None:
        """Each with the writes before it."""
        self.kernel.room = 0
        order: list[int] = []
        for number in range(3):
            self.output.write(b"x" * (number + 1))
            self.output.flush().addCallback(lambda _, n: order.append(n), number)
        self.connected.make_room(1)
        self.assertEqual(order, [0])
        self.connected.make_room()
        self.assertEqual(order, [0, 1, 2])

    def test_its_wait_can_be_called_off(self) -> None:
        """The writes go on."""
        self.kernel.room = 0
        write = self.output.write(GREETING)
        flush = self.output.flush()
        flush.cancel()
        self.failureResultOf(flush, CancelledError)
        self.connected.make_room()
        self.assertEqual(self.successResultOf(write), 13)

    def test_its_wait_has_an_end(self) -> None:
        """It is over after its time; the writes go on."""
        self.kernel.room = 0
        write = self.output.write(GREETING)
        flush = self.output.flush(timeout=2)
        self.connected.reactor.advance(1.9)
        self.assertNoResult(flush)
        self.connected.reactor.advance(0.2)
        self.assertIs(self.status_of(flush), SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.connected.make_room()
        self.assertEqual(self.successResultOf(write), 13)

    def test_a_negative_time_is_refused(self) -> None:
        """At once."""
        self.assertRaises(ValueError, self.output.flush, timeout=-1)

    def test_done_in_time_nothing_is_left_of_the_timeout(self) -> None:
        """Neither where there was room, nor where there was none."""
        self.output.write(b"1")
        self.successResultOf(self.output.flush(timeout=1))
        self.kernel.room = 0
        self.output.write(b"2")
        flush = self.output.flush(timeout=1)
        self.connected.make_room()
        self.successResultOf(flush)
        self.assertEqual(self.connected.reactor.getDelayedCalls(), [])


class ReentranceTests(OutputCase):
    """What is done by whoever is told that a write is done."""

    def test_a_callback_that_writes_and_flushes(self) -> None:
        """Both are done, behind all that was there."""
        order: list[object] = []

        def again(_size: int) -> None:
            self.output.write(b"again").addCallback(order.append)
            self.output.flush().addCallback(order.append)

        self.output.write(b"1").addCallback(again)
        self.output.write(b"22")
        self.output.flush().addCallback(lambda _: order.append("first"))
        self.assertEqual(sorted(map(str, order)), ["5", "True", "first"])
        self.assertLess(order.index(5), order.index(True))
        self.assertEqual(self.connected.received(3), [b"1", b"22", b"again"])

    def test_a_callback_that_only_writes(self) -> None:
        """That leaves in the next turn, and by then the flush that was under way is done."""
        later: list[Deferred[int]] = []

        def write_later(_size: int) -> None:
            later.append(self.output.write(b"later"))

        self.output.write(b"1").addCallback(write_later)
        flush = self.output.flush()
        self.assertEqual(self.connected.received(1), [b"1"])
        self.connected.next_turn()
        self.assertEqual(self.connected.received(1), [b"later"])
        self.assertIs(self.successResultOf(flush), True)

    def test_a_coroutine_that_writes_when_it_was_flushed(self) -> None:
        """It goes on within the call of somebody else's flush."""

        async def work() -> None:
            self.output.write(b"1")
            await self.output.flush()
            await self.output.write(b"2")

        self.kernel.room = 0
        loop = conduct(work)
        self.connected.make_room()
        self.connected.next_turn()
        self.successResultOf(loop)
        self.assertEqual(self.connected.received(2), [b"1", b"2"])

    def test_a_callback_that_flushes_while_others_wait(self) -> None:
        """It is done when they are."""
        flushes: list[Deferred[bool]] = []
        self.kernel.room = 1
        first = self.output.write(b"1")
        first.addCallback(lambda _: flushes.append(self.output.flush()))
        self.output.write(b"22")
        self.output.flush()
        self.assertNoResult(flushes[0])
        self.connected.make_room()
        self.assertIs(self.successResultOf(flushes[0]), True)

    def test_a_callback_that_cancels_what_has_left(self) -> None:
        """It fails, and was sent; the flush behind it is done."""
        later: list[Deferred[int]] = []
        self.output.write(b"11").addCallback(lambda _: later[1].cancel())
        later.extend(self.output.write(data) for data in (b"22", b"33", b"44"))
        flushing = self.output.flush()
        self.failureResultOf(later[1], CancelledError)
        self.assertIs(self.successResultOf(flushing), True)
        self.assertEqual(self.connected.received(4), [b"11", b"22", b"33", b"44"])

    def test_a_callback_that_cancels_what_has_not_left(self) -> None:
        """It is withdrawn, though it was handed over with the write that is done."""
        later: list[Deferred[int]] = []
        self.kernel.room = 1

        def cancel(_: int) -> None:
            for each in later[1:]:
                each.cancel()

        self.output.write(b"1").addCallback(cancel)
        later.extend(self.output.write(data) for data in (b"22", b"333", b"4444"))
        flushing = self.output.flush()
        for cancelled in later[1:]:
            self.failureResultOf(cancelled, CancelledError)
        self.assertNoResult(flushing)
        self.connected.make_room()
        self.assertEqual(self.successResultOf(later[0]), 2)
        self.assertIs(self.successResultOf(flushing), True)
        self.assertEqual(self.connected.received(2), [b"1", b"22"])

    def test_a_callback_that_loses_the_stream(self) -> None:
        """What was not handed over fails; nothing hangs."""
        self.kernel.room = 1
        waiting: list[Deferred[int]] = []

        def lose(_size: int) -> None:
            waiting.append(self.output.write(b"never"))
            self.output.lost(lambda: ClosedError("closed"))

        self.output.write(b"1").addCallback(lose)
        self.output.send()
        self.failureResultOf(waiting[0], ClosedError)


class ConversationTests(SynchronousTestCase):
    """Whatever is done, in whatever order."""

    @given(
        lists(
            one_of(
                tuples(just("write"), sampled_from((0, 1, 13, 13, 1200, 65_508))),
                tuples(just("flush"), just(0)),
                tuples(just("send"), just(0)),
                tuples(just("turn"), just(0)),
                tuples(just("room"), integers(min_value=0, max_value=3)),
                tuples(just("cancel"), integers(min_value=0, max_value=9)),
            ),
            max_size=40,
        )
    )
    @settings(max_examples=150, deadline=None)
    def test_every_write_and_flush_is_done_once_and_in_order(
        self, steps: list[tuple[str, int]]
    ) -> None:
        """What was not cancelled arrives; a flush is done when all before it are, and not later."""
        connected = ConnectedStream()
        self.addCleanup(connected.close)
        writes: list[Deferred[Any]] = []
        outcomes: dict[int, object] = {}
        flushes: list[Deferred[Any]] = []

        def flush() -> None:
            earlier = len(writes)
            flushed = connected.output.flush()
            flushed.addCallback(lambda _: self.assertLessEqual({*range(earlier)}, {*outcomes}))
            flushes.append(flushed)

        for name, number in steps:
            if name == "write":
                index = len(writes)
                writes.append(connected.output.write(b"%04d" % index + bytes(number)))
                writes[-1].addBoth(lambda outcome, at: outcomes.update({at: outcome}), index)
            elif name == "flush":
                flush()
            elif name == "cancel" and number < len(writes):
                writes[number].cancel()
            elif name == "room":
                connected.make_room(number)
            elif name == "send":
                connected.output.send()
            elif name == "turn":
                connected.next_turn()
        connected.make_room()
        connected.next_turn()
        self.assertEqual(sorted(outcomes), [*range(len(writes))])
        for flushed in flushes:
            self.successResultOf(flushed)
        sent = [index for index, outcome in outcomes.items() if isinstance(outcome, int)]
        received = [int(data[:4]) for data in connected.received(len(sent))]
        self.assertEqual(received, sorted(sent))


class CancelTests(OutputCase):
    """Writes that are called off."""

    def test_what_waits_is_withdrawn(self) -> None:
        """The others are sent."""
        first, second = self.output.write(b"1"), self.output.write(b"2")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.successResultOf(second), 1)
        self.assertEqual(self.connected.received(1), [b"2"])

    def test_what_the_kernel_has_no_room_for_is_withdrawn(self) -> None:
        """A flush behind it does not wait for it."""
        self.kernel.room = 0
        write = self.output.send_all(b"1")
        flush = self.output.flush()
        write.cancel()
        self.failureResultOf(write, CancelledError)
        self.assertIs(self.successResultOf(flush), True)
        self.connected.make_room()
        self.assertEqual(self.connected.received(0), [])

    def test_a_flush_of_what_was_cancelled_is_done(self) -> None:
        """Also where it waits for the reactor's turn, after many others."""
        for _ in range(64):
            self.output.send_all(b"x")
        write = self.output.write(b"never")
        flush = self.output.flush()
        write.cancel()
        self.failureResultOf(write, CancelledError)
        self.connected.next_turn()
        self.assertIs(self.successResultOf(flush), True)

    def test_a_flush_is_done_after_what_was_cancelled(self) -> None:
        """In order, as with any other end of a write."""
        order: list[str] = []
        self.kernel.room = 0
        write = self.output.write(b"1").addErrback(lambda _: order.append("cancelled"))
        self.output.flush().addCallback(lambda _: order.append("flushed"))
        write.cancel()
        self.assertEqual(order, ["cancelled", "flushed"])

    def test_what_has_left_cannot_be_withdrawn(self) -> None:
        """It stays done."""
        write = self.output.send_all(b"1")
        write.cancel()
        self.assertEqual(self.successResultOf(write), 1)

    def test_its_bytes_count_no_more(self) -> None:
        """There is room for another."""
        self.output.max_unsent = 10
        first = self.output.write(bytes(10))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(self.output.write(b"x"))

    def test_any_order_of_cancelling_searches_nothing(self) -> None:
        """
        Whether the writes wait for their turn or for the kernel: a search among all that wait,
        for each that is cancelled, would take the square of their number.
        """
        compared = 0

        def compare(one: object, other: object) -> bool:
            nonlocal compared
            compared += 1
            return one is other

        self.patch(type(self.output.write(b"x")), "__eq__", compare)
        orders: list[Callable[[list[Deferred[int]]], Iterable[Deferred[int]]]]
        orders = [list, reversed, shuffled]
        for room, order in itertools.product((inf, 0), orders):
            self.kernel.room = room
            writes = [self.output.write(b"x") for _ in range(_MANY)]
            if not room:
                self.output.send()
            for write in order(writes):
                write.cancel()
                self.failureResultOf(write, CancelledError)
            self.connected.make_room()
            self.connected.next_turn()
        self.assertLess(compared, _MANY)
        self.assertEqual(self.connected.received(1), [b"x"])

    def test_cancelled_writes_are_forgotten_while_others_wait(self) -> None:
        """A loop that writes and cancels, after a datagram that is stuck, keeps nothing."""
        self.kernel.room = 0
        stuck = self.output.send_all(b"x")
        kept = weakref.WeakSet[Deferred[Any]]()

        def give_up() -> None:
            for each in (self.output.send_all(bytes(100)), self.output.flush()):
                each.cancel()
                self.failureResultOf(each, CancelledError)
                kept.add(each)

        for _ in range(_MANY):
            give_up()
        self.assertLess(len(kept), 10)
        self.connected.make_room()
        self.assertEqual(self.successResultOf(stuck), 1)
        self.assertEqual(self.connected.received(1), [b"x"])

    def test_what_was_to_leave_by_several_interfaces_is_withdrawn_from_all(self) -> None:
        """As far as it has not left by one; what is not cancelled leaves by each."""
        lo = socket.if_nametoindex("lo")
        ways = (source_control("", lo), source_control(LOCALHOST, lo))
        output = self.connected.make_output()
        output.opened(self.connected.port, None, ways)
        for room, left in ((0, []), (1, [b"x"])):
            self.kernel.room = room
            write = output.send_all(b"x")
            write.cancel()
            self.failureResultOf(write, CancelledError)
            self.connected.make_room()
            self.assertEqual(self.connected.received(len(left)), left)
        self.assertEqual(self.successResultOf(output.send_all(b"x")), 1)
        self.assertEqual(self.connected.received(2), [b"x"] * 2)

    def test_calling_all_off_takes_back_all_that_waits(self) -> None:
        """For its turn and for the kernel; each fails with an error of its own."""
        for room in (inf, 0):
            self.kernel.room = room
            pending: list[Deferred[Any]] = [self.output.write(b"never") for _ in range(3)]
            if not room:
                self.output.send()
            pending += [self.output.write(b"never"), self.output.flush()] if not room else []
            pending.append(self.output.write(b"never"))
            self.output.cancel_writes(operation_cancelled)
            errors = [self.failureResultOf(each, SocketError).value for each in pending]
            aborted = SocketErrorStatus.OPERATION_ABORTED
            self.assertEqual({error.status for error in errors}, {aborted})
            self.assertEqual(len(set(errors)), len(errors))
            self.connected.make_room()
            self.connected.next_turn()
            self.successResultOf(self.output.send_all(b"x"))
            self.assertEqual(self.connected.received(1), [b"x"])

    def test_calling_off_what_nobody_awaits_is_one_line_each(self) -> None:
        """As with any other failure; a callback may write anew."""
        again: list[Deferred[int]] = []
        self.output.write(b"never")
        heard = self.output.write(b"never")
        heard.addErrback(lambda _: again.append(self.output.write(b"again")))
        self.output.cancel_writes(operation_cancelled)
        self.assertEqual(len(self.connected.unawaited), 1)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.successResultOf(again[0]), 5)

    def test_a_list_of_writes_is_done_when_all_are(self) -> None:
        """One that was cancelled among them."""
        writes = [self.output.write(b"x") for _ in range(3)]
        together = DeferredList(writes, consumeErrors=True)
        writes[1].cancel()
        self.connected.next_turn()
        results = self.successResultOf(together)
        self.assertEqual([is_done for is_done, _ in results], [True, False, True])


class CloseTests(OutputCase):
    """A stream that is closed; its socket stays open."""

    def test_what_was_written_is_sent(self) -> None:
        """Even where the kernel has no room at that time."""
        self.kernel.room = 0
        self.output.write(GREETING)
        self.successResultOf(self.output.close())
        self.connected.make_room()
        self.assertEqual(self.connected.received(1), [GREETING])
        self.assertTrue(self.connected.port.is_open)

    def test_nothing_more_is_taken(self) -> None:
        """Closing twice is harmless."""
        self.output.close()
        self.successResultOf(self.output.close())
        self.failureResultOf(self.output.write(b"x"), ClosedError)
        self.failureResultOf(self.output.flush(), ClosedError)

    def test_a_context_closes_it(self) -> None:
        """``async with`` sends what was written within."""

        async def work() -> None:
            async with self.output as output:
                output.write(GREETING)

        self.successResultOf(conduct(work))
        self.assertEqual(self.connected.received(1), [GREETING])
        self.failureResultOf(self.output.write(b"x"), ClosedError)


class WriterTests(OutputCase):
    """A `DataWriter` on the stream."""

    def test_what_is_stored_is_one_datagram(self) -> None:
        """All that was written since the last store, at once."""
        writer = DataWriter(self.output)
        writer.write_uint32(13)
        writer.write_string("Hello, World!")
        self.assertEqual(self.successResultOf(writer.store()), 17)
        self.assertEqual(self.connected.received(1), [b"\0\0\0\x0dHello, World!"])
        self.assertIs(self.successResultOf(writer.flush()), True)

    def test_it_leaves_behind_what_was_written_before(self) -> None:
        """In order."""
        self.output.write(b"before")
        writer = DataWriter(self.output)
        writer.write_string("stored")
        self.successResultOf(writer.store())
        self.assertEqual(self.connected.received(2), [b"before", b"stored"])

    def test_a_detached_stream_goes_on(self) -> None:
        """Closing the writer leaves it open; else it is closed with the writer."""
        writer = DataWriter(self.output)
        writer.detach_stream()
        writer.close()
        self.assertEqual(self.successResultOf(self.output.send_all(b"x")), 1)
        DataWriter(self.output).close()
        self.failureResultOf(self.output.write(b"x"), ClosedError)
