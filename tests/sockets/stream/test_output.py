"""
An output stream sends in order, in as few calls as possible, and reports when writes are done.
"""

from __future__ import annotations

import errno
import gc
import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.stream.connected import InMemory, OnKernel, shrink_buffers
from tests.work import count_comparisons
from twsock import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
    StreamSocket,
)
from twsock import SocketProtectionLevel as Level
from twsock.stream.transport import HIGH_WATER

GREETING = b"Hello, World!"
KIB = 1024
MIB = 1024 * KIB


def conduct(work: Callable[[], Any]) -> Deferred[Any]:
    """Run a coroutine function."""
    return Deferred.fromCoroutine(work())


def note(_size: int, order: list[str], word: str) -> None:
    """Add the word to the order of events."""
    order.append(word)


class OutputTests(SynchronousTestCase):
    """A socket of the kernel under the stream."""

    def setUp(self) -> None:
        self.connected = OnKernel()
        self.addCleanup(self.connected.close)
        self.output = self.connected.output

    def descriptor_writes(self) -> None:
        """Let the transport do its queued work, for example send FIN."""
        if self.connected.descriptor in self.connected.reactor.writers:
            self.connected.descriptor.doWrite()

    def fill(self) -> list[Deferred[int]]:
        """Write more than the kernel has room for."""
        shrink_buffers(self.connected.kernel)
        writes = [self.output.write(bytes([number]) * 64 * KIB) for number in range(60)]
        self.output.flush().addErrback(lambda _: None)
        return writes


