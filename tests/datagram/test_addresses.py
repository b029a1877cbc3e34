"""Destination addresses are checked once, and answers leave from a fitting source address."""

from __future__ import annotations

import socket
import struct
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_udp import IP_PKTINFO, IPV6_PKTINFO
from twsock.datagram.addresses import (
    Destinations,
    ReplySources,
    interface_control,
    refuse_port_0,
)
from twsock.datagram.network.netlink import LocalAddress
from twsock.datagram.runs import Run
from twsock.errors import (
    LocalProtocolError,
    OperationNotSupported,
    SocketError,
    SocketErrorStatus,
)

LO = socket.if_nametoindex("lo")
PEER, PEER6, LINK_PEER = ("10.0.2.9", 7001), ("fd02::9", 7001, 0, 0), ("fe80::9", 7001, 0, 2)

GROUP, GROUP6 = "224.3.0.5", "ff15::5"


def of_interface(interface: int, *addresses: str) -> list[LocalAddress]:
    """Return the addresses of an interface."""
    return [
        LocalAddress(socket.AF_INET6 if ":" in each else socket.AF_INET, each, interface)
        for each in addresses
    ]


#: The addresses of the fake machine.
ADDRESSES = [
    *of_interface(1, "127.0.0.1", "::1"),
    *of_interface(2, "10.0.2.1", "10.0.2.2", "fe80::1", "fd01::1", "fd02::1", "fd03::1"),
    *of_interface(3, "fe80::1"),
]


def of_family(family: int, *, multicast_only: bool = False) -> Destinations:
    return Destinations(family, multicast_only=multicast_only)


class DestinationTests(SynchronousTestCase):
    """Addresses from the application become addresses for the kernel."""

    def test_a_zone_or_a_scope_id_becomes_a_scope_id(self) -> None:
        """A zone takes precedence over a scope id. Each spelling is found again in the cache."""
        ipv4, ipv6 = of_family(socket.AF_INET), of_family(socket.AF_INET6)
        for lookup in range(2):
            self.assertEqual(ipv4.find(("192.0.2.1", 9)), ("192.0.2.1", 9), f"{lookup=}")
            for address, found in (
                (("::1", 9), ("::1", 9, 0, 0)),
                (("fe80::1%lo", 9), ("fe80::1", 9, 0, LO)),
                (("fe80::1%lo", 9, 0, 77), ("fe80::1", 9, 0, LO)),
                (("fe80::1", 9, 5, 77), ("fe80::1", 9, 5, 77)),
            ):
                self.assertEqual(ipv6.find(address), found, (address, found))

    def test_an_invalid_address_is_refused(self) -> None:
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
        """The group must have the family of the port."""
        shared = of_family(socket.AF_INET, multicast_only=True)
        self.assertEqual(shared.find(("224.3.0.5", 9)), ("224.3.0.5", 9))
        for host in ("192.0.2.1", "255.255.255.255"):
            self.assertRaises(LocalProtocolError, shared.find, (host, 9))
            self.assertRaises(LocalProtocolError, shared.check_host, host)

    def test_a_full_cache_is_cleared(self) -> None:
        """Addresses that were dropped are found again."""
        ipv4 = of_family(socket.AF_INET)
        for _ in range(2):
            for number in range(1500):
                address = (f"10.0.{number // 250}.{number % 250}", 9)
                self.assertEqual(ipv4.find(address), address, number)

    def test_port_0_is_refused(self) -> None:
        """Any other port is accepted."""
        error = self.assertRaises(SocketError, refuse_port_0, "::1", 0)
        self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)
        refuse_port_0("::1", 1)


class InterfaceTests(SynchronousTestCase):
    """The kernel ignores the zone of some groups."""

    @given(integers(min_value=1, max_value=2**31 - 1))
    def test_the_zone_of_a_wide_scope_group_sets_the_interface(self, index: int) -> None:
        """Groups of site, organization, global and unassigned scope."""
        wanted: Any = struct.pack("=16si", bytes(16), index)
        for host in ("ff03::1", "ff05::1", "ff15::9", "ff08::1", "ff0e::1"):
            control = interface_control((host, 9, 0, index))
            assert control is not None
            self.assertEqual(control[2], wanted, host)

    def test_other_addresses_need_no_control_message(self) -> None:
        """The kernel uses their scope id, or they have no zone."""
        for address in (
            ("224.3.0.5", 9),
            ("ff15::9", 9, 0, 0),
            ("ff02::9", 9, 0, 3),
            ("ff11::9", 9, 0, 3),
            ("fe80::9", 9, 0, 3),
            ("fd00::9", 9, 0, 3),
        ):
            self.assertIsNone(interface_control(address), address)


