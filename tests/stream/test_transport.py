"""A `StreamTransport` sends at once, limits its output, and reports room."""

from __future__ import annotations

import errno
import gc
import socket
import tracemalloc
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import (
    BrokenError,
    ClosedError,
    SocketError,
)
from twsock.stream.connection import Connection as StreamConnection
from twsock.stream.descriptor import queued_bytes
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.transport import HIGH_WATER


class Owner:
    """Counts the calls that it receives."""

    def __init__(self) -> None:
        self.drained = 0
        self.failures: list[BrokenError] = []
        self.ends = 0
        self.error: SocketError | None = None
        self.held_bytes = 0
        self.close_timeout = DEFAULT_CLOSE_TIMEOUT

    def drop_input(self) -> None:
        self.held_bytes = 0

    def input_ended(self) -> None:
        self.ends += 1

    def connection_ended(self, error: SocketError | None, _reason: Failure) -> None:
        self.error = error

    def output_drained(self) -> None:
        self.drained += 1

    def output_failed(self, error: BrokenError) -> None:
        self.failures.append(error)


class IdleReactor(Clock):
    """Records which descriptors wait for room to write; never calls them by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[object] = set()
        self.writers: set[object] = set()

    def addReader(self, reader: object) -> None:
        self.readers.add(reader)

    def addWriter(self, writer: object) -> None:
        self.writers.add(writer)

    def removeReader(self, reader: object) -> None:
        self.readers.discard(reader)

    def removeWriter(self, writer: object) -> None:
        self.writers.discard(writer)


class FakeProtocol:
    """Takes the call of a descriptor whose connection is lost."""

    def __init__(self) -> None:
        self.reasons: list[Failure] = []

    def connectionLost(self, reason: Failure) -> None:
        self.reasons.append(reason)


class CountingSocket(socket.socket):
    """A real socket that counts its sends, and fails if told to."""

    sends: int
    error: OSError | None

    def send(self, *args: Any) -> int:
        if self.error is not None:
            raise self.error
        self.sends += 1
        return super().send(*args)

    def sendmsg(self, *args: Any) -> int:
        if self.error is not None:
            raise self.error
        self.sends += 1
        return super().sendmsg(*args)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Connect two TCP sockets over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


class Pusher:
    """Writes one piece when it is paused, and one when it is resumed."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def pauseProducing(self) -> None:
        self.transport.write(b"first ")

    def resumeProducing(self) -> None:
        self.transport.write(b"last")

    def stopProducing(self) -> None:
        self.transport.write(b"never")


class PausedPusher:
    """Records whether it is paused."""

    is_paused = False

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False

    def stopProducing(self) -> None:
        self.is_paused = True


