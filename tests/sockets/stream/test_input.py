"""An input stream returns received bytes in the requested pieces, or fails with the reason."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis.strategies import binary, integers, lists
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.sockets.stream.connected import InMemory
from tests.stream.test_transport import Owner
from twsock import (
    BrokenError,
    BusyError,
    ClosedError,
    DelimiterNotFoundError,
    EndOfStreamError,
    InputStreamOptions,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
    StreamSocket,
)
from twsock.sockets.stream.input import (
    DEFAULT_MAX_LOAD,
    READ_AHEAD_LIMIT,
    ContinuousRead,
    InputStream,
)
from twsock.stream.connection import Connection
from twsock.wire.byte_queue import ByteQueue

NONE, PARTIAL = InputStreamOptions.NONE, InputStreamOptions.PARTIAL
READ_AHEAD = InputStreamOptions.READ_AHEAD

#: Every kind of read, each for ten bytes or fewer.
READS: dict[str, Callable[[InputStream], Deferred[bytes]]] = {
    "read": lambda stream: stream.read(10),
    "read partially": lambda stream: stream.read(10, PARTIAL),
    "receive_some": lambda stream: stream.receive_some(10),
    "receive_exactly": lambda stream: stream.receive_exactly(10),
    "receive_until": lambda stream: stream.receive_until(b"\n", 10),
}


class InputTests(SynchronousTestCase):
    """A connected socket in memory."""

    def setUp(self) -> None:
        self.connected = InMemory()
        self.stream = self.connected.input


class ReadTests(InputTests):
    """``read`` of WinRT."""

    def test_a_read_waits_for_all_requested_bytes(self) -> None:
        """It leaves further bytes for the next read."""
        read = self.stream.read(4)
        self.connected.receive(b"ab", b"c")
        self.assertNoResult(read)
        self.connected.receive(b"def")
        self.assertEqual(self.successResultOf(read), b"abcd")
        self.assertEqual(self.stream.buffered, 2)

    def test_a_partial_read_returns_the_received_bytes(self) -> None:
        """As soon as any have arrived."""
        read = self.stream.read(256, PARTIAL)
        self.connected.receive(b"ab")
        self.assertEqual(self.successResultOf(read), b"ab")

    def test_at_the_end_of_the_stream_a_read_returns_fewer_bytes(self) -> None:
        """No error: the remaining bytes, and then none."""
        read = self.stream.read(4)
        self.connected.receive(b"ab")
        self.connected.end()
        self.assertEqual(self.successResultOf(read), b"ab")
        for options in (NONE, PARTIAL, READ_AHEAD):
            self.assertEqual(self.successResultOf(self.stream.read(4, options)), b"", options)

    def test_read_ahead_returns_no_more_than_requested(self) -> None:
        """It is a permission; the count is the size of the caller's buffer."""
        self.connected.receive(b"abcdef")
        self.assertEqual(self.successResultOf(self.stream.read(4, READ_AHEAD)), b"abcd")
        partly = self.stream.read(4, READ_AHEAD | PARTIAL)
        self.assertEqual(self.successResultOf(partly), b"ef")

    def test_a_read_of_0_bytes_fires_at_once(self) -> None:
        """Whether or not bytes have arrived."""
        self.assertEqual(self.successResultOf(self.stream.read(0)), b"")
        self.assertEqual(self.successResultOf(self.stream.receive_exactly(0)), b"")

    def test_a_read_above_the_read_ahead_limit_returns_all(self) -> None:
        """Up to the largest load."""
        size = 3 * READ_AHEAD_LIMIT
        read = self.stream.read(size)
        for number in range(3):
            self.connected.receive(bytes(READ_AHEAD_LIMIT))
            self.assertTrue(self.connected.is_reading, f"{number=}")
        self.assertEqual(len(self.successResultOf(read)), size)

    def test_a_count_out_of_bounds_raises_at_the_call(self) -> None:
        """Before it waits."""
        for count in (-1, DEFAULT_MAX_LOAD + 1):
            self.assertRaises(ValueError, self.stream.read, count)
            self.assertRaises(ValueError, self.stream.receive_exactly, count)
            self.assertRaises(ValueError, self.stream.receive_some, count)
            self.assertRaises(ValueError, self.stream.receive_until, b"\n", count)
        self.assertRaises(ValueError, self.stream.receive_some, 0)
        self.assertRaises(ValueError, self.stream.receive_until, b"", 1)
        self.assertRaises(ValueError, self.stream.read, 1, timeout=-1)

    def test_the_largest_load_can_be_set(self) -> None:
        """For each stream."""
        self.stream.max_load = 5
        self.assertRaises(ValueError, self.stream.read, 6)

    def test_the_options_have_their_documented_numbers(self) -> None:
        """And names."""
        options = [(int(each), each.documented_name) for each in (NONE, PARTIAL, READ_AHEAD)]
        self.assertEqual(options, [(0, "None"), (1, "Partial"), (2, "ReadAhead")])
        self.assertIn(", ", (PARTIAL | READ_AHEAD).documented_name)


