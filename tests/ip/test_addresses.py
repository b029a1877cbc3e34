"""Limits per peer count an IPv4 address, or the /64 network of an IPv6 address."""

from __future__ import annotations

import ipaddress

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from twsock.ip.addresses import host_of, network_of, parse_ip_address

PEER, OTHER = "192.0.2.1", "192.0.2.2"


class HostTests(SynchronousTestCase):
    """`host_of` returns the host of an address."""

    def test_a_unix_socket_has_no_host(self) -> None:
        """The address of a UNIX socket is a path."""
        self.assertIsNone(host_of(UNIXAddress(b"/run/echo.sock")))

    def test_an_internet_address_has_a_host(self) -> None:
        """The port is left out."""
        self.assertEqual(host_of(IPv4Address("TCP", "192.0.2.1", 7)), "192.0.2.1")


class ParseTests(SynchronousTestCase):
    """`parse_ip_address` takes numeric addresses only."""

    def test_numeric_addresses_of_both_families_are_taken(self) -> None:
        """An IPv6 address may have a zone."""
        self.assertEqual(parse_ip_address("192.0.2.1"), ipaddress.IPv4Address("192.0.2.1"))
        self.assertEqual(parse_ip_address("fe80::1%eth0"), ipaddress.IPv6Address("fe80::1%eth0"))

    def test_other_texts_are_none(self) -> None:
        """A name, an address with brackets or a port, and nothing are no addresses."""
        for text in ("localhost", "[::1]", "192.0.2.1:80", ""):
            self.assertIsNone(parse_ip_address(text), text)


class PeerTests(SynchronousTestCase):
    """`network_of` returns what counts as one peer."""

    def test_each_ipv4_address_is_one_peer(self) -> None:
        """Two addresses are two peers."""
        self.assertNotEqual(network_of(PEER), network_of(OTHER))

    def test_each_64_bit_ipv6_network_is_one_peer(self) -> None:
        """A host may use any address of its network, and any zone."""
        self.assertEqual(network_of("2001:db8::1"), network_of("2001:db8::ffff:1"))
        self.assertNotEqual(network_of("2001:db8:0:1::1"), network_of("2001:db8::1"))

    def test_an_ipv4_mapped_address_counts_as_the_ipv4_address(self) -> None:
        """Sockets of both families report IPv4 peers so. The peers do not share one network."""
        self.assertEqual(network_of("::ffff:192.0.2.1"), network_of("192.0.2.1"))
        self.assertNotEqual(network_of("::ffff:192.0.2.1"), network_of("::ffff:192.0.2.2"))

    def test_each_link_local_address_is_one_peer(self) -> None:
        """All hosts of a link share the link-local network."""
        self.assertNotEqual(network_of("fe80::1%eth0"), network_of("fe80::2%eth0"))
