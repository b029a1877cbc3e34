"""Netlink messages become addresses and links, or errors with the reason."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

from hypothesis import given
from hypothesis.strategies import binary
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.network.fake_netlink import (
    DONE,
    ERROR,
    INTERRUPTED,
    NEW_ADDRESS,
    NEW_LINK,
    Kernel,
    address,
    attribute,
    link,
    message,
)
from twsock.datagram.network.netlink import (
    NETLINK,
    Answer,
    Link,
    LocalAddress,
    dump_addresses,
    dump_links,
    open_link_socket,
    parse_address,
    parse_link,
)
from twsock.errors import OperationNotSupported, RemoteProtocolError, SocketError, SocketErrorStatus

#: An address family that no system has.
UNKNOWN_FAMILY = 255


class AnswerTests(SynchronousTestCase):
    """The messages of an answer are collected up to the end of the dump."""

    def test_literal_bytes_of_an_answer(self) -> None:
        """A message of 20 bytes as in netlink(7), and the end."""
        if sys.byteorder != "little":
            self.skipTest("the bytes are those of a little-endian machine")
        answer = Answer(NEW_ADDRESS)
        answer.feed(
            bytes.fromhex("14000000 1400 0200 01000000 00000000 aabbccdd")
            + bytes.fromhex("14000000 0300 0200 01000000 00000000 00000000")
        )
        self.assertEqual(answer.bodies, [b"\xaa\xbb\xcc\xdd"])
        self.assertTrue(answer.is_complete)

    def test_parts_are_collected_until_the_end(self) -> None:
        """The kernel sends any number of parts."""
        answer = Answer(NEW_LINK)
        answer.feed(message(NEW_LINK, b"one1") + message(NEW_LINK, b"two2"))
        self.assertFalse(answer.is_complete)
        answer.feed(message(NEW_LINK, b"three"))
        answer.feed(message(DONE))
        self.assertTrue(answer.is_complete)
        self.assertEqual(answer.bodies, [b"one1", b"two2", b"three"])

    def test_messages_of_other_types_are_ignored(self) -> None:
        """Only the wanted type is collected."""
        answer = Answer(NEW_LINK)
        answer.feed(message(NEW_ADDRESS, b"else") + message(1) + message(NEW_LINK, b"this"))
        self.assertEqual(answer.bodies, [b"this"])

    def test_an_error_of_the_kernel_is_raised(self) -> None:
        """It is a negative errno, also in the end message."""
        for kind in (ERROR, DONE):
            refusal = message(kind, struct.pack("=i", -errno.ENETDOWN) + bytes(16))
            error = self.assertRaises(SocketError, Answer(NEW_LINK).feed, refusal)
            self.assertIs(error.status, SocketErrorStatus.NETWORK_IS_DOWN, kind)

    def test_an_acknowledgement_is_not_the_end(self) -> None:
        """It is an error message with number 0."""
        answer = Answer(NEW_LINK)
        answer.feed(message(ERROR, bytes(20)))
        self.assertFalse(answer.is_complete)

    def test_an_interrupted_dump_is_detected(self) -> None:
        """A flag on any message means that entries may be missing."""
        answer = Answer(NEW_LINK)
        answer.feed(message(NEW_LINK, b"this", INTERRUPTED) + message(DONE))
        self.assertTrue(answer.was_interrupted)

    def test_a_length_beyond_the_data_is_refused(self) -> None:
        """A length shorter than the header too."""
        for length in (0, 15, 21, 2**32 - 1):
            data = struct.pack("=IHHII", length, NEW_LINK, 0, 1, 0) + b"body"
            self.assertRaises(RemoteProtocolError, Answer(NEW_LINK).feed, data)

    def test_a_list_without_an_end_is_refused(self) -> None:
        """After 16 MiB."""
        answer = Answer(NEW_ADDRESS)
        part = message(NEW_LINK, bytes(2**20 - 16))
        for _ in range(16):
            answer.feed(part)
        self.assertRaises(RemoteProtocolError, answer.feed, message(NEW_LINK))

    @given(binary(max_size=200))
    def test_any_bytes_are_messages_or_an_error(self, data: bytes) -> None:
        """Only `SocketError` is raised."""
        answer = Answer(NEW_LINK)
        try:
            answer.feed(data)
        except SocketError as error:
            self.assertNotEqual(str(error), "")
        else:
            self.assertLessEqual(sum(map(len, answer.bodies)), len(data))


class AddressTests(SynchronousTestCase):
    """Address messages."""

    def test_an_ipv4_address_is_parsed(self) -> None:
        """With the index of its interface."""
        body = address(socket.AF_INET, 7, attribute(1, bytes([10, 0, 0, 1])))
        self.assertEqual(parse_address(body), LocalAddress(socket.AF_INET, "10.0.0.1", 7))

    def test_an_ipv6_address_is_parsed(self) -> None:
        """In its short spelling."""
        body = address(socket.AF_INET6, 7, attribute(1, b"\xfe\x80" + bytes(13) + b"\x01"))
        self.assertEqual(parse_address(body), LocalAddress(socket.AF_INET6, "fe80::1", 7))

    def test_the_local_address_of_a_point_to_point_link_is_used(self) -> None:
        """``IFA_ADDRESS`` is the address of the peer there."""
        ends = attribute(1, bytes([10, 0, 0, 2])), attribute(2, bytes([10, 0, 0, 1]))
        for attributes in (ends, reversed(ends)):
            found = parse_address(address(socket.AF_INET, 7, *attributes))
            self.assertEqual(found, LocalAddress(socket.AF_INET, "10.0.0.1", 7), attributes)

    def test_other_attributes_are_ignored(self) -> None:
        """The label has seven bytes, so padding follows it."""
        around = attribute(3, b"eth0:1\0"), attribute(8, bytes(4))
        body = address(socket.AF_INET, 1, around[0], attribute(1, bytes(4)), around[1])
        self.assertEqual(parse_address(body), LocalAddress(socket.AF_INET, "0.0.0.0", 1))

    def test_a_message_of_another_family_is_ignored(self) -> None:
        """Also a message without an address, or with one of the wrong size."""
        self.assertIsNone(parse_address(address(UNKNOWN_FAMILY, 1, attribute(1, bytes(4)))))
        self.assertIsNone(parse_address(address(socket.AF_INET, 1)))
        self.assertIsNone(parse_address(address(socket.AF_INET, 1, attribute(1, bytes(16)))))

    def test_a_short_message_is_refused(self) -> None:
        """In its fixed part, or in an attribute."""
        whole = address(socket.AF_INET, 7, attribute(1, bytes(4)))
        for cut in (whole[:7], whole[:-1]):
            self.assertRaises(RemoteProtocolError, parse_address, cut)

    @given(binary(max_size=64))
    def test_any_bytes_are_an_address_or_an_error(self, body: bytes) -> None:
        """Only the documented error is raised."""
        try:
            found = parse_address(body)
        except RemoteProtocolError as error:
            self.assertNotEqual(str(error), "")
        else:
            self.assertIsInstance(found, (LocalAddress, type(None)))


class LinkTests(SynchronousTestCase):
    """Link messages."""

    def test_each_flag_is_parsed(self) -> None:
        """Bit 0 is up, bit 1 broadcast, bit 3 loopback."""
        for flags, expected in (
            (0x1, Link(5, "eth0", is_up=True, can_broadcast=False, is_loopback=False)),
            (0x2, Link(5, "eth0", is_up=False, can_broadcast=True, is_loopback=False)),
            (0x8, Link(5, "eth0", is_up=False, can_broadcast=False, is_loopback=True)),
            (~0xB & 0xFFFF_FFFF, Link(5, "eth0", False, False, False)),
        ):
            self.assertEqual(parse_link(link(5, flags, b"eth0\0")), expected, (flags, expected))

    def test_a_link_without_a_name_has_an_empty_name(self) -> None:
        """The kernel always sends a name."""
        self.assertEqual(parse_link(struct.pack("=BxHiII", 0, 1, 5, 0, 0)).name, "")

    def test_a_short_message_is_refused(self) -> None:
        """In its fixed part, or in its name."""
        whole = link(5, 1, b"eth0")
        for cut in (whole[:15], whole[:-1]):
            self.assertRaises(RemoteProtocolError, parse_link, cut)

    @given(binary(max_size=64))
    def test_any_bytes_are_a_link_or_an_error(self, body: bytes) -> None:
        """Only the documented error is raised."""
        try:
            found = parse_link(body)
        except RemoteProtocolError as error:
            self.assertNotEqual(str(error), "")
        else:
            self.assertIsInstance(found, Link)


class KernelTests(SynchronousTestCase):
    """Dumps of a real kernel."""

    if NETLINK is None:
        skip = "only Linux has netlink"

    def test_the_loopback_interface_is_listed(self) -> None:
        """With the name and index of the POSIX calls."""
        loopback = [found for found in dump_links() if found.is_loopback]
        for found in loopback:
            self.assertEqual(socket.if_nametoindex(found.name), found.index, found)
        self.assertNotEqual(loopback, [])

    def test_the_loopback_address_is_listed(self) -> None:
        """127.0.0.1 belongs to the loopback interface."""
        indexes = {found.index for found in dump_links() if found.is_loopback}
        found = [one for one in dump_addresses() if one.address == "127.0.0.1"]
        self.assertEqual([one.interface in indexes for one in found], [True])

    def test_a_dump_leaves_no_descriptor_open(self) -> None:
        """Each dump has its own socket."""
        before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names, as the kernel lists them
        dump_links()
        dump_addresses()
        self.assertEqual(set(os.listdir("/proc/self/fd")), before)  # noqa: PTH208

    def test_the_link_socket_is_non_blocking(self) -> None:
        """A read without a message raises `BlockingIOError`."""
        opened = open_link_socket()
        assert opened is not None
        self.addCleanup(opened.close)
        self.assertEqual(opened.gettimeout(), 0)


class AnsweringTests(SynchronousTestCase):
    """Dumps that are repeated or fail."""

    def ask(self, kernel: Kernel) -> list[Link]:
        self.patch(socket, "socket", kernel)
        return dump_links(netlink=UNKNOWN_FAMILY)

    def test_an_interrupted_dump_is_repeated(self) -> None:
        """An entry may be missing in it."""
        changed = [message(NEW_LINK, link(1, 1, b"lo"), INTERRUPTED), message(DONE)]
        whole = [message(NEW_LINK, link(number, 1, b"lo")) for number in (1, 2)]
        kernel = Kernel(changed, changed, [*whole, message(DONE)])
        self.assertEqual([found.index for found in self.ask(kernel)], [1, 2])
        self.assertEqual(kernel.asked, 3)

    def test_after_four_interrupted_dumps_the_last_is_used(self) -> None:
        """It may lack an entry."""
        changed = [message(NEW_LINK, link(1, 1, b"lo"), INTERRUPTED), message(DONE)]
        kernel = Kernel(*[changed] * 100)
        self.assertEqual([found.index for found in self.ask(kernel)], [1])
        self.assertLess(kernel.asked, 10)

    def test_a_truncated_part_is_refused(self) -> None:
        """A message may be missing or incomplete."""
        kernel = Kernel([message(NEW_LINK, link(1, 1, b"lo"))], flags=socket.MSG_TRUNC)
        self.assertRaises(RemoteProtocolError, self.ask, kernel)

    def test_a_dump_without_an_answer_times_out(self) -> None:
        """The socket has a timeout."""
        kernel = Kernel([message(NEW_LINK, link(1, 1, b"lo"))])
        error = self.assertRaises(SocketError, self.ask, kernel)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)


class AbsenceTests(SynchronousTestCase):
    """A system without netlink, or a process that may not use it."""

    def test_dumps_are_not_supported(self) -> None:
        """The message contains the reason."""
        for family in (None, UNKNOWN_FAMILY):
            self.assertRaises(OperationNotSupported, dump_links, netlink=family)
            self.assertRaises(OperationNotSupported, dump_addresses, netlink=family)

    def test_there_is_no_link_socket(self) -> None:
        """None is returned; it is no error."""
        for family in (None, UNKNOWN_FAMILY):
            self.assertIsNone(open_link_socket(netlink=family), family)
