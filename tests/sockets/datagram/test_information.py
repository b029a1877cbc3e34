"""What is known of a datagram socket can be asked at any time."""

from __future__ import annotations

import socket

from tests.sockets.datagram.cases import LOCALHOST, DatagramSocketCase
from twsock import HostName
from twsock.sockets.datagram.information import readable_address


class InformationTests(DatagramSocketCase):
    """Addresses and ports, before and after."""

    def test_before_it_is_bound_nothing_is_known(self) -> None:
        """It may be asked."""
        information = self.make().information
        self.assertEqual((information.local_address, information.local_port), (None, ""))
        self.assertEqual((information.remote_address, information.remote_port), (None, ""))
        self.assertEqual(information.dropped, 0)

    def test_bound_it_has_a_local_end(self) -> None:
        """The port is text, and the one that the system chose."""
        information = self.bind().information
        self.assertEqual(information.local_address, HostName(LOCALHOST))
        self.assertTrue(0 < int(information.local_port) < 65_536)
        self.assertEqual((information.remote_address, information.remote_port), (None, ""))

    def test_bound_to_everything_it_tells_the_address_of_ipv4(self) -> None:
        """Both families have the same port."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        self.assertEqual(made.information.local_address, HostName("0.0.0.0"))

    def test_connected_it_has_both_ends(self) -> None:
        """The address is the one from which the peer is reached."""
        peer = self.peer()
        information = self.connect(peer).information
        self.assertEqual(information.local_address, HostName(LOCALHOST))
        self.assertEqual(information.remote_address, HostName(LOCALHOST))
        self.assertEqual(information.remote_port, str(peer.getsockname()[1]))

    def test_connected_by_ipv6_it_has_both_ends(self) -> None:
        """In that family."""
        information = self.connect(self.peer("::1")).information
        self.assertEqual(information.local_address, HostName("::1"))
        self.assertEqual(information.remote_address, HostName("::1"))

    def test_closed_it_tells_what_it_was(self) -> None:
        """Nothing is raised."""
        made = self.bind()
        port = made.information.local_port
        made.close()
        self.assertEqual(made.information.local_port, port)
        self.assertEqual(made.information.dropped, 0)

    def test_what_the_kernel_dropped_is_counted(self) -> None:
        """Also after the end."""
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
    """A kernel's address, for people."""

    def test_of_ipv4(self) -> None:
        """As it is."""
        self.assertEqual(readable_address(("192.0.2.1", 1337)), ("192.0.2.1", 1337))

    def test_of_ipv6(self) -> None:
        """With its zone where it has one."""
        self.assertEqual(readable_address(("2001:db8::1", 1337, 0, 0)), ("2001:db8::1", 1337))
        lo = socket.if_nametoindex("lo")
        self.assertEqual(readable_address(("fe80::1", 1337, 0, lo)), ("fe80::1%lo", 1337))
