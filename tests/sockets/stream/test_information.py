"""The information of a socket is filled in while it connects."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.stream.test_tcp_info import packed
from tests.stream.test_transport import FakeProtocol, IdleReactor, tcp_pair
from twsock.names import HostName
from twsock.sockets.stream.information import (
    BandwidthStatistics,
    RoundTripTimeStatistics,
    StreamSocketInformation,
    StreamSocketListenerInformation,
)


def connected(host: IAddress, peer: IAddress) -> StreamSocketInformation:
    """Connect from one address to another, in memory."""
    information = StreamSocketInformation()
    information.connected(StringTransport(host, peer))
    return information


def between(host: str, peer: str) -> StreamSocketInformation:
    """Connect over TCP, in memory, with 4000 as the local and 80 as the remote port."""
    kind = IPv6Address if ":" in host else IPv4Address
    return connected(kind("TCP", host, 4000), kind("TCP", peer, 80))


class AddressTests(SynchronousTestCase):
    """Addresses and ports of both ends."""

    def test_an_unconnected_socket_has_no_addresses(self) -> None:
        """Addresses and names are None, ports and services empty."""
        information = StreamSocketInformation()
        self.assertIsNone(information.local_address)
        self.assertIsNone(information.remote_address)
        self.assertIsNone(information.remote_host_name)
        self.assertEqual((information.local_port, information.remote_port), ("", ""))
        self.assertEqual(information.remote_service_name, "")

    def test_a_connection_has_two_ends(self) -> None:
        """Addresses are host names and ports are text, for both families."""
        for host, peer in (("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")):
            information = between(host, peer)
            self.assertEqual(information.local_address, HostName(host), (host, peer))
            self.assertEqual(information.remote_address, HostName(peer), (host, peer))
            self.assertEqual(
                (information.local_port, information.remote_port), ("4000", "80"), (host, peer)
            )

    def test_a_socket_of_both_families_shows_ipv4_as_ipv4(self) -> None:
        """The peer is 127.0.0.1, however the kernel writes it."""
        information = between("::ffff:127.0.0.1", "::ffff:192.0.2.1")
        self.assertEqual(information.local_address, HostName("127.0.0.1"))
        self.assertEqual(information.remote_address, HostName("192.0.2.1"))

    def test_the_zone_of_an_address_is_kept(self) -> None:
        """A link-local address is useless without its interface."""
        index = socket.if_nametoindex("lo")
        host = IPv6Address("TCP", "fe80::1", 4000, 0, index)
        information = connected(host, IPv6Address("TCP", "fe80::2", 80, 0, index))
        self.assertEqual(information.local_address, HostName("fe80::1%lo"))
        self.assertEqual(information.remote_address, HostName("fe80::2%lo"))
        information.lost()
        self.assertEqual(information.remote_host_name, HostName("fe80::2%lo"))

    def test_a_unix_socket_has_neither_address_nor_port(self) -> None:
        """Its path is no host name."""
        information = connected(UNIXAddress("/run/a"), UNIXAddress(None))
        self.assertIsNone(information.local_address)
        self.assertIsNone(information.remote_host_name)
        self.assertEqual((information.local_port, information.remote_service_name), ("", ""))

    def test_addresses_stay_after_the_end(self) -> None:
        """So that the log line of the end can contain them."""
        information = between("192.0.2.1", "192.0.2.2")
        information.lost()
        self.assertEqual(information.remote_address, HostName("192.0.2.2"))
        self.assertEqual((information.local_port, information.remote_port), ("4000", "80"))


class NameTests(SynchronousTestCase):
    """Host and service as given to ``connect``."""

    def test_the_names_are_known_before_the_connection(self) -> None:
        """While the socket is being connected."""
        information = StreamSocketInformation()
        information.asked_for(HostName("Example.com"), "http")
        assert information.remote_host_name is not None
        self.assertEqual(information.remote_host_name.raw_name, "Example.com")
        self.assertEqual(information.remote_service_name, "http")
        self.assertIsNone(information.remote_address)

    def test_the_names_stay_as_given(self) -> None:
        """The addresses are in other properties."""
        information = between("192.0.2.1", "192.0.2.2")
        information.asked_for(HostName("example.com"), "http")
        self.assertEqual(information.remote_host_name, HostName("example.com"))
        self.assertEqual(information.remote_service_name, "http")
        self.assertEqual(information.remote_address, HostName("192.0.2.2"))
        self.assertEqual(information.remote_port, "80")

    def test_an_accepted_socket_has_the_names_of_its_peer(self) -> None:
        """Its address and port."""
        information = between("192.0.2.1", "192.0.2.2")
        self.assertEqual(information.remote_host_name, HostName("192.0.2.2"))
        self.assertEqual(information.remote_service_name, "80")

    def test_a_second_attempt_replaces_the_names(self) -> None:
        """It may have another host, or an endpoint without names."""
        information = StreamSocketInformation()
        information.asked_for(HostName("example.com"), "http")
        information.asked_for(None, None)
        self.assertIsNone(information.remote_host_name)
        self.assertEqual(information.remote_service_name, "")


class MeasuredSocket(socket.socket):
    """A real socket whose ``TCP_INFO`` the test sets."""

    info: bytes

    def getsockopt(self, *_: Any) -> Any:
        return self.info


class KernelTransport(Connection):
    """A connection of Twisted, with addresses."""

    def __init__(self, end: socket.socket) -> None:
        super().__init__(end, FakeProtocol(), IdleReactor())  # type: ignore[arg-type]

    @override
    def getHost(self) -> IAddress:
        return IPv4Address("TCP", *self.socket.getsockname())

    @override
    def getPeer(self) -> IAddress:
        return IPv4Address("TCP", *self.socket.getpeername())


class StatisticsTests(SynchronousTestCase):
    """Measurements of the kernel."""

    if not hasattr(socket, "TCP_INFO"):
        skip = "only Linux measures"

    def setUp(self) -> None:
        near, self.peer = tcp_pair()
        self.socket = MeasuredSocket(fileno=near.detach())
        self.addCleanup(self.socket.close)
        self.addCleanup(self.peer.close)
        self.information = StreamSocketInformation()

    def connect(self, end: socket.socket) -> None:
        self.information.connected(KernelTransport(end))

    def assert_all_zero(self) -> None:
        self.assertEqual(
            self.information.round_trip_time_statistics,
            RoundTripTimeStatistics(variance=0, max=0, min=0, sum=0),
        )
        self.assertEqual(
            self.information.bandwidth_statistics,
            BandwidthStatistics(0, 0, 0, 0, False, False),
        )

    def test_without_a_connection_statistics_are_zero(self) -> None:
        """They raise no error."""
        self.assert_all_zero()

    def test_without_a_socket_statistics_are_zero(self) -> None:
        """As in memory, and under TLS."""
        self.information.connected(StringTransport())
        self.assert_all_zero()

    def test_after_the_end_statistics_are_zero(self) -> None:
        """The kernel drops them."""
        self.socket.info = packed(rtt=300, rate=1000)
        self.connect(self.socket)
        self.information.lost()
        self.assert_all_zero()

    def test_round_trip_times_are_in_microseconds(self) -> None:
        """The sum is the smoothed time, and the longest is unknown."""
        self.socket.info = packed(rtt=300, variation=20, least=250)
        self.connect(self.socket)
        self.assertEqual(
            self.information.round_trip_time_statistics,
            RoundTripTimeStatistics(variance=20, max=0, min=250, sum=300),
        )

    def test_bandwidth_is_in_bits(self) -> None:
        """The kernel counts bytes; the inbound direction is not estimated."""
        self.socket.info = packed(rate=1000)
        self.connect(self.socket)
        self.assertEqual(
            self.information.bandwidth_statistics,
            BandwidthStatistics(outbound_bits_per_second=8000, outbound_bandwidth_peaked=True),
        )

    def test_a_rate_that_the_sender_limits_is_no_peak(self) -> None:
        """Nor is one that was not measured."""
        self.connect(self.socket)
        for info in (packed(rate=1000, is_limited=True), packed(rate=0)):
            self.socket.info = info
            self.assertFalse(self.information.bandwidth_statistics.outbound_bandwidth_peaked, info)

    def test_statistics_are_read_at_each_access(self) -> None:
        """They are the current ones."""
        self.connect(self.socket)
        found = []
        for rtt in (300, 200):
            self.socket.info = packed(rtt=rtt)
            found.append(self.information.round_trip_time_statistics.sum)
        self.assertEqual(found, [300, 200])

    def test_an_exchange_over_loopback_is_measured(self) -> None:
        """The kernel has measurements after a request and an answer."""
        near, far = tcp_pair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        for sender, receiver in ((near, far), (far, near)):
            sender.sendall(b"x" * 1000)
            receiver.recv(1000)
        self.connect(near)
        statistics = self.information.round_trip_time_statistics
        self.assertGreater(statistics.min, 0)
        self.assertGreaterEqual(statistics.sum, statistics.min)


class ListenerTests(SynchronousTestCase):
    """The information of a listener."""

    def test_before_it_is_bound_the_port_is_empty(self) -> None:
        """Then it is the number of its port."""
        information = StreamSocketListenerInformation()
        self.assertEqual(information.local_port, "")
        information.local_port = "80"
        self.assertEqual(information.local_port, "80")
