"""
An output stream sends every write as a datagram, in order, and its Deferred fires when that is
done.
"""

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
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
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
    """Return the writes in a random order, the same each time."""
    return random.Random(1).sample(writes, len(writes))


def conduct(work: Callable[[], Any]) -> Deferred[Any]:
    """Run a coroutine function."""
    return Deferred.fromCoroutine(work())


class OutputCase(SynchronousTestCase):
    """A stream on a socket of the kernel, whose free space the test sets."""

    def setUp(self) -> None:
        self.connected = ConnectedStream()
        self.addCleanup(self.connected.close)
        self.kernel = self.connected.kernel
        self.output = self.connected.output

    def status_of(self, operation: Deferred[Any]) -> SocketErrorStatus:
        error: SocketError = self.failureResultOf(operation, SocketError).value
        return error.status


class WriteTests(OutputCase):
    """When a write is sent, and its result."""

    def test_a_callback_that_returns_a_write_waits_for_it(self) -> None:
        """A write that is not sent has no result."""
        chained = succeed(None).addCallback(lambda _: self.output.write(b"Hello"))
        self.assertNoResult(chained)
        self.output.send()
        self.assertEqual(self.successResultOf(chained), 5)

    def test_an_unawaited_write_is_queued(self) -> None:
        """So that writes queued together can be sent together."""
        write = self.output.write(GREETING)
        self.assertNoResult(write)
        self.assertEqual((self.kernel.calls, self.connected.received(0)), (0, []))

    def test_unawaited_writes_are_sent_in_the_next_turn(self) -> None:
        """The first of several asks for one turn."""
        writes = [self.output.write(GREETING) for _ in range(3)]
        self.assertEqual(self.connected.pending, [self.output])
        self.connected.next_turn()
        self.assertEqual([self.successResultOf(write) for write in writes], [13] * 3)
        self.assertEqual(self.connected.received(3), [GREETING] * 3)

    def test_an_awaited_write_is_sent_at_once(self) -> None:
        """With all earlier writes."""

        async def work() -> int:
            self.output.write(b"before")
            return await self.output.write(GREETING)

        self.assertEqual(self.successResultOf(conduct(work)), 13)
        self.assertEqual(self.connected.received(2), [b"before", GREETING])

    def test_awaiting_a_paused_write_waits_until_it_continues(self) -> None:
        """As with any Deferred, although the datagram was sent."""

        async def work() -> int:
            return await write

        write = self.output.send_all(GREETING)
        write.pause()
        working = conduct(work)
        self.assertNoResult(working)
        write.unpause()
        self.assertEqual(self.successResultOf(working), len(GREETING))

    def test_every_write_is_a_datagram(self) -> None:
        """Of any size; none is merged or split."""
        sizes = (13, 0, 1200, 1200, 7, 0, 65_507, 13)
        for size in sizes:
            self.output.write(bytes(size))
        self.successResultOf(self.output.flush())
        self.assertEqual([len(data) for data in self.connected.received(8)], list(sizes))

    @given(lists(binary(max_size=9), max_size=40))
    @settings(max_examples=50, deadline=None)
    def test_any_sizes_arrive_in_order(self, datagrams: list[bytes]) -> None:
        """The result of each write is its size."""
        writes = [self.output.write(data) for data in datagrams]
        self.output.flush()
        self.connected.next_turn()
        self.assertEqual(self.connected.received(len(datagrams)), datagrams)
        self.assertEqual([self.successResultOf(w) for w in writes], [*map(len, datagrams)])

    def test_an_empty_write_sends_an_empty_datagram(self) -> None:
        """Its result is 0."""
        write = self.output.write(b"")
        self.successResultOf(self.output.flush())
        self.assertEqual(self.successResultOf(write), 0)
        self.assertEqual(self.connected.received(1), [b""])

    def test_a_mutable_buffer_is_copied(self) -> None:
        """The peer gets the bytes that the buffer had at the call."""
        buffer = bytearray(GREETING)
        self.output.write(buffer)
        self.output.write(memoryview(buffer)[:5])
        buffer[:] = b"?" * 13
        self.successResultOf(self.output.flush())
        self.assertEqual(self.connected.received(2), [GREETING, b"Hello"])

    def test_a_str_raises_at_the_call(self) -> None:
        """It is no buffer."""
        self.assertRaises(TypeError, self.output.write, "Hello")

    def test_a_loop_of_awaited_writes_lets_the_reactor_run(self) -> None:
        """After 64 writes the next one waits for a turn."""

        async def work() -> None:
            for _ in range(100):
                await self.output.write(b"x")

        loop = conduct(work)
        self.assertNoResult(loop)
        self.assertEqual(self.kernel.calls, 64)
        self.connected.next_turn()
        self.successResultOf(loop)
        self.assertEqual(len(self.connected.received(100)), 100)

    def test_a_write_above_the_limit_of_bytes_fails(self) -> None:
        """The queued writes are still sent."""
        self.output.max_unsent = 10
        self.output.write(bytes(10))
        self.failureResultOf(self.output.write(b"x"), BusyError)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.successResultOf(self.output.send_all(b"x")), 1)
        self.assertEqual(self.connected.received(2), [bytes(10), b"x"])

    def test_a_write_above_the_limit_of_writes_fails(self) -> None:
        """Empty writes count too."""
        for _ in range(100_000):
            self.output.write(b"")
        self.failureResultOf(self.output.write(b""), BusyError)
        # A write is done before the others are sent.
        self.output.lost(lambda: ClosedError("enough"))

    def test_a_stream_is_full_with_128_kib_or_a_kernel_without_room(self) -> None:
        """A loop that checks this limits the queue."""
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
    """How many system calls writes take."""

    def setUp(self) -> None:
        super().setUp()
        if not self.connected.has_runs:
            self.skipTest("this kernel cuts no runs")

    def sent_with(self, *datagrams: bytes) -> int:
        """Send datagrams with a flush; return the number of system calls."""
        before = self.kernel.calls
        for data in datagrams:
            self.output.write(data)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.connected.received(len(datagrams)), list(datagrams))
        return self.kernel.calls - before

    def test_datagrams_of_one_size_take_one_call(self) -> None:
        """Five of them, or 64."""
        self.assertEqual(self.sent_with(*[GREETING] * 5), 1)
        self.assertEqual(self.sent_with(*[GREETING] * 64), 1)

    def test_the_last_datagram_of_a_call_may_be_shorter(self) -> None:
        """The next datagram starts another call."""
        self.assertEqual(self.sent_with(GREETING, GREETING, b"Hello"), 1)
        self.assertEqual(self.sent_with(GREETING, b"Hello", GREETING, b"Hello"), 2)

    def test_a_65th_datagram_takes_another_call(self) -> None:
        """The kernel segments at most 64 in one call."""
        self.assertEqual(self.sent_with(*[GREETING] * 65), 2)


