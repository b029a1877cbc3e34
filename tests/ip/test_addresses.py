"""A peer is known by its host, and counted by the network of the host."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from twsock.ip.addresses import host_of, network_of

PEER, OTHER = "192.0.2.1", "192.0.2.2"


class HostTests(SynchronousTestCase):
    """The host of an address."""

    def test_a_unix_socket_has_no_host(self) -> None:
        """Its address is a path."""
        self.assertIsNone(host_of(UNIXAddress(b"/run/echo.sock")))

    def test_an_internet_address_has_one(self) -> None:
        """Without the port."""
        self.assertEqual(host_of(IPv4Address("TCP", "192.0.2.1", 7)), "192.0.2.1")


class PeerTests(SynchronousTestCase):
    """Who counts as one peer."""

    def test_an_ipv4_address_is_a_peer(self) -> None:
        """Each by itself."""
        self.assertNotEqual(network_of(PEER), network_of(OTHER))

    def test_an_ipv6_network_is_a_peer(self) -> None:
        """A host may have any address of its 64 bits, and any zone."""
        self.assertEqual(network_of("2001:db8::1"), network_of("2001:db8::ffff:1"))
        self.assertNotEqual(network_of("2001:db8:0:1::1"), network_of("2001:db8::1"))

    def test_an_ipv4_address_in_ipv6_is_itself(self) -> None:
        """As sockets for both families spell it; it does not share a network with all others."""
        self.assertEqual(network_of("::ffff:192.0.2.1"), network_of("192.0.2.1"))
        self.assertNotEqual(network_of("::ffff:192.0.2.1"), network_of("::ffff:192.0.2.2"))

    def test_a_link_local_address_is_a_peer(self) -> None:
        """All hosts of a link share that network."""
        self.assertNotEqual(network_of("fe80::1%eth0"), network_of("fe80::2%eth0"))
