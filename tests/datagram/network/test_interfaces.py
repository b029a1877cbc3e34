"""Interfaces are looked up by name, index or address, and their changes are reported."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers, text
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.datagram.network.fake_netlink import (
    DONE,
    NEW_ADDRESS,
    NEW_LINK,
    Kernel,
    address,
    attribute,
    link,
    message,
)
from twsock.datagram.network.interfaces import (
    KERNEL_CHOICE,
    Interface,
    LinkWatch,
    LocalAddresses,
    broadcast_interfaces,
    find_interface,
    index_of,
    local_addresses,
)
from twsock.datagram.network.netlink import NETLINK, LocalAddress, dump_links
from twsock.errors import OperationNotSupported, SocketError, SocketErrorStatus

#: An address family that no system has.
UNKNOWN_FAMILY = 255


def loopback() -> Interface:
    """Return the loopback interface, whatever its name is on this system."""
    for index, name in socket.if_nameindex():
        if name in ("lo", "lo0"):
            return Interface(name, index)
    raise AssertionError("this machine has no loopback interface")


class FindInterfaceTests(SynchronousTestCase):
    """Lookup by name, index or address."""

    def setUp(self) -> None:
        self.loopback = loopback()

    def test_a_name_finds_the_interface(self) -> None:
        """As every tool prints it."""
        self.assertEqual(find_interface(self.loopback.name), self.loopback)

    def test_an_index_finds_the_interface(self) -> None:
        """As a number, and as text from a command line."""
        for index in (self.loopback.index, str(self.loopback.index)):
            self.assertEqual(find_interface(index), self.loopback, index)

    def test_an_address_finds_the_interface(self) -> None:
        """Of IPv4, and of IPv6 if the machine has it, in any spelling."""
        if NETLINK is None:
            self.skipTest("only Linux tells who has an address")
        self.assertEqual(find_interface("127.0.0.1"), self.loopback)
        if any(one.address == "::1" for one in local_addresses()):
            for address in ("::1", "0:0::01", f"::1%{self.loopback.name}"):
                self.assertEqual(find_interface(address), self.loopback, address)

    def assert_unknown(self, wanted: str | int, *words: str) -> None:
        error = self.assertRaises(SocketError, find_interface, wanted)
        self.assertIs(error.status, SocketErrorStatus.UNREACHABLE_HOST)
        self.assertNotIn("\n", str(error))
        for word in (repr(wanted), *words):
            self.assertIn(word, str(error), f"{word=}: {error}")

    def test_an_error_for_an_unknown_name_lists_the_existing_ones(self) -> None:
        """The message has the argument, the existing names, and the command that lists them."""
        self.assert_unknown("eth99999", self.loopback.name, "`ip link`")

    def test_an_unknown_index_is_refused(self) -> None:
        """0 and negative numbers are no indexes."""
        for index in (0, -1, 2**31 - 1, 2**40, "0", "2147483647"):
            self.assert_unknown(index, self.loopback.name)

    def test_an_error_for_an_unknown_address_lists_the_existing_ones(self) -> None:
        """192.0.2.0/24 is for documentation."""
        if NETLINK is None:
            self.skipTest("only Linux tells who has an address")
        has = f"127.0.0.1 on {self.loopback.name}"
        self.assert_unknown("192.0.2.77", has, "`ip address`")

    def test_the_interface_of_a_zone_must_have_the_address(self) -> None:
        """An address of another interface and a missing interface are refused."""
        error = self.assertRaises(SocketError, find_interface, "fe80::1%eth99999")
        self.assertIs(error.status, SocketErrorStatus.UNREACHABLE_HOST)
        self.assertIn("'eth99999'", str(error))

    def test_without_netlink_a_lookup_by_address_is_not_supported(self) -> None:
        """Names and indexes are found as usual."""
        error = self.assertRaises(OperationNotSupported, find_interface, "127.0.0.1", netlink=None)
        self.assertIn("use its name", str(error))
        for wanted in (self.loopback.name, self.loopback.index):
            self.assertEqual(find_interface(wanted, netlink=None), self.loopback, wanted)

    def test_a_long_argument_gives_a_short_message(self) -> None:
        """A digit 5000 times; Python refuses to parse such a number."""
        for wanted in ("9" * 5000, "x" * 5000, "fe80::1%" + "x" * 5000):
            error = self.assertRaises(SocketError, find_interface, wanted)
            self.assertLess(len(str(error)), 1000, wanted)

    def assert_found_or_unknown(self, wanted: str | int) -> None:
        try:
            found = find_interface(wanted)
        except SocketError as error:
            is_expected = error.status is SocketErrorStatus.UNREACHABLE_HOST
            self.assertTrue(is_expected or isinstance(error, OperationNotSupported), error)
        else:
            self.assertIn((found.index, found.name), socket.if_nameindex(), wanted)

    @given(text(max_size=20))
    def test_any_text_is_an_interface_or_an_error(self, wanted: str) -> None:
        """Only `SocketError` is raised."""
        self.assert_found_or_unknown(wanted)

    @given(integers())
    def test_any_number_is_an_interface_or_an_error(self, wanted: int) -> None:
        """Only `SocketError` is raised."""
        self.assert_found_or_unknown(wanted)


class IndexTests(SynchronousTestCase):
    """The current index of a name."""

    def test_a_name_returns_its_index(self) -> None:
        """It is looked up each time."""
        self.assertEqual(index_of(loopback().name), loopback().index)

    def test_an_unknown_name_returns_zero(self) -> None:
        """Impossible names too."""
        for name in ("eth99999", "", "x" * 500, "\0", "\udc80"):
            self.assertEqual(index_of(name), KERNEL_CHOICE.index, name)


class ListTests(SynchronousTestCase):
    """Addresses and interfaces of this machine."""

    if NETLINK is None:
        skip = "only Linux tells"

    def test_addresses_are_listed_by_family(self) -> None:
        """One family, the other, or both."""
        both = local_addresses()
        for family in (socket.AF_INET, socket.AF_INET6):
            expected = [one for one in both if one.family == family]
            self.assertEqual(local_addresses(family), expected, family)
        self.assertIn("127.0.0.1", [one.address for one in both])

    def test_the_loopback_interface_is_no_broadcast_interface(self) -> None:
        """Nor is an interface that is down."""
        found = {interface.index for interface in broadcast_interfaces()}
        links = [each for each in dump_links() if each.index in found]
        self.assertEqual(len(links), len(found))
        for each in links:
            self.assertTrue(each.is_up and each.can_broadcast and not each.is_loopback, each)


class AnsweringTests(SynchronousTestCase):
    """A fake kernel with many interfaces."""

    def answer(self, *parts: bytes) -> None:
        """Prepare the next netlink answer, and let every index be that of an interface."""
        self.patch(socket, "socket", Kernel([*parts, message(DONE)]))
        self.patch(socket, "if_indextoname", "eth{}".format)

    def test_broadcast_interfaces_are_up_and_can_broadcast(self) -> None:
        """Interfaces that are down, cannot broadcast, or are loopback are left out."""
        up, broadcast, is_loopback = 0x1, 0x2, 0x8
        flags = [
            up | broadcast,
            broadcast,
            up,
            up | broadcast | is_loopback,
            up | broadcast,
        ]
        links = [link(index, each, b"eth%d" % index) for index, each in enumerate(flags, 1)]
        self.answer(*(message(NEW_LINK, each) for each in links))
        found = broadcast_interfaces(netlink=UNKNOWN_FAMILY)
        self.assertEqual(found, [Interface("eth1", 1), Interface("eth5", 5)])

    def test_an_address_of_two_interfaces_is_refused(self) -> None:
        """The message contains both names."""
        packed = socket.inet_aton("192.0.2.7")
        own = [address(socket.AF_INET, index, attribute(2, packed)) for index in (2, 5)]
        self.answer(*(message(NEW_ADDRESS, each) for each in own))
        with self.assertRaises(SocketError) as caught:
            find_interface("192.0.2.7", netlink=UNKNOWN_FAMILY)
        self.assertIs(caught.exception.status, SocketErrorStatus.UNREACHABLE_HOST)
        self.assertIn("use one of eth2, eth5", str(caught.exception))

    def test_an_error_lists_at_most_eight_addresses(self) -> None:
        """It contains the number of the others."""
        packed = [bytes([192, 0, 2, number]) for number in range(1, 31)]
        own = [address(socket.AF_INET, 2, attribute(2, each)) for each in packed]
        self.answer(*(message(NEW_ADDRESS, each) for each in own))
        with self.assertRaises(SocketError) as caught:
            find_interface("192.0.2.99", netlink=UNKNOWN_FAMILY)
        text = str(caught.exception)
        self.assertIn("192.0.2.8 on eth2 and 22 more", text)
        self.assertNotIn("192.0.2.9 ", text)


class AbsenceTests(SynchronousTestCase):
    """A system without netlink."""

    def test_a_list_of_addresses_is_not_supported(self) -> None:
        """The message names the system as the reason."""
        self.assertRaises(OperationNotSupported, local_addresses, netlink=None)

    def test_no_broadcast_interface_is_listed(self) -> None:
        """The kernel chooses the interface of a broadcast."""
        self.assertEqual(broadcast_interfaces(netlink=None), [])


class FakeLinkSocket:
    """A netlink socket with prepared messages or errors."""

    def __init__(self, *tells: bytes | OSError) -> None:
        self.tells = list(tells)
        self.is_closed = False

    def recv(self, _size: int) -> bytes:
        if not self.tells:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        told = self.tells.pop(0)
        if isinstance(told, OSError):
            raise told
        return told

    def fileno(self) -> int:
        return -1 if self.is_closed else 1000

    def close(self) -> None:
        self.is_closed = True


def lost() -> OSError:
    """Return the error of a kernel that had no room for messages."""
    return OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


class LinkWatchTests(SynchronousTestCase):
    """Changes of interfaces are reported once."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.told = 0
        self.then: Callable[[], None] = lambda: None

    def changed(self) -> None:
        self.told += 1
        self.then()

    def watch(self, *tells: bytes | OSError) -> LinkWatch:
        self.socket: Any = FakeLinkSocket(*tells)
        return LinkWatch(self.reactor, self.changed, connect=lambda: self.socket)

    def test_the_watch_is_a_read_descriptor(self) -> None:
        """It has a name for the log."""
        watch = self.watch()
        verifyObject(IReadDescriptor, watch)
        self.assertEqual(self.reactor.getReaders(), [watch])
        self.assertIn("LinkWatch", watch.logPrefix())

    def test_several_changes_are_reported_once(self) -> None:
        """The callback looks up the current state."""
        watch = self.watch(b"x", b"x", b"x")
        watch.doRead()
        self.assertEqual((self.told, self.socket.tells), (1, []))

    def test_a_wake_up_without_messages_reports_nothing(self) -> None:
        """A reactor may call without reason."""
        self.watch().doRead()
        self.assertEqual(self.told, 0)

    def test_lost_messages_are_reported_as_a_change(self) -> None:
        """The kernel does not report their content."""
        watch = self.watch(lost())
        watch.doRead()
        self.assertEqual((self.told, watch.is_watching), (1, True))

    def test_many_messages_are_read_in_several_wake_ups(self) -> None:
        """So that other descriptors are served."""
        tells: list[bytes | OSError] = [lost(), b"x"]
        watch = self.watch(*(tells * 1000))
        watch.doRead()
        self.assertEqual(self.told, 1)
        self.assertGreater(len(self.socket.tells), 0)

    def test_another_error_ends_the_watch_and_is_logged(self) -> None:
        """Otherwise it would wake up the reactor all the time."""
        watch = self.watch(b"x", OSError(errno.EBADF, os.strerror(errno.EBADF)))
        watch.doRead()
        self.assertEqual((self.told, watch.is_watching, self.socket.is_closed), (1, False, True))
        self.assertEqual(self.reactor.getReaders(), [])

    def test_a_stop_closes_the_socket(self) -> None:
        """Stopping twice is harmless."""
        watch = self.watch(b"x")
        watch.stop()
        watch.stop()
        watch.doRead()
        self.assertEqual((self.told, watch.fileno(), self.socket.is_closed), (0, -1, True))
        self.assertEqual(self.reactor.getReaders(), [])

    def test_the_callback_may_stop_the_watch(self) -> None:
        """Nothing more is read."""
        watch = self.watch(b"x")
        self.then = watch.stop
        watch.doRead()
        self.assertEqual((self.told, watch.is_watching), (1, False))

    def test_an_exception_of_the_callback_does_not_end_the_watch(self) -> None:
        """It is logged, and the next change is reported."""
        watch = self.watch(b"x")
        self.then = self.fail_for_once
        watch.doRead()
        self.socket.tells.append(b"x")
        watch.doRead()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.told, 2)

    def fail_for_once(self) -> None:
        self.then = lambda: None
        raise ZeroDivisionError

    def test_the_end_of_the_reactor_closes_the_socket(self) -> None:
        """The reactor calls `connectionLost` of every reader."""
        watch = self.watch()
        watch.connectionLost(Failure(ConnectionLost()))
        self.assertTrue(self.socket.is_closed)

    def test_without_netlink_nothing_is_watched(self) -> None:
        """Nothing is reported, and stopping is harmless."""
        watch = LinkWatch(self.reactor, self.changed, connect=lambda: None)
        self.assertEqual((watch.is_watching, watch.fileno()), (False, -1))
        self.assertEqual(self.reactor.getReaders(), [])
        watch.stop()

    def test_a_real_socket_is_added_and_removed(self) -> None:
        """With a reactor that finds readers by their descriptors."""
        if NETLINK is None:
            self.skipTest("only Linux has netlink")
        reactor = SelectReactor()
        self.addCleanup(reactor.removeAll)
        watch = LinkWatch(reactor, self.changed)
        self.assertIn(watch, reactor.getReaders())
        watch.doRead()
        watch.stop()
        self.assertNotIn(watch, reactor.getReaders())