class KernelCase(SynchronousTestCase):
    """Makes a transport over a plain socket."""

    def setUp(self) -> None:
        here, self.peer = tcp_pair()
        self.socket = CountingSocket(fileno=here.detach())
        self.socket.sends = 0
        self.socket.error = None
        self.reactor = IdleReactor()
        self.protocol = FakeProtocol()
        self.descriptor: Any = Connection(self.socket, self.protocol, self.reactor)  # type: ignore[arg-type]
        self.descriptor.connected = 1
        self.descriptor.startReading()
        self.owner = Owner()
        self.stream = StreamConnection(self.owner, self.descriptor, self.reactor)
        self.peer.setblocking(False)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.socket.close)

    def fill(self) -> bytes:
        """Write until the kernel takes no more and the high-water mark is reached."""
        sent = b""
        while not self.stream.is_full:
            chunk = bytes([len(sent) // HIGH_WATER % 251]) * HIGH_WATER
            self.stream.write(chunk)
            self.stream.send()
            sent += chunk
        return sent

    def receive(self) -> bytes:
        """Read all bytes at the other end, and let the descriptor write between the reads."""
        received = b""
        while True:
            try:
                chunk = self.peer.recv(1 << 20)
            except BlockingIOError:
                if self.descriptor not in self.reactor.writers:
                    return received
                self.descriptor.doWrite()
                continue
            if not chunk:
                return received
            received += chunk

    def push_small(self) -> float:
        """Push 50,000 small messages; return the memory taken per byte."""
        count = 50_000
        gc.collect()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(count):
            self.stream.write(b"%5d" % number)
            self.stream.send()
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.pushed = b"".join(b"%5d" % number for number in range(count))
        return grown / len(self.pushed)

    def lost(self, reason: Failure) -> SocketError | None:
        """Lose the connection; return the error that the owner received."""
        self.stream.lost(reason)
        return self.owner.error


class PlainTests(KernelCase):
    """A `Connection` over a plain socket."""

    def test_five_writes_and_a_send_are_one_system_call(self) -> None:
        """Bytes that were written before a send leave in one piece."""
        for number in range(5):
            self.stream.write(b"message %d" % number)
        self.assertTrue(self.stream.send())
        self.assertEqual(self.socket.sends, 1)
        self.assertEqual(self.peer.recv(100), b"message 0message 1message 2message 3message 4")

    def test_bytes_that_are_sent_now_keep_their_place(self) -> None:
        """Behind bytes that were written before; all leave in one piece."""
        self.assertTrue(self.stream.send_now(b"1"))
        self.stream.write(b"2")
        self.assertTrue(self.stream.send_now(b"3"))
        self.assertEqual((self.peer.recv(100), self.socket.sends), (b"123", 2))

    def test_bytes_that_are_sent_now_wait_for_a_handshake(self) -> None:
        """As all others do, and take room until then."""
        self.stream.hold()
        self.assertFalse(self.stream.send_now(b"plaintext"))
        self.assertEqual(self.socket.sends, 0)
        self.assertEqual(self.stream.room, HIGH_WATER - len(b"plaintext"))

    def test_bytes_that_are_sent_now_are_refused_after_a_close(self) -> None:
        """With the error of a write."""
        self.stream.close()
        self.assertRaises(ClosedError, self.stream.send_now, b"late")

    def test_tcp_nodelay_is_on(self) -> None:
        """
        Without ``TCP_NODELAY`` an answer in two parts would wait 40 ms for an acknowledgement.
        """
        self.assertTrue(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_a_send_that_the_kernel_takes_whole_leaves_the_reactor_alone(self) -> None:
        """Nothing is queued, so the reactor is asked for nothing."""
        self.stream.write(b"answer")
        self.stream.send()
        self.assertEqual(self.reactor.writers, set())
        self.assertTrue(self.stream.is_flushed)

    def test_after_an_abort_by_the_application_nothing_is_sent(self) -> None:
        """
        The connection is lost in the next reactor turn; until then the kernel would still take
        bytes.
        """
        self.descriptor.abortConnection()
        self.assertEqual(self.stream.send_pieces([b"never"] * 3)[1], 0)
        self.assertEqual(self.socket.sends, 0)

    def test_bytes_written_before_an_abort_by_the_application_are_not_sent(self) -> None:
        """A protocol writes first and sends at the end of its read, after the abort."""
        self.descriptor.abortConnection()
        self.stream.write(b"never")
        self.stream.send()
        self.assertEqual(self.socket.sends, 0)

    def test_a_send_queues_behind_writes_of_the_application(self) -> None:
        """Bytes of an earlier ``transport.write`` leave first."""
        self.stream.write(b"1")
        self.stream.send()
        self.descriptor.write(b"2")
        self.stream.write(b"3")
        self.assertFalse(self.stream.send())
        self.descriptor.write(b"4")
        self.assertEqual(self.receive(), b"1234")

    def test_bytes_that_the_kernel_refuses_arrive_later_in_order(self) -> None:
        """None is lost, none is sent twice."""
        sent = self.fill()
        self.assertFalse(self.stream.is_flushed)
        self.assertEqual(self.receive(), sent)
        self.assertTrue(self.stream.is_flushed)

    def test_a_drain_is_reported_once_when_the_queue_is_empty(self) -> None:
        """A full output reports once that it drained, when the kernel has all bytes."""
        self.fill()
        self.assertEqual(self.owner.drained, 0)
        self.receive()
        self.assertEqual(self.owner.drained, 1)
        self.assertIsNone(self.descriptor.producer)

    def test_beside_a_producer_of_the_application_the_queue_is_polled(self) -> None:
        """
        The drain is reported although the application's producer is registered with the descriptor.
        """
        self.descriptor.registerProducer(StringTransport(), True)
        self.fill()
        self.descriptor.unregisterProducer()
        self.receive()
        self.reactor.advance(1)
        self.assertEqual(self.owner.drained, 1)

    def test_each_write_takes_room(self) -> None:
        """Unsent bytes count against the high-water mark."""
        self.stream.write(b"x" * (HIGH_WATER - 1))
        self.assertFalse(self.stream.is_full)
        self.stream.write(b"x")
        self.assertTrue(self.stream.is_full)

    def test_tls_started_by_the_application_is_not_bypassed(self) -> None:
        """Once the transport does TLS, no byte is sent on the socket that was found before."""
        engine: list[bytes] = []
        self.protocol.write = engine.append  # type: ignore[attr-defined]
        self.descriptor.TLS = True
        self.stream.write(b"secret")
        self.stream.send()
        self.assertEqual(engine, [b"secret"])
        self.assertRaises(BlockingIOError, self.peer.recv, 100)

    def test_few_bytes_in_many_pieces_are_sent_as_one(self) -> None:
        """They are joined, however many pieces there are."""
        pieces = [bytes([number % 251]) for number in range(5000)]
        self.assertEqual(self.stream.send_pieces(pieces), (5000, 5000))
        self.assertEqual(self.socket.sends, 1)
        self.assertEqual(self.receive(), b"".join(pieces))

    def test_many_bytes_are_sent_in_one_call_without_joining(self) -> None:
        """Above 64 KiB the pieces are passed to one `sendmsg`."""
        pieces = [bytes([number]) * HIGH_WATER for number in range(5)]
        handed, done = self.stream.send_pieces(pieces)
        self.assertEqual((handed, done, self.socket.sends), (5, 5, 1))
        self.assertEqual(self.receive(), b"".join(pieces))

    def test_one_call_takes_at_most_1024_pieces(self) -> None:
        """Many large pieces need several calls."""
        pieces = [bytes([number % 251]) * 65 for number in range(1030)]
        self.assertEqual(self.stream.send_pieces(pieces), (1024, 1024))
        self.assertTrue(self.stream.is_flushed)

    def test_pieces_that_the_kernel_refuses_stay_with_the_owner(self) -> None:
        """The partly sent piece is queued; the others stay, and the drain is reported."""
        pieces = [bytes([number % 251]) * HIGH_WATER for number in range(1000)]
        handed, done = self.stream.send_pieces(pieces)
        self.assertEqual(handed, done + 1)
        self.assertLess(handed, 1000)
        self.assertFalse(self.stream.is_flushed)
        self.assertEqual(self.receive(), b"".join(pieces[:handed]))
        self.assertEqual(self.owner.drained, 1)
        self.assertTrue(self.stream.is_flushed)

    def test_a_full_kernel_buffer_takes_one_piece_only(self) -> None:
        """That piece is queued in the transport, so that a drain will be reported."""
        self.socket.error = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.assertEqual(self.stream.send_pieces([b"a", b"b"]), (1, 0))
        self.socket.error = None
        self.assertEqual(self.receive(), b"a")

    def test_pieces_are_sent_behind_writes_of_the_application(self) -> None:
        """Bytes in the transport's queue leave first."""
        self.descriptor.write(b"first ")
        self.assertEqual(self.stream.send_pieces([b"second ", b"third"]), (2, 0))
        self.assertEqual(self.receive(), b"first second third")
        self.assertEqual(self.owner.drained, 1)

    def test_a_failed_send_of_pieces_is_reported(self) -> None:
        """No piece was sent."""
        self.socket.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.assertEqual(self.stream.send_pieces([b"a"]), (0, 0))
        self.assertEqual(len(self.owner.failures), 1)

    def test_a_kernel_without_memory_is_tried_again_later(self) -> None:
        """ENOBUFS is no failure: the bytes wait in Twisted's queue."""
        self.socket.error = OSError(errno.ENOBUFS, "No buffer space available")
        self.stream.write(b"answer")
        self.assertFalse(self.stream.send())
        self.socket.error = None
        self.assertEqual(self.receive(), b"answer")

    def test_queued_small_messages_take_little_more_than_their_bytes(self) -> None:
        """They share objects: one each would take several times as much."""
        before = self.fill()
        self.assertLess(self.push_small(), 2)
        self.assertEqual(self.stream.unsent, queued_bytes(self.descriptor))
        self.assertGreater(self.stream.unsent, len(self.pushed))
        self.assertEqual(self.receive(), before + self.pushed)

    def test_small_messages_alone_pause_a_producer(self) -> None:
        """Twisted pauses it at 64 KiB, however small the pieces are."""
        pusher = PausedPusher()
        self.descriptor.registerProducer(pusher, True)
        self.socket.error = BlockingIOError(errno.EAGAIN, "no room")
        for _ in range(HIGH_WATER // 5 + 1):
            self.stream.write(b"small")
            self.stream.send()
        self.assertTrue(pusher.is_paused)
        self.socket.error = None
        self.receive()
        self.assertFalse(pusher.is_paused)

    def test_small_messages_pause_a_producer(self) -> None:
        """A producer that pushes through the transport itself is paused at a full queue."""
        pusher = PausedPusher()
        self.descriptor.registerProducer(pusher, True)
        sent = self.fill()
        for _ in range(10):
            self.stream.write(b"small")
            self.stream.send()
        self.assertTrue(pusher.is_paused)
        self.assertEqual(self.receive(), sent + b"small" * 10)

    def test_bytes_that_an_engine_holds_are_not_flushed(self) -> None:
        """
        The drain is reported when the engine's bytes have left, not when its handshake message has.
        """
        engine: Any = TLSMemoryBIOProtocol.__new__(TLSMemoryBIOProtocol)
        engine.transport = self.descriptor
        kept: list[bytes] = []
        engine._appSendBuffer = kept
        engine.write = kept.append
        stream = StreamConnection(self.owner, engine, self.reactor)
        stream.send_pieces([b"waits for the handshake"])
        self.descriptor.write(b"hello")
        self.reactor.advance(0)
        self.descriptor.doWrite()
        self.assertEqual((self.owner.drained, stream.is_flushed), (0, False))
        kept.clear()
        self.reactor.advance(1)
        self.assertEqual((self.owner.drained, stream.is_flushed), (1, True))


class DirectTests(KernelCase):
    """The kernel itself may move bytes to the socket."""

    def test_bytes_may_go_to_the_socket_while_nothing_is_queued(self) -> None:
        """Queued bytes come first; and none go there after an abort."""
        self.assertEqual(self.stream.direct_descriptor, self.socket.fileno())
        self.stream.write(b"x")
        self.assertIsNone(self.stream.direct_descriptor)
        self.stream.send()
        self.assertEqual(self.stream.direct_descriptor, self.socket.fileno())
        self.descriptor.write(b"own")
        self.assertIsNone(self.stream.direct_descriptor)
        self.descriptor.abortConnection()
        self.assertIsNone(self.stream.direct_descriptor)

    def test_room_is_reported_although_nothing_is_queued(self) -> None:
        """Once; then the descriptor waits no more."""
        self.stream.await_room()
        self.stream.await_room()
        self.assertIn(self.descriptor, self.reactor.writers)
        self.assertEqual(self.owner.drained, 0)
        self.descriptor.doWrite()
        self.assertEqual(self.owner.drained, 1)
        self.assertNotIn(self.descriptor, self.reactor.writers)

    def test_fin_is_sent_after_a_wait_that_was_stopped(self) -> None:
        """Twisted sends none while a producer is registered."""
        self.stream.await_room()
        self.stream.stop_awaiting_room()
        self.stream.end_output()
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(1), b"")
        self.assertEqual(self.owner.drained, 0)


class Whole:
    """A transport without half-close."""

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing is written here")


class InMemoryTests(SynchronousTestCase):
    """A `Connection` over a transport without a socket."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.clock = Clock()
        self.owner = Owner()
        self.stream = StreamConnection(self.owner, self.transport, self.clock)

    def test_a_send_is_one_write_to_the_transport(self) -> None:
        """Bytes that were written before a send reach the transport in one piece."""
        self.stream.write(b"a")
        self.stream.write(bytearray(b"b"))
        self.assertEqual(self.transport.value(), b"")
        self.stream.send()
        self.assertEqual(self.transport.value(), b"ab")

    def test_a_pause_by_the_transport_makes_the_output_full(self) -> None:
        """The output is full from `pauseProducing` to `resumeProducing`."""
        assert self.transport.producer is not None
        self.transport.producer.pauseProducing()
        self.assertTrue(self.stream.is_full)
        self.transport.producer.resumeProducing()
        self.assertFalse(self.stream.is_full)
        self.assertEqual(self.owner.drained, 1)

    def test_pieces_are_written_until_the_transport_pauses(self) -> None:
        """A transport that pauses its producer keeps the pieces that it took."""
        assert self.transport.producer is not None
        self.assertEqual(self.stream.send_pieces([b"a", b"b"]), (2, 2))
        self.transport.producer.pauseProducing()
        self.assertEqual(self.stream.send_pieces([b"x" * HIGH_WATER, b"y"]), (0, 0))
        self.assertEqual(self.stream.send_pieces([b"c"]), (1, 0))
        self.assertEqual(self.transport.value(), b"abc")

    def test_many_small_pieces_are_joined(self) -> None:
        """One write has up to 64 KiB: a TLS engine makes a record of each write."""
        writes: list[bytes] = []
        self.patch(self.transport, "write", writes.append)
        pieces = [b"x" * 1000] * 100 + [b"y" * HIGH_WATER, b"z"]
        self.assertEqual(self.stream.send_pieces(pieces), (102, 102))
        self.assertEqual(b"".join(writes), b"".join(pieces))
        self.assertEqual(list(map(len, writes)), [65_000, 35_000, HIGH_WATER, 1])
