"""A socket joins and leaves groups, or an error contains the reason."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis.strategies import ip_addresses, text
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.network.test_interfaces import loopback
from twsock.datagram.network.membership_calls import (
    check_addresses,
    check_group,
    join,
    leave,
    membership_option,
)
from twsock.errors import LocalProtocolError, OperationNotSupported, SocketError, SocketErrorStatus

GROUP, GROUP6 = "224.3.0.5", "ff15::5"
SOURCE, SOURCE6 = "10.0.0.1", "fd00::1"
FOREIGN = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
UNREACHABLE = SocketErrorStatus.UNREACHABLE_HOST

NOT_LINUX = None if sys.platform == "linux" else "sources are joined on Linux only"


class CheckGroupTests(SynchronousTestCase):
    """Multicast addresses."""

    def test_both_families_have_groups(self) -> None:
        """
        224.0.0.0/4 (:rfc:`5771`) and ff00::/8 (:rfc:`4291` section 2.7), up to their last
        addresses.
        """
        for group in ("224.0.0.0", "224.3.0.5", "239.255.255.255"):
            self.assertEqual(check_group(group), socket.AF_INET, group)
        for group in ("ff00::", "FF02:0::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"):
            self.assertEqual(check_group(group), socket.AF_INET6, group)

    def test_another_address_is_refused(self) -> None:
        """The message has the argument and the range of multicast addresses."""
        near_misses = ["223.255.255.255", "240.0.0.0", "fe80::1", "::ffff:224.0.0.1"]
        for address in (*near_misses, "", "localhost", "224.3.0.5:22113", "224.3", "ff02::1%lo"):
            error = self.assertRaises(SocketError, check_group, address)
            self.assertIs(error.status, FOREIGN, address)
            for word in (repr(address), "224.0.0.0 to 239.255.255.255", "ff"):
                self.assertIn(word, str(error), f"{address=}, {word=}: {error}")

    @given(ip_addresses())
    def test_an_address_is_a_group_by_its_first_bits(self, address: Any) -> None:
        """Four bits in IPv4, eight in IPv6."""
        first = address.packed[0]
        if first >> 4 == 0xE if address.version == 4 else first == 0xFF:
            check_group(str(address))
        else:
            self.assertRaises(SocketError, check_group, str(address))

    @given(text())
    def test_any_text_is_a_group_or_an_error_of_one_short_line(self, address: str) -> None:
        """Only `SocketError` is raised."""
        try:
            check_group(address)
        except SocketError as error:
            self.assertLess(len(str(error)), 200)
            self.assertNotIn("\n", str(error))


class CheckAddressesTests(SynchronousTestCase):
    """Group, source and socket have one family."""

    def setUp(self) -> None:
        self.udp = udp(self, socket.AF_INET)
        self.udp6 = udp(self, socket.AF_INET6)

    def test_addresses_have_the_canonical_spelling(self) -> None:
        """The zone of a source is dropped."""
        found = check_addresses(self.udp6, "FF15:0::5", "FE80::0001%lo")
        self.assertEqual(found, (GROUP6, "fe80::1"))
        self.assertEqual(check_addresses(self.udp, GROUP, None), (GROUP, None))

    def test_another_family_than_that_of_the_socket_is_refused(self) -> None:
        """In both directions."""
        for joining, group in ((self.udp, GROUP6), (self.udp6, GROUP)):
            error = self.assertRaises(SocketError, check_addresses, joining, group, None)
            self.assertIs(error.status, FOREIGN, (joining, group))
            self.assertIn(group, str(error), (joining, group))

    def test_a_source_of_another_family_is_refused(self) -> None:
        """A source that is not an address too."""
        for source in (SOURCE6, "localhost", ""):
            error = self.assertRaises(SocketError, check_addresses, self.udp, GROUP, source)
            self.assertIs(error.status, FOREIGN, source)
            self.assertIn(repr(source), str(error), source)


class LayoutTests(SynchronousTestCase):
    """The layout of the kernel's structures."""

    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        skip = "the bytes are those of a little-endian machine of 64 bits"

    def test_the_layout_of_an_ipv4_group(self) -> None:
        """Index, four bytes of padding, ``struct sockaddr_in`` in 128 bytes."""
        level, option, request = membership_option(
            socket.AF_INET, GROUP, 7, None, is_join=True, is_linux=True
        )
        self.assertEqual((level, option, len(request)), (0, 42, 136))
        self.assertEqual(request[:16].hex(" ", 4), "07000000 00000000 02000000 e0030005")
        self.assertEqual(request[16:], bytes(120))

    def test_the_layout_of_an_ipv6_group(self) -> None:
        """The address follows port and flow information."""
        level, option, request = membership_option(
            socket.AF_INET6, GROUP6, 7, None, is_join=False, is_linux=True
        )
        self.assertEqual((level, option, len(request)), (41, 45, 136))
        self.assertEqual(request[:16].hex(" ", 4), "07000000 00000000 0a000000 00000000")
        self.assertEqual(request[16:32].hex(), "ff15" + "0" * 27 + "5")

    def test_the_layout_of_a_group_with_a_source(self) -> None:
        """The source follows in another 128 bytes."""
        for is_join, expected in ((True, 46), (False, 47)):
            _, option, request = membership_option(
                socket.AF_INET, GROUP, 7, SOURCE, is_join=is_join, is_linux=True
            )
            self.assertEqual((option, len(request)), (expected, 264), (is_join, expected))
            self.assertEqual(request[136:144].hex(" ", 4), "02000000 0a000001", (is_join, expected))

    def test_other_systems_get_the_older_structures(self) -> None:
        """``struct ip_mreqn`` and ``struct ipv6_mreq``."""
        _, option, request = membership_option(
            socket.AF_INET, GROUP, 7, None, is_join=True, is_linux=False
        )
        self.assertEqual(option, socket.IP_ADD_MEMBERSHIP)
        self.assertEqual(request.hex(" ", 4), "e0030005 00000000 07000000")
        _, option, request = membership_option(
            socket.AF_INET6, GROUP6, 7, None, is_join=False, is_linux=False
        )
        self.assertEqual(option, socket.IPV6_LEAVE_GROUP)
        self.assertEqual(request.hex(), "ff15" + "0" * 27 + "5" + "07000000")


