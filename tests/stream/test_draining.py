"""A drain closes a connection after its last answer."""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import FrameRecorder, Waiting
from tests.stream.test_protocol import Descriptor, OnKernel
from tests.stream.test_transport import IdleReactor, tcp_pair
from tests.tls.peer import SERVER, ClientPeer, client_context, twisted_options
from twsock.protocols import FrameEcho, StreamProtocol, StreamServerFactory
from twsock.wire import encode_frame

FRAME = encode_frame(b"x" * 60)


class DrainTests(SynchronousTestCase):
    """A drain of a connection in plaintext."""

    def test_a_drain_waits_no_longer_than_input_is_unread(self) -> None:
        """Unread bytes may be a proxy's header: no first message is awaited behind them."""
        on_kernel = OnKernel(FrameRecorder)
        self.addCleanup(on_kernel.close)
        on_kernel.far.sendall(b"x")
        select.select([on_kernel.near], [], [], 10)
        on_kernel.protocol.drain()
        self.assertTrue(on_kernel.protocol.is_open)
        on_kernel.near.recv(1)
        on_kernel.reactor.advance(0.05)
        self.assertFalse(on_kernel.protocol.is_open)

    def test_a_second_drain_leaves_no_delayed_call(self) -> None:
        """Both wait for the same unread bytes, and the connection is lost meanwhile."""
        on_kernel = OnKernel(FrameRecorder)
        self.addCleanup(on_kernel.close)
        on_kernel.far.sendall(b"x")
        select.select([on_kernel.near], [], [], 10)
        on_kernel.protocol.drain()
        on_kernel.protocol.drain()
        on_kernel.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(on_kernel.reactor.getDelayedCalls(), [])


class TlsEndpointTests(SynchronousTestCase):
    """Connections that an endpoint of TLS accepted."""

    def setUp(self) -> None:
        self.listen(FrameEcho)

    def listen(self, protocol: type[StreamProtocol]) -> None:
        self.clock, self.peer = IdleReactor(), ClientPeer(client_context())
        self.factory = StreamServerFactory(self.clock, protocol)
        options = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
        self.endpoint = TLSMemoryBIOFactory(options, False, self.factory, self.clock)

    def begin(self, transport: Any) -> Any:
        """Read the client's first message; return the engine."""
        engine: Any = self.endpoint.buildProtocol(None)
        engine.makeConnection(transport)
        engine.dataReceived(self.peer.hello())
        return engine

    def connect(self) -> Any:
        """Connect with the client's first message in the kernel; return the engine."""
        near, self.far = tcp_pair()
        self.addCleanup(near.close)
        self.addCleanup(self.far.close)
        near.setblocking(False)
        self.transport: Any = Descriptor(near, None, self.clock)  # type: ignore[arg-type]
        self.transport.connected = 1
        self.transport.protocol = engine = self.endpoint.buildProtocol(None)
        assert engine is not None
        engine.makeConnection(self.transport)
        self.far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(self.peer.hello())
        return engine

    def send(self, data: bytes) -> None:
        """Send bytes of the peer; return when they are in the kernel."""
        self.far.sendall(data)
        select.select([self.transport], [], [], 10)

    def shake_hands(self) -> None:
        """Do the handshake over the sockets."""
        self.transport.doRead()
        while not self.peer.is_done:
            self.transport.doWrite()
            self.send(self.peer.take(self.far.recv(1 << 16)))
        self.transport.doRead()

    def test_after_the_peers_close_notify_its_answers_are_sent(self) -> None:
        """Only the input has ended; the output ends behind the answer."""
        self.listen(Waiting)
        transport = StringTransport()
        engine = self.begin(transport)
        protocol = engine.wrappedProtocol
        flight = self.peer.take(transport.value()) + self.peer.say(FRAME) + self.peer.end()
        transport.clear()
        engine.dataReceived(flight)
        self.assertTrue(protocol.is_open)
        protocol.go_on()
        self.clock.advance(0)
        self.peer.take(transport.value())
        self.assertEqual(self.peer.received, FRAME)
        self.assertTrue(transport.disconnecting)
        engine.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(protocol.lost, [None])

    def test_a_message_right_behind_the_handshake_is_the_last(self) -> None:
        """The message is answered, and the connection closes without a further wait."""
        transport = StringTransport()
        engine = self.begin(transport)
        protocol = engine.wrappedProtocol
        self.assertFalse(protocol.is_secure)
        self.factory.drain(10)
        self.assertTrue(protocol.is_open)
        flight = self.peer.take(transport.value())
        transport.clear()
        engine.dataReceived(flight + self.peer.say(FRAME))
        self.clock.advance(0)
        self.peer.take(transport.value())
        self.assertEqual(self.peer.received, FRAME)
        self.assertFalse(protocol.is_open)

    def test_a_first_message_is_awaited_behind_a_handshake_that_waits_in_the_kernel(self) -> None:
        """The ClientHello was not read when the drain began."""
        engine = self.connect()
        protocol = engine.wrappedProtocol
        self.factory.drain(10)
        self.shake_hands()
        self.clock.pump([0.05] * 10)
        self.assertTrue(protocol.is_open)
        self.send(self.peer.say(FRAME))
        self.transport.doRead()
        self.assertFalse(protocol.is_open)
        while not self.peer.received:
            self.transport.doWrite()
            self.peer.take(self.far.recv(1 << 16))
        self.assertEqual(self.peer.received, FRAME)

    def test_a_partial_record_is_awaited_no_longer_than_a_partial_message(self) -> None:
        """The handshake was done, so no first message is awaited."""
        engine = self.connect()
        self.shake_hands()
        protocol = engine.wrappedProtocol
        self.assertTrue(protocol.is_secure)
        self.send(self.peer.say(FRAME)[:-1])
        self.factory.drain(10)
        self.assertTrue(protocol.is_open)
        self.transport.doRead()
        self.clock.advance(0.05)
        self.assertFalse(protocol.is_open)