class BatchTests(OutputTests):
    """The claims about batched sends: five buffers of thirteen bytes, sixty-five in all."""

    def test_writes_awaited_one_by_one_take_a_call_each(self) -> None:
        """C1: five writes, five system calls."""

        async def work() -> list[int]:
            return [await self.output.write(GREETING) for _ in range(5)]

        self.assertEqual(self.successResultOf(conduct(work)), [13] * 5)
        self.assertEqual(self.connected.kernel.sends, 5)
        self.assertEqual(self.connected.receive(), GREETING * 5)

    def test_five_writes_and_a_flush_take_one_call(self) -> None:
        """C2: started without awaiting, then flushed."""
        writes = [self.output.write(GREETING) for _ in range(5)]
        self.assertEqual(self.connected.kernel.sends, 0)
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual([self.successResultOf(write) for write in writes], [13] * 5)
        self.assertEqual(self.connected.receive(), GREETING * 5)

    def test_awaiting_all_writes_takes_one_call(self) -> None:
        """C3: one after the other, or with a list of Deferreds."""

        async def work() -> list[int]:
            writes = [self.output.write(GREETING) for _ in range(5)]
            return [await write for write in writes]

        self.assertEqual(self.successResultOf(conduct(work)), [13] * 5)
        self.assertEqual(self.connected.kernel.sends, 1)
        together = DeferredList([self.output.write(GREETING) for _ in range(5)])
        self.connected.next_turn()
        self.assertEqual(self.successResultOf(together), [(True, 13)] * 5)
        self.assertEqual(self.connected.kernel.sends, 2)

    def test_any_number_of_joined_writes_takes_one_call(self) -> None:
        """C4: five thousand of them, below 64 KiB in all."""
        for _ in range(5000):
            self.output.write(GREETING)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), GREETING * 5000)

    def test_writes_that_are_not_joined_take_a_call_for_1024(self) -> None:
        """C4: above 64 KiB the kernel gets the buffers themselves."""
        for _ in range(2050):
            self.output.write(b"x" * 100)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.connected.kernel.sends, 3)
        self.assertEqual(self.connected.receive(), b"x" * 100 * 2050)

    def test_a_flush_waits_for_every_earlier_write(self) -> None:
        """C5: it fires when the kernel has their last byte."""
        shrink_buffers(self.connected.kernel)
        order: list[object] = []

        def note(_size: int, number: int) -> None:
            order.append(number)

        for number in range(40):
            self.output.write(bytes(64 * KIB)).addCallback(note, number)
        self.output.flush().addCallback(lambda _: order.append("flushed"))
        self.assertNotIn("flushed", order)
        self.assertEqual(len(self.connected.receive()), 40 * 64 * KIB)
        self.assertEqual(order, [*range(40), "flushed"])

    def test_each_write_fires_with_its_own_count(self) -> None:
        """C6: in the order in which they began."""
        done: list[int] = []
        for size in (3, 0, 1, 2):
            self.output.write(b"x" * size).addCallback(done.append)
        self.successResultOf(self.output.flush())
        self.assertEqual(done, [3, 0, 1, 2])

    def test_bytes_arrive_in_the_order_of_the_writes(self) -> None:
        """C7: boundaries are not kept, the order is."""
        sent = [b"%d," % number for number in range(1000)]
        for piece in sent:
            self.output.write(piece)
        self.output.flush()
        self.assertEqual(self.connected.receive(), b"".join(sent))

    def test_a_mutable_buffer_is_copied(self) -> None:
        """C8: the application may change it after the call."""
        buffer = bytearray(GREETING)
        self.output.write(buffer)
        self.output.write(memoryview(buffer)[:5])
        buffer[:] = b"x" * len(buffer)
        self.output.flush()
        self.assertEqual(self.connected.receive(), GREETING + b"Hello")

    def test_writes_that_the_kernel_takes_in_parts_arrive_whole(self) -> None:
        """C13: no byte is lost or doubled, and each write fires with its own count."""
        writes = self.fill()
        self.assertTrue(self.output.is_full)
        received = self.connected.receive()
        self.assertEqual(received, b"".join(bytes([n]) * 64 * KIB for n in range(60)))
        self.assertEqual([self.successResultOf(write) for write in writes], [64 * KIB] * 60)
        self.assertFalse(self.output.is_full)

    def test_a_connection_lost_in_mid_batch_fails_the_remaining_writes(self) -> None:
        """C14: finished writes stay done; the flush fails too."""
        shrink_buffers(self.connected.kernel)
        writes = [self.output.write(bytes(KIB)) for _ in range(5000)]
        flush = self.output.flush()
        done = [write for write in writes if write.called]
        self.connected.socket.abort()
        self.connected.next_turn()
        self.assertNotEqual(done, [])
        self.assertEqual({self.successResultOf(write) for write in done}, {KIB})
        self.failureResultOf(flush, ClosedError)
        for write in writes[len(done) :]:
            self.failureResultOf(write, ClosedError)

    def test_a_flush_without_pending_writes_is_done(self) -> None:
        """C15: at once, without a system call."""
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.assertEqual(self.connected.kernel.sends, 0)

    def test_a_flush_does_not_wait_for_later_writes(self) -> None:
        """C15: it waits only for writes before it."""
        self.output.write(GREETING)
        flush = self.output.flush()
        later = self.output.write(GREETING)
        self.successResultOf(flush)
        self.assertNoResult(later)
        self.connected.next_turn()
        self.assertEqual(self.successResultOf(later), 13)


