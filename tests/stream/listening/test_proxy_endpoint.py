"""Connections behind a proxy: their addresses, the proxies that are trusted, and the deadline."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IStreamServerEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides, implementer
from zope.interface.verify import verifyObject

from tests.datagram.fake_ports import log_lines
from twsock.stream.listening.proxy_endpoint import ProxyEndpoint, parse_networks

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.2 1000 2000\r\n"
LOCAL = IPv4Address("TCP", "127.0.0.1", 5)


class Transport(StringTransportWithDisconnection):
    """A transport that records an abort."""

    is_aborted = False
    is_lost = False
    protocol: Any

    def connectionLost(self, reason: Failure) -> None:
        """End as a transport of Twisted does."""
        self.is_lost = True
        self.protocol.connectionLost(reason)

    def abortConnection(self) -> None:
        self.is_aborted = True
        self.loseConnection()


class Recorder(Protocol):
    """Records its calls and addresses."""

    def __init__(self) -> None:
        self.peers: list[Any] = []
        self.received = b""
        self.is_lost = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.peers.append((transport.getPeer(), transport.getHost()))

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.is_lost = True


@implementer(IHalfCloseableProtocol)
class HalfClosing(Recorder):
    """A protocol with half-close."""

    ends = ""

    def readConnectionLost(self) -> None:
        self.ends += "read "

    def writeConnectionLost(self) -> None:
        self.ends += "write "


class RecordingFactory(Factory):
    """Records the addresses for which it builds protocols."""

    kind: type[Recorder] | None = Recorder
    is_started = False

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.built: list[Recorder] = []

    def doStart(self) -> None:
        self.is_started = True

    def doStop(self) -> None:
        self.is_started = False

    def buildProtocol(self, addr: Any) -> Recorder | None:
        self.asked.append(addr)
        if self.kind is not None:
            self.built.append(self.kind())
        return self.built[-1] if self.kind is not None else None


@implementer(IStreamServerEndpoint)
class Memory:
    """An endpoint that keeps the factory, for the test to use."""

    factory: Any = None

    def listen(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return succeed(None)


class ProxiedTests(SynchronousTestCase):
    """A factory behind a proxy."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = RecordingFactory()
        self.memory = Memory()
        self.listen()

    def listen(self, **settings: Any) -> None:
        """Listen in memory."""
        endpoint = ProxyEndpoint(self.clock, self.memory, **settings)
        self.assertTrue(verifyObject(IStreamServerEndpoint, endpoint))
        self.successResultOf(endpoint.listen(self.factory))

    def connect(self, peer: Any = LOCAL) -> Transport:
        """Connect to the factory in memory."""
        transport = Transport(hostAddress=IPv4Address("TCP", "127.0.0.1", 6), peerAddress=peer)
        directlyProvides(transport, ITCPTransport)
        transport.protocol = self.memory.factory.buildProtocol(peer)
        transport.protocol.makeConnection(transport)
        return transport

    def test_after_a_wrong_header_nothing_is_read(self) -> None:
        """An aborted transport may still deliver bytes; a second header is ignored."""
        transport = self.connect()
        connection = transport.protocol
        connection.dataReceived(b"GET / HTTP/1.1\r\n\r\n")
        self.assertTrue(transport.is_aborted)
        for piece in (LINE, b"a"):
            connection.dataReceived(piece)
        self.assertEqual(self.factory.asked, [])

    def test_a_protocol_is_built_for_the_client_after_the_header(self) -> None:
        """It has the client's address from the start, and receives the bytes behind the header."""
        transport = self.connect()
        for piece in (LINE[:5], LINE[5:-1]):
            transport.protocol.dataReceived(piece)
        self.assertEqual(self.factory.asked, [])
        transport.protocol.dataReceived(LINE[-1:] + b"a")
        transport.protocol.dataReceived(b"b")
        client = IPv4Address("TCP", "192.0.2.1", 1000)
        (protocol,) = self.factory.built
        self.assertEqual(self.factory.asked, [client])
        self.assertEqual(protocol.peers, [(client, IPv4Address("TCP", "198.51.100.2", 2000))])
        self.assertEqual(protocol.received, b"ab")

    def test_a_header_without_a_client_keeps_the_proxys_addresses(self) -> None:
        """The proxy's health checks are served as peers of their own."""
        for header in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN 192.0.2.1 192.0.2.2 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0",
        ):
            transport = self.connect()
            transport.protocol.dataReceived(header + b"x")
            protocol = self.factory.built[-1]
            self.assertEqual(protocol.peers, [(LOCAL, transport.getHost())], f"{header=}")
            self.assertEqual(protocol.received, b"x", f"{header=}")
            self.assertFalse(transport.is_aborted, f"{header=}")

    def test_each_family_has_its_kind_of_address(self) -> None:
        """IPv6, UNIX sockets and datagrams have their Twisted address classes."""
        start = b"\r\n\r\n\0\r\nQUIT\n\x21"
        self.connect().protocol.dataReceived(b"PROXY TCP6 ::1 ::2 1 2\r\n")
        self.connect().protocol.dataReceived(start + b"\x31\0\xd8" + b"/x".ljust(216, b"\0"))
        self.connect().protocol.dataReceived(start + b"\x12\0\x0c" + bytes(12))
        self.assertEqual(
            self.factory.asked,
            [
                IPv6Address("TCP", "::1", 1),
                UNIXAddress(b"/x"),
                IPv4Address("UDP", "0.0.0.0", 0),
            ],
        )

    def test_the_wrapper_provides_the_interfaces_of_its_transport(self) -> None:
        """Its methods are those of the real transport."""
        transport = self.connect()
        transport.protocol.dataReceived(LINE)
        (protocol,) = self.factory.built
        wrapper: Any = protocol.transport
        self.assertTrue(ITCPTransport.providedBy(wrapper))
        self.assertFalse(IHalfCloseableProtocol.providedBy(wrapper))
        self.assertEqual(transport.protocol.logPrefix(), "RecordingFactory (PROXY)")
        wrapper.write(b"answer")
        self.assertEqual(transport.value(), b"answer")
        wrapper.loseConnection()
        self.assertTrue(protocol.is_lost)

    def test_half_close_reaches_protocols_that_provide_it(self) -> None:
        """For other protocols, and in front of the header, it is the end of the connection."""
        for received in (b"", LINE):
            transport = self.connect()
            self.assertTrue(IHalfCloseableProtocol.providedBy(transport.protocol))
            transport.protocol.dataReceived(received)
            transport.protocol.readConnectionLost()
            self.assertTrue(transport.is_lost, received)
        self.factory.kind = HalfClosing
        transport = self.connect()
        transport.protocol.dataReceived(LINE)
        transport.protocol.readConnectionLost()
        transport.protocol.writeConnectionLost()
        protocol: Any = self.factory.built[-1]
        self.assertEqual(protocol.ends, "read write ")
        self.assertFalse(transport.is_lost)

    def test_half_close_goes_by_the_protocol_of_the_moment(self) -> None:
        """The protocol may be replaced: a Site's, when a WebSocket takes its connection over."""
        transport = self.connect()
        transport.protocol.dataReceived(LINE)
        wrapper: Any = self.factory.built[0].transport
        wrapper.wrappedProtocol = HalfClosing()
        transport.protocol.readConnectionLost()
        self.assertEqual(wrapper.wrappedProtocol.ends, "read ")

    def test_a_factory_that_refuses_ends_the_connection(self) -> None:
        """`buildProtocol` returns None."""
        self.factory.kind = None
        transport = self.connect()
        transport.protocol.dataReceived(LINE + b"x")
        self.assertTrue(transport.is_aborted)

    def test_bytes_that_are_no_header_abort_and_are_logged_once(self) -> None:
        """Further such peers add no line at once, and the line has no byte that they sent."""
        with log_lines() as lines:
            for attempt in range(3):
                transport = self.connect()
                transport.protocol.dataReceived(b"secret")
                self.assertTrue(transport.is_aborted, f"{attempt=}")
        self.assertEqual(lines, ["127.0.0.1 port 5 dropped: it does not begin with a PROXY header"])
        self.clock.advance(60)
        with log_lines() as lines:
            self.connect().protocol.dataReceived(b"secret")
        self.assertIn("2 more were suppressed", lines[0])

    def test_a_header_after_its_deadline_aborts(self) -> None:
        """The deadline ends with the header."""
        late, begun = self.connect(), self.connect()
        late.protocol.dataReceived(LINE[:-1])
        begun.protocol.dataReceived(LINE)
        self.clock.advance(9)
        self.assertFalse(late.is_aborted)
        with log_lines() as lines:
            self.clock.advance(1)
        self.assertTrue(late.is_aborted)
        self.assertFalse(begun.is_aborted)
        self.assertEqual(lines, ["127.0.0.1 port 5 dropped: it sent no PROXY header within 10 s"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_peer_that_leaves_before_its_header_is_not_logged(self) -> None:
        """A connect to see whether the port is open is no event; a partial header is one."""
        with log_lines() as lines:
            for data in (b"", LINE[:7]):
                transport = self.connect()
                transport.protocol.dataReceived(data) if data else None
                transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(
            lines, ["127.0.0.1 port 5 dropped: it closed the connection within its PROXY header"]
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_header_from_an_untrusted_address_aborts(self) -> None:
        """Such a header is not read."""
        for peer in ("192.0.2.7", "10.0.0.1", "::ffff:192.0.2.7", "fe80::1%eth0"):
            kind = IPv6Address if ":" in peer else IPv4Address
            self.listen()
            with log_lines() as lines:
                transport = self.connect(kind("TCP", peer, 5))
            self.assertTrue(transport.is_aborted, f"{peer=}")
            words = "dropped: PROXY headers are accepted only from 127.0.0.0/8, ::1/128"
            self.assertEqual(lines, [f"{peer} port 5 {words}"], f"{peer=}")
        for peer in ("127.9.9.9", "::1", "::ffff:127.0.0.1"):
            kind = IPv6Address if ":" in peer else IPv4Address
            self.assertFalse(self.connect(kind("TCP", peer, 5)).is_aborted, f"{peer=}")

    def test_named_networks_replace_the_default(self) -> None:
        """Only they, and UNIX sockets, are trusted."""
        self.listen(trusted=parse_networks("10.0.0.0/8,fe80::/10"))
        for peer, is_trusted in (
            (IPv4Address("TCP", "10.1.2.3", 5), True),
            (IPv6Address("TCP", "::ffff:10.1.2.3", 5), True),
            (IPv6Address("TCP", "fe80::1%eth0", 5), True),
            (UNIXAddress(None), True),
            (UNIXAddress(b"/x"), True),
            (LOCAL, False),
        ):
            self.assertEqual(self.connect(peer).is_aborted, not is_trusted, peer)

    def test_a_peer_of_a_unix_socket_is_named_in_the_log(self) -> None:
        """The line names it, although it has no address."""
        with log_lines() as lines:
            self.connect(UNIXAddress(None)).protocol.dataReceived(b"x")
        self.assertIn("a peer at a UNIX socket dropped:", lines[0])

    def test_the_path_of_a_peer_is_logged_as_one_line_of_text(self) -> None:
        """Bytes that are no UTF-8, and line ends, are escaped."""
        with log_lines() as lines:
            self.connect(UNIXAddress(b"/x\xff\n")).protocol.dataReceived(b"x")
        self.assertIn("a peer at /x\\udcff\\n dropped:", lines[0])

    def test_a_stopped_port_ends_connections_without_a_header(self) -> None:
        """Connections after their header are left to the application."""
        self.memory.factory.doStart()
        self.assertTrue(self.factory.is_started)
        waiting, begun = self.connect(), self.connect()
        begun.protocol.dataReceived(LINE)
        self.memory.factory.doStop()
        self.assertTrue(waiting.is_aborted)
        self.assertFalse(begun.is_aborted)
        self.assertFalse(self.factory.is_started)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_after_the_end_the_protocol_is_not_referenced(self) -> None:
        """The wrapper does not keep it alive."""
        transport = self.connect()
        transport.protocol.dataReceived(LINE)
        wrapper = transport.protocol
        wrapper.connectionLost(Failure(ConnectionDone()))
        (protocol,) = self.factory.built
        self.assertNotIn(protocol, vars(wrapper).values())


class NetworksTests(SynchronousTestCase):
    """Lists of networks on a command line."""

    def test_addresses_and_networks_are_parsed(self) -> None:
        """Commas and spaces separate them."""
        self.assertEqual(
            parse_networks("10.0.0.0/8, ::1"),
            (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128")),
        )

    def test_a_word_that_is_no_network_is_refused(self) -> None:
        """The error names the word."""
        for text in ("10.0.0.1/8", "localhost", "", "10.0.0.0/8,"):
            error = self.assertRaises(ValueError, parse_networks, text)
            self.assertIn(repr(text.rpartition(",")[2]), str(error), f"{text=}: {error}")
