"""A protocol is connected to a transport: of an endpoint, or one that other code has connected."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.test_resolving import FakeNameResolver
from twsock import ClosedError, EndpointPair, HostName, SocketError, StreamSocket
from twsock.operation import start_operation
from twsock.sockets.stream.connecting import connect_through, connect_to_service
from twsock.sockets.stream.control import StreamSocketControl


class ServiceTests(SynchronousTestCase):
    """A service is connected by a lookup and attempts."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        names = FakeNameResolver()
        names.hosts = {"two.example": ["192.0.2.1", "2001:db8::1"]}
        self.reactor.installNameResolver(names)
        self.built: list[Protocol] = []

    def build(self) -> Protocol:
        self.built.append(Protocol())
        return self.built[-1]

    def connect(self, host: str, bind: tuple[str, int] | None = None) -> Deferred[None]:
        pair = EndpointPair(None, "", HostName(host), "80")
        control = StreamSocketControl(lambda: False)
        return start_operation(
            connect_to_service(self.reactor, pair, bind, None, control, self.build)
        )

    def test_one_protocol_is_built_for_the_attempt_that_succeeds(self) -> None:
        """The other attempts are cancelled."""
        connecting = self.connect("two.example", ("", 7))
        self.reactor.advance(0.25)
        first, second = self.reactor.tcpClients
        self.assertEqual([first[0], second[0]], ["192.0.2.1", "2001:db8::1"])
        self.assertEqual([first[4], second[4]], [("0.0.0.0", 7), ("::", 7)])
        second[2].buildProtocol(None).makeConnection(StringTransport())
        self.successResultOf(connecting)
        self.assertEqual(len(self.built), 1)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)

    def test_a_cancelled_call_builds_no_protocol(self) -> None:
        """The cancellation may fall into the lookup or into an attempt."""
        connecting = self.connect("192.0.2.1")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.failureResultOf(self.connect("nobody.example"), SocketError)
        self.assertEqual(self.built, [])


class EndpointTests(SynchronousTestCase):
    """Any stream endpoint of Twisted can be used."""

    def test_an_endpoint_that_ignores_the_cancellation_gets_no_protocol(self) -> None:
        """Such an endpoint may connect too late, and keep its factory."""

        class Stubborn:
            def connect(self, factory: Any) -> Deferred[Any]:
                self.factory = factory
                return Deferred()

        endpoint: Any = Stubborn()
        connecting = start_operation(connect_through(endpoint, Protocol))
        self.assertIsInstance(endpoint.factory.buildProtocol(None), Protocol)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertIsNone(endpoint.factory.buildProtocol(None))


class TakeOverTests(SynchronousTestCase):
    """Connections that other code has made."""

    def test_a_transport_of_twisted_can_be_taken_over(self) -> None:
        """The unread bytes of its protocol are read first."""
        transport: Any = StringTransport()
        stream_socket = StreamSocket.from_transport(Clock(), transport, b"left ")
        transport.protocol.dataReceived(b"over")
        read = stream_socket.input_stream.receive_exactly(9)
        self.assertEqual(self.successResultOf(read), b"left over")

    def test_a_transport_with_tls_can_be_taken_over(self) -> None:
        """The socket receives the decrypted bytes."""
        transport: Any = StringTransport()
        transport.TLS = True
        transport.protocol = engine = StringTransport()
        engine.wrappedProtocol = object()  # type: ignore[attr-defined]
        stream_socket = StreamSocket.from_transport(Clock(), transport)
        engine.wrappedProtocol.dataReceived(b"x")  # type: ignore[attr-defined]
        self.assertIs(transport.protocol, engine)
        self.assertEqual(self.successResultOf(stream_socket.input_stream.receive_some()), b"x")

    def test_many_unread_bytes_pause_reading(self) -> None:
        """Reading pauses until the application reads."""
        transport: Any = StringTransport()
        loose = bytearray(100_000)
        stream_socket = StreamSocket.from_transport(Clock(), transport, loose)  # type: ignore[arg-type]
        self.assertEqual(transport.producerState, "paused")
        self.assertEqual(stream_socket.input_stream.buffered, 100_000)
        transport.protocol.dataReceived(b"x")
        self.assertEqual(len(loose), 100_000)

    def test_a_lost_transport_is_refused(self) -> None:
        """The call raises `ClosedError`."""
        transport: Any = StringTransport()
        transport.connected = False
        self.assertRaises(ClosedError, StreamSocket.from_transport, Clock(), transport)

    def test_a_wrapped_transport_can_be_taken_over(self) -> None:
        """The wrapper passes received bytes to the socket."""
        transport: Any = StringTransport()
        transport.wrappedProtocol = transport.protocol = object()
        stream_socket = StreamSocket.from_transport(Clock(), transport)
        transport.wrappedProtocol.dataReceived(b"x")
        self.assertEqual(self.successResultOf(stream_socket.input_stream.receive_some()), b"x")

    def test_an_unconnected_socket_is_refused(self) -> None:
        """The Python socket stays open."""
        with socket.socket() as alone, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            self.assertRaises(SocketError, StreamSocket.from_socket, Clock(), alone)
            self.assertRaises(ValueError, StreamSocket.from_socket, Clock(), datagram)
            self.assertGreaterEqual(alone.fileno(), 0)
