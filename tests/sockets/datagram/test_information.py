"""The information of a datagram socket can be read at any time."""

from __future__ import annotations

import socket

from tests.sockets.datagram.cases import LOCALHOST, DatagramSocketCase
from twsock import HostName
from twsock.sockets.datagram.information import readable_address


class InformationTests(DatagramSocketCase):
    """Addresses and ports, before, while and after the socket is open."""

    def test_an_unbound_socket_has_no_addresses(self) -> None:
        """Reading them raises no error."""
        information = self.make().information
        self.assertEqual((information.local_address, information.local_port), (None, ""))
        self.assertEqual((information.remote_address, information.remote_port), (None, ""))
        self.assertEqual(information.dropped, 0)

    def test_a_bound_socket_has_a_local_end(self) -> None:
        """The port is text, and the number that the system chose."""
        information = self.bind().information
        self.assertEqual(information.local_address, HostName(LOCALHOST))
        self.assertTrue(0 < int(information.local_port) < 65_536)
        self.assertEqual((information.remote_address, information.remote_port), (None, ""))

    def test_a_socket_of_all_addresses_reports_that_of_ipv4(self) -> None:
        """Both families have the same port."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        self.assertEqual(made.information.local_address, HostName("0.0.0.0"))

    def test_a_connected_socket_has_both_ends(self) -> None:
        """The local address is the one that reaches the peer."""
        peer = self.peer()
        information = self.connect(peer).information
        self.assertEqual(information.local_address, HostName(LOCALHOST))
        self.assertEqual(information.remote_address, HostName(LOCALHOST))
        self.assertEqual(information.remote_port, str(peer.getsockname()[1]))

    def test_a_socket_connected_by_ipv6_has_both_ends(self) -> None:
        """In that address family."""
        information = self.connect(self.peer("::1")).information
        self.assertEqual(information.local_address, HostName("::1"))
        self.assertEqual(information.remote_address, HostName("::1"))

    def test_a_closed_socket_keeps_its_addresses(self) -> None:
        """Reading them raises no error."""
        made = self.bind()
        port = made.information.local_port
        made.close()
        self.assertEqual(made.information.local_port, port)
        self.assertEqual(made.information.dropped, 0)

    def test_datagrams_that_the_kernel_dropped_are_counted(self) -> None:
        """Also after the socket was closed."""
        made = self.make()
        made.control.inbound_buffer_size_in_bytes = 1
        self.bind(made)
        peer = self.peer()
        for _ in range(100):
            peer.sendto(bytes(1000), self.address(made))
        dropped = made.information.dropped
        self.assertTrue(0 < dropped < 100, dropped)
        made.close()
        self.assertEqual(made.information.dropped, dropped)


class AddressTests(DatagramSocketCase):
    """Addresses of the kernel, as text."""

    def test_an_ipv4_address_is_unchanged(self) -> None:
        """Host and port."""
        self.assertEqual(readable_address(("192.0.2.1", 1337)), ("192.0.2.1", 1337))

    def test_an_ipv6_address_has_its_zone(self) -> None:
        """If it has a scope id."""
        self.assertEqual(readable_address(("2001:db8::1", 1337, 0, 0)), ("2001:db8::1", 1337))
        lo = socket.if_nametoindex("lo")
        self.assertEqual(readable_address(("fe80::1", 1337, 0, lo)), ("fe80::1%lo", 1337))