class TimeTests(OutputTests):
    """When writes are sent that are not awaited."""

    def test_unawaited_writes_are_sent_in_the_next_turn(self) -> None:
        """All writes of this turn, in one call."""
        for _ in range(3):
            self.output.write(GREETING)
        self.connected.next_turn()
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), GREETING * 3)

    def test_writes_within_a_receive_are_sent_at_its_end(self) -> None:
        """Answers to bytes that arrived together leave together."""

        async def echo() -> None:
            while True:
                self.output.write(await self.connected.socket.input_stream.receive_exactly(2))

        working = conduct(echo)
        self.connected.protocol.dataReceived(b"aabbccd")
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), b"aabbcc")
        working.addErrback(lambda _: None)
        self.connected.socket.close()

    def test_send_all_with_room_left_fires_at_once(self) -> None:
        """Within a receive: each is awaited, and all leave in one call."""

        async def echo() -> None:
            while True:
                piece = await self.connected.socket.input_stream.receive_exactly(2)
                self.assertEqual(await self.output.send_all(piece), 2, f"{piece=}")

        working = conduct(echo)
        self.connected.protocol.dataReceived(b"aabbcc")
        self.assertEqual(self.connected.kernel.sends, 1)
        working.addErrback(lambda _: None)
        self.connected.socket.close()

    def test_send_all_outside_a_receive_sends_at_once(self) -> None:
        """No further write can join it."""
        self.assertEqual(self.successResultOf(self.output.send_all(GREETING)), 13)
        self.assertEqual(self.connected.kernel.sends, 1)

    def test_send_all_without_room_waits(self) -> None:
        """Until the peer has read."""
        self.fill()
        sent = self.output.send_all(GREETING)
        self.assertNoResult(sent)
        self.connected.receive()
        self.assertEqual(self.successResultOf(sent), 13)

    def test_a_loop_of_awaited_writes_lets_the_reactor_run(self) -> None:
        """However fast the peer reads."""

        async def flood() -> None:
            for _ in range(1000):
                await self.output.write(b"x")

        flooding = conduct(flood)
        self.assertNoResult(flooding)
        self.assertLess(self.connected.kernel.sends, 100)
        for _ in range(1000):
            self.connected.next_turn()
        self.successResultOf(flooding)
        self.assertEqual(self.connected.receive(), b"x" * 1000)

    def test_awaited_writes_above_the_limit_of_a_turn_continue_in_the_next(self) -> None:
        """Also within a receive, even if no other follows."""

        async def answer() -> None:
            await self.connected.socket.input_stream.receive_exactly(1)
            for _ in range(200):
                await self.output.write(b"x")

        answering = conduct(answer)
        self.connected.protocol.dataReceived(b"?")
        self.assertNoResult(answering)
        for _ in range(10):
            self.connected.next_turn()
        self.successResultOf(answering)
        self.assertEqual(self.connected.receive(), b"x" * 200)

    def test_within_a_receive_send_all_waits_without_room(self) -> None:
        """Queued bytes stay within the high-water mark and one write."""

        async def amplify() -> None:
            await self.connected.socket.input_stream.receive_exactly(1)
            for _ in range(40):
                await self.output.send_all(bytes(30 * KIB))

        shrink_buffers(self.connected.kernel)
        amplifying = conduct(amplify)
        self.connected.protocol.dataReceived(b"?")
        self.assertNoResult(amplifying)
        self.assertLessEqual(self.output.unsent, 94 * KIB)
        self.connected.receive()
        self.successResultOf(amplifying)


