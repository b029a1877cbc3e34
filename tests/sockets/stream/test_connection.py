"""The protocol of a stream socket passes Twisted's events to its two streams."""

from __future__ import annotations

import errno
import gc
import socket
import struct
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.sockets.stream.connected import InMemory, OnKernel
from tests.tls.peer import SERVER, Peer, twisted_options
from twsock import BrokenError, ClosedError, StreamSocket
from twsock.sockets.stream.control import StreamSocketListenerControl
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.listening.buffer_limit import BufferLimit


class ConnectionTests(SynchronousTestCase):
    """One protocol with two streams."""

    def test_the_connection_provides_twisted_s_interfaces(self) -> None:
        """A protocol that can close one direction."""
        protocol = StreamSocket(Clock()).build_protocol()
        verifyObject(IProtocol, protocol)
        verifyObject(IHalfCloseableProtocol, protocol)

    def test_the_end_without_a_connection_is_no_event(self) -> None:
        """As when an endpoint gives up."""
        protocol = StreamSocket(Clock()).build_protocol()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(protocol.is_open)

    def test_a_full_receive_makes_the_next_one_larger(self) -> None:
        """Large messages then take fewer system calls."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        size = connected.descriptor.bufferSize
        connected.protocol.dataReceived(bytes(size))
        self.assertGreater(connected.descriptor.bufferSize, size)

    def test_writes_at_the_end_of_the_peer_are_sent_together(self) -> None:
        """As after any receive."""
        connected = OnKernel()
        self.addCleanup(connected.close)

        async def answer() -> None:
            while await connected.socket.input_stream.receive_some():
                pass
            connected.output.write(b"good")
            connected.output.write(b"bye")

        answering = Deferred.fromCoroutine(answer())
        connected.protocol.readConnectionLost()
        self.successResultOf(answering)
        self.assertEqual(connected.kernel.sends, 1)

    def test_a_close_is_done_when_fin_is_sent(self) -> None:
        """It does not wait for the peer, which has until the deadline."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        closing, gone = connected.socket.close(), connected.socket.wait_closed()
        self.assertNoResult(closing)
        connected.descriptor.doWrite()
        self.successResultOf(closing)
        self.successResultOf(connected.socket.close())
        self.assertEqual(connected.receive(), b"")
        self.assertNoResult(gone)
        connected.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        connected.next_turn()
        self.successResultOf(gone)
        self.successResultOf(connected.socket.wait_closed())

    def test_after_an_orderly_end_writing_fails_with_closed_error(self) -> None:
        """Not with `BrokenError`."""
        connected = InMemory()
        connected.lose()
        self.failureResultOf(connected.output.write(b"late"), ClosedError)

    def test_a_reset_after_the_peers_end_fails_only_the_output(self) -> None:
        """All of the input had arrived."""
        connected = InMemory()
        connected.receive(b"all")
        connected.end()
        connected.reset()
        self.assertEqual(self.successResultOf(connected.input.receive_some()), b"all")
        self.assertEqual(self.successResultOf(connected.input.receive_some()), b"")
        self.failureResultOf(connected.output.write(b"late"), BrokenError)

    def test_over_an_endpoint_of_tls_the_peers_end_leaves_the_output(self) -> None:
        """Its close_notify ends one direction only."""
        clock, peer, transport = Clock(), Peer(), StringTransport()
        socket = StreamSocket(clock)
        accepting = Factory()
        accepting.buildProtocol = lambda _: socket.build_protocol()  # type: ignore[method-assign,assignment]
        options = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
        engine: Any = TLSMemoryBIOFactory(options, False, accepting, clock).buildProtocol(None)
        engine.makeConnection(transport)
        engine.dataReceived(peer.hello())
        flight = peer.take(transport.value()) + peer.say(b"question") + peer.end()
        transport.clear()
        engine.dataReceived(flight)
        received = socket.input_stream.receive_some()
        self.assertEqual(self.successResultOf(received), b"question")
        self.assertEqual(self.successResultOf(socket.input_stream.receive_some()), b"")
        socket.output_stream.write(b"answer")
        clock.advance(0)
        peer.take(transport.value())
        self.assertEqual(peer.received, b"answer")

    def test_the_end_of_the_input_of_a_broken_connection_is_no_end_in_order(self) -> None:
        """The kernel reports an error once: the send that met it leaves a clean end behind."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.kernel.error = ConnectionResetError(errno.ECONNRESET, "reset by peer")
        writing = connected.output.write(b"answer")
        writing.addErrback(lambda _: None)
        connected.next_turn()
        reading = connected.socket.input_stream.receive_some()
        connected.protocol.readConnectionLost()
        connected.next_turn()
        self.failureResultOf(reading, BrokenError)

    def test_a_lost_connection_leaves_no_delayed_call(self) -> None:
        """Of the look for a peer that has ended, though its end was reported twice."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        for _ in range(2):
            connected.protocol.readConnectionLost()
        self.assertNotEqual(connected.reactor.getDelayedCalls(), [])
        connected.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(connected.reactor.getDelayedCalls(), [])

    def test_a_lost_connection_of_an_ended_peer_is_freed(self) -> None:
        """With the last reference to it, without the garbage collector."""
        connected: Any = OnKernel()
        self.addCleanup(connected.close)
        connected.protocol.readConnectionLost()
        connected.protocol.connectionLost(Failure(ConnectionLost()))
        freed = weakref.ref(connected.protocol)
        gc.disable()
        self.addCleanup(gc.enable)
        connected.socket = connected.output = None
        connected.protocol = connected.descriptor.protocol = None
        self.assertIsNone(freed())

    def test_a_close_has_one_delayed_call(self) -> None:
        """Its deadline: no watch is started for a peer that ends during the close."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.socket.close()
        connected.protocol.readConnectionLost()
        (deadline,) = connected.reactor.getDelayedCalls()
        self.assertEqual(deadline.getTime(), DEFAULT_CLOSE_TIMEOUT)

    def test_a_reset_during_a_close_leaves_the_close_its_deadline(self) -> None:
        """The peer had ended its output before."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.kernel.error = BlockingIOError(errno.EAGAIN, "no room")
        connected.output.write(b"waits")
        connected.next_turn()
        connected.protocol.readConnectionLost()
        gone = connected.socket.wait_closed()
        connected.socket.close()
        linger = struct.pack("ii", 1, 0)
        connected.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connected.far.close()
        connected.reactor.pump([0.5] * 9)
        self.assertNoResult(gone)
        connected.reactor.pump([0.5, 0])
        self.successResultOf(gone)

    def test_closing_the_input_drops_the_received_bytes(self) -> None:
        """At once."""
        connected = InMemory()
        connected.receive(b"unread")
        connected.input.close()
        self.assertEqual(connected.input.buffered, 0)

    def test_a_closed_output_stays_closed_when_the_connection_breaks(self) -> None:
        """Writes still fail with `ClosedError`: this end closed it."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.socket.close()
        connected.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(connected.output.write(b"late"), ClosedError)

    def test_a_write_after_an_abort_fails_at_once(self) -> None:
        """The reactor reports the end in its next turn."""
        for end in ("socket", "output"):
            connected = OnKernel()
            self.addCleanup(connected.close)
            getattr(connected, end).abort()
            self.failureResultOf(connected.output.write(b"late"), ClosedError)

    def test_an_aborted_connection_is_not_open(self) -> None:
        """Before the reactor reports its end."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.socket.abort()
        self.assertFalse(connected.protocol.is_open)

    def test_the_end_after_a_close_drops_unread_bytes(self) -> None:
        """Until then they could be read."""
        for end in ("close", "abort"):
            connected = InMemory()
            connected.receive(b"unread")
            connected.lose()
            getattr(connected.protocol, end)()
            self.failureResultOf(connected.input.receive_some(), ClosedError)

    def test_a_pending_close_of_the_output_fails_with_the_connection(self) -> None:
        """It waited for bytes that the peer did not take."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.kernel.error = BlockingIOError(errno.EAGAIN, "no room")
        connected.output.write(b"waits")
        closing = connected.output.close()
        self.assertNoResult(closing)
        connected.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(closing, BrokenError)

    def test_a_close_is_done_when_the_connection_has_ended(self) -> None:
        """Without FIN; a cancelled wait is not called."""
        connected = InMemory()
        closing, given_up = connected.socket.close(), connected.socket.close()
        given_up.addErrback(lambda _: None).cancel()
        self.assertNoResult(closing)
        connected.lose()
        self.successResultOf(closing)

    def test_close_timeout_can_be_set(self) -> None:
        """For each socket."""
        clock = Clock()
        socket = StreamSocket(clock, close_timeout=1.5)
        transport = StringTransport()
        socket.build_protocol().makeConnection(transport)
        socket.close()
        clock.advance(1.4)
        self.assertFalse(transport.disconnected)
        clock.advance(0.2)
        self.assertTrue(transport.disconnected)

    def test_bytes_after_a_close_are_dropped(self) -> None:
        """They are read, so that no reset follows."""
        connected = InMemory()
        connected.socket.close()
        connected.receive(bytes(1 << 20))
        self.assertTrue(connected.is_reading)
        self.assertEqual(connected.input.buffered, 0)


class SumTests(SynchronousTestCase):
    """The buffer limit of a listener counts the bytes of each connection."""

    def setUp(self) -> None:
        self.limit = BufferLimit(1000)
        self.clock = Clock()
        self.socket, self.transport = StreamSocket(self.clock), StringTransport()
        control = StreamSocketListenerControl(lambda: False)
        self.socket.observe(control, lambda *_: None, buffer_limit=self.limit)
        self.protocol = self.socket.build_protocol()
        self.protocol.makeConnection(self.transport)

    def test_received_bytes_count_until_the_connection_is_lost(self) -> None:
        """Or until fewer are left after the next receive."""
        self.protocol.dataReceived(bytes(100))
        self.assertEqual(self.limit.total, 100)
        self.successResultOf(self.socket.input_stream.receive_exactly(90))
        self.protocol.dataReceived(b"x")
        self.assertEqual(self.limit.total, 11)
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.limit.total, 0)

    def test_written_bytes_count_until_the_kernel_has_them(self) -> None:
        """Whether the transport has them or not."""
        producer: Any = self.transport.producer
        producer.pauseProducing()
        writes = [self.socket.output_stream.write(bytes(100)) for _ in range(2)]
        self.clock.advance(0)
        writes.append(self.socket.output_stream.write(bytes(100)))
        self.clock.advance(0)
        self.assertEqual(self.limit.total, 300)
        producer.resumeProducing()
        self.assertEqual(self.limit.total, 0)
        for write in writes:
            self.assertEqual(self.successResultOf(write), 100, write)

    def test_the_connection_with_most_bytes_is_aborted(self) -> None:
        """Its read fails with the reason, and its bytes are freed."""
        reading = self.socket.input_stream.receive_exactly(2000)
        self.protocol.dataReceived(bytes(1001))
        self.assertTrue(self.transport.disconnected)
        self.assertEqual((self.limit.total, self.socket.input_stream.buffered), (0, 0))
        self.protocol.connectionLost(Failure(ConnectionAborted()))
        error = self.failureResultOf(reading, BrokenError).value
        self.assertIn("1001 of 1001 bytes", str(error))
