"""A UDP socket has its options set before its first datagram."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.datagram.fake_udp import FakeUdp
from tests.stream.test_transport import IdleReactor
from twsock import DatagramSocket
from twsock.datagram.endpoint import UdpEndpoint
from twsock.datagram.udp_socket import (
    DatagramOptions,
    IReactorUdpSockets,
    OpenedSocket,
    numeric_address,
    open_udp_socket,
    renew_udp_socket,
)
from twsock.errors import SocketError, SocketErrorStatus
from twsock.protocols import DatagramProtocol

HOST, HOST6 = "127.0.0.1", "::1"
NOT_LINUX = None if sys.platform == "linux" else "the option is one of Linux"

#: Not defined by Python 3.11: <linux/in.h>, <linux/in6.h>, <linux/udp.h>.
IP_MTU_DISCOVER, IP_MULTICAST_ALL, PMTUDISC_DONT, PMTUDISC_DO = 10, 49, 0, 2
IPV6_MTU_DISCOVER, IPV6_MULTICAST_ALL, IPV6_DONTFRAG = 23, 29, 62
UDP_GRO = 104

V4, V6, SOL, UDP = (
    socket.IPPROTO_IP,
    socket.IPPROTO_IPV6,
    socket.SOL_SOCKET,
    socket.IPPROTO_UDP,
)


@contextmanager
def opened(address: str = HOST, port: int = 0, **options: Any) -> Iterator[OpenedSocket]:
    """Open a socket for the duration of a ``with`` block."""
    found = open_udp_socket(address, port, DatagramOptions(**options))
    with found.udp:
        yield found


class OptionTests(SynchronousTestCase):
    """The options can be read from the socket."""

    def assert_option(
        self, level: int, number: int, value: int, address: str = HOST, **options: Any
    ) -> None:
        with opened(address, **options) as found:
            self.assertEqual(
                found.udp.getsockopt(level, number), value, f"{address=}, {number=}, {options=}"
            )

    def test_hop_limits_are_set(self) -> None:
        """One for unicast and one for multicast, in both families."""
        self.assert_option(V4, socket.IP_TTL, 128)
        self.assert_option(V4, socket.IP_TTL, 7, hop_limit=7)
        self.assert_option(V4, socket.IP_MULTICAST_TTL, 1)
        self.assert_option(V4, socket.IP_MULTICAST_TTL, 0, multicast_hop_limit=0)
        self.assert_option(V6, socket.IPV6_UNICAST_HOPS, 7, HOST6, hop_limit=7)
        self.assert_option(V6, socket.IPV6_MULTICAST_HOPS, 1, HOST6)
        self.assert_option(V6, socket.IPV6_MULTICAST_HOPS, 9, HOST6, multicast_hop_limit=9)

    def test_multicast_loopback_can_be_turned_off(self) -> None:
        """By default, members on this machine receive the datagrams."""
        for is_on in (True, False):
            self.assert_option(V4, socket.IP_MULTICAST_LOOP, is_on, multicast_loopback=is_on)
            self.assert_option(
                V6, socket.IPV6_MULTICAST_LOOP, is_on, HOST6, multicast_loopback=is_on
            )

    def test_dont_fragment_sets_df(self) -> None:
        """The kernel reports datagrams that are too long."""
        self.assert_option(V4, IP_MTU_DISCOVER, PMTUDISC_DO, dont_fragment=True)
        self.assert_option(V6, IPV6_MTU_DISCOVER, PMTUDISC_DO, HOST6, dont_fragment=True)
        self.assert_option(V6, IPV6_DONTFRAG, 1, HOST6, dont_fragment=True)

    test_dont_fragment_sets_df.skip = NOT_LINUX  # type: ignore[attr-defined]

    def test_fragmentation_is_allowed_by_default(self) -> None:
        """Linux's default would set DF, and report long datagrams to a connected socket."""
        self.assert_option(V4, IP_MTU_DISCOVER, PMTUDISC_DONT)
        self.assert_option(V6, IPV6_MTU_DISCOVER, PMTUDISC_DONT, HOST6)

    test_fragmentation_is_allowed_by_default.skip = NOT_LINUX  # type: ignore[attr-defined]

    def test_buffers_have_the_requested_size(self) -> None:
        """Linux doubles it for its own overhead."""
        self.assert_option(SOL, socket.SO_RCVBUF, 2 * 50_000, receive_buffer=50_000)
        self.assert_option(SOL, socket.SO_SNDBUF, 2 * 60_000, send_buffer=60_000)

    test_buffers_have_the_requested_size.skip = NOT_LINUX  # type: ignore[attr-defined]

    def test_broadcast_is_allowed_by_default(self) -> None:
        """As in WinRT."""
        self.assert_option(SOL, socket.SO_BROADCAST, 1)
        self.assert_option(SOL, socket.SO_BROADCAST, 0, broadcast=False)

    def test_multicast_leaves_through_the_chosen_interface(self) -> None:
        """The option is its index."""
        index = socket.if_nametoindex("lo")
        self.assert_option(V6, socket.IPV6_MULTICAST_IF, index, HOST6, interface=index)
        with opened(interface=index) as found, opened("") as member:
            group, port = "224.3.0.9", member.udp.getsockname()[1]
            request = socket.inet_aton(group) + bytes(4) + index.to_bytes(4, sys.byteorder)
            member.udp.setsockopt(V4, socket.IP_ADD_MEMBERSHIP, request)
            member.udp.settimeout(60)
            found.udp.sendto(b"a", (group, port))
            data, source = member.udp.recvfrom(10)
        # The kernel would choose the address of another interface.
        self.assertEqual((data, source[0]), (b"a", HOST))

    test_multicast_leaves_through_the_chosen_interface.skip = NOT_LINUX  # type: ignore[attr-defined]

    def test_a_missing_interface_is_an_error(self) -> None:
        """It contains the kernel's reason, and nothing stays open."""
        self.assertRaises(SocketError, open_udp_socket, HOST, 0, DatagramOptions(interface=9999))

    def test_a_socket_can_be_bound_to_a_device(self) -> None:
        """All traffic goes through it."""
        with opened(device="lo") as found:
            name = found.udp.getsockopt(SOL, 25, 16)  # SO_BINDTODEVICE
            self.assertEqual(name.rstrip(b"\0"), b"lo")

    test_a_socket_can_be_bound_to_a_device.skip = NOT_LINUX  # type: ignore[attr-defined]

    def test_an_ipv6_socket_leaves_the_ipv4_port_free(self) -> None:
        """Also when it is bound to ``::``."""
        self.assert_option(V6, socket.IPV6_V6ONLY, 1, "::")
        with opened("::") as found, opened("", found.udp.getsockname()[1]):
            pass

    def test_runs_are_received_if_the_kernel_supports_it(self) -> None:
        """An option turns them off."""
        with opened() as found:
            has_option = found.udp.getsockopt(UDP, UDP_GRO) if found.has_runs else 0
            self.assertEqual(has_option, int(found.has_runs))
        with opened(segmentation=False) as found:
            self.assertFalse(found.has_runs)
            self.assertEqual(found.udp.getsockopt(UDP, UDP_GRO), 0)

    test_runs_are_received_if_the_kernel_supports_it.skip = NOT_LINUX  # type: ignore[attr-defined]

    def test_a_socket_of_all_addresses_gets_packet_info(self) -> None:
        """The destination of a socket of one address is known."""
        for address, is_told in (("", True), ("::", True), (HOST, False), (HOST6, False)):
            with opened(address) as found:
                self.assertIs(found.has_packet_info, is_told, (address, is_told))
                self.assertFalse(found.udp.getblocking(), (address, is_told))


