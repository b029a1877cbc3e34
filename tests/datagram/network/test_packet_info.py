"""Control messages of the kernel become values, and values control messages."""

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


class Deaf:
    """A socket of a system that has none of the options."""

    def __init__(self, family: int) -> None:
        self.family = family

    def setsockopt(self, level: int, option: int, value: int) -> None:
        raise error_of(errno.ENOPROTOOPT)


class ReadTests(SynchronousTestCase):
    """What comes with a run."""

    def test_nothing_is_told(self) -> None:
        """A single datagram, to wherever."""
        self.assertEqual(read_control([]), (0, "", 0, ""))

    def test_the_size_of_datagrams_is_a_plain_int(self) -> None:
        """It is four bytes of this machine's order (udp(7))."""
        message = (socket.IPPROTO_UDP, UDP_GRO, struct.pack("=i", 1200))
        self.assertEqual(read_control([message]), (1200, "", 0, ""))

    def test_the_address_in_the_header_is_the_one_it_was_sent_to(self) -> None:
        """It is the second of ``struct in_pktinfo``; the first is ours, and differs for groups."""
        told = struct.pack("=i4s4s", 3, b"\x0a\0\0\1", b"\xe0\3\0\5")
        message = (socket.IPPROTO_IP, IP_PKTINFO, told)
        self.assertEqual(read_control([message]), (0, "224.3.0.5", 3, "10.0.0.1"))

    def test_ipv6_has_the_address_first(self) -> None:
        """``struct in6_pktinfo`` (:rfc:`3542` section 6)."""
        told = socket.inet_pton(socket.AF_INET6, "fe80::1") + struct.pack("=i", 4)
        message = (socket.IPPROTO_IPV6, IPV6_PKTINFO, told)
        self.assertEqual(read_control([message]), (0, "fe80::1", 4, "fe80::1"))

    def test_a_group_is_not_answered_from(self) -> None:
        """IPv6 does not tell which address of ours would do."""
        told = socket.inet_pton(socket.AF_INET6, "ff15::1") + struct.pack("=i", 4)
        message = (socket.IPPROTO_IPV6, IPV6_PKTINFO, told)
        self.assertEqual(read_control([message]), (0, "ff15::1", 4, ""))

    def test_messages_come_in_any_order_and_in_company(self) -> None:
        """Those that nobody asked for are passed over, also with a number that is another's."""
        size = (socket.IPPROTO_UDP, UDP_GRO, struct.pack("=i", 9))
        where = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 1, b"\x7f\0\0\1", bytes(4)))
        strange = [(socket.SOL_SOCKET, UDP_GRO, b"x"), (socket.SOL_SOCKET, IP_PKTINFO, b"x")]
        for messages in ([size, where, *strange], [*strange, where, size]):
            self.assertEqual(read_control(messages), (9, "0.0.0.0", 1, "127.0.0.1"))


class WriteTests(SynchronousTestCase):
    """What the kernel is told."""

    def test_a_segment_size_has_sixteen_bits(self) -> None:
        """The kernel refuses any other length (udp(7))."""
        wanted = (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 65_507))
        self.assertEqual(segment_control(65_507), wanted)

    def test_the_source_of_an_answer_is_named(self) -> None:
        """With the index of the interface where that matters."""
        told = struct.pack("=i4s4s", 0, bytes([127, 0, 0, 2]), bytes(4))
        self.assertEqual(source_control("127.0.0.2"), (socket.IPPROTO_IP, IP_PKTINFO, told))
        told = socket.inet_pton(socket.AF_INET6, "fe80::1") + struct.pack("=i", 4)
        self.assertEqual(source_control("fe80::1", 4), (socket.IPPROTO_IPV6, IPV6_PKTINFO, told))

    def test_an_interface_alone_can_be_named(self) -> None:
        """The address is then the kernel's choice."""
        told = struct.pack("=i4s4s", 4, bytes(4), bytes(4))
        self.assertEqual(source_control("", 4), (socket.IPPROTO_IP, IP_PKTINFO, told))

    @given(ip_addresses(), integers(min_value=0, max_value=2**31 - 1))
    def test_what_is_written_fits_and_has_the_address(self, address: Any, index: int) -> None:
        """IPv4 says where to send from in another place than where it says where to."""
        level, kind, data = source_control(str(address), index)
        if address.version == 6:
            written = socket.inet_ntop(socket.AF_INET6, address.packed)
            self.assertEqual(read_control([(level, kind, data)])[:3], (0, written, index))
        else:
            self.assertEqual(struct.unpack("=i4s4s", data), (index, address.packed, bytes(4)))


class RequestTests(SynchronousTestCase):
    """The kernel is asked to tell."""

    def test_a_system_without_the_options_says_so(self) -> None:
        """It is no error: the port does without."""
        for family in (socket.AF_INET, socket.AF_INET6):
            deaf: Any = Deaf(family)
            self.assertFalse(request_packet_info(deaf))
            self.assertFalse(request_runs(deaf))

    def test_a_real_kernel_tells_where_it_was_sent_to(self) -> None:
        """Within the room that is kept for it, with nothing cut off."""
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            with socket.socket(family, socket.SOCK_DGRAM) as udp:
                udp.settimeout(5)
                self.assertTrue(request_packet_info(udp))
                request_runs(udp)
                udp.bind((host, 0))
                udp.sendto(b"a", udp.getsockname())
                _, messages, flags, _ = udp.recvmsg(10, CONTROL_SIZE)
            self.assertEqual(read_control(messages)[:2], (0, host))
            self.assertEqual(flags & socket.MSG_CTRUNC, 0)

    test_a_real_kernel_tells_where_it_was_sent_to.skip = LINUX  # type: ignore[attr-defined]

    def test_there_is_room_for_all_that_is_told(self) -> None:
        """The size of a run and the longer packet info, as the C library aligns them."""
        self.assertGreaterEqual(CONTROL_SIZE, socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20))


class MulticastTests(SynchronousTestCase):
    """An address of a group is known by how it is written."""

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
    def test_groups_are_those_of_the_standards(self, address: Any) -> None:
        """224.0.0.0/4 (:rfc:`1112`) and ff00::/8 (:rfc:`4291` section 2.7); nothing else."""
        first = address.packed[0]
        is_group = first >> 4 == 0xE if address.version == 4 else first == 0xFF
        self.assertIs(is_multicast(str(address)), is_group)

    def test_letters_may_be_large(self) -> None:
        """As in what users type."""
        self.assertTrue(is_multicast("FF02::1"))
