"""An `AddressLimit` limits the connections of each peer address."""

from __future__ import annotations

import tracemalloc
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twsock.stream.listening.address_limit import AddressLimit


class AddressLimitTests(SynchronousTestCase):
    """An `AddressLimit` while connections open and close."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.limit = AddressLimit(2, self.clock.seconds)
        self.lines: list[str] = []
        observer: Any = self.note
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def note(self, event: Any) -> None:
        self.lines.append(formatEvent(event))

    def connect(self, *hosts: str | None) -> list[object]:
        """Count one connection from each host; return the hosts."""
        made: list[object] = [object() for _ in hosts]
        for connection, host in zip(made, hosts, strict=True):
            self.limit.add(connection, host)
        return made

    def test_an_address_at_its_limit_is_refused(self) -> None:
        """A connection that ends makes room for another; other addresses are not affected."""
        first, _ = self.connect("192.0.2.1", "192.0.2.1")
        self.assertFalse(self.limit.admits("192.0.2.1"))
        self.assertTrue(self.limit.admits("192.0.2.2"))
        self.limit.remove(first)
        self.limit.remove(first)
        self.assertTrue(self.limit.admits("192.0.2.1"))

    def test_an_address_without_connections_is_forgotten(self) -> None:
        """Memory stays bounded in a service that runs for years."""
        tracemalloc.start()
        try:
            for number in range(2000):
                (connection,) = self.connect(f"2001:db8:{number:x}::1")
                self.limit.remove(connection)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(held, 64 * 1024)

    def test_addresses_of_one_64_bit_network_are_one_peer(self) -> None:
        """
        A host may use all addresses of its IPv6 network; link-local addresses count one by one.
        """
        self.connect("2001:db8::1", "2001:db8::ffff:2", "fe80::1%lo", "fe80::2%lo")
        self.assertFalse(self.limit.admits("2001:db8::3"))
        self.assertTrue(self.limit.admits("2001:db8:0:1::3"))
        self.assertTrue(self.limit.admits("fe80::1%lo"))

    def test_a_mapped_ipv4_address_is_that_ipv4_address(self) -> None:
        """Dual-stack sockets name IPv4 peers in that form; other IPv4 addresses are other peers."""
        self.connect("::ffff:192.0.2.1", "192.0.2.1")
        self.assertFalse(self.limit.admits("::ffff:192.0.2.1"))
        self.assertTrue(self.limit.admits("::ffff:192.0.2.2"))
        self.assertTrue(self.limit.admits("::1"))

    def test_peers_without_an_address_are_not_counted(self) -> None:
        """Peers of UNIX sockets have none."""
        for connection in self.connect(None, None, None):
            self.limit.remove(connection)
        self.assertTrue(self.limit.admits(None))

    def test_refusals_are_logged_once_a_minute(self) -> None:
        """The line has the address, the limit, and the number of further refusals."""
        self.connect("192.0.2.1", "192.0.2.1")
        for seconds in (0, 1, 1, 60):
            self.clock.advance(seconds)
            self.assertFalse(self.limit.admits("192.0.2.1"), f"{seconds=}")
        words = "192.0.2.1 has 2 connections, the limit for one address: closed another"
        self.assertEqual(self.lines, [words, f"{words} (2 more were suppressed)"])

    def test_a_limit_out_of_bounds_is_refused(self) -> None:
        """The limit is 1 or more."""
        self.assertRaises(ValueError, AddressLimit, 0)
