"""An `AddressLimit` lets no peer have more than its share of connections."""

from __future__ import annotations

import tracemalloc
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twsock.stream.listening.address_limit import AddressLimit


class AddressLimitTests(SynchronousTestCase):
    """Connections come and go."""

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
        """Count one connection from each; give them."""
        made: list[object] = [object() for _ in hosts]
        for connection, host in zip(made, hosts, strict=True):
            self.limit.add(connection, host)
        return made

    def test_an_address_has_so_many(self) -> None:
        """One that ends makes room for another; other addresses are not concerned."""
        first, _ = self.connect("192.0.2.1", "192.0.2.1")
        self.assertFalse(self.limit.admits("192.0.2.1"))
        self.assertTrue(self.limit.admits("192.0.2.2"))
        self.limit.remove(first)
        self.limit.remove(first)
        self.assertTrue(self.limit.admits("192.0.2.1"))

    def test_an_address_that_is_gone_is_forgotten(self) -> None:
        """A service that runs for years has seen every address there is."""
        tracemalloc.start()
        try:
            for number in range(2000):
                (connection,) = self.connect(f"2001:db8:{number:x}::1")
                self.limit.remove(connection)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(held, 64 * 1024)

    def test_a_network_of_64_bits_is_one_peer(self) -> None:
        """A host has all of its addresses; a link-local one is a host's own."""
        self.connect("2001:db8::1", "2001:db8::ffff:2", "fe80::1%lo", "fe80::2%lo")
        self.assertFalse(self.limit.admits("2001:db8::3"))
        self.assertTrue(self.limit.admits("2001:db8:0:1::3"))
        self.assertTrue(self.limit.admits("fe80::1%lo"))

    def test_an_address_of_ipv4_is_itself_in_ipv6(self) -> None:
        """As sockets for both families name it; the others of IPv4 are others."""
        self.connect("::ffff:192.0.2.1", "192.0.2.1")
        self.assertFalse(self.limit.admits("::ffff:192.0.2.1"))
        self.assertTrue(self.limit.admits("::ffff:192.0.2.2"))
        self.assertTrue(self.limit.admits("::1"))

    def test_without_an_address_nobody_is_counted(self) -> None:
        """On UNIX sockets."""
        for connection in self.connect(None, None, None):
            self.limit.remove(connection)
        self.assertTrue(self.limit.admits(None))

    def test_a_crowd_is_a_line_a_minute(self) -> None:
        """With the address, the limit, and how many more there were."""
        self.connect("192.0.2.1", "192.0.2.1")
        for seconds in (0, 1, 1, 60):
            self.clock.advance(seconds)
            self.assertFalse(self.limit.admits("192.0.2.1"), f"{seconds=}")
        words = "192.0.2.1 has 2 connections, as many as one address may: another is closed"
        self.assertEqual(self.lines, [words, f"{words} (2 more were suppressed)"])

    def test_a_limit_that_is_none_is_refused(self) -> None:
        """It is 1 or more."""
        self.assertRaises(ValueError, AddressLimit, 0)
