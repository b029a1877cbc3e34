"""A connection limits its input, counts its bytes, and continues above TLS."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import FrameRecorder
from tests.stream.test_transport import KernelCase, PausedPusher, Pusher
from tests.tls.peer import SERVER, Peer, twisted_options
from twsock.errors import SocketErrorStatus
from twsock.protocols import StreamProtocol, StreamServerFactory
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT


class ConnectionTests(KernelCase):
    """A connection over a plain socket."""

    def deadlines(self) -> list[Any]:
        """Return the delayed calls of a close; those of the hang-up watch are earlier."""
        calls = self.reactor.getDelayedCalls()
        return [call for call in calls if call.getTime() == DEFAULT_CLOSE_TIMEOUT]

    def test_the_receive_size_doubles_up_to_128000_bytes(self) -> None:
        """The size grows while reads fill the buffer."""
        for _ in range(10):
            self.stream.note_read(self.descriptor.bufferSize)
        self.assertEqual(self.descriptor.bufferSize, 128_000)

    def test_unread_input_is_noticed_and_stays(self) -> None:
        """The check takes no bytes from the kernel's buffer."""
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
        """The error is that of the failed send of the engine."""
        lower = self.stream.hold()
        engine: Any = StringTransport()
        engine.transport = lower
        self.stream.rebind(engine)
        self.socket.error = OSError(errno.EHOSTUNREACH, "No route to host")
        lower.write(b"answer")
        error = self.lost(Failure(ConnectionLost()))
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

    def test_a_close_at_the_peers_end_closes_the_socket_at_once(self) -> None:
        """The close takes no deadline, and no turn of the reactor."""
        self.stream.write(b"answer")
        self.stream.send()
        self.stream.peer_ended()
        self.stream.close_answered()
        self.assertEqual(len(self.protocol.reasons), 1)
        self.assertIsNone(self.lost(self.protocol.reasons[0]))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual((self.peer.recv(10), self.peer.recv(10)), (b"answer", b""))

    def test_a_close_at_the_peers_end_sends_what_is_written(self) -> None:
        """The socket is closed in a later turn, by the deadline at the latest."""
        self.stream.peer_ended()
        self.stream.write(b"answer")
        self.stream.close_answered()
        self.assertEqual(self.peer.recv(10), b"answer")
        self.assertEqual(self.protocol.reasons, [])
        (_deadline,) = self.deadlines()

    def test_a_close_at_the_peers_end_waits_for_queued_bytes(self) -> None:
        """The kernel has no room for the bytes."""
        self.fill()
        self.stream.peer_ended()
        self.stream.close_answered()
        self.assertEqual(self.protocol.reasons, [])
        (_deadline,) = self.deadlines()

    def test_a_close_at_the_peers_end_waits_for_a_producer(self) -> None:
        """The close waits as in Twisted, since the producer may write more."""
        self.descriptor.registerProducer(PausedPusher(), True)
        self.stream.peer_ended()
        self.stream.close_answered()
        self.assertEqual(self.protocol.reasons, [])
        (_deadline,) = self.deadlines()

    def test_a_close_before_the_peers_end_waits_for_it(self) -> None:
        """The table has no other row."""
        self.stream.close_answered()
        self.assertEqual(self.protocol.reasons, [])
        (_deadline,) = self.deadlines()

    def test_small_messages_before_a_handshake_take_little_more_than_their_bytes(self) -> None:
        """Messages that wait for a handshake are joined as in a full queue."""
        self.stream.hold()
        self.assertLess(self.push_small(), 2)
        self.assertEqual(self.stream.unsent, len(self.pushed))
        engine: Any = StringTransport()
        engine.transport = self.descriptor
        self.stream.rebind(engine)
        self.assertEqual(engine.value(), self.pushed)


class TlsEndpointTests(SynchronousTestCase):
    """The deadline of a handshake on a TLS endpoint of Twisted, which has none of its own."""

    def connect(self, protocol: type[StreamProtocol] = FrameRecorder) -> Any:
        """Accept a connection; return the protocol."""
        self.clock, self.peer, self.transport = Clock(), Peer(), StringTransport()
        options = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
        factory = StreamServerFactory(self.clock, protocol, idle_timeout=None)
        endpoint = TLSMemoryBIOFactory(options, False, factory, self.clock)
        self.engine: Any = endpoint.buildProtocol(None)
        self.engine.makeConnection(self.transport)
        return self.engine.wrappedProtocol

    def shake_hands(self) -> None:
        self.engine.dataReceived(self.peer.hello())
        self.engine.dataReceived(self.peer.take(self.transport.value()))

    def test_a_handshake_that_is_not_done_in_time_aborts_the_connection(self) -> None:
        """The limit is 10 seconds, for a silent peer and for one that has begun."""
        for has_begun in (False, True):
            events: list[Any] = []
            note: Any = events.append
            globalLogPublisher.addObserver(note)
            self.addCleanup(globalLogPublisher.removeObserver, note)
            protocol = self.connect()
            if has_begun:
                self.engine.dataReceived(self.peer.hello())
            self.clock.advance(DEFAULT_HANDSHAKE_TIMEOUT - 0.1)
            self.assertFalse(self.transport.disconnected, f"{has_begun=}")
            self.clock.advance(0.1)
            self.assertTrue(self.transport.disconnected, f"{has_begun=}")
            self.engine.connectionLost(Failure(ConnectionLost()))
            (error,) = protocol.lost
            self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT, f"{has_begun=}")
            self.assertEqual(self.clock.getDelayedCalls(), [], f"{has_begun=}")
            self.assertIn("no TLS handshake within 10 s", formatEvent(events[0]), f"{has_begun=}")

    def test_a_finished_handshake_has_no_deadline(self) -> None:
        """No delayed call is left, and the connection stays open."""
        protocol = self.connect()
        self.shake_hands()
        self.assertTrue(protocol.is_secure)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(DEFAULT_HANDSHAKE_TIMEOUT)
        self.assertTrue(protocol.is_open)

    def test_a_close_during_the_handshake_has_its_own_deadline(self) -> None:
        """The end of the handshake does not stop the deadline of the close."""
        protocol = self.connect()
        protocol.close()
        (deadline,) = self.clock.getDelayedCalls()
        self.assertEqual(deadline.getTime(), protocol.close_timeout)
        self.shake_hands()
        self.assertEqual(self.clock.getDelayedCalls(), [deadline])

    def test_a_loss_during_the_handshake_stops_the_deadline(self) -> None:
        """No delayed call is left."""
        self.connect()
        self.engine.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
