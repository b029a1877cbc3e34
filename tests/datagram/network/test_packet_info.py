"""Control messages of the kernel become values, and values become control messages."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from typing import Any

from hypothesis import example, given
from hypothesis.strategies import integers, ip_addresses
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_udp import IP_PKTINFO, IPV6_PKTINFO, UDP_GRO, UDP_SEGMENT, error_of
from twsock.datagram.network.packet_info import (
    CONTROL_SIZE,
    is_multicast,
    read_control,
    request_packet_info,
    request_runs,
    segment_control,
    source_control,
)

LINUX = None if sys.platform == "linux" else "the numbers are those of Linux"


class WithoutOptions:
    """A socket of a system without these options."""

    def __init__(self, family: int) -> None:
        self.family = family

    def setsockopt(self, level: int, option: int, value: int) -> None:
        raise error_of(errno.ENOPROTOOPT)


class ReadTests(SynchronousTestCase):
    """Control messages of a received run."""

    def test_without_control_messages_all_values_are_empty(self) -> None:
        """A single datagram of unknown destination."""
        self.assertEqual(read_control([]), (0, "", 0, ""))

    def test_the_segment_size_is_a_native_int(self) -> None:
        """It has four bytes (udp(7))."""
        message = (socket.IPPROTO_UDP, UDP_GRO, struct.pack("=i", 1200))
        self.assertEqual(read_control([message]), (1200, "", 0, ""))

    def test_the_destination_of_ipv4_is_the_second_address(self) -> None:
        """The first address of ``struct in_pktinfo`` is local, and differs for groups."""
        told = struct.pack("=i4s4s", 3, b"\x0a\0\0\1", b"\xe0\3\0\5")
        message = (socket.IPPROTO_IP, IP_PKTINFO, told)
        self.assertEqual(read_control([message]), (0, "224.3.0.5", 3, "10.0.0.1"))

    def test_the_destination_of_ipv6_comes_first(self) -> None:
        """``struct in6_pktinfo`` (:rfc:`3542` section 6)."""
        told = socket.inet_pton(socket.AF_INET6, "fe80::1") + struct.pack("=i", 4)
        message = (socket.IPPROTO_IPV6, IPV6_PKTINFO, told)
        self.assertEqual(read_control([message]), (0, "fe80::1", 4, "fe80::1"))

    def test_an_ipv6_group_has_no_local_address(self) -> None:
        """IPv6 does not report a local address to answer from."""
        told = socket.inet_pton(socket.AF_INET6, "ff15::1") + struct.pack("=i", 4)
        message = (socket.IPPROTO_IPV6, IPV6_PKTINFO, told)
        self.assertEqual(read_control([message]), (0, "ff15::1", 4, ""))

    def test_control_messages_may_have_any_order(self) -> None:
        """Other messages are ignored, also those with the same number at another level."""
        size = (socket.IPPROTO_UDP, UDP_GRO, struct.pack("=i", 9))
        where = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 1, b"\x7f\0\0\1", bytes(4)))
        strange = [(socket.SOL_SOCKET, UDP_GRO, b"x"), (socket.SOL_SOCKET, IP_PKTINFO, b"x")]
        for messages in ([size, where, *strange], [*strange, where, size]):
            self.assertEqual(read_control(messages), (9, "0.0.0.0", 1, "127.0.0.1"), messages)


class WriteTests(SynchronousTestCase):
    """Control messages for the kernel."""

    def test_a_segment_size_has_sixteen_bits(self) -> None:
        """The kernel refuses any other length (udp(7))."""
        wanted = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 65_507))
        self.assertEqual(segment_control(65_507), wanted)

    def test_a_source_address_is_packed(self) -> None:
        """With the index of the interface if it is needed."""
        told = struct.pack("=i4s4s", 0, bytes([127, 0, 0, 2]), bytes(4))
        self.assertEqual(source_control("127.0.0.2"), (socket.IPPROTO_IP, IP_PKTINFO, told))
        told = socket.inet_pton(socket.AF_INET6, "fe80::1") + struct.pack("=i", 4)
        self.assertEqual(source_control("fe80::1", 4), (socket.IPPROTO_IPV6, IPV6_PKTINFO, told))

    def test_an_interface_without_an_address_is_packed(self) -> None:
        """The kernel chooses the address."""
        told = struct.pack("=i4s4s", 4, bytes(4), bytes(4))
        self.assertEqual(source_control("", 4), (socket.IPPROTO_IP, IP_PKTINFO, told))

    @given(ip_addresses(), integers(min_value=0, max_value=2**31 - 1))
    def test_a_written_message_contains_the_address(self, address: Any, index: int) -> None:
        """IPv4 has different fields for source and destination."""
        level, kind, data = source_control(str(address), index)
        if address.version == 6:
            written = socket.inet_ntop(socket.AF_INET6, address.packed)
            self.assertEqual(read_control([(level, kind, data)])[:3], (0, written, index))
        else:
            self.assertEqual(struct.unpack("=i4s4s", data), (index, address.packed, bytes(4)))


class RequestTests(SynchronousTestCase):
    """Options that request control messages."""

    def test_a_system_without_the_options_returns_false(self) -> None:
        """It is no error; the port works without them."""
        for family in (socket.AF_INET, socket.AF_INET6):
            socket_of_old_system: Any = WithoutOptions(family)
            self.assertFalse(request_packet_info(socket_of_old_system), family)
            self.assertFalse(request_runs(socket_of_old_system), family)

    def test_a_real_kernel_reports_the_destination(self) -> None:
        """Within the buffer for control messages, without truncation."""
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            with socket.socket(family, socket.SOCK_DGRAM) as udp:
                udp.settimeout(60)
                self.assertTrue(request_packet_info(udp), (host, family))
                request_runs(udp)
                udp.bind((host, 0))
                udp.sendto(b"a", udp.getsockname())
                _, messages, flags, _ = udp.recvmsg(10, CONTROL_SIZE)
            self.assertEqual(read_control(messages)[:2], (0, host), (host, family))
            self.assertEqual(flags & socket.MSG_CTRUNC, 0, (host, family))

    test_a_real_kernel_reports_the_destination.skip = LINUX  # type: ignore[attr-defined]

    def test_the_buffer_fits_all_control_messages(self) -> None:
        """Segment size and the longer packet info, with the alignment of the C library."""
        self.assertGreaterEqual(CONTROL_SIZE, socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20))


class MulticastTests(SynchronousTestCase):
    """Multicast addresses are recognised by their text."""

    @given(ip_addresses())
    @example(ipaddress.ip_address("224.0.0.0"))
    @example(ipaddress.ip_address("239.255.255.255"))
    @example(ipaddress.ip_address("223.255.255.255"))
    @example(ipaddress.ip_address("240.0.0.0"))
    @example(ipaddress.ip_address("22.4.0.1"))
    @example(ipaddress.ip_address("23.9.0.1"))
    @example(ipaddress.ip_address("ff02::1"))
    @example(ipaddress.ip_address("2240::1"))
    @example(ipaddress.ip_address("23::1"))
    @example(ipaddress.ip_address("ff::1"))
    @example(ipaddress.ip_address("::ffff:224.0.0.1"))
    def test_multicast_addresses_are_those_of_the_standards(self, address: Any) -> None:
        """224.0.0.0/4 (:rfc:`1112`) and ff00::/8 (:rfc:`4291` section 2.7), and no others."""
        first = address.packed[0]
        is_group = first >> 4 == 0xE if address.version == 4 else first == 0xFF
        self.assertIs(is_multicast(str(address)), is_group)

    def test_upper_case_is_accepted(self) -> None:
        """Users may type it."""
        self.assertTrue(is_multicast("FF02::1"))
