"""A datagram socket opens one port for each address family; a failure leaves none open."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.stream.test_transport import IdleReactor
from twsock import LocalProtocolError, SocketError, SocketErrorStatus
from twsock.datagram.udp_socket import (
    DatagramOptions,
    IReactorUdpSockets,
    OpenedSocket,
    open_udp_socket,
)
from twsock.protocols import DatagramProtocol
from twsock.sockets.datagram.control import DatagramSocketControl
from twsock.sockets.datagram.ports import DatagramPorts


@implementer(IReactorUdpSockets)
class OnlyIPv4(IdleReactor):
    """Opens UDP sockets of the kernel; in IPv6 every port is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[OpenedSocket] = []

    def open_udp_socket(self, address: str, port: int, options: DatagramOptions) -> OpenedSocket:
        if ":" in address:
            raise SocketError("taken", status=SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        self.opened.append(open_udp_socket(address, port, options))
        return self.opened[-1]


class DatagramPortsTests(SynchronousTestCase):
    """One port for each address family, with the same number."""

    def setUp(self) -> None:
        self.control = DatagramSocketControl(lambda: False, lambda _: None)
        self.ports = DatagramPorts(IdleReactor(), self.control, DatagramProtocol)
        self.addCleanup(lambda: self.ports.close())

    def hosts(self) -> list[tuple[str, int]]:
        return [(port.getHost().host, port.getHost().port) for port in self.ports]

    def test_binding_all_addresses_opens_two_ports_of_one_number(self) -> None:
        """IPv4 first; a free number is one that is free in both."""
        self.ports.bind_all(0, None)
        (first, number), *others = self.hosts()
        self.assertEqual(first, "0.0.0.0")
        self.assertEqual(others, [("::", number)] if socket.has_ipv6 else [])

    def test_a_port_taken_in_one_family_is_not_bound_in_the_other(self) -> None:
        """The first port is closed again."""
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            other.bind(("::", 0))
            number = other.getsockname()[1]
            with self.assertRaises(SocketError) as caught:
                self.ports.bind_all(number, None)
        self.assertIs(caught.exception.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        self.assertFalse(self.ports)
        self.ports.bind_all(number, None)

    def test_the_search_for_a_number_free_in_both_families_ends(self) -> None:
        """It reports the last error, and leaves no port open."""
        reactor = OnlyIPv4()
        ports = DatagramPorts(reactor, self.control, DatagramProtocol)
        with self.assertRaises(SocketError) as caught:
            ports.bind_all(0, None)
        self.assertIs(caught.exception.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        self.assertFalse(ports)
        self.assertLess(len(reactor.opened), 100)
        self.assertEqual({opened.udp.fileno() for opened in reactor.opened}, {-1})

    def test_a_failed_bind_leaves_no_port_open(self) -> None:
        """Another address can be bound."""
        with self.assertRaises(SocketError):
            self.ports.bind_one("192.0.2.77", 0)
        self.assertFalse(self.ports)
        self.ports.bind_one("127.0.0.1", 0)
        self.assertEqual(len(self.hosts()), 1)

    def test_a_destination_needs_a_port_of_its_family(self) -> None:
        """Without one, the error says so."""
        port = self.ports.bind_family("127.0.0.1")
        self.assertIs(self.ports.find("192.0.2.1"), port)
        self.assertIsNone(self.ports.find("::1"))
        with self.assertRaises(SocketError) as caught:
            self.ports.require("::1")
        self.assertIs(caught.exception.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)

    def test_connecting_closes_the_port_of_the_other_family(self) -> None:
        """It receives no further datagrams."""
        self.ports.bind_all(0, None)
        before = list(self.ports)
        connected = self.ports.connect("127.0.0.1", 9, None)
        self.assertEqual(list(self.ports), [connected])
        self.assertEqual([port.is_open for port in before], [port is connected for port in before])

    def test_a_shared_port_sends_to_groups_only(self) -> None:
        """Checked before a port is opened."""
        self.control.multicast_only = True
        self.ports.check_destination("224.3.0.5")
        with self.assertRaises(LocalProtocolError):
            self.ports.check_destination("127.0.0.1")

    def test_a_shared_port_of_an_address_is_bound_to_all_addresses(self) -> None:
        """The address selects the interface for groups."""
        self.control.multicast_only = True
        self.ports.bind_one("127.0.0.1", 0)
        self.assertEqual(self.hosts()[0][0], "0.0.0.0")
        self.ports.join("224.3.0.5", None, None)
        (joined,) = next(iter(self.ports)).memberships
        self.assertEqual(joined.interface.name, "lo")

    def test_only_broadcasts_leave_by_several_interfaces(self) -> None:
        """The kernel chooses the interface for one host or group."""
        self.ports.bind_family("127.0.0.1")
        self.assertEqual(self.ports.find_ways(("127.0.0.1", 9)), ())
        self.assertEqual(self.ports.find_ways(("224.3.0.5", 9)), ())
        self.assertEqual(self.ports.find_ways(("ff15::9", 9, 0, 0)), ())
