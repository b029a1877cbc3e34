"""A `StreamTransport` writes through, brakes and ends."""

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
from twsock.stream.descriptor import queued_bytes
from twsock.stream.transport import DEFAULT_CLOSE_TIMEOUT, HIGH_WATER, StreamTransport
from twsock.tls.certificates import Certificate
from twsock.tls.engine import make_engine
from twsock.tls.server import ServerOptions, ServerTls


class Owner:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.drained = 0
        self.failures: list[BrokenError] = []

    def output_drained(self) -> None:
        self.drained += 1

    def output_failed(self, error: BrokenError) -> None:
        self.failures.append(error)


class IdleReactor(Clock):
    """Notes which descriptors want to be told of room to write; tells them nothing by itself."""

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
    """What a descriptor calls when its connection is lost."""

    def __init__(self) -> None:
        self.reasons: list[Failure] = []

    def connectionLost(self, reason: Failure) -> None:
        self.reasons.append(reason)


class CountingSocket(socket.socket):
    """A real socket that counts its sends, and can be told to fail."""

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
    """Connect two sockets over loopback, for what only TCP has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


class Pusher:
    """Writes one piece when it is paused, and one when it may go on."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport

    def pauseProducing(self) -> None:
        self.transport.write(b"first ")

    def resumeProducing(self) -> None:
        self.transport.write(b"last")

    def stopProducing(self) -> None:
        self.transport.write(b"never")


class PausedPusher:
    """Only notes whether it is paused."""

    is_paused = False

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False

    def stopProducing(self) -> None:
        self.is_paused = True


class KernelCase(SynchronousTestCase):
    """Makes a stream over a plain socket."""

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
        self.stream = StreamTransport(self.owner, self.descriptor, self.reactor)
        self.peer.setblocking(False)
        self.addCleanup(self.peer.close)
        self.addCleanup(self.socket.close)


