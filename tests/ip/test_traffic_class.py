"""Packets of a socket are marked with a DSCP code point."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.sockets.stream.test_control import without
from twsock.datagram.udp_socket import DatagramOptions, open_udp_socket
from twsock.errors import OperationNotSupported
from twsock.ip.traffic_class import check_marks, mark_packets


def made(test: SynchronousTestCase, family: int, *, is_ipv6_only: bool = False) -> socket.socket:
    try:
        one = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise SkipTest(f"no IPv6: {error}") from None
    test.addCleanup(one.close)
    if family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_ipv6_only)
    return one


def lowest_free_descriptor() -> int:
    with socket.socket() as one:
        return one.fileno()


class MarkTests(SynchronousTestCase):
    """The kernel stores the mark."""

    def test_the_code_point_is_the_upper_six_bits(self) -> None:
        """Code point 63 is the traffic class 252; the lower two bits are for ECN."""
        for code_point in (63, 46, 0):
            one = made(self, socket.AF_INET)
            mark_packets(one, code_point)
            found = one.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
            self.assertEqual(found, code_point * 4, code_point)

    def test_a_socket_of_both_families_marks_both(self) -> None:
        """An IPv6-only socket marks IPv6 packets only."""
        for is_ipv6_only in (False, True):
            one = made(self, socket.AF_INET6, is_ipv6_only=is_ipv6_only)
            mark_packets(one, 46)
            self.assertEqual(
                one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS), 184, is_ipv6_only
            )
            found = one.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
            self.assertEqual(found, 0 if is_ipv6_only else 184, is_ipv6_only)

    def test_a_system_without_marks_raises_an_error(self) -> None:
        """The error is raised before a socket is opened, and when one is opened."""
        check_marks()
        without(self, "IPV6_TCLASS")
        self.assertRaises(OperationNotSupported, check_marks)
        options = DatagramOptions(code_point=1)
        free = lowest_free_descriptor()
        error = self.assertRaises(OperationNotSupported, open_udp_socket, "127.0.0.1", 0, options)
        # The error, while it is kept, keeps no socket open.
        self.assertEqual(lowest_free_descriptor(), free, error)

    def test_a_port_has_the_code_point_of_its_options(self) -> None:
        """Code point 0 is no mark; 63 is the largest."""
        for code_point in (0, 63):
            options = DatagramOptions(code_point=code_point)
            with open_udp_socket("127.0.0.1", 0, options).udp as udp:
                found = udp.getsockopt(socket.IPPROTO_IP, socket.IP_TOS)
                self.assertEqual(found, code_point * 4, code_point)
        for code_point in (-1, 64):
            error = self.assertRaises(ValueError, DatagramOptions, code_point=code_point)
            self.assertEqual(str(error), f"code_point is 0 to 63, not {code_point}", code_point)
