"""Local addresses are recognised, and listed at most once a second."""

from __future__ import annotations

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock import OperationNotSupported
from twsock.datagram.network.local_addresses import LocalAddresses
from twsock.datagram.network.netlink import LocalAddress


class LocalAddressesTests(SynchronousTestCase):
    """Which addresses are local."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = 0
        self.addresses = [
            LocalAddress(socket.AF_INET, "192.0.2.1", 2),
            LocalAddress(socket.AF_INET6, "fe80::1", 2),
        ]

    def ask(self) -> list[LocalAddress]:
        self.asked += 1
        return self.addresses

    def test_loopback_is_local_without_asking(self) -> None:
        """All of 127.0.0.0/8, and ::1."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        for host in ("127.0.0.1", "127.200.0.9", "::1"):
            self.assertIn(host, own)
        self.assertEqual(self.asked, 0)

    def test_listed_addresses_are_local(self) -> None:
        """Zones are ignored."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        self.assertIn("192.0.2.1", own)
        self.assertIn("fe80::1%7", own)
        self.assertNotIn("192.0.2.2", own)

    def test_the_kernel_is_asked_at_most_once_a_second(self) -> None:
        """A new address is known after one second."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        for _ in range(100):
            self.assertNotIn("192.0.2.2", own)
        self.assertEqual(self.asked, 1)
        self.addresses = [LocalAddress(socket.AF_INET, "192.0.2.2", 2)]
        self.clock.advance(1)
        self.assertIn("192.0.2.2", own)

    def test_without_a_list_every_address_counts_as_local(self) -> None:
        """So the echo does not answer, and no loop starts."""

        def refuse() -> list[LocalAddress]:
            raise OperationNotSupported("no netlink")

        own = LocalAddresses(self.clock.seconds, refuse)
        self.assertIsNone(own.current())
        self.assertIn("192.0.2.2", own)

    def test_an_address_for_documentation_is_not_local(self) -> None:
        """A real kernel is asked."""
        own = LocalAddresses(self.clock.seconds)
        self.assertNotIn("192.0.2.77", own)
