"""The addresses of this machine are known, and asked for rarely."""

from __future__ import annotations

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock import OperationNotSupported
from twsock.datagram.network.local_addresses import LocalAddresses
from twsock.datagram.network.netlink import LocalAddress


class OwnAddressesTests(SynchronousTestCase):
    """Which addresses could be this very machine."""

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

    def test_loopback_is_own_without_asking(self) -> None:
        """All of 127.0.0.0/8, and ::1."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        for host in ("127.0.0.1", "127.200.0.9", "::1"):
            self.assertIn(host, own)
        self.assertEqual(self.asked, 0)

    def test_what_the_kernel_lists_is_own(self) -> None:
        """Whatever the zone is called; all else is a stranger's."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        self.assertIn("192.0.2.1", own)
        self.assertIn("fe80::1%7", own)
        self.assertNotIn("192.0.2.2", own)

    def test_the_kernel_is_asked_once_a_second_at_most(self) -> None:
        """And an address that came since is known then."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        for _ in range(100):
            self.assertNotIn("192.0.2.2", own)
        self.assertEqual(self.asked, 1)
        self.addresses = [LocalAddress(socket.AF_INET, "192.0.2.2", 2)]
        self.clock.advance(1)
        self.assertIn("192.0.2.2", own)

    def test_where_nobody_can_tell_all_are_own(self) -> None:
        """Silence makes no loop."""

        def refuse() -> list[LocalAddress]:
            raise OperationNotSupported("no netlink")

        own = LocalAddresses(self.clock.seconds, refuse)
        self.assertIsNone(own.current())
        self.assertIn("192.0.2.2", own)

    def test_this_machine_has_a_loopback_address(self) -> None:
        """As a real kernel tells it."""
        own = LocalAddresses(self.clock.seconds)
        self.assertNotIn("192.0.2.77", own)
