"""A data reader loads from a stream what its values are read from."""

from __future__ import annotations

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
    """What every test here has: a reader on a connected socket."""

    def setUp(self) -> None:
        self.connected = InMemory()
        self.reader = DataReader(self.connected.input)


class LoadTests(DataReaderTests):
    """Bytes are brought before values are read."""

    def test_nothing_is_loaded_at_first(self) -> None:
        """Whatever the stream has."""
        self.connected.receive(b"abcd")
        self.assertEqual(self.reader.unconsumed_buffer_length, 0)
        self.assertRaises(OutOfBoundsError, self.reader.read_int32)

    def test_a_load_tells_how_much_it_brought(self) -> None:
        """Behind what was there."""
        self.connected.receive(b"\0\0\0\5Hello")
        self.assertEqual(self.successResultOf(self.reader.load(4)), 4)
        self.assertEqual(self.successResultOf(self.reader.load(5)), 5)
        self.assertEqual(self.reader.unconsumed_buffer_length, 9)
        self.assertEqual(self.reader.read_string(self.reader.read_uint32()), "Hello")

    def test_a_load_waits_for_all(self) -> None:
        """As the samples count on."""
        load = self.reader.load(4)
        self.connected.receive(b"abc")
        self.assertNoResult(load)
        self.connected.receive(b"d")
        self.assertEqual(self.successResultOf(load), 4)

    def test_the_end_of_the_stream_is_a_short_count(self) -> None:
        """And then 0; no error."""
        load = self.reader.load(4)
        self.connected.receive(b"ab")
        self.connected.end()
        self.assertEqual(self.successResultOf(load), 2)
        self.assertEqual(self.successResultOf(self.reader.load(4)), 0)
        self.assertEqual(self.reader.read_bytes(2), b"ab")

    def test_a_partial_load_brings_what_there_is(self) -> None:
        """As soon as there is anything."""
        self.reader.input_stream_options = InputStreamOptions.PARTIAL
        load = self.reader.load(256)
        self.connected.receive(b"abc")
        self.assertEqual(self.successResultOf(load), 3)

    def test_reading_ahead_brings_all_there_is(self) -> None:
        """More than was asked for."""
        self.reader.input_stream_options = InputStreamOptions.READ_AHEAD
        self.connected.receive(b"abcdef")
        self.assertEqual(self.successResultOf(self.reader.load(4)), 6)
        self.reader.input_stream_options |= InputStreamOptions.PARTIAL
        self.connected.receive(b"gh")
        self.assertEqual(self.successResultOf(self.reader.load(4)), 2)

    def test_a_load_of_nothing_is_done(self) -> None:
        """At once, with whatever options."""
        for options in InputStreamOptions:
            self.reader.input_stream_options = options
            self.assertEqual(self.successResultOf(self.reader.load(0)), 0)

    def test_a_load_above_the_read_ahead_is_met_in_full(self) -> None:
        """Up to the largest load; more is refused at once."""
        load = self.reader.load(2 * READ_AHEAD_LIMIT)
        self.connected.receive(bytes(READ_AHEAD_LIMIT), bytes(READ_AHEAD_LIMIT))
        self.assertEqual(self.successResultOf(load), 2 * READ_AHEAD_LIMIT)
        self.assertRaises(ValueError, self.reader.load, DEFAULT_MAX_LOAD + 1)
        self.assertRaises(ValueError, self.reader.load, -1)

    def test_a_reset_is_told_with_its_status(self) -> None:
        """Not as a short count."""
        load = self.reader.load(4)
        self.connected.reset()
        self.failureResultOf(load, BrokenError)

    def test_a_cancelled_load_takes_nothing(self) -> None:
        """What came is loaded by the next."""
        load = self.reader.load(4)
        self.connected.receive(b"abc")
        load.cancel()
        self.failureResultOf(load, CancelledError)
        again = self.reader.load(4)
        self.connected.receive(b"d")
        self.assertEqual(self.successResultOf(again), 4)
        self.assertEqual(self.reader.read_bytes(4), b"abcd")

    def test_a_load_takes_no_longer_than_it_may(self) -> None:
        """Its status says so."""
        load = self.reader.load(4, timeout=3)
        self.connected.clock.advance(3)
        error = self.failureResultOf(load, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_a_second_load_is_refused(self) -> None:
        """The first goes on."""
        load = self.reader.load(2)
        error = self.failureResultOf(self.reader.load(1), BusyError).value
        self.assertEqual(error.hresult, 0x800710DD)
        self.connected.receive(b"ab")
        self.assertEqual(self.successResultOf(load), 2)


class OwnershipTests(DataReaderTests):
    """The stream belongs to the reader, until it is given back."""

    def test_a_reader_of_a_buffer_has_all_it_will_have(self) -> None:
        """In the default form; nothing can be loaded."""
        buffer = bytearray(b"\0\1")
        reader = DataReader.from_buffer(buffer)
        buffer[:] = b"xx"
        self.assertIs(reader.byte_order, ByteOrder.BIG_ENDIAN)
        self.assertEqual(reader.read_uint16(), 1)
        error = self.failureResultOf(reader.load(1), LocalProtocolError).value
        self.assertEqual(error.hresult, 0x8000000E)
        self.assertRaises(LocalProtocolError, reader.detach_stream)

    def test_nothing_is_no_stream_and_no_buffer(self) -> None:
        """Both are the caller's mistake."""
        self.assertRaises(ValueError, DataReader, None)
        self.assertRaises(TypeError, DataReader.from_buffer, None)

    def test_closing_closes_the_stream(self) -> None:
        """Unless it was detached; what was loaded is gone."""
        self.connected.receive(b"ab")
        self.successResultOf(self.reader.load(2))
        self.successResultOf(self.reader.close())
        self.failureResultOf(self.connected.input.receive_some(), ClosedError)
        self.successResultOf(self.reader.close())

    def test_after_closing_nothing_works(self) -> None:
        """The HRESULT is that of a closed object."""
        self.reader.close()
        error = self.failureResultOf(self.reader.load(1), ClosedError).value
        self.assertEqual(error.hresult, 0x80000013)
        for method in (self.reader.read_byte, self.reader.read_double, self.reader.detach_buffer):
            self.assertRaises(ClosedError, method)
        self.assertRaises(ClosedError, self.reader.detach_stream)
        self.assertRaises(ClosedError, getattr, self.reader, "unconsumed_buffer_length")

    def test_closing_ends_a_pending_load(self) -> None:
        """It does not hang."""
        load = self.reader.load(1)
        self.reader.close()
        self.failureResultOf(load, ClosedError)

    def test_a_detached_stream_stays_open(self) -> None:
        """What was loaded stays with the reader."""
        self.connected.receive(b"abcd")
        self.successResultOf(self.reader.load(2))
        self.assertIs(self.reader.detach_stream(), self.connected.input)
        self.assertEqual(self.reader.read_bytes(2), b"ab")
        self.failureResultOf(self.reader.load(1), LocalProtocolError)
        self.reader.close()
        self.assertEqual(self.successResultOf(self.connected.input.receive_some()), b"cd")

    def test_a_stream_is_not_detached_under_a_load(self) -> None:
        """Which goes on."""
        load = self.reader.load(1)
        self.assertRaises(BusyError, self.reader.detach_stream)
        self.connected.receive(b"a")
        self.assertEqual(self.successResultOf(load), 1)

    def test_a_detached_buffer_is_what_was_not_read(self) -> None:
        """As the datagram sample takes a whole datagram."""
        reader = DataReader.from_buffer(b"abc")
        reader.read_byte()
        self.assertEqual(reader.detach_buffer(), b"bc")
        self.assertEqual(reader.unconsumed_buffer_length, 0)

    def test_it_is_closed_by_a_block(self) -> None:
        """``async with``, as everything here."""

        async def block() -> None:
            async with self.reader:
                pass

        self.successResultOf(Deferred.fromCoroutine(block()))
        self.failureResultOf(self.reader.load(1), ClosedError)
