"""A `StreamConnection` sends at once, limits its output, and ends in order."""

from __future__ import annotations

import errno
import gc
import os
import select
import socket
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.tls.peer import SERVER, Peer, twisted_options
from twsock.errors import (
    BrokenError,
    ClosedError,
    OperationNotSupported,
    SocketError,
    SocketErrorStatus,
)
from twsock.stream.connection import Connection as StreamConnection
from twsock.stream.descriptor import queued_bytes
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.transport import HIGH_WATER
from twsock.tls.certificates import Certificate
from twsock.tls.engine import make_engine
from twsock.tls.server import ServerOptions, ServerTls


class Owner:
    """Counts the calls that it receives."""

    def __init__(self) -> None:
        self.drained = 0
        self.failures: list[BrokenError] = []
        self.ends = 0
        self.fins = 0
        self.held_bytes = 0

    def drop_input(self) -> None:
        self.held_bytes = 0

    def input_ended(self) -> None:
        self.ends += 1

    def fin_sent(self) -> None:
        self.fins += 1

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


class PlainTests(KernelCase):
    """A `StreamConnection` over a plain socket."""

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

    def test_five_writes_and_a_send_are_one_system_call(self) -> None:
        """Bytes that were written before a send leave in one piece."""
        for number in range(5):
            self.stream.write(b"message %d" % number)
        self.assertTrue(self.stream.send())
        self.assertEqual(self.socket.sends, 1)
        self.assertEqual(self.peer.recv(100), b"message 0message 1message 2message 3message 4")

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

    def break_sending(self) -> BrokenError:
        """Let a send meet the peer's reset; return the error that the owner received."""
        self.socket.error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        self.stream.write(b"answer")
        self.stream.send()
        (error,) = self.owner.failures
        return error

    def test_the_error_of_a_failed_send_is_the_reason_of_the_end(self) -> None:
        """It is reported even if Twisted sees a clean end later."""
        self.assertIs(self.break_sending().status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.stream.abort()
        self.reactor.advance(0)
        error = self.stream.lost(self.protocol.reasons[0])
        assert error is not None
        self.assertIsInstance(error, BrokenError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    def test_after_a_failed_send_the_input_can_be_read(self) -> None:
        """Bytes that arrived before the reset are read; no more is written."""
        self.break_sending()
        self.assertFalse(self.stream.is_open)
        self.assertRaises(BrokenError, self.stream.write, b"more")
        self.assertIn(self.descriptor, self.reactor.readers)
        self.assertEqual(self.protocol.reasons, [])

    def test_after_a_failed_send_the_end_of_the_input_is_clean(self) -> None:
        """
        The kernel reports its error once, so the input ends as if the peer had closed in order.
        """
        self.break_sending()
        self.stream.peer_ended()
        self.reactor.advance(0)
        self.assertEqual((len(self.protocol.reasons), self.owner.ends), (1, 0))

    def test_a_close_after_a_failed_send_aborts(self) -> None:
        """The connection is gone, so there is no FIN to wait for."""
        self.break_sending()
        self.stream.close()
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_a_callback_of_the_end_may_cancel_another_wait_for_it(self) -> None:
        """The other waits still end."""
        first, second, third = (self.stream.when_lost() for _ in range(3))
        first.addCallback(lambda _: second.cancel())
        second.addErrback(lambda _: None)
        self.stream.lost(Failure(ConnectionDone()))
        self.successResultOf(third)

    def test_each_end_frees_unsent_bytes(self) -> None:
        """A transport that is still referenced holds none of them."""
        ends: dict[str, Callable[[], object]] = {
            "lost": lambda: self.stream.lost(Failure(ConnectionLost())),
            "aborted": lambda: self.stream.abort(),
            "broken": lambda: self.stream.output_broke(OSError(errno.EPIPE, "Broken pipe")),
        }
        for name, end in ends.items():
            self.setUp()
            data = bytes(5000)
            references = sys.getrefcount(data)
            self.stream.write(data)
            end()
            self.assertEqual(sys.getrefcount(data), references, name)

    def test_the_deadline_of_a_close_is_checked_by_the_call(self) -> None:
        """A wrong value raises an error at once."""
        with self.assertRaises(ValueError):
            StreamConnection(self.owner, self.descriptor, self.reactor, close_timeout=-1)

    def test_writing_after_an_abort_raises_closed_error(self) -> None:
        """Also after the loss: this end closed, and nothing broke."""
        self.stream.abort()
        self.assertRaises(ClosedError, self.stream.write, b"x")
        self.stream.lost(Failure(ConnectionAborted()))
        self.assertRaises(ClosedError, self.stream.write, b"x")

    def test_at_the_deadline_a_close_sends_no_reset(self) -> None:
        """The socket is closed, and the kernel delivers the bytes that it has to a slow peer."""
        data = bytes(range(256)) * 1000
        self.stream.write(data)
        self.stream.close()
        self.descriptor.doWrite()
        # Unread input does not turn the close into a reset.
        self.peer.sendall(b"unread")
        select.select([self.socket], [], [], 10)
        self.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)
        error = self.stream.lost(self.protocol.reasons[0])
        self.assertIsInstance(error, ClosedError)
        self.peer.settimeout(10)
        received = b""
        while chunk := self.peer.recv(1 << 20):
            received += chunk
        self.assertEqual(received, data)

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

    def test_ending_the_output_leaves_the_input_open(self) -> None:
        """FIN is sent; the peer's bytes are still read, and writing raises an error."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(10), b"")
        self.assertIn(self.descriptor, self.reactor.readers)
        self.assertRaises(ClosedError, self.stream.write, b"late")
        self.assertEqual(self.protocol.reasons, [])

    def test_with_both_halves_ended_the_connection_is_lost(self) -> None:
        """In either order."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.stream.peer_ended()
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_ending_the_output_after_the_peers_fin_ends_the_connection(self) -> None:
        """Neither side can send any more."""
        self.stream.peer_ended()
        self.stream.end_output()
        self.assertIsInstance(self.descriptor.doWrite(), ConnectionDone)

    def test_a_close_after_the_output_ended_waits_for_the_peer(self) -> None:
        """It waits for the peer's FIN or the deadline, and sends no second FIN."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.stream.close()
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_a_kernel_without_memory_is_tried_again_later(self) -> None:
        """ENOBUFS is no failure: the bytes wait in Twisted's queue."""
        self.socket.error = OSError(errno.ENOBUFS, "No buffer space available")
        self.stream.write(b"answer")
        self.assertFalse(self.stream.send())
        self.socket.error = None
        self.assertEqual(self.receive(), b"answer")

    def test_a_close_sends_fin_and_waits_for_the_peers_fin(self) -> None:
        """The connection ends when the peer has ended too."""
        self.stream.write(b"last")
        closed = self.stream.close()
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(100), b"last")
        self.assertEqual(self.peer.recv(100), b"")
        self.assertNoResult(closed)
        self.stream.peer_ended()
        self.assertIsNone(self.stream.lost(self.protocol.reasons[0]))
        self.successResultOf(closed)

    def test_a_close_sends_the_queue_first(self) -> None:
        """FIN follows the last queued byte."""
        sent = self.fill()
        self.stream.close()
        received = self.receive()
        self.descriptor.doWrite()
        self.assertEqual(received + self.receive(), sent)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_close_without_an_answer_aborts_at_its_deadline(self) -> None:
        """A peer that neither reads nor ends is aborted, and the error says so."""
        self.fill()
        closed = self.stream.close()
        self.reactor.advance(4.9)
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(0.2)
        self.reactor.advance(0)
        reason = self.protocol.reasons[0]
        self.assertTrue(reason.check(ConnectionAborted))
        self.assertIn("5 s", str(self.stream.lost(reason)))
        self.successResultOf(closed)

    def test_closing_twice_is_one_close(self) -> None:
        """The second close changes nothing, and both Deferreds fire at the end."""
        first, second = self.stream.close(), self.stream.close()
        self.stream.lost(Failure(ConnectionDone()))
        self.successResultOf(first)
        self.successResultOf(second)

    def test_a_close_resumes_reading(self) -> None:
        """A paused connection is read from again, to see the peer's FIN."""
        self.stream.pause_reading()
        self.assertNotIn(self.descriptor, self.reactor.readers)
        self.stream.close()
        self.assertIn(self.descriptor, self.reactor.readers)

    def test_the_first_of_several_errors_is_the_reason(self) -> None:
        """Later errors are mostly consequences of the first."""
        self.stream.note_error(BrokenError("the first"))
        self.stream.note_error(BrokenError("the second"))
        self.stream.abort(BrokenError("the third"))
        error = self.stream.lost(Failure(ConnectionAborted()))
        self.assertIsInstance(error, BrokenError)
        self.assertEqual(str(error), "the first")

    def test_a_close_after_the_peers_fin_does_not_resume_reading(self) -> None:
        """The reactor would else report that FIN a second time."""
        self.fill()
        self.stream.pause_reading()
        self.stream.peer_ended()
        self.stream.resume_reading()
        self.assertFalse(self.stream.is_reading)
        self.stream.close()  # It waits for what is queued.
        self.assertFalse(self.stream.is_reading)
        self.assertNotIn(self.descriptor, self.reactor.readers)

    def test_cancelling_the_wait_does_not_cancel_the_close(self) -> None:
        """The connection ends all the same."""
        closed = self.stream.close()
        closed.cancel()
        self.failureResultOf(closed)
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(1), b"")

    def test_an_abort_drops_the_queue(self) -> None:
        """The connection ends in the next turn, without sending the rest."""
        self.fill()
        self.stream.abort()
        self.reactor.advance(0)
        self.assertTrue(self.protocol.reasons[0].check(ConnectionAborted))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_writing_after_close_is_refused(self) -> None:
        """The call raises an error, and no byte is dropped in silence."""
        self.stream.close()
        self.assertRaises(ClosedError, self.stream.write, b"late")

    def test_writing_to_a_broken_connection_is_refused(self) -> None:
        """The error names the reason of the loss."""
        self.stream.lost(Failure(ConnectionLost()))
        error = self.assertRaises(BrokenError, self.stream.write, b"late")
        self.assertIsNotNone(error.__cause__)

    def test_a_lost_connection_leaves_no_delayed_call(self) -> None:
        """Also after a close with a deadline."""
        self.fill()
        self.stream.close()
        self.stream.lost(Failure(ConnectionLost()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_calls_to_a_lost_connection_do_nothing(self) -> None:
        """It takes bytes without an effect, and stays lost."""
        self.descriptor.connectionLost(Failure(ConnectionLost()))
        self.stream.lost(self.protocol.reasons[0])
        self.stream.send_pieces([b"too late"])
        self.assertFalse(self.stream.has_hung_up)
        self.assertFalse(self.stream.has_unread_input)
        self.successResultOf(self.stream.when_lost())

    def test_the_receive_size_doubles_up_to_128000_bytes(self) -> None:
        """It grows while reads come back full."""
        for _ in range(10):
            self.stream.note_read(self.descriptor.bufferSize)
        self.assertEqual(self.descriptor.bufferSize, 128_000)

    def test_unread_input_is_noticed_and_stays(self) -> None:
        """The look at the kernel's buffer takes no bytes from it."""
        self.assertFalse(self.stream.has_unread_input)
        self.peer.send(b"x")
        self.assertTrue(self.stream.has_unread_input)
        self.assertEqual(self.socket.recv(10), b"x")

    def test_held_bytes_leave_in_their_order(self) -> None:
        """
        Bytes of a producer, bytes written meanwhile, then bytes that the resumed producer writes.
        """
        self.descriptor.registerProducer(Pusher(self.descriptor), True)
        lower = self.stream.hold()
        self.assertTrue(self.stream.is_held)
        self.stream.write(b"second ")
        engine: Any = StringTransport()
        engine.transport = lower
        self.stream.rebind(engine)
        self.assertEqual(engine.value(), b"first second last")
        self.assertRaises(BlockingIOError, self.peer.recv, 1)

    def test_after_a_handshake_a_failed_send_is_the_reason_of_the_end(self) -> None:
        """The connection ends with the error that the engine's own send met."""
        lower = self.stream.hold()
        engine: Any = StringTransport()
        engine.transport = lower
        self.stream.rebind(engine)
        self.socket.error = OSError(errno.EHOSTUNREACH, "No route to host")
        lower.write(b"answer")
        error = self.stream.lost(Failure(ConnectionLost()))
        assert error is not None
        self.assertIs(error.status, SocketErrorStatus.UNREACHABLE_HOST)

    def test_records_that_the_engine_queues_by_itself_count(self) -> None:
        """A TLS engine answers its peer without a call of the application."""
        lower = self.stream.hold()
        engine: Any = StringTransport()
        engine.transport = lower
        self.stream.rebind(engine)
        self.assertTrue(self.stream.send())
        lower.write(bytes(1 << 24))
        self.assertFalse(self.stream.send())
        self.assertTrue(self.stream.is_full)

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

    def test_queued_small_messages_take_little_more_than_their_bytes(self) -> None:
        """They share objects: one each would take several times as much."""
        before = self.fill()
        self.assertLess(self.push_small(), 2)
        self.assertEqual(self.stream.unsent, queued_bytes(self.descriptor))
        self.assertGreater(self.stream.unsent, len(self.pushed))
        self.assertEqual(self.receive(), before + self.pushed)

    def test_small_messages_before_a_handshake_take_little_more_than_their_bytes(self) -> None:
        """Messages that wait for a handshake are joined as in a full queue."""
        self.stream.hold()
        self.assertLess(self.push_small(), 2)
        self.assertEqual(self.stream.unsent, len(self.pushed))
        engine: Any = StringTransport()
        engine.transport = self.descriptor
        self.stream.rebind(engine)
        self.assertEqual(engine.value(), self.pushed)

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


@implementer(IHalfCloseableProtocol)
class Receiver(Protocol):
    """Records the calls of an engine, and passes on the end of the input."""

    stream: StreamConnection
    reason: Failure | None = None

    def readConnectionLost(self) -> None:
        self.stream.peer_ended()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.reason = reason


class AboveTlsTests(KernelCase):
    """A `StreamConnection` over TLS: the peer's close_notify ends the input, not TCP's FIN."""

    def setUp(self) -> None:
        super().setUp()
        certificate = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
        creator, _ = ServerTls(ServerOptions([certificate])).begin()
        self.receiver = Receiver()
        self.engine = make_engine(creator, False, self.receiver, self.reactor)
        self.client = Peer()
        lower = self.stream.hold()
        lower.protocol = self.engine
        self.engine.makeConnection(lower)

    def begin(self) -> None:
        """Receive the first message of the handshake, and answer it."""
        self.engine.dataReceived(self.client.hello())

    def secure(self) -> None:
        """Do the handshake, and replace the transport below."""
        self.begin()
        self.engine.dataReceived(self.client.take(self.peer.recv(1 << 16)))
        self.receiver.stream = self.stream
        self.stream.rebind(self.engine)

    def fail_sending(self, error: int) -> None:
        """Let the kernel refuse all further sends."""
        self.socket.error = OSError(error, os.strerror(error))

    def lose(self, reason: Exception) -> SocketError | None:
        """End TCP; return the error that the transport reports."""
        self.engine.connectionLost(Failure(reason))
        assert self.receiver.reason is not None
        return self.stream.lost(self.receiver.reason)

    def end_input(self) -> None:
        """Deliver the peer's close_notify."""
        self.engine.dataReceived(self.client.end())

    def test_a_failed_write_ends_the_output_and_not_the_input(self) -> None:
        """The peer's close_notify may still wait in the kernel; the end is then in order."""
        self.secure()
        self.fail_sending(errno.EPIPE)
        self.stream.write(b"answer")
        self.stream.send()
        self.assertEqual(len(self.owner.failures), 1)
        self.assertFalse(self.stream.is_open)
        self.end_input()
        self.assertEqual(self.owner.ends, 1)

    def test_a_failed_send_of_close_notify_is_the_reason_of_the_end(self) -> None:
        """The closing owner gets no call at the failure; the error keeps no frame."""
        self.secure()
        self.fail_sending(errno.ECONNRESET)
        self.stream.close()
        self.assertEqual(self.owner.failures, [])
        error = self.lose(ConnectionDone())
        assert isinstance(error, BrokenError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        assert error.__cause__ is not None
        self.assertIsNone(error.__cause__.__traceback__)

    def test_a_failed_send_of_close_notify_after_the_peers_is_an_end_in_order(self) -> None:
        """Both ends have closed."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.ECONNRESET)
        self.stream.close()
        self.assertIsNone(self.lose(ConnectionLost()))

    def test_a_queued_close_notify_after_the_peers_is_an_end_in_order(self) -> None:
        """All data is with the kernel."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.EAGAIN)
        self.stream.close()
        self.assertGreater(queued_bytes(self.descriptor), 0)
        self.assertIsNone(self.lose(ConnectionLost()))

    def test_queued_bytes_at_the_loss_are_an_error_after_the_peers_end(self) -> None:
        """Part of the answer is not with the kernel."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.EAGAIN)
        self.stream.write(b"answer")
        self.stream.send()
        self.assertIsInstance(self.lose(ConnectionLost()), BrokenError)

    def test_unsent_bytes_at_the_loss_are_an_error_after_the_peers_end(self) -> None:
        """They wait for the end of the call that wrote them."""
        self.secure()
        self.end_input()
        self.stream.write(b"answer")
        self.assertIsInstance(self.lose(ConnectionLost()), BrokenError)

    def test_a_failed_send_in_the_handshake_leaves_the_input_readable(self) -> None:
        """The peer's alert may still wait in the kernel."""
        self.begin()
        self.fail_sending(errno.EPIPE)
        self.engine.dataReceived(self.client.take(self.peer.recv(1 << 16)))
        self.assertEqual((self.owner.failures, self.stream.is_open), ([], True))
        error = self.stream.lost(Failure(ConnectionDone()))
        self.assertIsInstance(error, BrokenError)

    def test_a_close_after_the_output_ended_sends_fin(self) -> None:
        """Ending the output sends close_notify only."""
        self.secure()
        self.stream.end_output()
        self.client.take(self.peer.recv(1 << 16))
        self.assertTrue(self.client.is_ended)
        self.stream.close()
        self.descriptor.doWrite()
        self.peer.settimeout(10)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_close_notify_queued_at_the_deadline_ends_in_a_reset(self) -> None:
        """FIN without it would look like a truncation."""
        self.secure()
        self.fail_sending(errno.EAGAIN)
        self.stream.close()
        self.assertGreater(queued_bytes(self.descriptor), 0)
        self.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_during_the_handshake_aborts(self) -> None:
        """Bytes that wait for the handshake can't be sent."""
        self.stream.write(b"waits")
        self.stream.close()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_of_a_drain_before_the_peers_first_byte_is_an_end_in_order(self) -> None:
        """Nothing is lost; a second close changes nothing."""
        self.stream.close_drained()
        self.stream.close()
        self.read_to_the_end()

    def test_a_close_of_a_drain_with_unsent_bytes_aborts(self) -> None:
        """The bytes are lost, and the reset shows it."""
        self.stream.write(b"waits")
        self.stream.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_of_a_drain_in_the_middle_of_a_handshake_aborts(self) -> None:
        """The peer would take FIN for an answer."""
        self.begin()
        self.stream.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_of_a_drain_with_an_unread_client_hello_aborts(self) -> None:
        """The peer has begun its handshake, although the server has not read it."""
        self.peer.sendall(self.client.hello())
        select.select([self.socket], [], [], 10)
        self.stream.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def read_to_the_end(self) -> None:
        """Let the reactor run; read at the peer up to FIN."""
        self.reactor.advance(0)
        if self.descriptor in self.reactor.writers:
            reason = self.descriptor.doWrite()
            if reason is not None:
                self.descriptor.connectionLost(Failure(reason))
        self.peer.settimeout(10)
        while self.peer.recv(1 << 16):
            pass

    def test_a_write_of_others_is_dropped_by_an_abort(self) -> None:
        """The write waited for the handshake."""
        self.stream.abort()
        self.descriptor.write(b"too late")
        self.assertEqual(self.stream.unsent, 0)


class AboveTwistedsTlsTests(KernelCase):
    """Over an engine that Twisted made, whose directions end together."""

    def setUp(self) -> None:
        super().setUp()
        options = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
        self.client = Peer()
        self.wrapper: Any = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        factory = TLSMemoryBIOFactory(options, False, Factory(), self.reactor)
        self.engine: Any = TLSMemoryBIOProtocol(factory, self.wrapper)
        self.descriptor.protocol = self.engine
        self.engine.makeConnection(self.descriptor)

    def secure(self) -> None:
        """Do the handshake."""
        self.engine.dataReceived(self.client.hello())
        self.descriptor.doWrite()
        self.engine.dataReceived(self.client.take(self.peer.recv(1 << 16)))

    def test_ending_the_output_alone_is_refused(self) -> None:
        """The connection stays open."""
        self.secure()
        stream = StreamConnection(self.owner, self.engine, self.reactor)
        self.assertRaises(OperationNotSupported, stream.end_output)
        self.assertTrue(stream.is_open)

    def test_a_wrapper_that_knows_of_half_close_is_no_engine(self) -> None:
        """Its close sends FIN, as below every wrapper that leaves bytes as they are."""

        @implementer(IHalfCloseableProtocol)
        class HalfClosing(ProtocolWrapper):
            readConnectionLost = writeConnectionLost = lambda _self: None

        wrapper: Any = HalfClosing(WrappingFactory(Factory()), Protocol())
        wrapper.makeConnection(self.descriptor)
        stream = StreamConnection(self.owner, wrapper, self.reactor)
        stream.close()
        self.descriptor.doWrite()
        self.peer.settimeout(10)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_close_above_a_wrapper_sends_close_notify(self) -> None:
        """FIN alone would be a truncation."""
        self.secure()
        stream = StreamConnection(self.owner, self.wrapper, self.reactor)
        stream.write(b"last")
        stream.close()
        while self.descriptor in self.reactor.writers and not self.client.is_ended:
            self.descriptor.doWrite()
            self.client.take(self.peer.recv(1 << 16))
        self.assertEqual(self.client.received, b"last")
        self.assertTrue(self.client.is_ended)

    def test_bytes_that_wait_for_the_handshake_at_the_deadline_end_in_a_reset(self) -> None:
        """After FIN the peer would not know that bytes are missing."""
        stream = StreamConnection(self.owner, self.engine, self.reactor)
        stream.write(bytes(HIGH_WATER))
        stream.send()
        stream.close()
        self.reactor.pump([DEFAULT_CLOSE_TIMEOUT / 10] * 10)
        self.reactor.advance(0)
        self.peer.settimeout(10)
        self.assertRaises(ConnectionResetError, self.peer.recv, 1)


class Whole:
    """A transport without half-close."""

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing is written here")


class InMemoryTests(SynchronousTestCase):
    """A `StreamConnection` over a transport without a socket."""

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

    def test_a_close_unregisters_the_producer_and_loses_the_connection(self) -> None:
        """The transport ends by itself, without a producer that would delay it."""
        self.stream.close()
        self.assertIsNone(self.transport.producer)
        self.assertTrue(self.transport.disconnecting)

    def test_an_abort_aborts_the_transport(self) -> None:
        """`abort` calls the transport's `abortConnection`."""
        self.stream.abort()
        self.assertTrue(self.transport.disconnected)

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

    def test_ending_the_output_without_half_close_is_refused(self) -> None:
        """The call raises an error, and nothing is ended."""
        stream = StreamConnection(self.owner, Whole(), self.clock)
        self.assertRaises(OperationNotSupported, stream.end_output)
        self.assertTrue(stream.is_open)
