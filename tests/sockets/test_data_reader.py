"""A data reader loads bytes from a stream, and its values are read from them."""

from __future__ import annotations

import tracemalloc

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.stream.connected import InMemory
from twsock import (
    BrokenError,
    BusyError,
    ByteOrder,
    ClosedError,
    DataReader,
    InputStreamOptions,
    LocalProtocolError,
    OutOfBoundsError,
    SocketError,
    SocketErrorStatus,
)
from twsock.sockets.stream.input import DEFAULT_MAX_LOAD, READ_AHEAD_LIMIT


class DataReaderTests(SynchronousTestCase):
    """A reader on a connected socket."""

    def setUp(self) -> None:
        self.connected = InMemory()
        self.reader = DataReader(self.connected.input)


class LoadTests(DataReaderTests):
    """Bytes are loaded before values are read."""

    def test_a_new_reader_has_no_bytes(self) -> None:
        """Even if the stream has received some."""
        self.connected.receive(b"abcd")
        self.assertEqual(self.reader.unconsumed_buffer_length, 0)
        self.assertRaises(OutOfBoundsError, self.reader.read_int32)

    def test_a_load_returns_its_number_of_bytes(self) -> None:
        """They follow those already loaded."""
        self.connected.receive(b"\0\0\0\5Hello")
        self.assertEqual(self.successResultOf(self.reader.load(4)), 4)
        self.assertEqual(self.successResultOf(self.reader.load(5)), 5)
        self.assertEqual(self.reader.unconsumed_buffer_length, 9)
        self.assertEqual(self.reader.read_string(self.reader.read_uint32()), "Hello")

    def test_a_load_waits_for_all_requested_bytes(self) -> None:
        """The samples rely on it."""
        load = self.reader.load(4)
        self.connected.receive(b"abc")
        self.assertNoResult(load)
        self.connected.receive(b"d")
        self.assertEqual(self.successResultOf(load), 4)

    def test_a_load_that_waits_keeps_no_bytes_that_were_read(self) -> None:
        """A connection that is idle after a large message needs no memory for it."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.connected.receive(bytes(1 << 20))
        self.successResultOf(self.reader.load(1 << 20))
        for _ in range(1 << 17):
            self.reader.read_uint64()
        before = tracemalloc.get_traced_memory()[0]
        self.assertNoResult(self.reader.load(4))
        self.assertGreater(before - tracemalloc.get_traced_memory()[0], 1 << 19)

    def test_at_the_end_of_the_stream_a_load_returns_fewer_bytes(self) -> None:
        """And then 0; no error."""
        load = self.reader.load(4)
        self.connected.receive(b"ab")
        self.connected.end()
        self.assertEqual(self.successResultOf(load), 2)
        self.assertEqual(self.successResultOf(self.reader.load(4)), 0)
        self.assertEqual(self.reader.read_bytes(2), b"ab")

    def test_a_partial_load_returns_the_received_bytes(self) -> None:
        """As soon as any have arrived."""
        self.reader.input_stream_options = InputStreamOptions.PARTIAL
        load = self.reader.load(256)
        self.connected.receive(b"abc")
        self.assertEqual(self.successResultOf(load), 3)

    def test_reading_ahead_loads_all_received_bytes(self) -> None:
        """Even more than were requested."""
        self.reader.input_stream_options = InputStreamOptions.READ_AHEAD
        self.connected.receive(b"abcdef")
        self.assertEqual(self.successResultOf(self.reader.load(4)), 6)
        self.reader.input_stream_options |= InputStreamOptions.PARTIAL
        self.connected.receive(b"gh")
        self.assertEqual(self.successResultOf(self.reader.load(4)), 2)

    def test_a_load_of_0_bytes_fires_at_once(self) -> None:
        """With any options."""
        for options in InputStreamOptions:
            self.reader.input_stream_options = options
            self.assertEqual(self.successResultOf(self.reader.load(0)), 0, options)

    def test_a_load_above_the_read_ahead_limit_loads_all(self) -> None:
        """Up to the largest load; a larger one raises at the call."""
        load = self.reader.load(2 * READ_AHEAD_LIMIT)
        self.connected.receive(bytes(READ_AHEAD_LIMIT), bytes(READ_AHEAD_LIMIT))
        self.assertEqual(self.successResultOf(load), 2 * READ_AHEAD_LIMIT)
        self.assertRaises(ValueError, self.reader.load, DEFAULT_MAX_LOAD + 1)
        self.assertRaises(ValueError, self.reader.load, -1)

    def test_a_reset_fails_a_load_with_its_status(self) -> None:
        """It is not reported as the end of the stream."""
        load = self.reader.load(4)
        self.connected.reset()
        self.failureResultOf(load, BrokenError)

    def test_a_cancelled_load_takes_nothing(self) -> None:
        """The next load gets the received bytes."""
        load = self.reader.load(4)
        self.connected.receive(b"abc")
        load.cancel()
        self.failureResultOf(load, CancelledError)
        again = self.reader.load(4)
        self.connected.receive(b"d")
        self.assertEqual(self.successResultOf(again), 4)
        self.assertEqual(self.reader.read_bytes(4), b"abcd")

    def test_a_load_that_takes_too_long_fails(self) -> None:
        """Its status is that of a timeout."""
        load = self.reader.load(4, timeout=3)
        self.connected.clock.advance(3)
        error = self.failureResultOf(load, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_a_second_load_fails_while_one_is_pending(self) -> None:
        """The first one continues."""
        load = self.reader.load(2)
        error = self.failureResultOf(self.reader.load(1), BusyError).value
        self.assertEqual(error.hresult, 0x800710DD)
        self.connected.receive(b"ab")
        self.assertEqual(self.successResultOf(load), 2)


class OwnershipTests(DataReaderTests):
    """The reader closes its stream, unless the stream was detached."""

    def test_a_reader_of_a_buffer_cannot_load(self) -> None:
        """It has the bytes of the buffer, in the default format."""
        buffer = bytearray(b"\0\1")
        reader = DataReader.from_buffer(buffer)
        buffer[:] = b"xx"
        self.assertIs(reader.byte_order, ByteOrder.BIG_ENDIAN)
        self.assertEqual(reader.read_uint16(), 1)
        error = self.failureResultOf(reader.load(1), LocalProtocolError).value
        self.assertEqual(error.hresult, 0x8000000E)
        self.assertRaises(LocalProtocolError, reader.detach_stream)

    def test_none_is_refused_as_stream_and_as_buffer(self) -> None:
        """Both are errors of the caller."""
        self.assertRaises(ValueError, DataReader, None)
        self.assertRaises(TypeError, DataReader.from_buffer, None)

    def test_closing_the_reader_closes_the_stream(self) -> None:
        """Unless it was detached; loaded bytes are dropped."""
        self.connected.receive(b"ab")
        self.successResultOf(self.reader.load(2))
        self.successResultOf(self.reader.close())
        self.failureResultOf(self.connected.input.receive_some(), ClosedError)
        self.successResultOf(self.reader.close())

    def test_every_call_on_a_closed_reader_fails(self) -> None:
        """The HRESULT is that of a closed object."""
        self.reader.close()
        error = self.failureResultOf(self.reader.load(1), ClosedError).value
        self.assertEqual(error.hresult, 0x80000013)
        for method in (self.reader.read_byte, self.reader.read_double, self.reader.detach_buffer):
            self.assertRaises(ClosedError, method)
        self.assertRaises(ClosedError, self.reader.read_bytes, 0)
        for form in ("HI", "0s", ""):
            with self.assertRaises(ClosedError, msg=f"{form=}"):
                self.reader.read_struct(form)
        self.assertRaises(ClosedError, self.reader.detach_stream)
        self.assertRaises(ClosedError, getattr, self.reader, "unconsumed_buffer_length")

    def test_closing_fails_a_pending_load(self) -> None:
        """It does not stay pending."""
        load = self.reader.load(1)
        self.reader.close()
        self.failureResultOf(load, ClosedError)

    def test_a_detached_stream_stays_open(self) -> None:
        """Loaded bytes stay in the reader."""
        self.connected.receive(b"abcd")
        self.successResultOf(self.reader.load(2))
        self.assertIs(self.reader.detach_stream(), self.connected.input)
        self.assertEqual(self.reader.read_bytes(2), b"ab")
        self.failureResultOf(self.reader.load(1), LocalProtocolError)
        self.reader.close()
        self.assertEqual(self.successResultOf(self.connected.input.receive_some()), b"cd")

    def test_a_stream_cannot_be_detached_during_a_load(self) -> None:
        """The load continues."""
        load = self.reader.load(1)
        self.assertRaises(BusyError, self.reader.detach_stream)
        self.connected.receive(b"a")
        self.assertEqual(self.successResultOf(load), 1)

    def test_detach_buffer_returns_the_unread_bytes(self) -> None:
        """As the datagram sample takes a whole datagram."""
        reader = DataReader.from_buffer(b"abc")
        reader.read_byte()
        self.assertEqual(reader.detach_buffer(), b"bc")
        self.assertEqual(reader.unconsumed_buffer_length, 0)

    def test_async_with_closes_the_reader(self) -> None:
        """And its stream."""

        async def block() -> None:
            async with self.reader:
                pass

        self.successResultOf(Deferred.fromCoroutine(block()))
        self.failureResultOf(self.reader.load(1), ClosedError)