class SourceCase(SynchronousTestCase):
    """A machine with three interfaces."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = 0
        clock: Any = self.clock
        self.sources = ReplySources(clock, self.list_addresses)

    def list_addresses(self) -> list[LocalAddress]:
        self.asked += 1
        return ADDRESSES

    def find(
        self, source: tuple[Any, ...], destination: str, local: str, interface: int = 2
    ) -> str:
        return self.sources.find_address(self.run_of(source, destination, local, interface))

    def run_of(
        self, source: tuple[Any, ...], destination: str, local: str, interface: int = 2
    ) -> Run:
        return Run(b"a", 1, source, destination, interface, False, local)


class AddressTests(SourceCase):
    """The source address of an answer."""

    def test_a_unicast_run_is_answered_from_its_destination(self) -> None:
        """The kernel is not asked for its addresses."""
        for source, address in ((PEER, "10.0.2.2"), (PEER6, "fd02::1"), (LINK_PEER, "fe80::1")):
            self.assertEqual(self.find(source, address, address), address, (source, address))
        self.assertEqual(self.asked, 0)

    def test_without_packet_info_the_kernel_chooses(self) -> None:
        """The returned address is empty."""
        self.assertEqual(self.find(PEER, "", "", 0), "")
        self.assertEqual(self.asked, 0)

    def test_a_multicast_run_is_answered_from_the_address_that_the_kernel_reports(self) -> None:
        """
        The address must belong to the interface; loopback has addresses that no list contains.
        """
        self.assertEqual(self.find(PEER, GROUP, "10.0.2.2"), "10.0.2.2")
        self.assertEqual(self.find(PEER, "10.0.2.255", "10.0.2.1"), "10.0.2.1")
        self.assertEqual(self.find(("127.0.0.9", 1), GROUP, "127.0.0.9", 1), "127.0.0.9")

    def test_a_group_is_never_answered_from_another_interface(self) -> None:
        """
        The kernel may report an address of another interface, from which it would reach the peer.
        """
        self.assertEqual(self.find(PEER, GROUP, "10.0.9.1"), "10.0.2.1")
        self.assertEqual(self.find(("10.0.2.1", 1), GROUP, "10.0.2.1", 1), "127.0.0.1")

    def test_without_addresses_of_the_interface_the_kernel_chooses(self) -> None:
        """Also if the system does not list its addresses."""
        self.assertEqual(self.find(PEER, GROUP, "10.0.2.1", 3), "10.0.2.1")
        self.assertEqual(self.find(PEER6, GROUP6, "", 3), "")

        def refuse() -> list[LocalAddress]:
            raise OperationNotSupported("no")

        clock: Any = self.clock
        silent = ReplySources(clock, refuse)
        self.assertEqual(silent.find_address(self.run_of(PEER, GROUP, "10.0.2.1")), "10.0.2.1")
        self.assertEqual(silent.find_address(self.run_of(PEER6, GROUP6, "")), "")

    def test_an_ipv6_multicast_run_is_answered_from_the_closest_address(self) -> None:
        """The address has the scope of the peer and the longest common prefix (RFC 6724)."""
        for prefix in ("fd01", "fd02", "fd03"):
            self.assertEqual(
                self.find((f"{prefix}::9", 1, 0, 0), GROUP6, ""), f"{prefix}::1", prefix
            )
        self.assertEqual(self.find(LINK_PEER, GROUP6, ""), "fe80::1")
        self.assertEqual(self.find(("fe80::9%eth0", 1, 0, 2), GROUP6, ""), "fe80::1")

    def test_the_kernel_is_asked_at_most_once_a_second(self) -> None:
        """For any number of datagrams to a group."""
        for _ in range(100):
            self.find(PEER, GROUP, "10.0.2.1")
        self.assertEqual(self.asked, 1)
        self.clock.advance(1)
        self.find(PEER, GROUP, "10.0.2.1")
        self.assertEqual(self.asked, 2)


class ControlTests(SourceCase):
    """The control message of an answer."""

    def control(self, source: tuple[Any, ...], destination: str, local: str) -> Any:
        return self.sources.make_control(self.run_of(source, destination, local))

    def test_a_global_address_sets_the_source_only(self) -> None:
        """The routes choose the interface, in both families."""
        packed = struct.pack("=i4s4s", 0, bytes([10, 0, 2, 2]), bytes(4))
        wanted: tuple[int, int, bytes] = (socket.IPPROTO_IP, IP_PKTINFO, packed)
        self.assertEqual(self.control(PEER, "10.0.2.2", "10.0.2.2"), wanted)
        packed = struct.pack("=16si", socket.inet_pton(socket.AF_INET6, "fd02::1"), 0)
        wanted = (socket.IPPROTO_IPV6, IPV6_PKTINFO, packed)
        self.assertEqual(self.control(PEER6, GROUP6, ""), wanted)

    def test_a_link_local_address_also_sets_the_interface(self) -> None:
        """Several links may have the same address, in both families."""
        packed = struct.pack("=16si", socket.inet_pton(socket.AF_INET6, "fe80::1"), 2)
        self.assertEqual(self.control(LINK_PEER, "fe80::1", "fe80::1")[2], packed)
        link = "169.254.1.1"
        packed = struct.pack("=i4s4s", 2, socket.inet_aton(link), bytes(4))
        self.assertEqual(self.control(("169.254.1.9", 1), link, link)[2], packed)

    def test_without_a_source_address_only_the_interface_is_set(self) -> None:
        """If the interface is not known either, there is no control message."""
        run = self.run_of(PEER6, GROUP6, "", 3)
        wanted = (socket.IPPROTO_IPV6, IPV6_PKTINFO, struct.pack("=16si", bytes(16), 3))
        self.assertEqual(self.sources.make_control(run), wanted)
        for silent in (self.run_of(PEER, "", "", 0), self.run_of(PEER6, GROUP6, "", 0)):
            self.assertIsNone(self.sources.make_control(silent), silent)
