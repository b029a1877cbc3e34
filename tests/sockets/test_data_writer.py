"""A data writer stores written values on a stream."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.stream.connected import OnKernel, shrink_buffers
from twsock import (
    BusyError,
    ByteOrder,
    ClosedError,
    DataWriter,
    LocalProtocolError,
    OperationNotSupported,
)
from twsock.wire.byte_queue import Buffer


class Halfless:
    """An output that cannot be closed alone."""

    closes = 0

    def send_all(self, data: Buffer) -> Deferred[int]:
        return succeed(len(data))

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        return succeed(True)

    def close(self) -> Deferred[None]:
        self.closes += 1
        return fail(OperationNotSupported("there is no such half"))


class DataWriterTests(SynchronousTestCase):
    """A writer on a connected socket."""

    def setUp(self) -> None:
        self.connected = OnKernel()
        self.addCleanup(self.connected.close)
        self.writer = DataWriter(self.connected.output)

    def fill(self) -> Deferred[int]:
        """Store more than the kernel has room for."""
        shrink_buffers(self.connected.kernel)
        self.writer.write_bytes(bytes(1 << 20))
        return self.writer.store()


class StoreTests(DataWriterTests):
    """A store sends the written bytes."""

    def test_written_values_are_not_sent_before_a_store(self) -> None:
        """They are only collected."""
        self.writer.write_uint32(5)
        self.assertEqual(self.writer.unstored_buffer_length, 4)
        self.connected.next_turn()
        self.assertEqual(self.connected.kernel.sends, 0)

    def test_a_store_is_one_write(self) -> None:
        """Of all written bytes; its result is their number."""
        self.writer.write_uint32(self.writer.measure_string("Hello"))
        self.writer.write_string("Hello")
        self.assertEqual(self.successResultOf(self.writer.store()), 9)
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), b"\0\0\0\5Hello")
        self.assertEqual(self.writer.unstored_buffer_length, 0)

    def test_a_store_without_bytes_sends_nothing(self) -> None:
        """Without a system call."""
        self.assertEqual(self.successResultOf(self.writer.store()), 0)
        self.assertEqual(self.connected.kernel.sends, 0)

    def test_a_store_waits_for_room(self) -> None:
        """A second store waits behind it; meanwhile the stream cannot be detached."""
        stores = [self.fill()]
        self.writer.write_byte(1)
        stores.append(self.writer.store())
        for store in stores:
            self.assertNoResult(store)
            self.assertRaises(BusyError, self.writer.detach_stream)
        self.assertEqual(self.connected.receive(), bytes(1 << 20) + b"\1")
        self.assertEqual([self.successResultOf(store) for store in stores], [1 << 20, 1])
        self.writer.detach_stream()

    def test_many_stores_in_one_turn_are_queued(self) -> None:
        """As writes are, even if not awaited; they arrive in order."""
        stores = []
        for number in range(300):
            self.assertFalse(self.connected.output.is_full, number)
            self.writer.write_uint16(number)
            stores.append(self.writer.store())
        while not all(store.called for store in stores):
            self.connected.next_turn()
        self.assertEqual([self.successResultOf(store) for store in stores], [2] * 300)
        sent = b"".join(number.to_bytes(2, "big") for number in range(300))
        self.assertEqual(self.connected.receive(), sent)

    def test_a_store_fails_when_the_stream_accepts_no_more(self) -> None:
        """The bytes stay in the writer, which can store them later."""
        store = self.fill()
        self.connected.output.max_unsent = 1
        self.writer.write_byte(1)
        second = self.writer.store()
        self.writer.write_byte(2)
        error = self.failureResultOf(self.writer.store(), BusyError).value
        self.assertEqual(error.hresult, 0x800710DD)
        self.assertEqual(self.writer.unstored_buffer_length, 1)
        self.assertEqual(self.connected.receive(), bytes(1 << 20) + b"\1")
        self.successResultOf(store)
        self.successResultOf(second)
        self.assertEqual(self.successResultOf(self.writer.store()), 1)
        self.assertEqual(self.connected.receive(), b"\2")

    def test_a_cancelled_store_does_not_prevent_detaching(self) -> None:
        """Earlier pending stores still do."""
        first = self.fill()
        self.writer.write_byte(1)
        second = self.writer.store()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertRaises(BusyError, self.writer.detach_stream)
        self.assertEqual(len(self.connected.receive()), 1 << 20)
        self.successResultOf(first)
        self.writer.detach_stream()

    def test_a_flush_does_not_store(self) -> None:
        """It waits for stored bytes."""
        self.writer.write_byte(1)
        self.assertIs(self.successResultOf(self.writer.flush()), True)
        self.assertEqual(self.writer.unstored_buffer_length, 1)
        store = self.fill()
        flush = self.writer.flush()
        self.assertNoResult(flush)
        self.connected.receive()
        self.successResultOf(store)
        self.assertIs(self.successResultOf(flush), True)

    def test_a_writer_in_memory_cannot_store(self) -> None:
        """Its bytes can be detached."""
        writer = DataWriter()
        writer.write_int16(-14)
        error = self.failureResultOf(writer.store(), LocalProtocolError).value
        self.assertEqual(error.hresult, 0x8000000E)
        self.failureResultOf(writer.flush(), LocalProtocolError)
        self.assertRaises(LocalProtocolError, writer.detach_stream)
        self.assertIs(writer.byte_order, ByteOrder.BIG_ENDIAN)
        self.assertEqual(writer.detach_buffer(), b"\xff\xf2")


class OwnershipTests(DataWriterTests):
    """The writer closes its stream, unless the stream was detached."""

    def test_closing_the_writer_closes_the_stream(self) -> None:
        """The peer gets the end of the stream; bytes that were not stored are lost."""
        self.writer.write_byte(1)
        self.successResultOf(self.writer.close())
        self.assertEqual(self.connected.receive(), b"")
        self.failureResultOf(self.connected.output.write(b"x"), ClosedError)
        self.successResultOf(self.writer.close())

    def test_every_call_on_a_closed_writer_fails(self) -> None:
        """The HRESULT is that of a closed object."""
        self.writer.close()
        error = self.failureResultOf(self.writer.store(), ClosedError).value
        self.assertEqual(error.hresult, 0x80000013)
        self.failureResultOf(self.writer.flush(), ClosedError)
        self.assertRaises(ClosedError, self.writer.write_byte, 1)
        self.assertRaises(ClosedError, self.writer.write_string, "x")
        self.assertRaises(ClosedError, self.writer.write_struct, "H", 1)
        self.assertRaises(ClosedError, self.writer.detach_buffer)
        self.assertRaises(ClosedError, self.writer.detach_stream)

    def test_a_detached_stream_stays_open(self) -> None:
        """The writer has no stream then."""
        self.assertIs(self.writer.detach_stream(), self.connected.output)
        self.writer.close()
        self.successResultOf(self.connected.output.send_all(b"still here"))
        self.assertEqual(self.connected.receive(), b"still here")

    def test_an_output_that_cannot_be_closed_alone_stays_open(self) -> None:
        """As under TLS: closing the writer does not fail, and closes nothing else."""
        output = Halfless()
        self.successResultOf(DataWriter(output).close())
        self.assertEqual(output.closes, 1)

    def test_async_with_closes_the_writer(self) -> None:
        """And its stream."""

        async def block() -> None:
            async with self.writer:
                pass

        self.successResultOf(Deferred.fromCoroutine(block()))
        self.failureResultOf(self.writer.store(), ClosedError)