class WithoutRunsTests(OutputCase):
    """A kernel that refuses runs at the first try."""

    def setUp(self) -> None:
        super().setUp()
        if not self.connected.has_runs:
            self.skipTest("this kernel cuts no runs, so none is tried")
        self.kernel.has_runs = False

    @given(lists(binary(max_size=3), max_size=40))
    @settings(max_examples=50, deadline=None)
    def test_the_peer_gets_the_same_datagrams_without_runs(self, datagrams: list[bytes]) -> None:
        """In order; the result of each write is its size."""
        self.kernel.has_runs = False
        writes = [self.output.write(data) for data in datagrams]
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.connected.next_turn()
        self.assertEqual([self.successResultOf(w) for w in writes], [*map(len, datagrams)])
        self.assertEqual(self.connected.received(len(datagrams)), datagrams)

    def test_sending_continues_where_the_kernel_had_no_room(self) -> None:
        """The flush waits for all writes."""
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
        """Unsent writes fail with `ClosedError`, as without segmentation."""
        writes = [self.output.write(b"xx") for _ in range(3)]
        writes[0].addCallback(lambda _: self.connected.port.stopListening())
        self.output.send()
        for write in writes[1:]:
            self.failureResultOf(write, ClosedError)


class FailureTests(OutputCase):
    """Datagrams that cannot be sent."""

    def test_a_datagram_that_is_too_long_fails_alone(self) -> None:
        """C11: the others of its batch arrive."""
        writes = [self.output.write(data) for data in (b"1", TOO_LONG, b"2", b"2")]
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.assertIs(self.status_of(writes[1]), SocketErrorStatus.MESSAGE_TOO_LONG)
        self.assertEqual([self.successResultOf(writes[n]) for n in (0, 2, 3)], [1, 1, 1])
        self.assertEqual(self.connected.received(3), [b"1", b"2", b"2"])

    def test_a_failed_write_that_nobody_awaits_is_reported_once(self) -> None:
        """To the owner; no traceback is logged when it is freed."""
        self.output.write(TOO_LONG)
        self.connected.next_turn()
        gc.collect()
        (error,) = self.connected.unawaited
        self.assertIs(error.status, SocketErrorStatus.MESSAGE_TOO_LONG)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_failed_write_that_is_awaited_is_not_reported(self) -> None:
        """Nor one that has a callback."""
        write = self.output.write(TOO_LONG)
        statuses: list[object] = []

        def hear(failure: Any) -> None:
            statuses.append(failure.value.status)

        write.addErrback(hear)
        self.connected.next_turn()
        self.assertEqual(statuses, [SocketErrorStatus.MESSAGE_TOO_LONG])
        self.assertEqual(self.connected.unawaited, [])

    def test_a_failed_write_can_be_awaited_later(self) -> None:
        """The owner got a report; the write still has its error."""
        write = self.output.write(TOO_LONG)
        self.connected.next_turn()
        self.assertIs(self.status_of(write), SocketErrorStatus.MESSAGE_TOO_LONG)

    def test_writing_before_the_stream_is_open_fails(self) -> None:
        """Flushing as well; the error says why."""
        output = self.connected.make_output()
        for operation in (output.write(b"x"), output.send_all(b"x"), output.flush()):
            self.failureResultOf(operation, LocalProtocolError)

    def test_a_lost_stream_fails_pending_and_later_operations(self) -> None:
        """Writes and flushes."""
        self.kernel.room = 0
        self.output.write(b"1")
        flush = self.output.flush()
        write = self.output.write(b"2")
        self.output.lost(lambda: ClosedError("closed"))
        for operation in (flush, write, self.output.write(b"3"), self.output.flush()):
            self.failureResultOf(operation, ClosedError)

    def test_a_lost_flush_that_nobody_awaits_is_not_logged(self) -> None:
        """The application that closed the socket needs no report."""
        self.kernel.room = 0
        self.output.write(b"1")
        self.output.flush()
        self.output.lost(lambda: ClosedError("closed"))
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])