class AbsenceTests(SynchronousTestCase):
    """A system without the options of :rfc:`3678`."""

    def test_the_older_options_join_and_leave(self) -> None:
        """The second leave fails, since nothing is joined."""
        for family, group in ((socket.AF_INET, GROUP), (socket.AF_INET6, GROUP6)):
            member = udp(self, family)
            for is_join in (True, False):
                member.setsockopt(
                    *membership_option(
                        family, group, loopback().index, None, is_join=is_join, is_linux=False
                    )
                )
            self.assertRaises(LocalProtocolError, leave, member, group, loopback().index)

    def test_single_sources_are_not_supported(self) -> None:
        """`OperationNotSupported` is raised."""
        for is_join in (True, False):
            self.assertRaises(
                OperationNotSupported,
                membership_option,
                *(socket.AF_INET, GROUP, 1, SOURCE),
                is_join=is_join,
                is_linux=False,
            )


def udp(test: SynchronousTestCase, family: int) -> socket.socket:
    """Open a socket that the test closes; skip without the family."""
    try:
        made = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        test.skipTest(f"this machine has no such sockets: {error}")
    test.addCleanup(made.close)
    return made


if TYPE_CHECKING:
    _Case = SynchronousTestCase  # what a mixin becomes a part of
else:
    _Case = object


