"""The socket below a transport: it is found, and is sent on directly only where that is safe."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
    _AggregateSmallWrites,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.test_transport import FakeProtocol, IdleReactor, tcp_pair
from tests.tls.peer import SERVER, Peer, twisted_options
from twsock.stream.descriptor import (
    bottom_socket,
    carries_tls,
    describe_peer,
    discard_input,
    engine_bytes,
    engine_holds,
    find_descriptor,
    hung_up,
    is_shaking_hands,
    may_collect,
    plain_socket,
    queued_bytes,
    secured_by,
    unread_input,
)


class DescriptorTests(SynchronousTestCase):
    """What `twsock.stream.descriptor` finds below each kind of transport."""

    def setUp(self) -> None:
        self.socket, self.peer = tcp_pair()
        self.addCleanup(self.socket.close)
        self.addCleanup(self.peer.close)
        self.descriptor: Any = Connection(self.socket, FakeProtocol(), IdleReactor())  # type: ignore[arg-type]
        self.descriptor.connected = 1

    def wrapped(self) -> ProtocolWrapper:
        """Wrap the descriptor in one of Twisted's wrappers."""
        wrapper = ProtocolWrapper(WrappingFactory(Factory()), Protocol())
        wrapper.makeConnection(self.descriptor)
        return wrapper

    def test_a_plain_connection_gives_its_socket(self) -> None:
        """The socket of Twisted's own connection may be sent on directly."""
        self.assertIs(plain_socket(self.descriptor), self.socket)
        self.assertIs(find_descriptor(self.descriptor), self.descriptor)

    def test_a_wrapper_hides_the_socket_and_shows_the_queue(self) -> None:
        """Bytes are written to the wrapper; the length of the queue below it is still known."""
        wrapper = self.wrapped()
        self.assertIsNone(plain_socket(wrapper))  # type: ignore[arg-type]
        self.assertIs(find_descriptor(wrapper), self.descriptor)  # type: ignore[arg-type]

    def test_tls_that_was_started_before_hides_the_socket(self) -> None:
        """A connection whose ``getHandle`` was replaced is not sent on directly."""
        self.descriptor.getHandle = lambda: self.socket
        self.assertIsNone(plain_socket(self.descriptor))

    def test_a_blocking_socket_is_not_used(self) -> None:
        """A send must never block."""
        self.socket.setblocking(True)
        self.assertIsNone(plain_socket(self.descriptor))

    def test_the_handle_of_another_socket_is_not_used(self) -> None:
        """The handle must have the file descriptor of the transport."""
        self.descriptor.socket = self.peer
        self.peer.setblocking(False)
        self.assertIsNone(plain_socket(self.descriptor))

    def test_tls_below_a_wrapper_is_found(self) -> None:
        """
        A wrapper that leaves the bytes unchanged does not hide TLS; without TLS nothing is found.
        """
        wrapper: Any = self.wrapped()
        self.assertFalse(carries_tls(self.descriptor))
        self.assertFalse(carries_tls(wrapper))
        self.descriptor.TLS = True
        self.assertTrue(carries_tls(self.descriptor))
        self.descriptor.TLS = False
        engine: Any = TLSMemoryBIOProtocol(None, Protocol())
        engine.transport = wrapper
        self.assertTrue(carries_tls(engine))

    def test_an_engine_that_joins_its_writes_is_recognised(self) -> None:
        """An engine joins writes until the next reactor turn, or until the end of its handshake."""
        for kind in (TLSMemoryBIOProtocol, BufferingTLSTransport):
            engine: Any = kind.__new__(kind)
            engine.transport = self.descriptor
            engine._appSendBuffer = []
            self.assertIs(may_collect(engine), kind is BufferingTLSTransport, f"{kind=}")
            engine._appSendBuffer = [b"waiting"]
            self.assertTrue(may_collect(engine), f"{kind=}")
        self.assertFalse(may_collect(self.wrapped()))  # type: ignore[arg-type]
        self.descriptor.TLS = True
        self.assertTrue(may_collect(self.descriptor))

    def test_bytes_that_an_engine_holds_are_counted(self) -> None:
        """Bytes that wait for the handshake or for the next turn count, also after ``startTLS``."""
        engine: Any = BufferingTLSTransport.__new__(BufferingTLSTransport)
        engine.transport = self.descriptor
        engine._appSendBuffer = [b"123", b"45"]
        engine._aggregator = _AggregateSmallWrites(len, IdleReactor())
        engine._aggregator.write(b"678")
        self.assertEqual(engine_bytes(engine), 8)
        self.assertEqual(engine_bytes(self.descriptor), 0)
        self.descriptor.TLS, self.descriptor.protocol = True, engine
        self.assertEqual(engine_bytes(self.descriptor), 8)

    def test_only_a_socket_of_python_is_given_for_its_options(self) -> None:
        """Through wrappers; a reactor's own kind of socket may have other options."""
        wrapper: Any = self.wrapped()
        self.assertIs(bottom_socket(wrapper), self.socket)
        self.descriptor.socket = object()
        self.assertIsNone(bottom_socket(wrapper))
        self.descriptor.socket = self.socket

    def test_another_kind_of_handle_is_not_used(self) -> None:
        """A reactor may have transports of its own."""

        class Odd(Connection):
            def getHandle(self) -> Any:
                return self.socket.fileno()

        descriptor = Odd(self.socket, FakeProtocol(), IdleReactor())  # type: ignore[arg-type]
        self.assertIsNone(plain_socket(descriptor))

    def test_started_tls_is_in_its_handshake_and_then_secure(self) -> None:
        """The application called ``startTLS`` on the descriptor."""
        transport, peer, clock = StringTransport(), Peer(), Clock()
        options = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
        factory = TLSMemoryBIOFactory(options, False, Factory.forProtocol(Protocol), clock)
        engine: Any = factory.buildProtocol(None)
        engine.makeConnection(transport)
        self.descriptor.TLS, self.descriptor.protocol = True, engine
        self.assertFalse(is_shaking_hands(self.descriptor))
        engine.write(b"waits")
        clock.advance(0)
        self.assertTrue(engine_holds(self.descriptor))
        engine.dataReceived(peer.hello())
        self.assertTrue(is_shaking_hands(self.descriptor))
        self.assertIsNone(secured_by(self.descriptor))
        engine.dataReceived(peer.take(transport.value()))
        self.assertFalse(is_shaking_hands(self.descriptor))
        self.assertIs(secured_by(self.descriptor), engine.getHandle())
        self.assertFalse(engine_holds(self.descriptor))

    def test_a_transport_in_memory_has_no_descriptor(self) -> None:
        """The search returns None."""
        self.assertIsNone(plain_socket(StringTransport()))
        self.assertIsNone(find_descriptor(StringTransport()))

    def test_a_wrapper_around_itself_ends_the_search(self) -> None:
        """A transport whose ``transport`` is itself does not cause an endless loop."""
        transport: Any = StringTransport()
        transport.transport = transport
        self.assertIsNone(find_descriptor(transport))

    def test_queued_bytes_are_those_not_yet_sent(self) -> None:
        """The count covers both of Twisted's buffers, less what was sent."""
        self.descriptor.write(b"12345")
        self.assertEqual(queued_bytes(self.descriptor), 5)
        self.descriptor.doWrite()
        self.assertEqual(queued_bytes(self.descriptor), 0)

    def test_no_more_than_1_mib_of_input_is_discarded(self) -> None:
        """A peer that sends without end does not hold the reactor."""
        sizes: list[int] = []

        class Endless(socket.socket):
            def recv(self, size: int, flags: int = 0) -> bytes:
                sizes.append(size)
                assert len(sizes) < 1000, "read without end"
                return bytes(size)

        self.descriptor.socket = Endless()
        self.addCleanup(self.descriptor.socket.close)
        discard_input(self.descriptor)
        self.assertEqual(sum(sizes), 1 << 20)

    def test_looking_for_unread_input_leaves_a_pending_error(self) -> None:
        """The look does not take the peer's reset away from the reactor."""
        self.assertFalse(unread_input(self.descriptor))
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.peer.close()
        self.assertTrue(unread_input(self.descriptor))
        self.assertRaises(ConnectionResetError, self.socket.recv, 1)

    def test_a_peer_that_is_gone_is_noticed_without_reading(self) -> None:
        """The peer's FIN alone does not count: that peer may still read."""
        self.assertFalse(hung_up(self.descriptor))
        self.peer.shutdown(socket.SHUT_WR)
        self.assertFalse(hung_up(self.descriptor))
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.peer.close()
        self.assertTrue(hung_up(self.descriptor))


class NameTests(SynchronousTestCase):
    """Names of peers in the log."""

    def test_the_path_of_a_unix_socket_is_logged_as_one_line_of_text(self) -> None:
        """The peer chose the path, which may have line ends, and bytes that are no UTF-8."""
        for path, name in (
            (b"/run/a b", "/run/a b"),
            ("/run/\u00e9".encode(), "/run/\u00e9"),
            (b"/x\xff\n\x1b[31m", "/x\\udcff\\n\\x1b[31m"),
            (b"\0name", "\\x00name"),
            (None, "unnamed UNIX socket"),
        ):
            transport: Any = StringTransport(peerAddress=UNIXAddress(path))
            self.assertEqual(describe_peer(transport), name, f"{path=}")