class ReceiveTests(InputTests):
    """The reads that users of other libraries expect."""

    def test_receive_some_returns_the_received_bytes(self) -> None:
        """At most as many as requested."""
        self.connected.receive(b"abc")
        self.assertEqual(self.successResultOf(self.stream.receive_some(2)), b"ab")
        self.assertEqual(self.successResultOf(self.stream.receive_some()), b"c")

    def test_receive_some_returns_no_bytes_at_the_end(self) -> None:
        """Each time."""
        read = self.stream.receive_some()
        self.connected.end()
        self.assertEqual(self.successResultOf(read), b"")
        self.assertEqual(self.successResultOf(self.stream.receive_some()), b"")

    def test_receive_exactly_fails_at_an_early_end(self) -> None:
        """The received bytes can still be read."""
        read = self.stream.receive_exactly(4)
        self.connected.receive(b"ab")
        self.connected.end()
        error = self.failureResultOf(read, EndOfStreamError).value
        self.assertEqual((error.wanted, error.available), (4, 2))
        self.assertEqual(self.successResultOf(self.stream.receive_exactly(2)), b"ab")

    def test_an_end_between_messages_has_0_available_bytes(self) -> None:
        """So the application can distinguish it."""
        self.connected.end()
        error = self.failureResultOf(self.stream.receive_exactly(4), EndOfStreamError).value
        self.assertEqual(error.available, 0)
        self.assertEqual(error.hresult, 0x80070026)

    def test_receive_until_returns_the_bytes_before_the_delimiter(self) -> None:
        """The delimiter is dropped, however the stream was cut."""
        read = self.stream.receive_until(b"\r\n", 100)
        self.connected.receive(b"Hello", b", World!\r")
        self.assertNoResult(read)
        self.connected.receive(b"\nnext")
        self.assertEqual(self.successResultOf(read), b"Hello, World!")
        self.assertEqual(self.successResultOf(self.stream.receive_some()), b"next")

    @given(lists(binary(max_size=6).map(lambda line: line.replace(b";", b""))), integers(1, 5))
    def test_any_cut_gives_the_same_lines(self, lines: list[bytes], step: int) -> None:
        """However the stream was cut."""
        connected = InMemory()
        stream = b"".join(line + b";;" for line in lines)
        for start in range(0, len(stream), step):
            connected.receive(stream[start : start + step])
        reads = [connected.input.receive_until(b";;", 6) for _ in lines]
        self.assertEqual([self.successResultOf(read) for read in reads], lines)

    def test_more_bytes_than_the_limit_without_a_delimiter_fail(self) -> None:
        """At one byte above the limit, not before; all bytes can still be read."""
        read = self.stream.receive_until(b"\r\n", 4)
        self.connected.receive(b"abcd\r")
        self.assertNoResult(read)
        self.connected.receive(b"x")
        error = self.failureResultOf(read, DelimiterNotFoundError).value
        self.assertEqual(error.limit, 4)
        self.assertEqual(self.successResultOf(self.stream.receive_some()), b"abcd\rx")

    def test_a_delimiter_above_the_limit_fails(self) -> None:
        """Also if all bytes arrived together."""
        self.connected.receive(b"abcde\n")
        self.failureResultOf(self.stream.receive_until(b"\n", 4), DelimiterNotFoundError)
        self.assertEqual(self.successResultOf(self.stream.receive_until(b"\n", 5)), b"abcde")

    def test_two_delimiters_in_a_row_give_an_empty_piece(self) -> None:
        """It is returned like any other."""
        self.connected.receive(b"\n\n")
        self.assertEqual(self.successResultOf(self.stream.receive_until(b"\n", 0)), b"")
        self.assertEqual(self.successResultOf(self.stream.receive_until(b"\n", 0)), b"")

    def test_receive_until_fails_at_an_early_end(self) -> None:
        """An unterminated line can still be read."""
        read = self.stream.receive_until(b"\n", 10)
        self.connected.receive(b"half")
        self.connected.end()
        error = self.failureResultOf(read, EndOfStreamError).value
        self.assertEqual((error.wanted, error.available), (None, 4))
        self.assertEqual(self.successResultOf(self.stream.receive_some()), b"half")

    def test_a_loop_returns_all_bytes(self) -> None:
        """Until the end of the stream."""

        async def collect() -> list[bytes]:
            return [chunk async for chunk in self.stream]

        chunks = Deferred.fromCoroutine(collect())
        self.connected.receive(b"a", b"b")
        self.connected.end()
        self.assertEqual(self.successResultOf(chunks), [b"a", b"b"])