class LocalAddressesTests(SynchronousTestCase):
    """Which addresses are local."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = 0
        self.addresses = [
            LocalAddress(socket.AF_INET, "192.0.2.1", 2),
            LocalAddress(socket.AF_INET6, "fe80::1", 2),
        ]

    def ask(self) -> list[LocalAddress]:
        self.asked += 1
        return self.addresses

    def test_loopback_is_local_without_asking(self) -> None:
        """All of 127.0.0.0/8, and ::1."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        for host in ("127.0.0.1", "127.200.0.9", "::1"):
            self.assertIn(host, own, f"{host=}")
        self.assertEqual(self.asked, 0)

    def test_listed_addresses_are_local(self) -> None:
        """Zones are ignored."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        self.assertIn("192.0.2.1", own)
        self.assertIn("fe80::1%7", own)
        self.assertNotIn("192.0.2.2", own)

    def test_the_kernel_is_asked_at_most_once_a_second(self) -> None:
        """A new address is known after one second."""
        own = LocalAddresses(self.clock.seconds, self.ask)
        for lookup in range(100):
            self.assertNotIn("192.0.2.2", own, f"{lookup=}")
        self.assertEqual(self.asked, 1)
        self.addresses = [LocalAddress(socket.AF_INET, "192.0.2.2", 2)]
        self.clock.advance(1)
        self.assertIn("192.0.2.2", own)

    def test_without_a_list_every_address_counts_as_local(self) -> None:
        """So the echo does not answer, and no loop starts."""

        def refuse() -> list[LocalAddress]:
            raise OperationNotSupported("no netlink")

        own = LocalAddresses(self.clock.seconds, refuse)
        self.assertIsNone(own.current())
        self.assertIn("192.0.2.2", own)

    def test_an_address_for_documentation_is_not_local(self) -> None:
        """A real kernel is asked."""
        own = LocalAddresses(self.clock.seconds)
        self.assertNotIn("192.0.2.77", own)
