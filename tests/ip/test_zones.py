"""Each zone has one spelling, and a missing zone is explained."""

from __future__ import annotations

import errno
import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.zones import (
    describe_missing_zone,
    needs_zone,
    split_zone,
    with_zone,
    zone_index,
)

#: An interface of every machine, and an index that none has.
LO = socket.if_nametoindex("lo")
NOWHERE = 2**31 - 2

UNREACHABLE = SocketErrorStatus.UNREACHABLE_HOST
INVALID = OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class SpellingTests(SynchronousTestCase):
    """A scope id becomes text, and text becomes a scope id."""

    def test_a_scope_id_becomes_the_interface_name(self) -> None:
        """The number is used if no interface has this index."""
        self.assertEqual(with_zone("fe80::1", LO), "fe80::1%lo")
        self.assertEqual(with_zone("fe80::1", NOWHERE), f"fe80::1%{NOWHERE}")
        self.assertEqual(with_zone("fe80::1", 2**40), f"fe80::1%{2**40}")

    def test_an_address_without_a_scope_id_is_unchanged(self) -> None:
        """An address whose text has a zone is unchanged too."""
        for host in ("2001:db8::1", "192.0.2.1", "fe80::1%eth7"):
            self.assertEqual(with_zone(host, 0), host, f"{host=}")
        self.assertEqual(with_zone("fe80::1%eth7", LO), "fe80::1%eth7")

    def test_a_name_with_reserved_characters_becomes_a_number(self) -> None:
        """A name of digits only becomes a number too."""
        for name in ("wg+0", "eth0/1", "7", "ä"):
            self.patch(socket, "if_indextoname", lambda _, name=name: name)
            self.assertEqual(with_zone("fe80::1", 7), "fe80::1%7", name)

    def test_a_zone_may_be_a_name_or_a_number(self) -> None:
        """A zone that names no interface raises an error."""
        self.assertEqual(split_zone("fe80::1%lo"), ("fe80::1", "lo"))
        self.assertEqual(split_zone("::1"), ("::1", ""))
        for zone in ("lo", str(LO)):
            self.assertEqual(zone_index(f"fe80::1%{zone}", zone), LO, zone)
        for zone in ("no-such-interface", "9" * 10, "\0"):
            error = self.assertRaises(SocketError, zone_index, f"fe80::1%{zone}", zone)
            self.assertIs(error.status, UNREACHABLE, zone)
            self.assertIn(repr(zone), str(error), zone)


class MissingTests(SynchronousTestCase):
    """Addresses that need an interface."""

    def test_link_local_addresses_and_narrow_groups_need_a_zone(self) -> None:
        """Other addresses need none."""
        for host in ("fe80::1", "febf::1", "ff01::1", "ff02::1", "ff12::1"):
            self.assertTrue(needs_zone(host), host)
        for host in ("fec0::1", "fd00::1", "::1", "ff05::1", "ff15::9", "169.254.0.1", "name"):
            self.assertFalse(needs_zone(host), host)

    def test_a_missing_zone_is_explained(self) -> None:
        """The message contains the address; the system's error is the cause."""
        explained = describe_missing_zone("fe80::1", INVALID, UNREACHABLE)
        assert explained is not None
        self.assertIs(explained.status, UNREACHABLE)
        self.assertIn("fe80::1%eth0", str(explained))
        self.assertIs(explained.__cause__, INVALID)

    def test_other_errors_return_none(self) -> None:
        """Another errno, another address, or an address with a zone."""
        other = OSError(errno.ENETUNREACH, "no")
        self.assertIsNone(describe_missing_zone("fe80::1", other, UNREACHABLE))
        for host in ("fe80::1%lo", "fd00::1", "192.0.2.1"):
            self.assertIsNone(describe_missing_zone(host, INVALID, UNREACHABLE), host)