class DemandTests(InputTests):
    """Without a pending read, the stream receives no more than its limit."""

    def test_at_the_limit_reading_pauses(self) -> None:
        """The peer waits, and no further memory is taken."""
        self.connected.receive(bytes(READ_AHEAD_LIMIT - 1))
        self.assertTrue(self.connected.is_reading)
        self.connected.receive(b"x")
        self.assertFalse(self.connected.is_reading)

    def test_a_read_that_is_complete_does_not_resume_reading(self) -> None:
        """The queued bytes suffice."""
        self.connected.receive(bytes(READ_AHEAD_LIMIT))
        self.successResultOf(self.stream.receive_exactly(10))
        self.assertFalse(self.connected.is_reading)

    def test_a_read_that_waits_resumes_reading(self) -> None:
        """It needs more bytes than are queued."""
        self.connected.receive(bytes(READ_AHEAD_LIMIT))
        read = self.stream.receive_exactly(READ_AHEAD_LIMIT + 1)
        self.assertTrue(self.connected.is_reading)
        self.connected.receive(b"x")
        self.successResultOf(read)

    def test_reading_pauses_again_when_the_read_is_complete(self) -> None:
        """Bytes that arrived beyond the request count."""
        self.stream.receive_exactly(1)
        self.connected.receive(bytes(READ_AHEAD_LIMIT + 1))
        self.assertFalse(self.connected.is_reading)

    def test_after_a_cancelled_read_the_limit_applies_again(self) -> None:
        """From the next received bytes on."""
        read = self.stream.receive_exactly(2 * READ_AHEAD_LIMIT)
        self.connected.receive(bytes(READ_AHEAD_LIMIT))
        read.addErrback(lambda _: None)
        read.cancel()
        self.connected.receive(b"x")
        self.assertFalse(self.connected.is_reading)