class OrderTests(OutputTests):
    """Callbacks of writes may write, flush and close; the order is kept."""

    def test_a_flush_in_a_callback_waits_for_earlier_writes(self) -> None:
        """C5: writes queued before it are done before it."""
        for connected in (InMemory(), self.connected):
            order: list[str] = []
            output = connected.output
            if isinstance(connected, InMemory):
                assert connected.transport.producer is not None
                connected.transport.producer.pauseProducing()

            def react(_size: int, output: Any = output, order: list[str] = order) -> None:
                order.append("first")
                output.write(b"c").addCallback(lambda _: order.append("third"))
                output.flush().addCallback(lambda _: order.append("flushed"))

            output.write(b"a").addCallback(react)
            output.write(b"b").addCallback(note, order, "second")
            output.flush()
            if isinstance(connected, InMemory):
                assert connected.transport.producer is not None
                connected.transport.producer.resumeProducing()
            self.assertEqual(order, ["first", "second", "third", "flushed"], connected)

    def test_closing_in_a_callback_sends_queued_writes(self) -> None:
        """Its Deferred fires without waiting for the peer."""
        later: list[Deferred[int]] = []

        def react(_size: int) -> None:
            later.append(self.output.write(b"second"))
            self.connected.socket.close()

        self.output.write(b"first").addCallback(react)
        self.output.flush()
        self.assertEqual(self.successResultOf(later[0]), 6)
        self.assertEqual(self.connected.receive(), b"firstsecond")

    def test_a_handshake_started_in_a_callback_sends_no_more_plaintext(self) -> None:
        """Later writes wait, and are never sent unencrypted."""

        def react(_size: int) -> None:
            upgrading = self.connected.socket.upgrade_to_ssl(Level.TLS12, "localhost")
            upgrading.addErrback(lambda _: None)
            self.output.write(b"password").addErrback(lambda _: None)

        self.output.write(b"STARTTLS").addCallback(react)
        self.output.flush().addErrback(lambda _: None)
        self.connected.next_turn()
        sent = self.connected.receive()
        self.assertTrue(sent.startswith(b"STARTTLS\x16\x03"))
        self.assertNotIn(b"password", sent)
        self.connected.socket.abort()

    def test_closing_the_output_in_a_callback_waits_for_queued_writes(self) -> None:
        """Then FIN is sent."""
        endings: list[Deferred[None]] = []

        def react(_size: int) -> None:
            self.output.write(b"second")
            endings.append(self.output.close())

        self.output.write(b"first").addCallback(react)
        self.output.flush()
        self.successResultOf(endings[0])
        self.descriptor_writes()
        self.assertEqual(self.connected.receive(), b"firstsecond")
        self.assertEqual(self.connected.far.recv(1), b"")

    def test_the_output_is_closed_in_the_turn_that_sends_the_last_write(self) -> None:
        """Even if the writes take more than one turn."""

        async def flood() -> None:
            for _ in range(100):
                await self.output.write(b"x")

        flooding = conduct(flood)
        self.assertNoResult(flooding)
        ending = self.output.close()
        self.connected.next_turn()
        self.failureResultOf(flooding, ClosedError)
        self.successResultOf(ending)
        self.descriptor_writes()
        self.connected.receive()
        self.assertEqual(self.connected.far.recv(1), b"")

    def test_aborting_in_a_callback_fails_the_remaining_writes(self) -> None:
        """Each once."""
        self.output.write(b"a").addCallback(lambda _: self.connected.socket.abort())
        last = self.output.write(bytes(200_000))
        self.output.flush().addErrback(lambda _: None)
        self.connected.next_turn()
        self.assertTrue(last.called)
        last.addErrback(lambda _: None)
        self.failureResultOf(self.output.write(b"x"), ClosedError)