class SharingTests(SynchronousTestCase):
    """A port belongs to one socket, unless all its sockets agree to share it."""

    def test_a_port_is_not_shared_by_default(self) -> None:
        """Neither of the sharing options is set."""
        with opened("") as found:
            self.assertEqual(found.udp.getsockopt(SOL, socket.SO_REUSEADDR), 0)
            self.assertEqual(found.udp.getsockopt(SOL, socket.SO_REUSEPORT), 0)

    def test_a_shared_port_has_both_sharing_options(self) -> None:
        """It does not receive from groups that other sockets joined."""
        with opened("", multicast_only=True) as found:
            self.assertEqual(found.udp.getsockopt(SOL, socket.SO_REUSEADDR), 1)
            self.assertEqual(found.udp.getsockopt(SOL, socket.SO_REUSEPORT), 1)

    def test_groups_that_other_sockets_joined_are_not_received(self) -> None:
        """A socket receives from groups that it joined itself."""
        for is_shared in (True, False):
            with opened("", multicast_only=is_shared) as found:
                self.assertEqual(found.udp.getsockopt(V4, IP_MULTICAST_ALL), 0, is_shared)
            with opened("::", multicast_only=is_shared) as found:
                self.assertEqual(found.udp.getsockopt(V6, IPV6_MULTICAST_ALL), 0, is_shared)

    test_groups_that_other_sockets_joined_are_not_received.skip = NOT_LINUX  # type: ignore[attr-defined]

    def test_two_sockets_may_share_a_port(self) -> None:
        """A socket that does not share is refused, and refuses the others if it came first."""
        with opened("", multicast_only=True) as found:
            port = found.udp.getsockname()[1]
            with opened("", port, multicast_only=True):
                self.assert_taken("", port)
        with opened("") as found:
            self.assert_taken("", found.udp.getsockname()[1], multicast_only=True)

    def test_a_shared_port_must_have_all_addresses(self) -> None:
        """Bound to one address, it could be taken over, or would receive nothing from groups."""
        for address in (HOST, "224.3.0.5"):
            options = DatagramOptions(multicast_only=True)
            self.assertRaises(ValueError, open_udp_socket, address, 0, options)

    def test_binding_to_a_group_is_refused(self) -> None:
        """It would share the port with sockets of all addresses without their consent."""
        for group in ("224.3.0.5", "ff15::5"):
            self.assertRaises(ValueError, open_udp_socket, group, 0, DatagramOptions())

    def test_a_port_in_use_is_an_error(self) -> None:
        """One line with the port, the address and the reason, and a status."""
        with opened() as found:
            port = found.udp.getsockname()[1]
            error = self.assert_taken(HOST, port)
            self.assertIn(f"port {port} of {HOST}", str(error))

    def assert_taken(self, address: str, port: int, **options: Any) -> SocketError:
        options_ = DatagramOptions(**options)
        error: SocketError = self.assertRaises(
            SocketError, open_udp_socket, address, port, options_
        )
        self.assertIs(error.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        return error


class AddressTests(SynchronousTestCase):
    """Addresses to bind and to send to."""

    def test_an_address_of_another_host_is_an_error(self) -> None:
        """Addresses for documentation (:rfc:`5737`, :rfc:`3849`)."""
        for address in ("192.0.2.1", "2001:db8::1"):
            error = self.assertRaises(SocketError, open_udp_socket, address, 0, DatagramOptions())
            self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS, address)

    def test_an_empty_address_means_all_ipv4_addresses(self) -> None:
        """With port 0 the system chooses a free port."""
        with opened("") as found:
            host, port = found.udp.getsockname()
        self.assertEqual(host, "0.0.0.0")
        self.assertGreater(port, 0)

    def test_a_name_is_refused(self) -> None:
        """A send would have to wait for the lookup."""
        for name in ("localhost", "", "127.1", "1", "127.0.0.1:80", "[::1]", "127.0.0.1%lo"):
            self.assertRaises(ValueError, numeric_address, name, 9)

    def test_a_port_has_sixteen_bits(self) -> None:
        """0 and 65,535 are valid."""
        for port in (-1, 65_536):
            self.assertRaises(ValueError, numeric_address, HOST, port)
            self.assertRaises(ValueError, open_udp_socket, HOST, port, DatagramOptions())
        self.assertEqual(numeric_address(HOST, 65_535), (HOST, 65_535))

    def test_a_zone_becomes_a_scope_id(self) -> None:
        """By name or by number; without a zone it is 0."""
        index = socket.if_nametoindex("lo")
        self.assertEqual(numeric_address("fe80::1%lo", 9), ("fe80::1", 9, 0, index))
        self.assertEqual(numeric_address("fe80::1%5", 9), ("fe80::1", 9, 0, 5))
        self.assertEqual(numeric_address(HOST6, 9), (HOST6, 9, 0, 0))

    def test_a_zone_without_an_interface_is_an_error(self) -> None:
        """The address cannot be used."""
        # The low 32 bits of the second are the index of the first interface.
        for zone in ("nowhere", "4294967297", ""):
            error = self.assertRaises(SocketError, numeric_address, f"fe80::1%{zone}", 9)
            self.assertIs(error.status, SocketErrorStatus.UNREACHABLE_HOST, zone)

    def test_a_zone_with_any_number_is_bound_or_an_error(self) -> None:
        """An index has at most 31 bits."""
        for zone in ("0", "9999", "4294967296", "9" * 30):
            options = DatagramOptions()
            self.assertRaises(SocketError, open_udp_socket, f"fe80::1%{zone}", 0, options)


