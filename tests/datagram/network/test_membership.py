"""Memberships decide which datagrams are accepted, and survive changes of interfaces."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import Any, cast

from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, sampled_from, tuples
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.network.test_interfaces import loopback
from twsock.datagram.network.interfaces import KERNEL_CHOICE, Interface
from twsock.datagram.network.membership import Membership, MembershipChange, Memberships, find_group
from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus

GROUP, OTHER_GROUP, GROUP6 = "224.3.0.5", "224.3.0.6", "ff15::5"
SOURCE, OTHER_SOURCE = "10.0.0.1", "10.0.0.2"
UNREACHABLE = SocketErrorStatus.UNREACHABLE_HOST

#: No machine has it, by name or by index.
GONE = Interface("eth99999", 2**31 - 7)

JOIN, LEAVE, JOIN_SOURCE, LEAVE_SOURCE = 42, 45, 46, 47


class FindTests(SynchronousTestCase):
    """The interface of a group."""

    def test_a_zone_names_the_interface(self) -> None:
        """So does an argument; without both, none is returned."""
        lo = loopback()
        for group, interface, found in (
            ("ff15::9%lo", None, ("ff15::9", lo)),
            (f"ff02::9%{lo.index}", "lo", ("ff02::9", lo)),
            ("ff15::9", lo.index, ("ff15::9", lo)),
            ("ff15::9", None, ("ff15::9", None)),
            (GROUP, lo, (GROUP, lo)),
        ):
            self.assertEqual(find_group(group, interface), found, (group, interface, found))

    def test_a_zone_that_contradicts_the_interface_is_refused(self) -> None:
        """
        A missing interface is refused too. An address that is not a group is left to the join.
        """
        self.assertRaises(ValueError, find_group, "ff15::9%lo", GONE)
        error = self.assertRaises(SocketError, find_group, "ff15::9%no-such-interface", None)
        self.assertIs(error.status, UNREACHABLE)
        for address in ("fe80::9%lo", "224.3.0.5%lo"):
            self.assertEqual(find_group(address, None)[0], address, f"{address=}")


class KernelSocket:
    """
    A kernel's idea of a socket of IPv4, with Linux's answers.

    :ivar joined: sources by group and index; None for all.
    :ivar absent: indexes of interfaces that are gone. What was joined there is still listed.
    """

    family = socket.AF_INET

    def __init__(self) -> None:
        self.joined: dict[tuple[str, int], set[str] | None] = {}
        self.absent: set[int] = set()

    def setsockopt(self, level: int, option: int, request: bytes) -> None:
        assert level == socket.IPPROTO_IP
        (index,) = struct.unpack_from("@I", request)
        addresses = request[struct.calcsize("@I0L") :]
        key = socket.inet_ntoa(addresses[4:8]), index
        source = socket.inet_ntoa(addresses[132:136]) if len(addresses) > 128 else ""
        number = self.answer(option, key, source)
        if number:
            raise OSError(number, os.strerror(number))

    def answer(self, option: int, key: tuple[str, int], source: str) -> int:
        sources = self.joined.get(key)
        if key[1] in self.absent and option != LEAVE:
            return errno.ENODEV
        if option == JOIN:
            return errno.EADDRINUSE if key in self.joined else self.put(key, None)
        if option == LEAVE:
            return self.take(key)
        if option == JOIN_SOURCE:
            if source in (sources or ()):
                return errno.EADDRNOTAVAIL
            return self.put(key, {source, *(sources or ())})
        if key not in self.joined:
            return errno.EINVAL
        if source not in (sources or ()):
            return errno.EADDRNOTAVAIL
        return self.put(key, sources - {source}) if sources != {source} else self.take(key)  # type: ignore[operator]

    def put(self, key: tuple[str, int], sources: set[str] | None) -> int:
        self.joined[key] = sources
        return 0

    def take(self, key: tuple[str, int]) -> int:
        if key not in self.joined:
            return errno.EADDRNOTAVAIL
        del self.joined[key]
        return 0


class MembershipCase(SynchronousTestCase):
    """Memberships of a socket of a fake kernel."""

    if sys.platform != "linux":
        skip = "the kernel in memory is asked as Linux is"

    def setUp(self) -> None:
        self.kernel = KernelSocket()
        self.memberships = Memberships(cast(socket.socket, self.kernel))
        self.loopback = loopback()


class JoinTests(MembershipCase):
    """Join and leave."""

    def test_joined_groups_are_listed(self) -> None:
        """In order, with the canonical spelling of addresses."""
        self.memberships.join(GROUP, self.loopback)
        self.memberships.join(OTHER_GROUP, self.loopback, SOURCE)
        expected = [
            Membership(GROUP, self.loopback),
            Membership(OTHER_GROUP, self.loopback, SOURCE),
        ]
        self.assertEqual(list(self.memberships), expected)
        self.assertEqual(len(self.memberships), 2)
        self.assertIn(GROUP, self.memberships)
        self.assertEqual(
            self.kernel.joined,
            {(GROUP, self.loopback.index): None, (OTHER_GROUP, self.loopback.index): {SOURCE}},
        )

    def test_a_group_that_was_not_joined_is_not_contained(self) -> None:
        """Nor is an address that cannot be joined."""
        self.memberships.join(GROUP, self.loopback)
        for thing in (OTHER_GROUP, GROUP6, "localhost", "", 5):
            self.assertNotIn(thing, self.memberships, f"{thing=}")

    def test_without_an_interface_the_kernel_chooses(self) -> None:
        """The index is 0."""
        self.memberships.join(GROUP)
        self.assertEqual(list(self.memberships), [Membership(GROUP, KERNEL_CHOICE)])
        self.assertEqual(self.kernel.joined, {(GROUP, 0): None})

    def test_joining_twice_is_harmless(self) -> None:
        """One leave is enough."""
        for _ in range(2):
            self.memberships.join(GROUP, self.loopback)
        self.memberships.leave(GROUP, self.loopback)
        self.assertEqual((list(self.memberships), self.kernel.joined), ([], {}))

    def test_a_failed_join_leaves_no_membership(self) -> None:
        """The group can be joined on another interface."""
        self.kernel.absent = {GONE.index}
        self.assertRaises(SocketError, self.memberships.join, GROUP, GONE)
        self.assertEqual(list(self.memberships), [])
        self.assertFalse(self.memberships.accepts(GROUP, GONE.index, SOURCE))

    def test_all_sources_and_single_sources_are_not_mixed(self) -> None:
        """The kernel would replace one by the other. The earlier membership stays."""
        for first, second in ((None, SOURCE), (SOURCE, None)):
            self.memberships.join(GROUP, self.loopback, first)
            for interface in (self.loopback, None):
                error = self.assertRaises(
                    LocalProtocolError, self.memberships.join, GROUP, interface, second
                )
                self.assertIn(GROUP, str(error), interface)
            self.assertEqual(
                list(self.memberships), [Membership(GROUP, self.loopback, first)], (first, second)
            )
            self.memberships.leave(GROUP)

    def test_two_interfaces_may_have_all_sources_and_a_single_source(self) -> None:
        """They are two memberships."""
        self.memberships.join(GROUP, self.loopback)
        self.memberships.join(GROUP, GONE, SOURCE)
        self.assertEqual(len(self.memberships), 2)

    def test_leaving_a_group_that_was_not_joined_is_a_local_error(self) -> None:
        """Another group, interface or source; the membership stays."""
        self.memberships.join(GROUP, self.loopback, SOURCE)
        for wrong in (
            (OTHER_GROUP, self.loopback, SOURCE),
            (GROUP, GONE, SOURCE),
            (GROUP, KERNEL_CHOICE, SOURCE),
            (GROUP, self.loopback, OTHER_SOURCE),
            (GROUP, None, OTHER_SOURCE),
        ):
            error = self.assertRaises(LocalProtocolError, self.memberships.leave, *wrong)
            self.assertIn(wrong[0], str(error), wrong)
        self.assertEqual(len(self.memberships), 1)

    def test_leaving_without_an_interface_leaves_all_interfaces(self) -> None:
        """And all sources; other groups stay."""
        for group in (GROUP, OTHER_GROUP):
            self.memberships.join(group, self.loopback)
            self.memberships.join(group, GONE, SOURCE)
            self.memberships.join(group, GONE, OTHER_SOURCE)
        self.memberships.leave(GROUP)
        self.assertEqual({held.group for held in self.memberships}, {OTHER_GROUP})
        self.assertEqual({group for group, _ in self.kernel.joined}, {OTHER_GROUP})

    def test_a_group_of_another_family_is_refused(self) -> None:
        """Before the system call."""
        for call in (self.memberships.join, self.memberships.leave):
            error = self.assertRaises(SocketError, call, GROUP6, self.loopback)
            self.assertIs(error.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED, call)

    _actions = tuples(
        booleans(), sampled_from([GROUP, OTHER_GROUP]), sampled_from([None, SOURCE, OTHER_SOURCE])
    )

    @given(lists(_actions, max_size=12))
    def test_the_list_equals_the_memberships_of_the_kernel(
        self, actions: list[tuple[bool, str, str | None]]
    ) -> None:
        """For any sequence of joins and leaves, with any failures."""
        kernel: Any = KernelSocket()
        memberships = Memberships(kernel)
        for is_join, group, source in actions:
            try:
                call = memberships.join if is_join else memberships.leave
                call(group, self.loopback, source)
            except LocalProtocolError:
                pass
        held: dict[tuple[str, int], set[str] | None] = {}
        for one in memberships:
            key = one.group, one.interface.index
            held[key] = None if one.source is None else {one.source, *(held.get(key) or ())}
        self.assertEqual(held, kernel.joined)


class AcceptTests(MembershipCase):
    """Accepted datagrams."""

    def accepted(self, index: int, source: str = SOURCE, group: str = GROUP) -> bool:
        return self.memberships.accepts(group, index, source)

    def test_a_group_is_accepted_on_its_interface(self) -> None:
        """Another group, another interface, and an unknown destination are not."""
        self.memberships.join(GROUP, self.loopback)
        here = self.loopback.index
        self.assertTrue(self.accepted(here))
        self.assertFalse(self.accepted(here + 1))
        for destination in (OTHER_GROUP, "127.0.0.1", ""):
            self.assertFalse(self.accepted(here, group=destination), destination)

    def test_with_an_unknown_interface_any_membership_is_enough(self) -> None:
        """The index is 0."""
        self.memberships.join(GROUP, self.loopback, SOURCE)
        self.assertTrue(self.accepted(0))
        self.assertFalse(self.accepted(0, OTHER_SOURCE))
        self.assertFalse(self.accepted(0, group=OTHER_GROUP))

    def test_a_group_on_the_interface_of_the_kernels_choice_is_accepted_everywhere(self) -> None:
        """The kernel does not report which interface it is."""
        self.memberships.join(GROUP)
        for index in (0, 1, 99):
            self.assertTrue(self.accepted(index), index)

    def test_a_source_is_accepted_on_its_interface(self) -> None:
        """Each source by itself."""
        self.memberships.join(GROUP, self.loopback, SOURCE)
        here = self.loopback.index
        self.assertTrue(self.accepted(here, SOURCE))
        self.assertFalse(self.accepted(here, OTHER_SOURCE))
        self.memberships.join(GROUP, self.loopback, OTHER_SOURCE)
        self.assertTrue(self.accepted(here, OTHER_SOURCE))
        self.memberships.leave(GROUP, self.loopback, SOURCE)
        self.assertFalse(self.accepted(here, SOURCE))
        self.assertTrue(self.accepted(here, OTHER_SOURCE))

    def test_sources_without_an_interface_add_to_those_of_each_interface(self) -> None:
        """They are accepted on every interface."""
        self.memberships.join(GROUP, self.loopback, SOURCE)
        self.memberships.join(GROUP, None, OTHER_SOURCE)
        for index, source, expected in (
            (self.loopback.index, SOURCE, True),
            (self.loopback.index, OTHER_SOURCE, True),
            (99, OTHER_SOURCE, True),
            (99, SOURCE, False),
        ):
            self.assertIs(self.accepted(index, source), expected, (index, source, expected))

    def test_a_group_that_was_left_is_not_accepted(self) -> None:
        """At once, even for datagrams that wait in the socket."""
        self.memberships.join(GROUP, self.loopback)
        self.memberships.leave(GROUP, self.loopback)
        self.assertFalse(self.accepted(self.loopback.index))

    def test_the_zone_of_a_source_is_ignored(self) -> None:
        """An IPv6 socket reports link-local sources with it."""
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
            memberships = Memberships(udp)
            memberships.join("FF15:0::5", self.loopback, "FE80::0001")
            for source, expected in (("fe80::1%lo", True), ("fe80::1", True), ("fe80::2", False)):
                found = memberships.accepts(GROUP6, self.loopback.index, source)
                self.assertIs(found, expected, (source, expected))


class RefreshTests(MembershipCase):
    """Memberships after a change of interfaces."""

    def test_without_a_change_nothing_is_reported(self) -> None:
        """An interface that went down and up is the same."""
        self.memberships.join(GROUP, self.loopback)
        self.memberships.join(OTHER_GROUP)
        before = dict(self.kernel.joined)
        self.assertEqual(self.memberships.refresh(), [])
        self.assertEqual(self.kernel.joined, before)

    def test_a_new_interface_of_the_same_name_is_joined(self) -> None:
        """The old membership is left first. The return is reported."""
        for source in (None, SOURCE):
            self.kernel.absent = set()
            old = Interface(self.loopback.name, 99)
            self.memberships.join(GROUP, old, source)
            self.kernel.absent = {99}
            heard = Membership(GROUP, self.loopback, source)
            self.assertEqual(self.memberships.refresh(), [MembershipChange(heard)], source)
            sources = {source} if source else None
            self.assertEqual(self.kernel.joined, {(GROUP, self.loopback.index): sources}, source)
            self.assertTrue(self.memberships.accepts(GROUP, self.loopback.index, SOURCE), source)
            self.assertFalse(self.memberships.accepts(GROUP, 99, SOURCE), source)
            self.memberships.leave(GROUP)

    def test_a_removed_interface_is_reported_once(self) -> None:
        """The message has the group and the interface; the kernel's slot is free again."""
        self.memberships.join(GROUP, GONE)
        self.kernel.absent = {GONE.index}
        (change,) = self.memberships.refresh()
        self.assertEqual((change.membership, change.is_lost), (Membership(GROUP, GONE), True))
        assert change.error is not None
        self.assertIs(change.error.status, UNREACHABLE)
        for word in (GROUP, GONE.name):
            self.assertIn(word, str(change.error), f"{word=}: {change.error}")
        self.assertEqual((self.memberships.refresh(), self.kernel.joined), ([], {}))
        self.assertFalse(self.memberships.accepts(GROUP, GONE.index, SOURCE))

    def test_every_source_on_a_removed_interface_is_reported(self) -> None:
        """The kernel can only leave all of them together."""
        for source in (SOURCE, OTHER_SOURCE):
            self.memberships.join(GROUP, GONE, source)
        self.kernel.absent = {GONE.index}
        told = [change.membership.source for change in self.memberships.refresh()]
        self.assertEqual((told, self.kernel.joined), ([SOURCE, OTHER_SOURCE], {}))

    def test_a_lost_membership_is_listed_and_can_be_left(self) -> None:
        """Otherwise it would be joined again."""
        self.memberships.join(GROUP, GONE)
        self.kernel.absent = {GONE.index}
        self.memberships.refresh()
        self.assertEqual(len(self.memberships), 1)
        self.memberships.leave(GROUP, GONE)
        self.assertEqual((len(self.memberships), self.memberships.refresh()), (0, []))

    def test_joining_a_lost_group_joins_again(self) -> None:
        """The interface exists, and `refresh` was not called."""
        self.memberships.join(GROUP, GONE)
        self.kernel.absent = {GONE.index}
        self.memberships.refresh()
        self.assertRaises(SocketError, self.memberships.join, GROUP, GONE)
        self.kernel.absent = set()
        self.memberships.join(GROUP, GONE)
        self.assertEqual(self.kernel.joined, {(GROUP, GONE.index): None})
        self.assertTrue(self.memberships.accepts(GROUP, GONE.index, SOURCE))

    def test_a_renamed_interface_keeps_its_membership(self) -> None:
        """Its index exists, and no interface has the old name."""
        self.memberships.join(GROUP, Interface(GONE.name, self.loopback.index))
        self.assertEqual(self.memberships.refresh(), [])
        self.assertTrue(self.memberships.accepts(GROUP, self.loopback.index, SOURCE))

    def test_a_failed_join_is_reported_and_tried_again(self) -> None:
        """The new interface accepts no groups at first. Later the group is joined again."""
        self.memberships.join(GROUP, Interface(self.loopback.name, 99))
        self.kernel.absent = {99, self.loopback.index}
        (change,) = self.memberships.refresh()
        self.assertTrue(change.is_lost)
        self.assertEqual(self.memberships.refresh(), [])
        self.kernel.absent = {99}
        (change,) = self.memberships.refresh()
        self.assertEqual(change, MembershipChange(Membership(GROUP, self.loopback)))

    def test_a_membership_without_an_interface_is_joined_again(self) -> None:
        """It ends with the last route to the group, and with its interface."""
        self.memberships.join(GROUP)
        self.kernel.absent = {0}
        (change,) = self.memberships.refresh()
        self.assertTrue(change.is_lost)
        self.kernel.absent, self.kernel.joined = set(), {}
        (change,) = self.memberships.refresh()
        self.assertEqual(change, MembershipChange(Membership(GROUP, KERNEL_CHOICE)))

    def test_datagrams_without_a_route_to_the_group_are_accepted(self) -> None:
        """The old interface may still receive them. The group can be left too."""
        self.memberships.join(GROUP)
        self.kernel.absent = {0}
        self.memberships.refresh()
        self.assertTrue(self.memberships.accepts(GROUP, 4, SOURCE))
        self.memberships.leave(GROUP)
        self.assertEqual(self.kernel.joined, {})

    @given(lists(tuples(sampled_from(["lo", "eth99999"]), integers(2**30, 2**30 + 3))))
    def test_after_a_refresh_only_existing_interfaces_are_joined(
        self, interfaces: list[tuple[str, int]]
    ) -> None:
        """For any groups, interfaces and names."""
        kernel: Any = KernelSocket()
        memberships = Memberships(kernel)
        for name, index in interfaces:
            memberships.join(GROUP, Interface(self.loopback.name if name == "lo" else name, index))
        kernel.absent = set(range(2**30, 2**30 + 4))
        memberships.refresh()
        names = {name for name, _ in interfaces}
        expected = {(GROUP, self.loopback.index): None} if "lo" in names else {}
        self.assertEqual((kernel.joined, memberships.refresh()), (expected, []))