class WithdrawTests(OutputTests):
    """Writes that have not begun can be withdrawn."""

    def test_a_cancelled_write_is_withdrawn(self) -> None:
        """The other writes are sent."""
        self.output.write(b"a")
        middle = self.output.write(b"b")
        self.output.write(b"c")
        middle.cancel()
        self.failureResultOf(middle, CancelledError)
        self.assertEqual(self.output.unsent, 2)
        self.output.flush()
        self.assertEqual(self.connected.receive(), b"ac")

    def test_a_write_that_has_begun_is_sent_to_its_end(self) -> None:
        """Otherwise the bytes after it would follow a partial write."""
        shrink_buffers(self.connected.kernel)
        large = self.output.write(b"a" * 4096 * KIB)
        last = self.output.write(b"b")
        self.output.flush().addErrback(lambda _: None)
        self.assertNoResult(large)
        large.cancel()
        self.failureResultOf(large, CancelledError)
        self.assertEqual(self.connected.receive(), b"a" * 4096 * KIB + b"b")
        self.assertEqual(self.successResultOf(last), 1)

    def test_a_cancelled_write_that_had_begun_fails_once(self) -> None:
        """Also when the connection is lost after that."""
        writes = self.fill()
        begun = next(write for write in writes if not write.called)
        begun.cancel()
        self.failureResultOf(begun, CancelledError)
        self.connected.socket.abort()
        self.connected.next_turn()
        self.failureResultOf(writes[-1], ClosedError)

    def test_a_cancelled_close_still_closes(self) -> None:
        """FIN follows the writes that had begun, whether the wait or all of it is cancelled."""
        for call_off in ("cancel", "cancel_io"):
            connected = OnKernel()
            self.addCleanup(connected.close)
            shrink_buffers(connected.kernel)
            connected.output.write(bytes(1 << 20)).addErrback(lambda _: None)
            connected.output.flush().addErrback(lambda _: None)
            closing = connected.output.close()
            closing.addErrback(lambda _: None)
            if call_off == "cancel":
                closing.cancel()
            else:
                connected.socket.cancel_io()
            self.assertEqual(len(connected.receive()), 1 << 20, call_off)
            connected.descriptor.doWrite()
            self.assertEqual(connected.far.recv(1), b"", call_off)

    def test_withdrawing_takes_constant_time(self) -> None:
        """In any order, no write is compared with the others; the rest arrives in order."""
        for shuffle in (list.reverse, random.Random(11).shuffle):
            connected = OnKernel()
            self.addCleanup(connected.close)
            shrink_buffers(connected.kernel)
            full = connected.output.write(bytes(MIB))
            connected.output.flush().addErrback(lambda _: None)
            writes = [connected.output.write(b"%4d" % number) for number in range(2000)]
            self.assertNoResult(full)
            withdrawn = [write for number, write in enumerate(writes) if number % 100]
            shuffle(withdrawn)
            with count_comparisons() as comparisons:
                for write in withdrawn:
                    write.addErrback(lambda _: None).cancel()
            self.assertLess(comparisons.value, len(writes), shuffle)
            self.assertEqual(connected.output.unsent, 4 * 20, shuffle)
            left = b"".join(b"%4d" % number for number in range(0, 2000, 100))
            self.assertEqual(connected.receive()[MIB:], left, shuffle)

    def test_cancelling_closes_takes_constant_time(self) -> None:
        """Waits for the flush before the close, and for the close."""
        shrink_buffers(self.connected.kernel)
        self.output.write(bytes(MIB))
        self.output.flush().addErrback(lambda _: None)
        for begin in (self.connected.socket.close, self.connected.socket.wait_closed):
            waits = [begin().addErrback(lambda _: None) for _ in range(1000)]
            with count_comparisons() as comparisons:
                for wait in reversed(waits):
                    wait.cancel()
            self.assertLess(comparisons.value, len(waits), begin)

    def test_a_cancelled_flush_ends_the_wait_only(self) -> None:
        """The writes are still sent."""
        writes = self.fill()
        flush = self.output.flush()
        flush.cancel()
        self.failureResultOf(flush, CancelledError)
        self.connected.receive()
        self.assertEqual(self.successResultOf(writes[-1]), 64 * KIB)

    def test_a_flush_that_takes_too_long_fails(self) -> None:
        """The writes are still sent."""
        writes = self.fill()
        flush = self.output.flush(timeout=5)
        self.connected.reactor.advance(5)
        error = self.failureResultOf(flush, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.connected.receive()
        self.assertEqual(self.successResultOf(writes[-1]), 64 * KIB)
        self.assertRaises(ValueError, self.output.flush, timeout=-1)

    def test_cancel_io_withdraws_writes_and_keeps_the_stream(self) -> None:
        """A write that has begun is sent to its end; the next write follows it."""
        writes = self.fill()
        pending = [write for write in writes if not write.called]
        self.successResultOf(self.connected.socket.cancel_io())
        for write in pending:
            error = self.failureResultOf(write, SocketError).value
            self.assertIs(error.status, SocketErrorStatus.OPERATION_ABORTED, write)
        self.output.write(b"next")
        received = self.connected.receive()
        self.connected.next_turn()
        received += self.connected.receive()
        self.assertEqual(self.output.unsent, 0)
        whole = len(writes) - len(pending) + 1
        self.assertEqual(len(received), whole * 64 * KIB + 4)
        self.assertTrue(received.endswith(b"next"))


class RefusalTests(OutputTests):
    """A write at the wrong time fails through its Deferred."""

    def operations(self, socket: StreamSocket) -> list[Deferred[Any]]:
        output = socket.output_stream
        return [output.write(b"x"), output.send_all(b"x"), output.flush()]

    def test_writing_before_connecting_fails(self) -> None:
        """The HRESULT is that of a method called too early."""
        for operation in self.operations(StreamSocket(self.connected.reactor)):
            error = self.failureResultOf(operation, LocalProtocolError).value
            self.assertEqual(error.hresult, 0x8000000E, operation)

    def test_writing_after_closing_fails(self) -> None:
        """The HRESULT is that of a closed object."""
        self.connected.socket.close()
        for operation in self.operations(self.connected.socket):
            error = self.failureResultOf(operation, ClosedError).value
            self.assertEqual(error.hresult, 0x80000013, operation)

    def test_writing_after_the_connection_broke_fails(self) -> None:
        """With the status of the loss."""
        self.connected.kernel.error = ConnectionResetError(errno.ECONNRESET, "reset by peer")
        self.failureResultOf(self.output.send_all(b"x"), BrokenError)
        for operation in self.operations(self.connected.socket):
            error = self.failureResultOf(operation, BrokenError).value
            self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER, operation)

    def test_an_argument_that_is_no_buffer_raises_at_the_call(self) -> None:
        """A number would mean that many zeros."""
        self.assertRaises(TypeError, self.output.write, 5)
        self.assertRaises(TypeError, self.output.send_all, "text")

    def test_a_write_above_the_limit_of_bytes_fails(self) -> None:
        """An application that does not await its writes learns that the peer does not read."""
        self.output.max_unsent = 100
        self.output.write(bytes(99))
        self.output.write(bytes(1000))
        self.failureResultOf(self.output.write(b"x"), BusyError)
        self.assertEqual(self.output.unsent, 1099)
        self.successResultOf(self.output.flush())
        self.output.write(b"x")
        self.assertEqual(len(self.connected.receive()), 1099)

    def test_a_write_above_the_limit_of_writes_fails(self) -> None:
        """Empty writes take memory too. A refused write is not sent; a flush makes room."""
        self.assertEqual(self.output.max_writes, 1_000_000)
        self.output.max_writes = 3
        waiting = [self.output.write(data) for data in (b"", b"a", b"b")]
        for refused in (self.output.write(b"c"), self.output.send_all(b"d")):
            error = self.failureResultOf(refused, BusyError).value
            self.assertIn("3 writes of 2 bytes", str(error), refused)
        self.successResultOf(self.output.flush())
        self.assertEqual([self.successResultOf(write) for write in waiting], [0, 1, 1])
        self.successResultOf(self.output.send_all(b"e"))
        self.assertEqual(self.connected.receive(), b"abe")

    def test_is_full_is_true_from_the_high_water_mark_on(self) -> None:
        """Until the stream was flushed."""
        self.output.write(bytes(HIGH_WATER - 1))
        self.assertFalse(self.output.is_full)
        self.output.write(b"x")
        self.assertTrue(self.output.is_full)
        self.successResultOf(self.output.flush())
        self.assertFalse(self.output.is_full)