class BoundsTests(SynchronousTestCase):
    """A number out of bounds is refused before a socket is opened."""

    def test_the_error_contains_the_bounds(self) -> None:
        """It also contains the option and the value."""
        for name, least, most in [
            ("receive_buffer", 1, 2**31 - 1),
            ("send_buffer", 1, 2**31 - 1),
            ("max_datagram", 0, 65_535),
            ("hop_limit", 1, 255),
            ("multicast_hop_limit", 0, 255),
        ]:
            for value in (least - 1, most + 1):
                options: Any = {name: value}
                error = self.assertRaises(ValueError, DatagramOptions, **options)
                self.assertIn(name, str(error), value)
                self.assertIn(str(value), str(error), value)
            for value in (least, most):
                options = {name: value}
                self.assertEqual(
                    getattr(DatagramOptions(**options), name), value, f"{name=}, {value=}"
                )


#: Every option of the kernel that depends on `DatagramOptions`, for IPv4 and for IPv6. Those with a
#: length are bytes: the address of an interface, the name of a device.
READABLE: tuple[tuple[int, int, int], ...] = (
    (SOL, socket.SO_RCVBUF, 0),
    (SOL, socket.SO_SNDBUF, 0),
    (SOL, socket.SO_BROADCAST, 0),
    (SOL, socket.SO_REUSEADDR, 0),
    (SOL, socket.SO_REUSEPORT, 0),
    (SOL, 25, 16),  # SO_BINDTODEVICE
    (UDP, UDP_GRO, 0),
)
READABLE4 = (
    (V4, socket.IP_TTL, 0),
    (V4, socket.IP_TOS, 0),
    (V4, socket.IP_MULTICAST_TTL, 0),
    (V4, socket.IP_MULTICAST_LOOP, 0),
    (V4, socket.IP_MULTICAST_IF, 4),
    (V4, IP_MULTICAST_ALL, 0),
    (V4, IP_MTU_DISCOVER, 0),
    (V4, 8, 0),  # IP_PKTINFO
)
READABLE6 = (
    (V6, socket.IPV6_UNICAST_HOPS, 0),
    (V6, socket.IPV6_TCLASS, 0),
    (V6, socket.IPV6_MULTICAST_HOPS, 0),
    (V6, socket.IPV6_MULTICAST_LOOP, 0),
    (V6, socket.IPV6_MULTICAST_IF, 0),
    (V6, IPV6_MULTICAST_ALL, 0),
    (V6, IPV6_MTU_DISCOVER, 0),
    (V6, IPV6_DONTFRAG, 0),
    (V6, socket.IPV6_V6ONLY, 0),
    (V6, 49, 0),  # IPV6_RECVPKTINFO
)


