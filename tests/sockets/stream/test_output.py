"""An output stream sends in order, in as few calls as can be, and says when it is done."""

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
    OperationNotSupported,
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
    """What every test here has: a socket on a real kernel."""

    def setUp(self) -> None:
        self.connected = OnKernel()
        self.addCleanup(self.connected.close)
        self.output = self.connected.output

    def descriptor_writes(self) -> None:
        """Let the transport do what it was asked for: send FIN, say."""
        if self.connected.descriptor in self.connected.reactor.writers:
            self.connected.descriptor.doWrite()

    def fill(self) -> list[Deferred[int]]:
        """Write until the kernel has no room, and then some."""
        shrink_buffers(self.connected.kernel)
        writes = [self.output.write(bytes([number]) * 64 * KIB) for number in range(60)]
        self.output.flush().addErrback(lambda _: None)
        return writes


class BatchTests(OutputTests):
    """The claims about batched sends: five buffers of thirteen bytes, sixty-five in all."""

    def test_awaited_one_after_the_other_each_is_a_call(self) -> None:
        """C1: five writes, five system calls."""

        async def work() -> list[int]:
            return [await self.output.write(GREETING) for _ in range(5)]

        self.assertEqual(self.successResultOf(conduct(work)), [13] * 5)
        self.assertEqual(self.connected.kernel.sends, 5)
        self.assertEqual(self.connected.receive(), GREETING * 5)

    def test_five_writes_and_a_flush_are_one_call(self) -> None:
        """C2: started without awaiting, then flushed."""
        writes = [self.output.write(GREETING) for _ in range(5)]
        self.assertEqual(self.connected.kernel.sends, 0)
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual([self.successResultOf(write) for write in writes], [13] * 5)
        self.assertEqual(self.connected.receive(), GREETING * 5)

    def test_waiting_for_all_is_one_call_too(self) -> None:
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

    def test_any_number_that_is_joined_is_one_call(self) -> None:
        """C4: five thousand of them, below 64 KiB in all."""
        for _ in range(5000):
            self.output.write(GREETING)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), GREETING * 5000)

    def test_what_is_not_joined_is_a_call_for_1024(self) -> None:
        """C4: above 64 KiB the kernel is given the buffers themselves."""
        for _ in range(2050):
            self.output.write(b"x" * 100)
        self.successResultOf(self.output.flush())
        self.assertEqual(self.connected.kernel.sends, 3)
        self.assertEqual(self.connected.receive(), b"x" * 100 * 2050)

    def test_a_flush_waits_for_every_earlier_write(self) -> None:
        """C5: not before the last byte of them is with the kernel."""
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

    def test_each_write_is_done_by_itself(self) -> None:
        """C6: with its own count, in the order they were begun."""
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

    def test_a_buffer_may_be_changed_at_once(self) -> None:
        """C8: what can change is copied when it is written."""
        buffer = bytearray(GREETING)
        self.output.write(buffer)
        self.output.write(memoryview(buffer)[:5])
        buffer[:] = b"x" * len(buffer)
        self.output.flush()
        self.assertEqual(self.connected.receive(), GREETING + b"Hello")

    def test_what_the_kernel_takes_in_parts_arrives_whole(self) -> None:
        """C13: nothing is lost or doubled, and each write is done with its own count."""
        writes = self.fill()
        self.assertTrue(self.output.is_full)
        received = self.connected.receive()
        self.assertEqual(received, b"".join(bytes([n]) * 64 * KIB for n in range(60)))
        self.assertEqual([self.successResultOf(write) for write in writes], [64 * KIB] * 60)
        self.assertFalse(self.output.is_full)

    def test_a_connection_lost_in_mid_batch_fails_what_was_not_done(self) -> None:
        """C14: what was done stays done; the flush fails too."""
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

    def test_a_flush_of_nothing_is_done(self) -> None:
        """C15: at once, without a call."""
        self.assertIs(self.successResultOf(self.output.flush()), True)
        self.assertEqual(self.connected.kernel.sends, 0)

    def test_a_flush_does_not_wait_for_later_writes(self) -> None:
        """C15: what was begun after it is not its concern."""
        self.output.write(GREETING)
        flush = self.output.flush()
        later = self.output.write(GREETING)
        self.successResultOf(flush)
        self.assertNoResult(later)
        self.connected.next_turn()
        self.assertEqual(self.successResultOf(later), 13)