class DeathTests(OutputTests):
    """A broken connection is reported once to each pending operation."""

    def test_a_failed_send_fails_the_batch(self) -> None:
        """Every write of it, and the flush."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        writes = [self.output.write(GREETING) for _ in range(5)]
        flush = self.output.flush()
        for pending in (*writes, flush):
            self.failureResultOf(pending, BrokenError)

    def test_each_operation_fails_with_an_error_of_its_own(self) -> None:
        """A raised error holds frames of the coroutine that awaited it."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        writes = [self.output.write(GREETING) for _ in range(2)]
        pending = (*writes, self.output.flush(), self.output.write(b""), self.output.write(b""))
        errors = [self.failureResultOf(each, BrokenError).value for each in pending]
        self.assertEqual(len(set(map(id, errors))), len(errors))
        self.assertEqual(
            {error.status for error in errors}, {SocketErrorStatus.CONNECTION_RESET_BY_PEER}
        )

    def test_writes_that_nobody_awaits_are_not_logged_one_by_one(self) -> None:
        """The flush reports the error; five tracebacks would repeat it."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        for _ in range(5):
            self.output.write(GREETING)
        self.failureResultOf(self.output.flush(), BrokenError)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failed_writes_that_nobody_awaits_are_logged_in_one_line(self) -> None:
        """With their number: no write is lost without a log line."""
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        for _ in range(5):
            self.output.write(GREETING)
        self.connected.next_turn()
        told = [event for event in events if "nobody awaits" in (event.get("log_format") or "")]
        self.assertEqual([event["count"] for event in told], [5])

    def test_an_error_in_an_errback_is_logged(self) -> None:
        """As with any Deferred."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")

        def fail(_failure: object) -> None:
            raise ZeroDivisionError("in an errback")

        self.output.write(GREETING).addErrback(fail)
        self.connected.next_turn()
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_write_that_is_awaited_late_still_fails(self) -> None:
        """The Deferred keeps its failure."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        write = self.output.write(GREETING)
        self.connected.next_turn()

        async def late() -> int:
            return await write

        self.failureResultOf(conduct(late), BrokenError)

    def test_received_bytes_can_be_read_after_a_failed_send(self) -> None:
        """The peer may have sent its answer before it closed the connection."""
        self.connected.kernel.error = ConnectionResetError(errno.ECONNRESET, "reset by peer")
        self.failureResultOf(self.output.send_all(b"a long request"), BrokenError)
        self.connected.far.send(b"no")
        self.connected.descriptor.doRead()
        read = self.connected.socket.input_stream.receive_exactly(2)
        self.assertEqual(self.successResultOf(read), b"no")

    def test_after_the_received_bytes_reading_fails_with_the_reason(self) -> None:
        """The kernel reports its error once, to the send; the reader gets it too."""
        self.connected.kernel.error = ConnectionResetError(errno.ECONNRESET, "reset by peer")
        self.failureResultOf(self.output.send_all(b"a long request"), BrokenError)
        read = self.connected.socket.input_stream.receive_some()
        self.connected.protocol.readConnectionLost()
        self.connected.next_turn()
        error = self.failureResultOf(read, BrokenError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)


class TakenTests(OutputTests):
    """Within a receive, ``send_all`` takes bytes without an object for the single write."""

    def within_a_receive(self, work: Callable[[], Any]) -> Any:
        """Return what the work returns; call it while the connection handles a receive."""
        results: list[Any] = []
        read = self.connected.socket.input_stream.receive_exactly(1)
        read.addCallback(lambda _: results.append(work()))
        self.connected.protocol.dataReceived(b"?")
        return results[0]

    def test_other_calls_follow_the_taken_bytes(self) -> None:
        """In the order of the calls, in one system call; the flush waits for all of them."""

        def work() -> list[Deferred[Any]]:
            taken = [self.output.send_all(b"a"), self.output.send_all(b"b")]
            self.assertTrue(all(each.called for each in taken))
            self.assertTrue(self.output.is_pending)
            return [*taken, self.output.write(b"c"), self.output.send_all(b"d")]

        sent = self.within_a_receive(work)
        self.assertEqual([self.successResultOf(each) for each in sent], [1] * 4)
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), b"abcd")
        self.assertEqual((self.output.unsent, self.output.is_pending), (0, False))

    def test_a_flush_sends_the_taken_bytes(self) -> None:
        """At once, within the receive."""

        def work() -> Deferred[bool]:
            self.output.send_all(b"a")
            flush = self.output.flush()
            self.assertEqual(self.connected.kernel.sends, 1)
            return flush

        self.assertIs(self.successResultOf(self.within_a_receive(work)), True)
        self.assertEqual(self.connected.receive(), b"a")

    def test_taken_bytes_without_room_wait_for_the_kernel(self) -> None:
        """The stream is full until then, and a flush waits."""
        shrink_buffers(self.connected.kernel)

        def work() -> None:
            for number in range(6):
                self.output.send_all(bytes([number]) * (10 * KIB if number < 5 else MIB))

        self.within_a_receive(work)
        self.assertTrue(self.output.is_full)
        flush = self.output.flush()
        self.assertNoResult(flush)
        received = self.connected.receive()
        whole = b"".join(bytes([number]) * 10 * KIB for number in range(5)) + b"\5" * MIB
        self.assertEqual(received == whole, True)
        self.successResultOf(flush)
        self.assertEqual((self.output.is_full, self.output.unsent), (False, 0))

    def test_cancel_io_withdraws_the_taken_bytes(self) -> None:
        """As any other write that has not begun; one line is logged."""
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

        def work() -> None:
            self.output.send_all(b"a")
            self.output.send_all(b"b")
            self.connected.socket.cancel_io()
            self.output.send_all(b"c")

        self.within_a_receive(work)
        self.assertEqual(self.connected.receive(), b"c")
        told = [event for event in events if "nobody awaits" in (event.get("log_format") or "")]
        self.assertEqual([event["count"] for event in told], [2])

    def test_a_send_that_fails_drops_the_taken_bytes(self) -> None:
        """With one log line; the next call reports the error."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.within_a_receive(lambda: self.output.send_all(b"a"))
        self.assertEqual((self.output.unsent, self.output.is_pending), (0, False))
        self.failureResultOf(self.output.send_all(b"b"), BrokenError)

    def test_the_limits_count_the_taken_bytes(self) -> None:
        """In bytes and in calls."""

        def work() -> list[Deferred[int]]:
            self.output.max_writes = 2
            first = [self.output.send_all(data) for data in (b"a", b"b", b"c")]
            self.output.max_writes = 10
            self.output.max_unsent = 2
            return [*first, self.output.send_all(b"d")]

        first, second, *refused = self.within_a_receive(work)
        self.assertEqual([self.successResultOf(first), self.successResultOf(second)], [1, 1])
        for each in refused:
            self.failureResultOf(each, BusyError)
        self.assertEqual(self.connected.receive(), b"ab")

    def test_an_upgrade_is_refused_while_taken_bytes_wait(self) -> None:
        """They were written in plaintext, and would be encrypted."""

        def work() -> Deferred[None]:
            self.output.send_all(b"a")
            return self.connected.socket.upgrade_to_ssl(Level.TLS12, "localhost")

        self.failureResultOf(self.within_a_receive(work), LocalProtocolError)
        self.assertEqual(self.connected.receive(), b"a")

    def test_closing_sends_the_taken_bytes(self) -> None:
        """The output alone, or the socket."""
        for close in ("output", "socket"):
            connected = self.connected = OnKernel()
            self.addCleanup(connected.close)
            self.output = connected.output

            def work(close: str = close, connected: OnKernel = connected) -> None:
                connected.output.send_all(b"a")
                (connected.output if close == "output" else connected.socket).close()

            self.within_a_receive(work)
            self.descriptor_writes()
            self.assertEqual(connected.receive(), b"a", close)
            self.assertEqual(connected.far.recv(1), b"", close)
