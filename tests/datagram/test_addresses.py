"""Addresses are checked once, and the zone of a group means its interface."""

from __future__ import annotations

import socket
import struct
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers
from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram.addresses import Destinations, interface_control, refuse_port_0
from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus

LO = socket.if_nametoindex("lo")


def of_family(family: int, *, multicast_only: bool = False) -> Destinations:
    return Destinations(family, multicast_only=multicast_only)


class DestinationTests(SynchronousTestCase):
    """What programs write becomes what the kernel takes."""

    def test_every_spelling_is_the_kernel_s(self) -> None:
        """A zone or a scope id; the zone goes first, and both are found each time."""
        ipv4, ipv6 = of_family(socket.AF_INET), of_family(socket.AF_INET6)
        for _ in range(2):
            self.assertEqual(ipv4.find(("192.0.2.1", 9)), ("192.0.2.1", 9))
            for address, found in (
                (("::1", 9), ("::1", 9, 0, 0)),
                (("fe80::1%lo", 9), ("fe80::1", 9, 0, LO)),
                (("fe80::1%lo", 9, 0, 77), ("fe80::1", 9, 0, LO)),
                (("fe80::1", 9, 5, 77), ("fe80::1", 9, 5, 77)),
            ):
                self.assertEqual(ipv6.find(address), found)

    def test_what_is_no_address_is_refused(self) -> None:
        """Names, numbers out of bounds, other families, port 0."""
        ipv6 = of_family(socket.AF_INET6)
        for address, error in (
            (("localhost", 9), ValueError),
            (("::1",), ValueError),
            (("::1", 65_536), ValueError),
            (("::1", 9, 2**20, 0), ValueError),
            (("::1", 9, 0, -1), ValueError),
            (("127.0.0.1", 9), LocalProtocolError),
            (("::1", 0), SocketError),
            (("fe80::1%no-such-interface", 9), SocketError),
        ):
            self.assertRaises(error, ipv6.find, address)

    def test_a_shared_port_sends_to_groups_only(self) -> None:
        """To those of its family."""
        shared = of_family(socket.AF_INET, multicast_only=True)
        self.assertEqual(shared.find(("224.3.0.5", 9)), ("224.3.0.5", 9))
        for host in ("192.0.2.1", "255.255.255.255"):
            self.assertRaises(LocalProtocolError, shared.find, (host, 9))
            self.assertRaises(LocalProtocolError, shared.check_host, host)

    def test_any_number_of_peers_has_room(self) -> None:
        """Those that are forgotten are found again."""
        ipv4 = of_family(socket.AF_INET)
        for _ in range(2):
            for number in range(1500):
                address = (f"10.0.{number // 250}.{number % 250}", 9)
                self.assertEqual(ipv4.find(address), address)

    def test_port_0_is_nobody_s(self) -> None:
        """Any other may be somebody's."""
        error = self.assertRaises(SocketError, refuse_port_0, "::1", 0)
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        refuse_port_0("::1", 1)


class InterfaceTests(SynchronousTestCase):
    """Groups whose zone the kernel ignores."""

    @given(integers(min_value=1, max_value=2**31 - 1))
    def test_the_zone_of_a_wide_group_is_its_interface(self, index: int) -> None:
        """Site, organization and global scope, and those that nobody has named."""
        wanted: Any = struct.pack("=16si", bytes(16), index)
        for host in ("ff03::1", "ff05::1", "ff15::9", "ff08::1", "ff0e::1"):
            control = interface_control((host, 9, 0, index))
            assert control is not None
            self.assertEqual(control[2], wanted)

    def test_for_all_others_the_kernel_needs_nothing(self) -> None:
        """It knows, or there is no zone."""
        for address in (
            ("224.3.0.5", 9),
            ("ff15::9", 9, 0, 0),
            ("ff02::9", 9, 0, 3),
            ("ff11::9", 9, 0, 3),
            ("fe80::9", 9, 0, 3),
            ("fd00::9", 9, 0, 3),
        ):
            self.assertIsNone(interface_control(address), address)