class FlushTests(OutputCase):
    """A flush is done when all before it is done."""

    def test_a_flush_without_pending_writes_is_done_at_once(self) -> None:
        """C15: it fires with True."""
        self.assertIs(self.successResultOf(self.output.flush()), True)

    def test_a_flush_fires_after_every_earlier_write(self) -> None:
        """In the order of the calls."""
        order: list[object] = []
        for number in (1, 2):
            self.output.write(b"x").addCallback(lambda _, n: order.append(n), number)
        self.output.flush().addCallback(order.append)
        self.assertEqual(order, [1, 2, True])

    def test_a_flush_waits_until_the_kernel_has_room(self) -> None:
        """Until the last earlier write is sent, and no longer."""
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

    def test_a_flush_does_not_wait_for_later_writes(self) -> None:
        """C15: these have not been sent yet."""
        self.kernel.room = 0
        self.output.write(b"1")
        flush = self.output.flush()
        later = self.output.write(b"2")
        self.connected.make_room()
        self.assertIs(self.successResultOf(flush), True)
        self.assertNoResult(later)

    def test_a_flush_is_done_when_the_earlier_writes_have_failed(self) -> None:
        """Each write has its own error."""
        write = self.output.write(TOO_LONG)
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.status_of(write)

    def test_several_flushes_are_done_in_order(self) -> None:
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

    def test_cancelling_a_flush_does_not_cancel_writes(self) -> None:
        """It only ends the wait."""
        self.kernel.room = 0
        write = self.output.write(GREETING)
        flush = self.output.flush()
        flush.cancel()
        self.failureResultOf(flush, CancelledError)
        self.connected.make_room()
        self.assertEqual(self.successResultOf(write), 13)

    def test_a_flush_that_takes_too_long_fails(self) -> None:
        """The writes are still sent."""
        self.kernel.room = 0
        write = self.output.write(GREETING)
        flush = self.output.flush(timeout=2)
        self.connected.reactor.advance(1.9)
        self.assertNoResult(flush)
        self.connected.reactor.advance(0.2)
        self.assertIs(self.status_of(flush), SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.connected.make_room()
        self.assertEqual(self.successResultOf(write), 13)

    def test_a_negative_timeout_raises_at_the_call(self) -> None:
        """As everywhere."""
        self.assertRaises(ValueError, self.output.flush, timeout=-1)

    def test_a_finished_flush_leaves_no_timer(self) -> None:
        """Whether the kernel had room or not."""
        self.output.write(b"1")
        self.successResultOf(self.output.flush(timeout=1))
        self.kernel.room = 0
        self.output.write(b"2")
        flush = self.output.flush(timeout=1)
        self.connected.make_room()
        self.successResultOf(flush)
        self.assertEqual(self.connected.reactor.getDelayedCalls(), [])


class ReentranceTests(OutputCase):
    """Callbacks of a finished write that use the stream."""

    def test_a_callback_that_writes_and_flushes(self) -> None:
        """Both are done, after all earlier writes."""
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
        """Its write is sent in the next turn; the pending flush is done before."""
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
        """It continues within the call of another flush."""

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
        """The flush is done after them."""
        flushes: list[Deferred[bool]] = []
        self.kernel.room = 1
        first = self.output.write(b"1")
        first.addCallback(lambda _: flushes.append(self.output.flush()))
        self.output.write(b"22")
        self.output.flush()
        self.assertNoResult(flushes[0])
        self.connected.make_room()
        self.assertIs(self.successResultOf(flushes[0]), True)

    def test_a_callback_that_cancels_a_sent_write(self) -> None:
        """The write fails although it was sent; the flush after it is done."""
        later: list[Deferred[int]] = []
        self.output.write(b"11").addCallback(lambda _: later[1].cancel())
        later.extend(self.output.write(data) for data in (b"22", b"33", b"44"))
        flushing = self.output.flush()
        self.failureResultOf(later[1], CancelledError)
        self.assertIs(self.successResultOf(flushing), True)
        self.assertEqual(self.connected.received(4), [b"11", b"22", b"33", b"44"])

    def test_a_callback_that_cancels_an_unsent_write(self) -> None:
        """It is withdrawn, though the port had it already."""
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
        """Writes that the port does not have fail; none stays pending."""
        self.kernel.room = 1
        waiting: list[Deferred[int]] = []

        def lose(_size: int) -> None:
            waiting.append(self.output.write(b"never"))
            self.output.lost(lambda: ClosedError("closed"))

        self.output.write(b"1").addCallback(lose)
        self.output.send()
        self.failureResultOf(waiting[0], ClosedError)


class ConversationTests(SynchronousTestCase):
    """Any sequence of operations."""

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
        """Writes that were not cancelled arrive; a flush is done exactly when all before it are."""
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
    """Cancelled writes."""

    def test_cancelling_withdraws_a_queued_write(self) -> None:
        """The other writes are sent."""
        first, second = self.output.write(b"1"), self.output.write(b"2")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.successResultOf(second), 1)
        self.assertEqual(self.connected.received(1), [b"2"])

    def test_cancelling_withdraws_a_write_that_the_kernel_had_no_room_for(self) -> None:
        """A flush after it does not wait for it."""
        self.kernel.room = 0
        write = self.output.send_all(b"1")
        flush = self.output.flush()
        write.cancel()
        self.failureResultOf(write, CancelledError)
        self.assertIs(self.successResultOf(flush), True)
        self.connected.make_room()
        self.assertEqual(self.connected.received(0), [])

    def test_a_flush_of_cancelled_writes_is_done(self) -> None:
        """Also if the writes wait for the reactor's turn."""
        for _ in range(64):
            self.output.send_all(b"x")
        write = self.output.write(b"never")
        flush = self.output.flush()
        write.cancel()
        self.failureResultOf(write, CancelledError)
        self.connected.next_turn()
        self.assertIs(self.successResultOf(flush), True)

    def test_a_flush_is_done_after_the_cancelled_write(self) -> None:
        """In order, as after any other result of a write."""
        order: list[str] = []
        self.kernel.room = 0
        write = self.output.write(b"1").addErrback(lambda _: order.append("cancelled"))
        self.output.flush().addCallback(lambda _: order.append("flushed"))
        write.cancel()
        self.assertEqual(order, ["cancelled", "flushed"])

    def test_a_sent_write_cannot_be_withdrawn(self) -> None:
        """It stays done."""
        write = self.output.send_all(b"1")
        write.cancel()
        self.assertEqual(self.successResultOf(write), 1)

    def test_the_bytes_of_a_cancelled_write_do_not_count(self) -> None:
        """Another write has room."""
        self.output.max_unsent = 10
        first = self.output.write(bytes(10))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(self.output.write(b"x"))

    def test_cancelling_in_any_order_takes_linear_time(self) -> None:
        """
        Whether the writes wait for a turn or for the kernel. A search of the queue for each would
        take quadratic time.
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

    def test_cancelled_writes_are_freed_while_others_wait(self) -> None:
        """A loop that writes and cancels behind a blocked datagram keeps no memory."""
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

    def test_a_cancelled_broadcast_is_withdrawn_from_all_interfaces(self) -> None:
        """Copies that were not sent are withdrawn; other writes leave by each interface."""
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
            self.assertEqual(self.connected.received(len(left)), left, (room, left))
        self.assertEqual(self.successResultOf(output.send_all(b"x")), 1)
        self.assertEqual(self.connected.received(2), [b"x"] * 2)

    def test_cancel_writes_withdraws_all_pending_writes(self) -> None:
        """Those that wait for a turn or for the kernel; each fails with an error of its own."""
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
            self.assertEqual({error.status for error in errors}, {aborted}, room)
            self.assertEqual(len(set(errors)), len(errors), room)
            self.connected.make_room()
            self.connected.next_turn()
            self.successResultOf(self.output.send_all(b"x"))
            self.assertEqual(self.connected.received(1), [b"x"], room)

    def test_cancelled_writes_that_nobody_awaits_are_reported_once_each(self) -> None:
        """As with any other failure; a callback may write again."""
        again: list[Deferred[int]] = []
        self.output.write(b"never")
        heard = self.output.write(b"never")
        heard.addErrback(lambda _: again.append(self.output.write(b"again")))
        self.output.cancel_writes(operation_cancelled)
        self.assertEqual(len(self.connected.unawaited), 1)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.successResultOf(again[0]), 5)

    def test_a_list_of_writes_is_done_when_all_writes_are(self) -> None:
        """Including a cancelled one."""
        writes = [self.output.write(b"x") for _ in range(3)]
        together = DeferredList(writes, consumeErrors=True)
        writes[1].cancel()
        self.connected.next_turn()
        results = self.successResultOf(together)
        self.assertEqual([is_done for is_done, _ in results], [True, False, True])


class CloseTests(OutputCase):
    """Closing a stream; its socket stays open."""

    def test_closing_sends_queued_writes(self) -> None:
        """Also if the kernel has no room at that time."""
        self.kernel.room = 0
        self.output.write(GREETING)
        self.successResultOf(self.output.close())
        self.connected.make_room()
        self.assertEqual(self.connected.received(1), [GREETING])
        self.assertTrue(self.connected.port.is_open)

    def test_a_closed_stream_refuses_writes(self) -> None:
        """Closing twice is harmless."""
        self.output.close()
        self.successResultOf(self.output.close())
        self.failureResultOf(self.output.write(b"x"), ClosedError)
        self.failureResultOf(self.output.flush(), ClosedError)

    def test_async_with_closes_the_stream(self) -> None:
        """It sends the writes of the block."""

        async def work() -> None:
            async with self.output as output:
                output.write(GREETING)

        self.successResultOf(conduct(work))
        self.assertEqual(self.connected.received(1), [GREETING])
        self.failureResultOf(self.output.write(b"x"), ClosedError)


class WriterTests(OutputCase):
    """A `DataWriter` on the stream."""

    def test_a_store_is_one_datagram(self) -> None:
        """Of all bytes since the last store; sent at once."""
        writer = DataWriter(self.output)
        writer.write_uint32(13)
        writer.write_string("Hello, World!")
        self.assertEqual(self.successResultOf(writer.store()), 17)
        self.assertEqual(self.connected.received(1), [b"\0\0\0\x0dHello, World!"])
        self.assertIs(self.successResultOf(writer.flush()), True)

    def test_a_store_is_sent_after_earlier_writes(self) -> None:
        """In order."""
        self.output.write(b"before")
        writer = DataWriter(self.output)
        writer.write_string("stored")
        self.successResultOf(writer.store())
        self.assertEqual(self.connected.received(2), [b"before", b"stored"])

    def test_a_detached_stream_stays_open(self) -> None:
        """Closing the writer closes the stream only if it was not detached."""
        writer = DataWriter(self.output)
        writer.detach_stream()
        writer.close()
        self.assertEqual(self.successResultOf(self.output.send_all(b"x")), 1)
        DataWriter(self.output).close()
        self.failureResultOf(self.output.write(b"x"), ClosedError)