class TimeTests(OutputTests):
    """What is written leaves without being asked to."""

    def test_at_the_latest_in_the_next_turn(self) -> None:
        """All that was written in this one, in one call."""
        for _ in range(3):
            self.output.write(GREETING)
        self.connected.next_turn()
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), GREETING * 3)

    def test_at_the_end_of_the_receive_that_gave_rise_to_it(self) -> None:
        """Answers to what came together leave together."""

        async def echo() -> None:
            while True:
                self.output.write(await self.connected.socket.input_stream.receive_exactly(2))

        working = conduct(echo)
        self.connected.protocol.dataReceived(b"aabbccd")
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), b"aabbcc")
        working.addErrback(lambda _: None)
        self.connected.socket.close()

    def test_sent_with_room_left_it_waits_for_nothing(self) -> None:
        """``send_all`` within a receive: each is awaited, and all leave in one call."""

        async def echo() -> None:
            while True:
                piece = await self.connected.socket.input_stream.receive_exactly(2)
                self.assertEqual(await self.output.send_all(piece), 2)

        working = conduct(echo)
        self.connected.protocol.dataReceived(b"aabbcc")
        self.assertEqual(self.connected.kernel.sends, 1)
        working.addErrback(lambda _: None)
        self.connected.socket.close()

    def test_sent_outside_a_receive_it_leaves_at_once(self) -> None:
        """There is nothing to put beside it."""
        self.assertEqual(self.successResultOf(self.output.send_all(GREETING)), 13)
        self.assertEqual(self.connected.kernel.sends, 1)

    def test_sent_without_room_it_waits(self) -> None:
        """Until the peer has read."""
        self.fill()
        sent = self.output.send_all(GREETING)
        self.assertNoResult(sent)
        self.connected.receive()
        self.assertEqual(self.successResultOf(sent), 13)

    def test_a_loop_of_awaited_writes_lets_the_reactor_have_its_turn(self) -> None:
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

    def test_more_awaited_writes_than_a_turn_has_go_on_in_the_next(self) -> None:
        """Also within a receive, of which none may follow."""

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

    def test_within_a_receive_it_waits_where_there_is_no_room(self) -> None:
        """What is taken and not sent stays within the high-water mark and one write."""

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
    """Who is called back may write, flush and close; the order holds."""

    def test_a_flush_in_a_callback_waits_for_its_elders(self) -> None:
        """C5: writes that were there before it are done before it."""
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
            self.assertEqual(order, ["first", "second", "third", "flushed"])

    def test_closing_in_a_callback_delivers_what_was_written(self) -> None:
        """And tells so, without waiting for the peer."""
        later: list[Deferred[int]] = []

        def react(_size: int) -> None:
            later.append(self.output.write(b"second"))
            self.connected.socket.close()

        self.output.write(b"first").addCallback(react)
        self.output.flush()
        self.assertEqual(self.successResultOf(later[0]), 6)
        self.assertEqual(self.connected.receive(), b"firstsecond")

    def test_a_handshake_begun_in_a_callback_lets_no_plaintext_leave(self) -> None:
        """What is written behind it waits, and is never sent unencrypted."""

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

    def test_ending_the_output_in_a_callback_waits_for_what_was_written(self) -> None:
        """Then FIN leaves."""
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

    def test_the_output_ends_in_the_turn_that_sends_the_last_write(self) -> None:
        """Where one turn had more sends than it has."""

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

    def test_aborting_in_a_callback_ends_the_rest(self) -> None:
        """Each once."""
        self.output.write(b"a").addCallback(lambda _: self.connected.socket.abort())
        last = self.output.write(bytes(200_000))
        self.output.flush().addErrback(lambda _: None)
        self.connected.next_turn()
        self.assertTrue(last.called)
        last.addErrback(lambda _: None)
        self.failureResultOf(self.output.write(b"x"), ClosedError)


