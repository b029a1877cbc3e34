"""A data writer stores onto a stream what was written to it."""

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
    """An output that does not end by itself."""

    closes = 0

    def send_all(self, data: Buffer) -> Deferred[int]:
        return succeed(len(data))

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        return succeed(True)

    def close(self) -> Deferred[None]:
        self.closes += 1
        return fail(OperationNotSupported("there is no such half"))


class DataWriterTests(SynchronousTestCase):
    """What every test here has: a writer on a connected socket."""

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
    """What was written is sent when it is stored."""

    def test_nothing_is_sent_before(self) -> None:
        """It is only collected."""
        self.writer.write_uint32(5)
        self.assertEqual(self.writer.unstored_buffer_length, 4)
        self.connected.next_turn()
        self.assertEqual(self.connected.kernel.sends, 0)

    def test_a_store_is_one_write(self) -> None:
        """Of everything; it tells how much."""
        self.writer.write_uint32(self.writer.measure_string("Hello"))
        self.writer.write_string("Hello")
        self.assertEqual(self.successResultOf(self.writer.store()), 9)
        self.assertEqual(self.connected.kernel.sends, 1)
        self.assertEqual(self.connected.receive(), b"\0\0\0\5Hello")
        self.assertEqual(self.writer.unstored_buffer_length, 0)

    def test_a_store_of_nothing_stores_nothing(self) -> None:
        """Without a call."""
        self.assertEqual(self.successResultOf(self.writer.store()), 0)
        self.assertEqual(self.connected.kernel.sends, 0)

    def test_a_store_waits_for_room(self) -> None:
        """A second one waits behind it; meanwhile the stream stays with the writer."""
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
        """As writes are, though nothing is awaited; they arrive in their order."""
        stores = []
        for number in range(300):
            self.assertFalse(self.connected.output.is_full)
            self.writer.write_uint16(number)
            stores.append(self.writer.store())
        while not all(store.called for store in stores):
            self.connected.next_turn()
        self.assertEqual([self.successResultOf(store) for store in stores], [2] * 300)
        sent = b"".join(number.to_bytes(2, "big") for number in range(300))
        self.assertEqual(self.connected.receive(), sent)

    def test_a_stream_that_takes_no_more_refuses_a_store(self) -> None:
        """What was written for it stays with the writer, which can store it later."""
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

    def test_a_store_that_is_cancelled_no_longer_holds_the_stream(self) -> None:
        """Those before it still do."""
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
        """It waits for what was stored."""
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
        """Its bytes are to be detached."""
        writer = DataWriter()
        writer.write_int16(-14)
        error = self.failureResultOf(writer.store(), LocalProtocolError).value
        self.assertEqual(error.hresult, 0x8000000E)
        self.failureResultOf(writer.flush(), LocalProtocolError)
        self.assertRaises(LocalProtocolError, writer.detach_stream)
        self.assertIs(writer.byte_order, ByteOrder.BIG_ENDIAN)
        self.assertEqual(writer.detach_buffer(), b"\xff\xf2")


class OwnershipTests(DataWriterTests):
    """The stream belongs to the writer, until it is given back."""

    def test_closing_closes_the_stream(self) -> None:
        """The peer sees the end; what was not stored is lost."""
        self.writer.write_byte(1)
        self.successResultOf(self.writer.close())
        self.assertEqual(self.connected.receive(), b"")
        self.failureResultOf(self.connected.output.write(b"x"), ClosedError)
        self.successResultOf(self.writer.close())

    def test_after_closing_nothing_works(self) -> None:
        """The HRESULT is that of a closed object."""
        self.writer.close()
        error = self.failureResultOf(self.writer.store(), ClosedError).value
        self.assertEqual(error.hresult, 0x80000013)
        self.failureResultOf(self.writer.flush(), ClosedError)
        self.assertRaises(ClosedError, self.writer.write_byte, 1)
        self.assertRaises(ClosedError, self.writer.write_string, "x")
        self.assertRaises(ClosedError, self.writer.detach_buffer)
        self.assertRaises(ClosedError, self.writer.detach_stream)

    def test_a_detached_stream_stays_open(self) -> None:
        """And is no longer the writer's."""
        self.assertIs(self.writer.detach_stream(), self.connected.output)
        self.writer.close()
        self.successResultOf(self.connected.output.send_all(b"still here"))
        self.assertEqual(self.connected.receive(), b"still here")

    def test_where_the_output_has_no_half_it_stays_with_the_socket(self) -> None:
        """As under TLS: closing the writer is no failure, and ends nothing else."""
        output = Halfless()
        self.successResultOf(DataWriter(output).close())
        self.assertEqual(output.closes, 1)

    def test_it_is_closed_by_a_block(self) -> None:
        """``async with``, as everything here."""

        async def block() -> None:
            async with self.writer:
                pass

        self.successResultOf(Deferred.fromCoroutine(block()))
        self.failureResultOf(self.writer.store(), ClosedError)
