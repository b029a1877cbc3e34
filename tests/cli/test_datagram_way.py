"""What the ways of datagrams have in common."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.datagram_way import check_datagram_size, find_wildcard, name_address
from twsock.cli.failure import UsageError


class WayTests(SynchronousTestCase):
    """Addresses of both families, and what they carry."""

    def test_addresses_are_named_as_endpoints_have_them(self) -> None:
        """IPv6 in brackets, with the zone, however it is told."""
        for address, name in (
            (("192.0.2.1", 7), "192.0.2.1:7"),
            (("::1", 7, 0, 0), "[::1]:7"),
            (("fe80::1", 7, 0, socket.if_nametoindex("lo")), "[fe80::1%lo]:7"),
            (("fe80::1%lo", 7, 0, 1), "[fe80::1%lo]:7"),
            (("fe80::1%lo", 7), "[fe80::1%lo]:7"),
        ):
            self.assertEqual(name_address(address), name)

    def test_each_family_has_its_wildcard(self) -> None:
        """All addresses of that family."""
        self.assertEqual(find_wildcard("192.0.2.1"), "0.0.0.0")
        self.assertEqual(find_wildcard("ff15::1"), "::")

    def test_each_family_has_its_limit(self) -> None:
        """What fits to the byte is taken."""
        for address, limit in (("192.0.2.1", 65_507), ("::1", 65_527)):
            check_datagram_size(b"a" * limit, address)
            error = self.assertRaises(UsageError, check_datagram_size, b"a" * (limit + 1), address)
            self.assertIn(f"has at most {limit}", error.line)