class WithdrawTests(OutputTests):
    """What has not begun to leave can be taken back."""

    def test_a_cancelled_write_is_withdrawn(self) -> None:
        """The others go."""
        self.output.write(b"a")
        middle = self.output.write(b"b")
        self.output.write(b"c")
        middle.cancel()
        self.failureResultOf(middle, CancelledError)
        self.assertEqual(self.output.unsent, 2)
        self.output.flush()
        self.assertEqual(self.connected.receive(), b"ac")

    def test_a_write_that_has_begun_is_sent_to_its_end(self) -> None:
        """Or what follows would be cut in the middle."""
        shrink_buffers(self.connected.kernel)
        large = self.output.write(b"a" * 4096 * KIB)
        last = self.output.write(b"b")
        self.output.flush().addErrback(lambda _: None)
        self.assertNoResult(large)
        large.cancel()
        self.failureResultOf(large, CancelledError)
        self.assertEqual(self.connected.receive(), b"a" * 4096 * KIB + b"b")
        self.assertEqual(self.successResultOf(last), 1)

    def test_a_cancelled_write_that_had_begun_may_be_lost(self) -> None:
        """It is told once."""
        writes = self.fill()
        begun = next(write for write in writes if not write.called)
        begun.cancel()
        self.failureResultOf(begun, CancelledError)
        self.connected.socket.abort()
        self.connected.next_turn()
        self.failureResultOf(writes[-1], ClosedError)

    def test_a_close_that_is_called_off_still_ends(self) -> None:
        """FIN comes behind what had begun, whether its wait or all of it is called off."""
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
            self.assertEqual(len(connected.receive()), 1 << 20)
            connected.descriptor.doWrite()
            self.assertEqual(connected.far.recv(1), b"")

    def test_the_work_of_withdrawing_is_the_same_however_many_wait(self) -> None:
        """In any order, no write is compared with the others; what is left arrives in order."""
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
            self.assertLess(comparisons.value, len(writes))
            self.assertEqual(connected.output.unsent, 4 * 20)
            left = b"".join(b"%4d" % number for number in range(0, 2000, 100))
            self.assertEqual(connected.receive()[MIB:], left)

    def test_the_work_of_calling_off_closes_is_the_same_however_many_wait(self) -> None:
        """Of waits for the flush before the end, and for the end."""
        shrink_buffers(self.connected.kernel)
        self.output.write(bytes(MIB))
        self.output.flush().addErrback(lambda _: None)
        for begin in (self.connected.socket.close, self.connected.socket.wait_closed):
            waits = [begin().addErrback(lambda _: None) for _ in range(1000)]
            with count_comparisons() as comparisons:
                for wait in reversed(waits):
                    wait.cancel()
            self.assertLess(comparisons.value, len(waits))

    def test_a_cancelled_flush_ends_the_wait_only(self) -> None:
        """The writes go on."""
        writes = self.fill()
        flush = self.output.flush()
        flush.cancel()
        self.failureResultOf(flush, CancelledError)
        self.connected.receive()
        self.assertEqual(self.successResultOf(writes[-1]), 64 * KIB)

    def test_a_flush_takes_no_longer_than_it_may(self) -> None:
        """Then it has failed, and the writes go on."""
        writes = self.fill()
        flush = self.output.flush(timeout=5)
        self.connected.reactor.advance(5)
        error = self.failureResultOf(flush, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.connected.receive()
        self.assertEqual(self.successResultOf(writes[-1]), 64 * KIB)
        self.assertRaises(ValueError, self.output.flush, timeout=-1)

    def test_cancel_io_withdraws_and_leaves_the_stream_whole(self) -> None:
        """What had begun is sent to its end, what comes next follows it."""
        writes = self.fill()
        pending = [write for write in writes if not write.called]
        self.successResultOf(self.connected.socket.cancel_io())
        for write in pending:
            error = self.failureResultOf(write, SocketError).value
            self.assertIs(error.status, SocketErrorStatus.OPERATION_ABORTED)
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

    def test_before_there_is_a_connection(self) -> None:
        """The HRESULT is that of a method called too early."""
        for operation in self.operations(StreamSocket(self.connected.reactor)):
            error = self.failureResultOf(operation, LocalProtocolError).value
            self.assertEqual(error.hresult, 0x8000000E)

    def test_after_this_end_was_closed(self) -> None:
        """The HRESULT is that of a closed object."""
        self.connected.socket.close()
        for operation in self.operations(self.connected.socket):
            error = self.failureResultOf(operation, ClosedError).value
            self.assertEqual(error.hresult, 0x80000013)

    def test_after_the_connection_died(self) -> None:
        """With the status of how it died."""
        self.connected.kernel.error = ConnectionResetError(errno.ECONNRESET, "reset by peer")
        self.failureResultOf(self.output.send_all(b"x"), BrokenError)
        for operation in self.operations(self.connected.socket):
            error = self.failureResultOf(operation, BrokenError).value
            self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    def test_what_is_no_buffer_is_refused_at_once(self) -> None:
        """A number would be that many zeros."""
        self.assertRaises(TypeError, self.output.write, 5)
        self.assertRaises(TypeError, self.output.send_all, "text")

    def test_more_than_the_limit_is_not_kept(self) -> None:
        """Who writes to a peer that does not read, without awaiting, is told."""
        self.output.max_unsent = 100
        self.output.write(bytes(99))
        self.output.write(bytes(1000))
        self.failureResultOf(self.output.write(b"x"), BusyError)
        self.assertEqual(self.output.unsent, 1099)
        self.successResultOf(self.output.flush())
        self.output.write(b"x")
        self.assertEqual(len(self.connected.receive()), 1099)

    def test_more_writes_than_the_limit_are_not_kept(self) -> None:
        """Empty ones take memory too. What was refused is not sent; room comes with a flush."""
        self.assertEqual(self.output.max_writes, 1_000_000)
        self.output.max_writes = 3
        waiting = [self.output.write(data) for data in (b"", b"a", b"b")]
        for refused in (self.output.write(b"c"), self.output.send_all(b"d")):
            error = self.failureResultOf(refused, BusyError).value
            self.assertIn("3 writes of 2 bytes", str(error))
        self.successResultOf(self.output.flush())
        self.assertEqual([self.successResultOf(write) for write in waiting], [0, 1, 1])
        self.successResultOf(self.output.send_all(b"e"))
        self.assertEqual(self.connected.receive(), b"abe")

    def test_a_full_stream_says_so(self) -> None:
        """At the high-water mark, until it was flushed."""
        self.output.write(bytes(HIGH_WATER - 1))
        self.assertFalse(self.output.is_full)
        self.output.write(b"x")
        self.assertTrue(self.output.is_full)
        self.successResultOf(self.output.flush())
        self.assertFalse(self.output.is_full)


class DeathTests(OutputTests):
    """A connection that dies is told of, once to each who asks."""

    def test_a_failed_send_fails_the_batch(self) -> None:
        """Every write of it, and the flush."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        writes = [self.output.write(GREETING) for _ in range(5)]
        flush = self.output.flush()
        for pending in (*writes, flush):
            self.failureResultOf(pending, BrokenError)

    def test_each_is_told_by_an_error_of_its_own(self) -> None:
        """One that is raised in one place holds frames that are no business of another."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        writes = [self.output.write(GREETING) for _ in range(2)]
        pending = (*writes, self.output.flush(), self.output.write(b""), self.output.write(b""))
        errors = [self.failureResultOf(each, BrokenError).value for each in pending]
        self.assertEqual(len(set(map(id, errors))), len(errors))
        self.assertEqual(
            {error.status for error in errors}, {SocketErrorStatus.CONNECTION_RESET_BY_PEER}
        )

    def test_writes_that_nobody_awaits_are_not_logged_one_by_one(self) -> None:
        """The flush tells it; five tracebacks would only repeat it."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        for _ in range(5):
            self.output.write(GREETING)
        self.failureResultOf(self.output.flush(), BrokenError)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_writes_that_nobody_awaits_are_told_of_once(self) -> None:
        """One line, with their number: nothing is lost in silence."""
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

    def test_a_mistake_of_who_is_told_is_not_swallowed(self) -> None:
        """What an errback raises is logged as anywhere."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")

        def fail(_failure: object) -> None:
            raise ZeroDivisionError("in an errback")

        self.output.write(GREETING).addErrback(fail)
        self.connected.next_turn()
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_write_that_is_awaited_late_still_fails(self) -> None:
        """The failure waits for whoever asks."""
        self.connected.kernel.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        write = self.output.write(GREETING)
        self.connected.next_turn()

        async def late() -> int:
            return await write

        self.failureResultOf(conduct(late), BrokenError)

    def test_what_came_can_be_read_after_a_failed_send(self) -> None:
        """An early answer is not lost with the connection it refuses."""
        self.connected.kernel.error = ConnectionResetError(errno.ECONNRESET, "reset by peer")
        self.failureResultOf(self.output.send_all(b"a long request"), BrokenError)
        self.connected.far.send(b"no")
        self.connected.descriptor.doRead()
        read = self.connected.socket.input_stream.receive_exactly(2)
        self.assertEqual(self.successResultOf(read), b"no")

    def test_after_what_came_the_reason_is_told(self) -> None:
        """The kernel tells its error once; the reader learns it all the same."""
        self.connected.kernel.error = ConnectionResetError(errno.ECONNRESET, "reset by peer")
        self.failureResultOf(self.output.send_all(b"a long request"), BrokenError)
        read = self.connected.socket.input_stream.receive_some()
        self.connected.protocol.readConnectionLost()
        self.connected.next_turn()
        error = self.failureResultOf(read, BrokenError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)