class CancelTests(InputTests):
    """A cancelled read takes nothing."""

    def test_a_cancelled_read_leaves_the_received_bytes(self) -> None:
        """For the next read."""
        for name, begin in READS.items():
            connected = InMemory()
            read = begin(connected.input)
            read.cancel()
            self.failureResultOf(read, CancelledError)
            connected.receive(b"0123456789\n")
            again = self.successResultOf(begin(connected.input))
            self.assertEqual(again, b"0123456789", name)

    def test_a_timeout_leaves_the_received_bytes(self) -> None:
        """It has a status of its own."""
        read = self.stream.receive_exactly(3, timeout=5)
        self.connected.receive(b"ab")
        self.connected.clock.advance(5)
        error = self.failureResultOf(read, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertEqual(self.successResultOf(self.stream.receive_some()), b"ab")

    def test_a_read_in_time_leaves_no_timer(self) -> None:
        """No delayed call is left."""
        read = self.stream.read(1, timeout=5)
        self.connected.receive(b"a")
        self.assertEqual(self.successResultOf(read), b"a")
        self.assertEqual(self.connected.clock.getDelayedCalls(), [])

    def test_cancel_io_leaves_the_stream_usable(self) -> None:
        """The pending read fails, and the received bytes stay."""
        read = self.stream.receive_exactly(3)
        self.connected.receive(b"ab")
        self.successResultOf(self.connected.socket.cancel_io())
        error = self.failureResultOf(read, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.OPERATION_ABORTED)
        self.assertEqual(error.hresult, 0x800703E3)
        again = self.stream.receive_exactly(3)
        self.connected.receive(b"c")
        self.assertEqual(self.successResultOf(again), b"abc")


class RefusalTests(InputTests):
    """A read at the wrong time fails through its Deferred, and changes nothing."""

    def test_reading_before_connecting_fails(self) -> None:
        """The HRESULT is that of a method called too early."""
        for name, begin in READS.items():
            stream = StreamSocket(self.connected.clock).input_stream
            error = self.failureResultOf(begin(stream), LocalProtocolError).value
            self.assertEqual(error.hresult, 0x8000000E, name)

    def test_a_second_read_fails_while_one_is_pending(self) -> None:
        """The first one continues."""
        pending = self.stream.receive_exactly(3)
        for name, begin in READS.items():
            error = self.failureResultOf(begin(self.stream), BusyError).value
            self.assertEqual(error.hresult, 0x800710DD, name)
        self.connected.receive(b"abc")
        self.assertEqual(self.successResultOf(pending), b"abc")

    def test_a_second_read_fails_even_if_it_could_be_completed(self) -> None:
        """The received bytes belong to the first read."""
        pending = self.stream.receive_exactly(10)
        self.connected.receive(b"abc")
        for begin in (self.stream.receive_exactly, self.stream.read):
            self.failureResultOf(begin(2), BusyError)
        self.connected.receive(b"defghij")
        self.assertEqual(self.successResultOf(pending), b"abcdefghij")

    def test_an_invalid_count_raises_and_changes_nothing(self) -> None:
        """Whether or not enough bytes have arrived."""
        for received in (b"", b"abcdef"):
            self.connected.receive(received)
            for begin in (self.stream.receive_exactly, self.stream.read, self.stream.receive_some):
                self.assertRaises(TypeError, begin, 2.0)
            self.assertRaises(TypeError, self.stream.receive_until, 5, 10)
        self.assertEqual(self.successResultOf(self.stream.receive_exactly(6)), b"abcdef")

    def test_reading_after_closing_fails(self) -> None:
        """Even if bytes had arrived."""
        self.connected.receive(b"0123456789\n")
        self.connected.socket.close()
        for name, begin in READS.items():
            error = self.failureResultOf(begin(self.stream), ClosedError).value
            self.assertEqual(error.hresult, 0x80000013, name)

    def test_closing_fails_a_pending_read(self) -> None:
        """It does not stay pending."""
        for end in ("close", "abort"):
            connected = InMemory()
            read = connected.input.receive_some()
            getattr(connected.socket, end)()
            self.failureResultOf(read, ClosedError)


class EndTests(InputTests):
    """Bytes that arrived before the end can be read."""

    def test_a_reset_is_reported_after_the_bytes_before_it(self) -> None:
        """Then at each read."""
        self.connected.receive(b"abc")
        self.connected.reset()
        self.assertEqual(self.successResultOf(self.stream.receive_exactly(2)), b"ab")
        self.assertEqual(self.successResultOf(self.stream.read(1)), b"c")
        for begin in READS.values():
            self.failureResultOf(begin(self.stream), BrokenError)

    def test_a_reset_fails_a_pending_read(self) -> None:
        """The read takes nothing."""
        read = self.stream.receive_exactly(4)
        self.connected.receive(b"abc")
        self.connected.reset()
        self.failureResultOf(read, BrokenError)
        self.assertEqual(self.successResultOf(self.stream.receive_some()), b"abc")

    def test_an_orderly_end_of_the_connection_is_the_end_of_the_stream(self) -> None:
        """On a transport that cannot close one direction."""
        read = self.stream.receive_some()
        self.connected.lose()
        self.assertEqual(self.successResultOf(read), b"")

    def test_a_callback_of_a_read_may_read_again(self) -> None:
        """The first read is finished by then."""
        read = self.stream.receive_some()
        again = read.addCallback(lambda first: self.stream.receive_exactly(len(first)))
        self.connected.receive(b"ab", b"cd")
        self.assertEqual(self.successResultOf(again), b"cd")

    def test_closed_input_leaves_the_output_usable(self) -> None:
        """Bytes that still arrive are dropped."""
        read = self.stream.receive_some()
        self.successResultOf(self.stream.close())
        self.failureResultOf(read, ClosedError)
        self.connected.receive(bytes(2 * READ_AHEAD_LIMIT))
        self.assertTrue(self.connected.is_reading)
        self.assertEqual(self.stream.buffered, 0)
        self.successResultOf(self.connected.output.send_all(b"still here"))
        self.assertEqual(self.connected.sent(), b"still here")

    def test_a_small_largest_load_leaves_the_loops_usable(self) -> None:
        """They request no more than is allowed."""
        self.stream.max_load = 10
        self.connected.receive(bytes(25))
        self.connected.end()
        sizes = [len(self.successResultOf(self.stream.receive_some())) for _ in range(4)]
        self.assertEqual(sizes, [10, 10, 5, 0])

    def test_a_connection_that_becomes_secure_during_a_drain_has_1_second(self) -> None:
        """Its peer sends after the handshake; then it is drained as any other."""
        for answer in (b"x", b""):
            clock, stream = self.drained()
            read = stream.receive_some()
            clock.advance(0.9)
            self.assertNoResult(read)
            if answer:
                stream.feed(answer)
            clock.advance(0.2)
            self.assertEqual(self.successResultOf(read), answer, f"{answer=}")
            self.assertEqual(self.successResultOf(stream.receive_some()), b"", answer)

    def test_an_end_during_that_second_leaves_no_timer(self) -> None:
        """For each way to end."""
        ends: tuple[Callable[[InputStream], object], ...] = (
            lambda stream: stream.close(),
            lambda stream: stream.ended(),
            lambda stream: stream.failed(ClosedError("lost")),
        )
        for end in ends:
            clock, stream = self.drained()
            end(stream)
            self.assertEqual(clock.getDelayedCalls(), [], end)

    def drained(self) -> tuple[Clock, InputStream]:
        """Drain a stream, then connect it."""
        clock = Clock()
        stream = InputStream(clock)
        stream.end_when_drained()
        stream.opened(Connection(Owner(), StringTransport(), clock))
        return clock, stream

    def test_draining_waits_for_the_rest_of_a_message(self) -> None:
        """Only a read without any received byte gets the end of the stream."""
        read = self.stream.receive_exactly(4)
        self.connected.receive(b"ab")
        self.stream.end_when_drained()
        self.assertNoResult(read)
        self.connected.receive(b"cd")
        self.assertEqual(self.successResultOf(read), b"abcd")
        self.assertEqual(self.successResultOf(self.stream.receive_some()), b"")

    def test_closing_a_paused_input_drops_further_bytes(self) -> None:
        """The peer is not blocked by bytes that nobody reads."""
        self.connected.receive(bytes(READ_AHEAD_LIMIT))
        self.assertFalse(self.connected.is_reading)
        self.stream.close()
        self.assertTrue(self.connected.is_reading)

    def test_an_abort_fails_reads_with_closed_error(self) -> None:
        """Our side ended the connection, not the peer."""
        read = self.stream.receive_some()
        self.stream.failed(ClosedError("aborted"))
        self.failureResultOf(read, ClosedError)

    def test_async_with_closes_the_input(self) -> None:
        """At the end of the block."""

        async def block() -> None:
            async with self.stream:
                pass

        self.successResultOf(Deferred.fromCoroutine(block()))
        self.failureResultOf(self.stream.receive_some(), ClosedError)


class _Taking(ContinuousRead):
    """Takes all bytes but the last one, which it leaves."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    @override
    def attempt(self, queue: ByteQueue, is_ended: bool) -> bytes | None:
        if queue.size > 1:
            self.taken.append(queue.take(queue.size - 1))
        return b"" if is_ended else None


class ContinuousReadTests(SynchronousTestCase):
    """A read that takes bytes as they arrive."""

    def test_it_takes_what_was_received_and_what_arrives(self) -> None:
        """Until the input ends; meanwhile other reads are refused."""
        connected, taking = InMemory(), _Taking()
        connected.receive(b"abc")
        self.assertFalse(connected.input.reads_continuously)
        reading = connected.input.pull(taking)
        self.assertTrue(connected.input.reads_continuously)
        connected.receive(b"de")
        self.failureResultOf(connected.input.read(1), BusyError)
        self.assertEqual(taking.taken, [b"ab", b"cd"])
        connected.input.pull_again()
        self.assertEqual((taking.taken, connected.input.buffered), ([b"ab", b"cd"], 1))
        connected.end()
        self.assertEqual(self.successResultOf(reading), b"")
        self.assertFalse(connected.input.reads_continuously)

    def test_cancelling_leaves_what_was_not_taken(self) -> None:
        """The next read gets it."""
        connected = InMemory()
        reading = connected.input.pull(_Taking())
        connected.receive(b"abc")
        reading.cancel()
        self.failureResultOf(reading, CancelledError)
        self.assertEqual(self.successResultOf(connected.input.read(1)), b"c")

    def test_a_stream_is_open_until_it_is_closed_or_broken(self) -> None:
        """Also after the peer's end."""
        connected = InMemory()
        self.assertTrue(connected.input.is_open)
        connected.end()
        self.assertTrue(connected.input.is_open)
        connected.input.close()
        self.assertFalse(connected.input.is_open)