class KernelTests(_Case):
    """Answers of a real kernel, in one family."""

    family: int
    group: str
    source: str

    def setUp(self) -> None:
        self.udp = udp(self, self.family)
        self.index = loopback().index

    def test_a_joined_group_can_be_left(self) -> None:
        """And joined again."""
        for attempt in range(2):
            self.assertIs(join(self.udp, self.group, self.index), True, f"{attempt=}")
            leave(self.udp, self.group, self.index)

    def test_joining_twice_is_harmless(self) -> None:
        """One leave is enough."""
        join(self.udp, self.group, self.index)
        self.assertIs(join(self.udp, self.group, self.index), False)
        leave(self.udp, self.group, self.index)
        self.assertRaises(LocalProtocolError, leave, self.udp, self.group, self.index)

    def test_leaving_a_group_that_was_not_joined_is_a_local_error(self) -> None:
        """The message has the group and the interface."""
        error = self.assertRaises(LocalProtocolError, leave, self.udp, self.group, self.index)
        self.assertIn(f"{self.group} was not joined on interface {self.index}", str(error))

    def test_a_missing_interface_is_unreachable(self) -> None:
        """The message has the index."""
        error = self.assertRaises(SocketError, join, self.udp, self.group, 2**31 - 1)
        self.assertIs(error.status, UNREACHABLE)
        self.assertIn(str(2**31 - 1), str(error))
        self.assertEqual(error.__cause__.errno, errno.ENODEV)

    def test_sources_are_joined_and_left_one_by_one(self) -> None:
        """Joining twice is harmless; leaving a source that was not joined is an error."""
        self.assertIs(join(self.udp, self.group, self.index, self.source), True)
        self.assertIs(join(self.udp, self.group, self.index, self.source), False)
        leave(self.udp, self.group, self.index, self.source)
        error = self.assertRaises(
            LocalProtocolError, leave, self.udp, self.group, self.index, self.source
        )
        self.assertIn(f"{self.group} from {self.source}", str(error))

    def test_leaving_without_a_source_leaves_all_sources(self) -> None:
        """One slot of the kernel is free again."""
        join(self.udp, self.group, self.index, self.source)
        leave(self.udp, self.group, self.index)
        self.assertRaises(LocalProtocolError, leave, self.udp, self.group, self.index)

    def test_a_closed_socket_fails_with_the_error_of_the_system(self) -> None:
        """The message has the group; the system's error is the cause."""
        self.udp.close()
        for call in (join, leave):
            error = self.assertRaises(SocketError, call, self.udp, self.group, self.index)
            self.assertIn(os.strerror(errno.EBADF), str(error), call)
            self.assertIn(self.group, str(error), call)

    for _test in (
        test_sources_are_joined_and_left_one_by_one,
        test_leaving_without_a_source_leaves_all_sources,
    ):
        if NOT_LINUX:
            _test.skip = NOT_LINUX  # type: ignore[attr-defined]


class Ipv4KernelTests(KernelTests, SynchronousTestCase):
    """Answers of a real kernel, in IPv4."""

    family, group, source = socket.AF_INET, GROUP, SOURCE

    def test_the_error_names_the_limit_of_groups(self) -> None:
        """With the sysctl setting. A leave makes room."""
        joined: list[str] = []
        error = self.assertRaises(SocketError, self.join_many, joined)
        self.assertIn(f"net.ipv4.igmp_max_memberships = {len(joined)}", str(error))
        leave(self.udp, joined[0], self.index)
        join(self.udp, self.group, self.index)

    def join_many(self, joined: list[str]) -> None:
        for number in range(1, 1000):
            group = f"239.1.{number >> 8}.{number & 0xFF}"
            join(self.udp, group, self.index)
            joined.append(group)

    def test_the_error_names_the_limit_of_sources(self) -> None:
        """Each group has its own."""
        error = self.assertRaises(SocketError, self.join_many_sources)
        self.assertIn("net.ipv4.igmp_max_msf = ", str(error))

    def join_many_sources(self) -> None:
        for number in range(1, 1000):
            join(self.udp, self.group, self.index, f"10.0.{number >> 8}.{number & 0xFF}")

    if NOT_LINUX:
        test_the_error_names_the_limit_of_groups.skip = NOT_LINUX  # type: ignore[attr-defined]
        test_the_error_names_the_limit_of_sources.skip = NOT_LINUX  # type: ignore[attr-defined]


class Ipv6KernelTests(KernelTests, SynchronousTestCase):
    """Answers of a real kernel, in IPv6."""

    family, group, source = socket.AF_INET6, GROUP6, SOURCE6


class RefusingSocket:
    """A socket that answers every call with one error."""

    family = socket.AF_INET6

    def __init__(self, number: int) -> None:
        self.number = number

    def setsockopt(self, *_option: object) -> None:
        raise OSError(self.number, os.strerror(self.number))


class RefusalTests(SynchronousTestCase):
    """An error of the kernel becomes a message of one line."""

    def refused(self, number: int, index: int, source: str | None = None) -> SocketError:
        member: Any = RefusingSocket(number)
        error: SocketError = self.assertRaises(SocketError, join, member, GROUP6, index, source)
        return error

    def test_without_a_route_the_error_asks_for_an_interface(self) -> None:
        """The kernel could not choose an interface."""
        error = self.refused(errno.ENODEV, 0)
        self.assertIs(error.status, UNREACHABLE)
        self.assertIn("no route", str(error))

    def test_the_error_names_the_limits_of_ipv6(self) -> None:
        """Memory for groups, and the number of sources."""
        self.assertIn("net.core.optmem_max", str(self.refused(errno.ENOMEM, 1)))
        self.assertIn("net.ipv6.mld_max_msf", str(self.refused(errno.ENOBUFS, 1, SOURCE6)))