class CloseTests(OutputTests):
    """The output can end by itself."""

    def test_a_closed_output_is_the_end_for_the_peer(self) -> None:
        """After all that was written; what comes is still read."""
        self.output.write(GREETING)
        self.successResultOf(self.output.close())
        self.assertEqual(self.connected.receive(), GREETING)
        self.connected.protocol.dataReceived(b"answer")
        read = self.connected.socket.input_stream.receive_some()
        self.assertEqual(self.successResultOf(read), b"answer")
        self.failureResultOf(self.output.write(b"late"), ClosedError)

    def test_closing_waits_for_what_was_written(self) -> None:
        """FIN comes behind it."""
        self.fill()
        closing = self.output.close()
        self.assertNoResult(closing)
        self.assertEqual(len(self.connected.receive()), 60 * 64 * KIB)
        self.successResultOf(closing)

    def test_closing_twice_is_harmless(self) -> None:
        """As everywhere."""
        self.successResultOf(self.output.close())
        self.successResultOf(self.output.close())

    def test_it_is_closed_by_a_block(self) -> None:
        """``async with``, as everything here."""

        async def block() -> None:
            async with self.output:
                pass

        self.successResultOf(conduct(block))
        self.failureResultOf(self.output.write(b"x"), ClosedError)

    def test_a_transport_without_halves_refuses(self) -> None:
        """And goes on."""
        connected = InMemory()
        connected.protocol.transport.loseWriteConnection = None
        output = connected.output
        if hasattr(connected.transport, "loseWriteConnection"):
            del connected.transport.loseWriteConnection
        self.failureResultOf(output.close(), OperationNotSupported)
        self.successResultOf(output.send_all(b"still here"))

    def test_closing_the_socket_sends_what_was_written(self) -> None:
        """Whatever was waiting for the kernel."""
        writes = self.fill()
        self.connected.socket.close()
        self.assertEqual(len(self.connected.receive()), 60 * 64 * KIB)
        self.assertEqual([self.successResultOf(write) for write in writes], [64 * KIB] * 60)

    def test_the_brake_of_a_transport_in_memory_is_heeded(self) -> None:
        """It is flushed when the transport says so."""
        connected = InMemory()
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        flush = connected.output.write(GREETING), connected.output.flush()
        self.assertNoResult(flush[1])
        connected.transport.producer.resumeProducing()
        self.assertEqual(self.successResultOf(flush[0]), 13)
        self.assertIs(self.successResultOf(flush[1]), True)