class PlainTests(KernelCase):
    """Over a plain socket, bytes take the short way."""

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
        """Take all there is at the other end, letting the descriptor write between the reads."""
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
        """What was written until a send leaves in one piece."""
        for number in range(5):
            self.stream.write(b"message %d" % number)
        self.assertTrue(self.stream.send())
        self.assertEqual(self.socket.sends, 1)
        self.assertEqual(self.peer.recv(100), b"message 0message 1message 2message 3message 4")

    def test_small_answers_do_not_wait_for_an_acknowledgement(self) -> None:
        """``TCP_NODELAY`` is on, or an answer in two parts would stall for 40 ms."""
        self.assertTrue(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_nothing_queued_leaves_the_reactor_alone(self) -> None:
        """A send that the kernel takes whole asks the reactor for nothing."""
        self.stream.write(b"answer")
        self.stream.send()
        self.assertEqual(self.reactor.writers, set())
        self.assertTrue(self.stream.is_flushed)

    def test_nothing_leaves_after_the_application_aborted_the_transport(self) -> None:
        """It is lost in the next turn of the reactor; the kernel would still take bytes."""
        self.descriptor.abortConnection()
        self.assertEqual(self.stream.send_pieces([b"never"] * 3)[1], 0)
        self.assertEqual(self.socket.sends, 0)

    def test_nothing_that_was_written_leaves_after_it_either(self) -> None:
        """As with a protocol, which writes first and sends later."""
        self.descriptor.abortConnection()
        self.stream.write(b"never")
        self.stream.send()
        self.assertEqual(self.socket.sends, 0)

    def test_writes_of_the_application_keep_their_place(self) -> None:
        """Behind a ``transport.write`` that waits for its turn, a send waits too."""
        self.stream.write(b"1")
        self.stream.send()
        self.descriptor.write(b"2")
        self.stream.write(b"3")
        self.assertFalse(self.stream.send())
        self.descriptor.write(b"4")
        self.assertEqual(self.receive(), b"1234")

    def test_what_the_kernel_refuses_is_queued_in_order(self) -> None:
        """Bytes beyond the kernel's buffer arrive later, none lost, none twice."""
        sent = self.fill()
        self.assertFalse(self.stream.is_flushed)
        self.assertEqual(self.receive(), sent)
        self.assertTrue(self.stream.is_flushed)

    def test_drain_is_told_once_and_only_when_empty(self) -> None:
        """A full output reports once that it drained, when the kernel has it all."""
        self.fill()
        self.assertEqual(self.owner.drained, 0)
        self.receive()
        self.assertEqual(self.owner.drained, 1)
        self.assertIsNone(self.descriptor.producer)

    def test_a_producer_of_the_application_does_not_hide_the_drain(self) -> None:
        """Where the application's producer holds the descriptor, the queue is looked at instead."""
        self.descriptor.registerProducer(StringTransport(), True)
        self.fill()
        self.descriptor.unregisterProducer()
        self.receive()
        self.reactor.advance(1)
        self.assertEqual(self.owner.drained, 1)

    def test_room_shrinks_with_each_write(self) -> None:
        """Bytes not sent yet count against the high-water mark."""
        self.stream.write(b"x" * (HIGH_WATER - 1))
        self.assertFalse(self.stream.is_full)
        self.stream.write(b"x")
        self.assertTrue(self.stream.is_full)

    def test_tls_started_by_the_application_is_not_bypassed(self) -> None:
        """Once the transport speaks TLS, no byte is sent on the cached socket."""
        engine: list[bytes] = []
        self.protocol.write = engine.append  # type: ignore[attr-defined]
        self.descriptor.TLS = True
        self.stream.write(b"secret")
        self.stream.send()
        self.assertEqual(engine, [b"secret"])
        self.assertRaises(BlockingIOError, self.peer.recv, 100)

    def break_sending(self) -> BrokenError:
        """Let a send meet the peer's reset; give what the owner was told."""
        self.socket.error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        self.stream.write(b"answer")
        self.stream.send()
        (error,) = self.owner.failures
        return error

    def test_a_failed_send_is_told_and_keeps_its_reason(self) -> None:
        """The error that a send met is the reason the connection ended, whatever Twisted saw."""
        self.assertIs(self.break_sending().status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.stream.abort()
        self.reactor.advance(0)
        error = self.stream.lost(self.protocol.reasons[0])
        assert error is not None
        self.assertIsInstance(error, BrokenError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    def test_after_a_failed_send_input_can_be_read(self) -> None:
        """What came before the reset is not lost with it; nothing more is written."""
        self.break_sending()
        self.assertFalse(self.stream.is_open)
        self.assertRaises(BrokenError, self.stream.write, b"more")
        self.assertIn(self.descriptor, self.reactor.readers)
        self.assertEqual(self.protocol.reasons, [])

    def test_after_a_failed_send_the_end_of_the_input_is_the_end(self) -> None:
        """The kernel told its error once, so the input ends like one that was closed in order."""
        self.break_sending()
        self.stream.peer_ended()
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_after_a_failed_send_a_close_aborts(self) -> None:
        """There is nothing to wait for."""
        self.break_sending()
        self.stream.close()
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_one_who_waits_for_the_end_may_call_another_wait_off(self) -> None:
        """Everybody else is told, and the end goes on."""
        first, second, third = (self.stream.when_lost() for _ in range(3))
        first.addCallback(lambda _: second.cancel())
        second.addErrback(lambda _: None)
        self.stream.lost(Failure(ConnectionDone()))
        self.successResultOf(third)

    def test_no_end_keeps_bytes_that_were_not_sent(self) -> None:
        """Whoever still holds the stream."""
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

    def test_the_deadline_of_a_close_is_checked(self) -> None:
        """Before it is needed."""
        self.assertRaises(
            ValueError, StreamTransport, self.owner, self.descriptor, self.reactor, close_timeout=-1
        )

    def test_who_aborts_is_told_of_a_closed_end(self) -> None:
        """Also when it is gone; nothing broke."""
        self.stream.abort()
        self.assertRaises(ClosedError, self.stream.write, b"x")
        self.stream.lost(Failure(ConnectionAborted()))
        self.assertRaises(ClosedError, self.stream.write, b"x")

    def test_a_slow_peer_gets_what_is_with_the_kernel(self) -> None:
        """At the deadline of a close the socket is closed, not reset; the kernel sends on."""
        data = bytes(range(256)) * 1000
        self.stream.write(data)
        self.stream.close()
        self.descriptor.doWrite()
        # What nobody has read in time turns the close into no reset.
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

    def test_few_bytes_are_handed_over_in_one_piece(self) -> None:
        """However many pieces they are."""
        pieces = [bytes([number % 251]) for number in range(5000)]
        self.assertEqual(self.stream.send_pieces(pieces), (5000, 5000))
        self.assertEqual(self.socket.sends, 1)
        self.assertEqual(self.receive(), b"".join(pieces))

    def test_many_bytes_are_handed_over_in_one_call(self) -> None:
        """Above 64 KiB they are not joined: the kernel is given the pieces themselves."""
        pieces = [bytes([number]) * HIGH_WATER for number in range(5)]
        handed, done = self.stream.send_pieces(pieces)
        self.assertEqual((handed, done, self.socket.sends), (5, 5, 1))
        self.assertEqual(self.receive(), b"".join(pieces))

    def test_no_more_pieces_are_handed_over_than_one_call_takes(self) -> None:
        """1,024 of them, where they are too many bytes to join."""
        pieces = [bytes([number % 251]) * 65 for number in range(1030)]
        self.assertEqual(self.stream.send_pieces(pieces), (1024, 1024))
        self.assertTrue(self.stream.is_flushed)

    def test_what_the_kernel_has_no_room_for_stays_with_the_owner(self) -> None:
        """All but the piece at which it stopped; room for more is told of."""
        pieces = [bytes([number % 251]) * HIGH_WATER for number in range(1000)]
        handed, done = self.stream.send_pieces(pieces)
        self.assertEqual(handed, done + 1)
        self.assertLess(handed, 1000)
        self.assertFalse(self.stream.is_flushed)
        self.assertEqual(self.receive(), b"".join(pieces[:handed]))
        self.assertEqual(self.owner.drained, 1)
        self.assertTrue(self.stream.is_flushed)

    def test_a_kernel_without_room_is_given_nothing(self) -> None:
        """One piece waits with the transport, so that it tells of room."""
        self.socket.error = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.assertEqual(self.stream.send_pieces([b"a", b"b"]), (1, 0))
        self.socket.error = None
        self.assertEqual(self.receive(), b"a")

    def test_pieces_are_handed_over_behind_what_the_application_wrote(self) -> None:
        """What is in the transport's queue was first."""
        self.descriptor.write(b"first ")
        self.assertEqual(self.stream.send_pieces([b"second ", b"third"]), (2, 0))
        self.assertEqual(self.receive(), b"first second third")
        self.assertEqual(self.owner.drained, 1)

    def test_a_failed_hand_over_is_told(self) -> None:
        """Nothing was handed over."""
        self.socket.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.assertEqual(self.stream.send_pieces([b"a"]), (0, 0))
        self.assertEqual(len(self.owner.failures), 1)

    def test_ended_output_leaves_the_input_open(self) -> None:
        """FIN goes out; the peer's bytes are still read, and nothing can be written."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(10), b"")
        self.assertIn(self.descriptor, self.reactor.readers)
        self.assertRaises(ClosedError, self.stream.write, b"late")
        self.assertEqual(self.protocol.reasons, [])

    def test_with_both_halves_ended_the_connection_is_gone(self) -> None:
        """Whichever ends first."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.stream.peer_ended()
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_output_that_ends_after_the_input_ends_the_connection(self) -> None:
        """There is nothing left to come or to go."""
        self.stream.peer_ended()
        self.stream.end_output()
        self.assertIsInstance(self.descriptor.doWrite(), ConnectionDone)

    def test_a_close_after_the_output_ended_waits_for_the_peer(self) -> None:
        """Until its FIN, or the deadline; FIN is not sent twice."""
        self.stream.end_output()
        self.descriptor.doWrite()
        self.stream.close()
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.reasons), 1)

    def test_a_kernel_without_buffers_is_tried_later(self) -> None:
        """ENOBUFS is no failure: the bytes wait in Twisted's queue."""
        self.socket.error = OSError(errno.ENOBUFS, "No buffer space available")
        self.stream.write(b"answer")
        self.assertFalse(self.stream.send())
        self.socket.error = None
        self.assertEqual(self.receive(), b"answer")

    def test_close_sends_fin_and_waits_for_the_peers(self) -> None:
        """A close ends the output, and the connection when the peer has ended too."""
        self.stream.write(b"last")
        closed = self.stream.close()
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(100), b"last")
        self.assertEqual(self.peer.recv(100), b"")
        self.assertNoResult(closed)
        self.stream.peer_ended()
        self.assertIsNone(self.stream.lost(self.protocol.reasons[0]))
        self.successResultOf(closed)

    def test_close_sends_what_is_queued_first(self) -> None:
        """FIN comes behind the last queued byte."""
        sent = self.fill()
        self.stream.close()
        received = self.receive()
        self.descriptor.doWrite()
        self.assertEqual(received + self.receive(), sent)
        self.assertEqual(self.peer.recv(1), b"")

    def test_close_without_an_answer_ends_at_the_deadline(self) -> None:
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

    def test_close_twice_is_one_close(self) -> None:
        """A second close changes nothing, and both tell of the end."""
        first, second = self.stream.close(), self.stream.close()
        self.stream.lost(Failure(ConnectionDone()))
        self.successResultOf(first)
        self.successResultOf(second)

    def test_close_resumes_reading(self) -> None:
        """A paused connection is read from again, or it would never see the peer's FIN."""
        self.stream.pause_reading()
        self.assertNotIn(self.descriptor, self.reactor.readers)
        self.stream.close()
        self.assertIn(self.descriptor, self.reactor.readers)

    def test_of_several_reasons_the_first_is_told(self) -> None:
        """What comes later is mostly a consequence of it."""
        self.stream.note_error(BrokenError("the first"))
        self.stream.note_error(BrokenError("the second"))
        self.stream.abort(BrokenError("the third"))
        error = self.stream.lost(Failure(ConnectionAborted()))
        self.assertIsInstance(error, BrokenError)
        self.assertEqual(str(error), "the first")

    def test_a_peer_that_has_ended_is_not_read_from_again(self) -> None:
        """Otherwise an idle reactor would report its end a second time."""
        self.fill()
        self.stream.pause_reading()
        self.stream.peer_ended()
        self.stream.resume_reading()
        self.assertFalse(self.stream.is_reading)
        self.stream.close()  # It waits for what is queued.
        self.assertFalse(self.stream.is_reading)
        self.assertNotIn(self.descriptor, self.reactor.readers)

    def test_a_cancelled_wait_leaves_the_close_alone(self) -> None:
        """Giving up waiting for the end does not keep the connection."""
        closed = self.stream.close()
        closed.cancel()
        self.failureResultOf(closed)
        self.descriptor.doWrite()
        self.assertEqual(self.peer.recv(1), b"")

    def test_abort_drops_what_is_queued(self) -> None:
        """An abort ends the connection in the next turn, without sending the rest."""
        self.fill()
        self.stream.abort()
        self.reactor.advance(0)
        self.assertTrue(self.protocol.reasons[0].check(ConnectionAborted))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_writing_after_close_is_refused(self) -> None:
        """Nothing can be written to an end that was closed, and nothing is lost in silence."""
        self.stream.close()
        self.assertRaises(ClosedError, self.stream.write, b"late")

    def test_writing_to_a_dead_connection_is_refused(self) -> None:
        """Nothing can be written to a connection that died, and the error names the cause."""
        self.stream.lost(Failure(ConnectionLost()))
        error = self.assertRaises(BrokenError, self.stream.write, b"late")
        self.assertIsNotNone(error.__cause__)

    def test_nothing_is_left_after_the_end(self) -> None:
        """A lost connection leaves no delayed call behind."""
        self.fill()
        self.stream.close()
        self.stream.lost(Failure(ConnectionLost()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_lost_connection_can_be_asked_and_given_bytes(self) -> None:
        """It does nothing with them, and stays lost."""
        self.descriptor.connectionLost(Failure(ConnectionLost()))
        self.stream.lost(self.protocol.reasons[0])
        self.stream.send_pieces([b"too late"])
        self.assertFalse(self.stream.has_hung_up)
        self.assertFalse(self.stream.has_unread_input)
        self.successResultOf(self.stream.when_lost())

    def test_full_reads_grow_and_stop_growing(self) -> None:
        """The size of one receive doubles while reads come back full, to 128,000 bytes."""
        for _ in range(10):
            self.stream.note_read(self.descriptor.bufferSize)
        self.assertEqual(self.descriptor.bufferSize, 128_000)

    def test_unread_input_is_seen_and_left(self) -> None:
        """Bytes in the kernel are noticed without being taken."""
        self.assertFalse(self.stream.has_unread_input)
        self.peer.send(b"x")
        self.assertTrue(self.stream.has_unread_input)
        self.assertEqual(self.socket.recv(10), b"x")

    def test_what_was_held_leaves_in_its_order(self) -> None:
        """What a producer wrote, what was written, what the producer writes when it goes on."""
        self.descriptor.registerProducer(Pusher(self.descriptor), True)
        lower = self.stream.hold()
        self.assertTrue(self.stream.is_held)
        self.stream.write(b"second ")
        engine: Any = StringTransport()
        engine.transport = lower
        self.stream.rebind(engine)
        self.assertEqual(engine.value(), b"first second last")
        self.assertRaises(BlockingIOError, self.peer.recv, 1)

    def test_why_a_send_failed_is_known_behind_it(self) -> None:
        """To what took the place of the one that held."""
        lower = self.stream.hold()
        engine: Any = StringTransport()
        engine.transport = lower
        successor = self.stream.rebind(engine)
        self.socket.error = OSError(errno.EHOSTUNREACH, "No route to host")
        lower.write(b"answer")
        error = successor.lost(Failure(ConnectionLost()))
        assert error is not None
        self.assertIs(error.status, SocketErrorStatus.UNREACHABLE_HOST)

    def test_a_queue_that_nobody_wrote_counts(self) -> None:
        """A TLS engine answers its peer by itself."""
        lower = self.stream.hold()
        engine: Any = StringTransport()
        engine.transport = lower
        successor = self.stream.rebind(engine)
        self.assertTrue(successor.send())
        lower.write(bytes(1 << 24))
        self.assertFalse(successor.send())
        self.assertTrue(successor.is_full)

    def push_small(self) -> float:
        """Push 50,000 small messages; return the memory that each of their bytes takes."""
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

    def test_small_messages_take_little_more_than_their_bytes(self) -> None:
        """Behind a full queue each would otherwise be an object of its own."""
        before = self.fill()
        self.assertLess(self.push_small(), 2)
        self.assertEqual(self.stream.unsent, queued_bytes(self.descriptor))
        self.assertGreater(self.stream.unsent, len(self.pushed))
        self.assertEqual(self.receive(), before + self.pushed)

    def test_small_messages_before_a_handshake_take_little_more_than_their_bytes(self) -> None:
        """As behind a full queue."""
        self.stream.hold()
        self.assertLess(self.push_small(), 2)
        self.assertEqual(self.stream.unsent, len(self.pushed))
        engine: Any = StringTransport()
        engine.transport = self.descriptor
        self.stream.rebind(engine)
        self.assertEqual(engine.value(), self.pushed)

    def test_a_producer_is_paused_by_small_messages_too(self) -> None:
        """One that pushes through the transport itself learns of a full queue."""
        pusher = PausedPusher()
        self.descriptor.registerProducer(pusher, True)
        sent = self.fill()
        for _ in range(10):
            self.stream.write(b"small")
            self.stream.send()
        self.assertTrue(pusher.is_paused)
        self.assertEqual(self.receive(), sent + b"small" * 10)

    def test_an_engine_has_to_hand_on_what_it_keeps(self) -> None:
        """That a part of its handshake has left says nothing of what waits for the handshake."""
        engine: Any = TLSMemoryBIOProtocol.__new__(TLSMemoryBIOProtocol)
        engine.transport = self.descriptor
        kept: list[bytes] = []
        engine._appSendBuffer = kept
        engine.write = kept.append
        stream = StreamTransport(self.owner, engine, self.reactor)
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
    """Notes what an engine reports, and passes the end of the input on."""

    stream: StreamTransport
    reason: Failure | None = None

    def readConnectionLost(self) -> None:
        self.stream.peer_ended()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.reason = reason


class AboveTlsTests(KernelCase):
    """Over TLS the peer's close_notify is its end, whatever TCP does."""

    def setUp(self) -> None:
        super().setUp()
        certificate = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
        creator, _ = ServerTls(ServerOptions([certificate])).begin()
        self.plain = self.stream
        self.receiver = Receiver()
        self.engine = make_engine(creator, False, self.receiver, self.reactor)
        self.client = Peer()
        lower = self.plain.hold()
        lower.protocol = self.engine
        self.engine.makeConnection(lower)

    def begin(self) -> None:
        """Receive the first message of the handshake, and answer it."""
        self.engine.dataReceived(self.client.hello())

    def secure(self) -> None:
        """Do the handshake, and take the place of the stream below."""
        self.begin()
        self.engine.dataReceived(self.client.take(self.peer.recv(1 << 16)))
        self.stream = self.receiver.stream = self.plain.rebind(self.engine)

    def fail_sending(self, error: int) -> None:
        """Let the kernel refuse what is sent from here on."""
        self.socket.error = OSError(error, os.strerror(error))

    def lose(self, reason: Exception) -> SocketError | None:
        """Let TCP end; return the error of the stream."""
        self.engine.connectionLost(Failure(reason))
        assert self.receiver.reason is not None
        return self.stream.lost(self.receiver.reason)

    def end_input(self) -> None:
        """Let the peer send close_notify."""
        self.engine.dataReceived(self.client.end())

    def test_a_failed_write_ends_the_output_and_not_the_input(self) -> None:
        """The peer's close_notify may still wait in the kernel; then its end is in order."""
        self.secure()
        self.fail_sending(errno.EPIPE)
        self.stream.write(b"answer")
        self.stream.send()
        self.assertEqual(len(self.owner.failures), 1)
        self.assertEqual((self.stream.is_open, self.stream.is_broken), (False, False))

    def test_a_close_notify_that_cannot_be_sent_is_the_reason_of_the_end(self) -> None:
        """The owner, which is closing, is not told of it; the error keeps no frame."""
        self.secure()
        self.fail_sending(errno.ECONNRESET)
        self.stream.close()
        self.assertEqual(self.owner.failures, [])
        error = self.lose(ConnectionDone())
        assert isinstance(error, BrokenError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        assert error.__cause__ is not None
        self.assertIsNone(error.__cause__.__traceback__)

    def test_a_close_notify_that_cannot_be_sent_to_a_peer_that_has_ended(self) -> None:
        """Both ends have closed in order."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.ECONNRESET)
        self.stream.close()
        self.assertIsNone(self.lose(ConnectionLost()))

    def test_a_close_notify_that_is_queued_for_a_peer_that_has_ended(self) -> None:
        """All data is with the kernel."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.EAGAIN)
        self.stream.close()
        self.assertGreater(queued_bytes(self.descriptor), 0)
        self.assertIsNone(self.lose(ConnectionLost()))

    def test_queued_bytes_are_lost_though_the_peer_has_ended(self) -> None:
        """Not all of the answer is with the kernel."""
        self.secure()
        self.end_input()
        self.fail_sending(errno.EAGAIN)
        self.stream.write(b"answer")
        self.stream.send()
        self.assertIsInstance(self.lose(ConnectionLost()), BrokenError)

    def test_bytes_that_were_not_sent_are_lost_though_the_peer_has_ended(self) -> None:
        """They wait for the end of the call that wrote them."""
        self.secure()
        self.end_input()
        self.stream.write(b"answer")
        self.assertIsInstance(self.lose(ConnectionLost()), BrokenError)

    def test_an_answer_of_the_handshake_that_cannot_be_sent(self) -> None:
        """The peer's alert may still wait in the kernel: the input goes on."""
        self.begin()
        self.fail_sending(errno.EPIPE)
        self.engine.dataReceived(self.client.take(self.peer.recv(1 << 16)))
        self.assertEqual((self.owner.failures, self.plain.is_open), ([], True))
        error = self.plain.lost(Failure(ConnectionDone()))
        self.assertIsInstance(error, BrokenError)

    def test_a_close_after_the_output_ended_sends_fin(self) -> None:
        """Ending the output alone has sent close_notify only."""
        self.secure()
        self.stream.end_output()
        self.client.take(self.peer.recv(1 << 16))
        self.assertTrue(self.client.is_ended)
        self.stream.close()
        self.descriptor.doWrite()
        self.peer.settimeout(10)
        self.assertEqual(self.peer.recv(1), b"")

    def test_a_close_notify_that_is_not_with_the_kernel_at_the_deadline(self) -> None:
        """The end is a reset: FIN without it would look like a truncation."""
        self.secure()
        self.fail_sending(errno.EAGAIN)
        self.stream.close()
        self.assertGreater(queued_bytes(self.descriptor), 0)
        self.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_close_during_the_handshake_is_an_abort(self) -> None:
        """What waits for it cannot be sent."""
        self.plain.write(b"waits")
        self.plain.close()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_drained_close_before_the_peer_has_begun_is_an_end_in_order(self) -> None:
        """Nothing is lost; closing again changes nothing."""
        self.plain.close_drained()
        self.plain.close()
        self.read_to_the_end()

    def test_a_drained_close_with_bytes_that_wait_is_an_abort(self) -> None:
        """They are lost."""
        self.plain.write(b"waits")
        self.plain.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_drained_close_in_the_middle_of_a_handshake_is_an_abort(self) -> None:
        """The peer would take FIN for the answer."""
        self.begin()
        self.plain.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def test_a_drained_close_before_a_handshake_that_waits_in_the_kernel_is_an_abort(self) -> None:
        """The peer has begun, though nobody has read it."""
        self.peer.sendall(self.client.hello())
        select.select([self.socket], [], [], 10)
        self.plain.close_drained()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)

    def read_to_the_end(self) -> None:
        """Let the reactor have its turn; read at the peer up to FIN."""
        self.reactor.advance(0)
        if self.descriptor in self.reactor.writers:
            reason = self.descriptor.doWrite()
            if reason is not None:
                self.descriptor.connectionLost(Failure(reason))
        self.peer.settimeout(10)
        while self.peer.recv(1 << 16):
            pass

    def test_a_write_of_others_after_an_abort_is_dropped(self) -> None:
        """It waited for the handshake."""
        self.plain.abort()
        self.descriptor.write(b"too late")
        self.assertEqual(self.plain.unsent, 0)


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

    def test_its_output_does_not_end_alone(self) -> None:
        """That is refused, and the connection stays open."""
        self.secure()
        stream = StreamTransport(self.owner, self.engine, self.reactor)
        self.assertRaises(OperationNotSupported, stream.end_output)
        self.assertTrue(stream.is_open)

    def test_a_close_above_a_wrapper_sends_close_notify(self) -> None:
        """FIN alone would be a truncation."""
        self.secure()
        stream = StreamTransport(self.owner, self.wrapper, self.reactor)
        stream.write(b"last")
        stream.close()
        while self.descriptor in self.reactor.writers and not self.client.is_ended:
            self.descriptor.doWrite()
            self.client.take(self.peer.recv(1 << 16))
        self.assertEqual(self.client.received, b"last")
        self.assertTrue(self.client.is_ended)

    def test_what_waits_for_the_handshake_at_the_deadline_is_lost(self) -> None:
        """The end is a reset; with FIN, the peer would not know that something is missing."""
        stream = StreamTransport(self.owner, self.engine, self.reactor)
        stream.write(bytes(HIGH_WATER))
        stream.send()
        stream.close()
        self.reactor.pump([DEFAULT_CLOSE_TIMEOUT / 10] * 10)
        self.reactor.advance(0)
        self.peer.settimeout(10)
        self.assertRaises(ConnectionResetError, self.peer.recv, 1)


class Whole:
    """A transport that ends as a whole only."""

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing is written here")


class InMemoryTests(SynchronousTestCase):
    """Over a transport without a socket, bytes take ``transport.write``."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.clock = Clock()
        self.owner = Owner()
        self.stream = StreamTransport(self.owner, self.transport, self.clock)

    def test_a_send_is_one_write(self) -> None:
        """What was written until a send reaches the transport in one piece."""
        self.stream.write(b"a")
        self.stream.write(bytearray(b"b"))
        self.assertEqual(self.transport.value(), b"")
        self.stream.send()
        self.assertEqual(self.transport.value(), b"ab")

    def test_the_transports_brake_is_ours(self) -> None:
        """A transport that pauses its producer makes the output full, until it resumes it."""
        assert self.transport.producer is not None
        self.transport.producer.pauseProducing()
        self.assertTrue(self.stream.is_full)
        self.transport.producer.resumeProducing()
        self.assertFalse(self.stream.is_full)
        self.assertEqual(self.owner.drained, 1)

    def test_close_unregisters_and_loses_the_connection(self) -> None:
        """A close leaves the end to the transport, with no producer in its way."""
        self.stream.close()
        self.assertIsNone(self.transport.producer)
        self.assertTrue(self.transport.disconnecting)

    def test_abort_aborts_the_transport(self) -> None:
        """An abort reaches the transport."""
        self.stream.abort()
        self.assertTrue(self.transport.disconnected)

    def test_pieces_are_handed_over_until_the_brake(self) -> None:
        """A transport that pauses its producer has taken what it took."""
        assert self.transport.producer is not None
        self.assertEqual(self.stream.send_pieces([b"a", b"b"]), (2, 2))
        self.transport.producer.pauseProducing()
        self.assertEqual(self.stream.send_pieces([b"x" * HIGH_WATER, b"y"]), (0, 0))
        self.assertEqual(self.stream.send_pieces([b"c"]), (1, 0))
        self.assertEqual(self.transport.value(), b"abc")

    def test_many_small_pieces_are_joined(self) -> None:
        """Up to 64 KiB in one write: a TLS engine makes a record of each."""
        writes: list[bytes] = []
        self.patch(self.transport, "write", writes.append)
        pieces = [b"x" * 1000] * 100 + [b"y" * HIGH_WATER, b"z"]
        self.assertEqual(self.stream.send_pieces(pieces), (102, 102))
        self.assertEqual(b"".join(writes), b"".join(pieces))
        self.assertEqual(list(map(len, writes)), [65_000, 35_000, HIGH_WATER, 1])

    def test_a_transport_without_halves_keeps_its_output(self) -> None:
        """Ending one half is refused, and nothing is ended."""
        stream = StreamTransport(self.owner, Whole(), self.clock)
        self.assertRaises(OperationNotSupported, stream.end_output)
        self.assertTrue(stream.is_open)