def read_options(udp: socket.socket) -> dict[tuple[int, int], int | bytes]:
    """Return the value of each option."""
    family = READABLE6 if udp.family == socket.AF_INET6 else READABLE4
    return {
        (level, number): udp.getsockopt(level, number, *([size] if size else []))
        for level, number, size in READABLE + family
    }


class RenewTests(SynchronousTestCase):
    """A socket that another process has opened gets the options of this process."""

    skip = NOT_LINUX

    #: Each with options that differ from the defaults; the first has the defaults.
    VARIANTS: tuple[dict[str, Any], ...] = (
        {},
        {"receive_buffer": 50_000, "send_buffer": 60_000, "broadcast": False},
        {"hop_limit": 7, "multicast_hop_limit": 9, "multicast_loopback": False},
        {"dont_fragment": True, "code_point": 46, "segmentation": False},
        {"interface": socket.if_nametoindex("lo")},
        {"code_point": 10, "receive_buffer": 70_000},
    )

    def test_it_has_every_option_of_a_fresh_socket(self) -> None:
        """From any options to any others, and back to the defaults."""
        variants = [*self.VARIANTS, *([{"device": "lo"}] if os.geteuid() == 0 else [])]
        for address in (HOST, HOST6, "", "::"):
            for before in variants:
                for after in variants:
                    with opened(address, **before) as old, opened(address, **after) as wanted:
                        options = DatagramOptions(**after)
                        renewed = renew_udp_socket(old.udp, address, 0, options)
                        self.assertEqual(
                            read_options(old.udp),
                            read_options(wanted.udp),
                            f"{address=}, {before=}, {after=}",
                        )
                        self.assertIs(renewed.udp, old.udp)
                        features = (renewed.has_runs, renewed.has_packet_info)
                        self.assertEqual(features, (wanted.has_runs, wanted.has_packet_info))

    def test_a_shared_port_stays_one(self) -> None:
        """Both options of sharing were set before the bind."""
        with opened("", multicast_only=True) as shared, opened("") as alone:
            for udp, options in (
                (shared.udp, DatagramOptions()),
                (alone.udp, DatagramOptions(multicast_only=True)),
            ):
                error = self.assertRaises(SocketError, renew_udp_socket, udp, "", 0, options)
                self.assertIn("SO_REUSEPORT", str(error), f"{options=}")
                self.assertIs(error.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
                self.assertGreaterEqual(udp.fileno(), 0)
            renew_udp_socket(shared.udp, "", 0, DatagramOptions(multicast_only=True))

    def test_another_address_is_refused(self) -> None:
        """The record of the other process is wrong."""
        with opened() as found:
            for address, port in (("127.0.0.2", 0), (HOST, 1), (HOST6, 0)):
                error = self.assertRaises(
                    SocketError, renew_udp_socket, found.udp, address, port, DatagramOptions()
                )
                self.assertIn("the socket of the running process", str(error), f"{address=}")

    def test_an_option_that_the_system_refuses_is_named_with_the_port(self) -> None:
        """As an unprivileged process may not leave a device."""
        if os.geteuid() != 0:
            raise SkipTest("only root can bind to a device")
        with opened(HOST, device="lo") as found:
            os.seteuid(65_534)
            self.addCleanup(os.seteuid, 0)
            error = self.assertRaises(
                SocketError, renew_udp_socket, found.udp, HOST, 0, DatagramOptions()
            )
            self.assertIn("cannot set the options of UDP port 0 of 127.0.0.1: ", str(error))
            renew_udp_socket(found.udp, HOST, 0, DatagramOptions(device="lo"))


@implementer(IReactorUdpSockets)
class ReactorInMemory(IdleReactor):
    """A reactor that opens sockets itself and records the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[tuple[str, int, FakeUdp]] = []

    def open_udp_socket(self, address: str, port: int, options: DatagramOptions) -> OpenedSocket:
        udp = FakeUdp(host=address, port=port or 7000)
        self.opened.append((address, port, udp))
        return OpenedSocket(udp, has_runs=False, has_packet_info=False)  # type: ignore[arg-type]


class ReactorTests(SynchronousTestCase):
    """A reactor that opens UDP sockets is used for each of them."""

    def test_the_fake_reactor_provides_the_interface(self) -> None:
        """As these tests use it."""
        verifyObject(IReactorUdpSockets, ReactorInMemory())

    def test_a_datagram_socket_sends_through_it(self) -> None:
        """
        Bound to one address, or to all addresses of both families. No kernel socket is opened.
        """
        reactor = ReactorInMemory()
        datagrams = DatagramSocket(reactor)
        self.successResultOf(datagrams.bind_endpoint("192.0.2.1", 1337))
        self.successResultOf(datagrams.send_to(b"Hello", ("192.0.2.2", 7)))
        [(address, port, udp)] = reactor.opened
        self.assertEqual((address, port), ("192.0.2.1", 1337))
        self.assertEqual(udp.sent, [(b"Hello", ("192.0.2.2", 7))])
        both = DatagramSocket(reactor)
        self.successResultOf(both.bind_service_name(1337))
        self.assertEqual(
            [each[:2] for each in reactor.opened[1:]], [("0.0.0.0", 1337), ("::", 1337)]
        )
        for one in (datagrams, both):
            self.successResultOf(one.close())

    def test_endpoints_listen_through_it(self) -> None:
        """So protocol classes work with it."""
        reactor = ReactorInMemory()
        port = self.successResultOf(UdpEndpoint(reactor, 1337, HOST).listen(DatagramProtocol()))
        self.assertEqual([each[:2] for each in reactor.opened], [(HOST, 1337)])
        port.stopListening()
