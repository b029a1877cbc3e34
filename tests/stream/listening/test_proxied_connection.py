"""A connection behind a proxy whose header was read; test_proxy_endpoint.py has the header."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.listening.test_proxy_endpoint import HalfClosing, Recorder
from twsock.stream.listening.proxied_connection import MovedProxiedConnection, ProxiedTransport
from twsock.wire.proxy_header import ProxyHeader

HEADER = ProxyHeader(("192.0.2.1", 1000), ("198.51.100.2", 2000))


class MovedProxiedConnectionTests(SynchronousTestCase):
    """`MovedProxiedConnection`."""

    def test_the_protocol_is_connected_with_the_addresses_of_the_header(self) -> None:
        """It gets all bytes, and the loss."""
        recorder = Recorder()
        connection = MovedProxiedConnection(HEADER, recorder)
        connection.makeConnection(StringTransport())
        connection.dataReceived(b"data")
        addresses = IPv4Address("TCP", "192.0.2.1", 1000), IPv4Address("TCP", "198.51.100.2", 2000)
        self.assertEqual(recorder.peers, [addresses])
        self.assertEqual(recorder.received, b"data")
        connection.connectionLost()
        self.assertTrue(recorder.is_lost)
        connection.dataReceived(b"late")
        self.assertEqual(recorder.received, b"data")

    def test_the_ends_of_both_directions_are_passed_on(self) -> None:
        """If the protocol supports half-closes."""
        protocol = HalfClosing()
        connection = MovedProxiedConnection(HEADER, protocol)
        connection.makeConnection(StringTransport())
        connection.readConnectionLost()
        connection.writeConnectionLost()
        self.assertEqual(protocol.ends, "read write ")


class ProxiedTransportTests(SynchronousTestCase):
    """`ProxiedTransport`."""

    def test_the_header_can_be_read_again(self) -> None:
        """It moves with the connection."""
        for header in (
            HEADER,
            ProxyHeader(("2001:db8::1", 1), ("2001:db8::2", 2), is_datagram=True),
            ProxyHeader(b"/run/client", b""),
            ProxyHeader(),
        ):
            transport = ProxiedTransport(StringTransport(), header)
            self.assertEqual(transport.proxy_header, header)

    def test_without_addresses_those_of_the_connection_are_returned(self) -> None:
        """As for the health check of a proxy."""
        below = StringTransport(peerAddress=UNIXAddress(b"/run/proxy"))
        transport = ProxiedTransport(below, ProxyHeader())
        self.assertEqual(transport.getPeer(), UNIXAddress(b"/run/proxy"))
