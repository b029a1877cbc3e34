"""
Multicast groups between hosts.

Each host is a network namespace. Each program runs in its own process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.networks import Child, Host, hosts, needs_hosts, needs_netem
from tests.loopback.reactors import REACTORS

PORT = "22113"

#: Prints what comes to a port: ``heard`` source and data. Arguments: family, port, group or ``-``,
#: source or ``-``, and where it leaves the interface to the kernel ``0``.
LISTEN = """
import socket, sys
from twsock.datagram.network.interfaces import find_interface
from twsock.datagram.network.membership_calls import join

family, port, group, source, *choice = sys.argv[1:]
udp = socket.socket(getattr(socket, family), socket.SOCK_DGRAM)
udp.bind(("", int(port)))
# Only what this socket has joined: IP_MULTICAST_ALL is 49, IPV6_MULTICAST_ALL 29.
if family == "AF_INET":
    udp.setsockopt(socket.IPPROTO_IP, 49, 0)
else:
    udp.setsockopt(socket.IPPROTO_IPV6, 29, 0)
if group != "-":
    index = 0 if choice else find_interface("eth0").index
    join(udp, group, index, None if source == "-" else source)
print("ready", flush=True)
while True:
    data, sender = udp.recvfrom(65535)
    print("heard", sender[0], data.decode(), flush=True)
"""

#: Sends one datagram through the interface to the other hosts. Arguments: family, address, port,
#: text.
SEND = """
import socket, sys

family, address, port, text = sys.argv[1:]
udp = socket.socket(getattr(socket, family), socket.SOCK_DGRAM)
index = socket.if_nametoindex("eth0")
if family == "AF_INET":
    request = bytes(8) + index.to_bytes(4, sys.byteorder)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
else:
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
udp.sendto(text.encode(), (address, int(port)))
"""

#: Keeps memberships during changes of interfaces, and prints both. Arguments: family, port, group,
#: source or ``-``.
KEEP = """
import socket, sys
from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol
from twsock.datagram.network.interfaces import LinkWatch, find_interface
from twsock.datagram.network.membership import Memberships

family, port, group, source = sys.argv[1:]
udp = socket.socket(getattr(socket, family), socket.SOCK_DGRAM)
udp.bind(("", int(port)))
udp.setblocking(False)
memberships = Memberships(udp)

class Hearer(DatagramProtocol):
    def datagramReceived(self, data, address):
        (held,) = memberships
        accepted = memberships.accepts(group, held.interface.index, address[0])
        print("heard", address[0], data.decode(), "accepted" if accepted else "refused", flush=True)

def changed():
    for change in memberships.refresh():
        print("lost" if change.is_lost else "restored", change.membership.group, flush=True)

LinkWatch(reactor, changed)
memberships.join(group, find_interface("eth0"), None if source == "-" else source)
reactor.adoptDatagramPort(udp.fileno(), udp.family, Hearer())
print("ready", flush=True)
reactor.run()
"""

#: Prints when an interface changed, and whether the end of the reactor ends the watch. Argument:
#: the class of the reactor.
WATCH = """
import sys
from twisted.internet.main import installReactor
from twisted.python.reflect import namedAny

installReactor(namedAny(sys.argv[1])())
from twisted.internet import reactor
from twsock.datagram.network.interfaces import LinkWatch

def changed():
    print("changed", flush=True)
    reactor.stop()

watch = LinkWatch(reactor, changed)
reactor.callWhenRunning(print, "ready", flush=True)
reactor.run()
print("watching" if watch.is_watching else "ended")
"""


#: Joins on the interface that the kernel chooses. Arguments: family, group.
CHOOSE = """
import socket, sys
from twsock.datagram.network.membership_calls import join

join(socket.socket(getattr(socket, sys.argv[1]), socket.SOCK_DGRAM), sys.argv[2], 0)
"""

#: Looks up interfaces. Arguments: names, indexes or addresses.
FIND = """
import sys
from twsock.errors import SocketError
from twsock.datagram.network.interfaces import find_interface

for name in sys.argv[1:]:
    try:
        found = find_interface(name)
        print(found.name, found.index)
    except SocketError as error:
        print(error)
"""

#: Watches with a tiny buffer, and reads only after a line of input.
OVERFLOW = """
import errno, socket, sys
from twisted.internet.testing import MemoryReactor
from twsock.datagram.network.interfaces import LinkWatch
from twsock.datagram.network.netlink import open_link_socket

class Small(socket.socket):
    def recv(self, size):
        try:
            return super().recv(size)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                print("no room", flush=True)
            raise

opened = open_link_socket()
small = Small(fileno=opened.detach())
small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
watch = LinkWatch(MemoryReactor(), lambda: print("changed,", end=" "), connect=lambda: small)
print("ready", flush=True)
sys.stdin.readline()
watch.doRead()
print("watching" if watch.is_watching else "ended", flush=True)
"""


def program(host: Host, source: str, *arguments: str) -> Child:
    """Start a program and wait until it is ready."""
    child = host.start_python(source, *arguments)
    child.wait_for("ready")
    return child


if TYPE_CHECKING:
    _Case = SynchronousTestCase  # what a mixin becomes a part of
else:
    _Case = object


class GroupTests(_Case):
    """Datagrams between hosts, in one family."""

    family: str
    group: str

    def address(self, host: Host) -> str:
        """Return the address of the family."""
        raise NotImplementedError

    def listen(self, host: Host, group: str = "-", source: str = "-") -> Child:
        return program(host, LISTEN, self.family, PORT, group, source)

    def keep(self, host: Host, source: str = "-") -> Child:
        return program(host, KEEP, self.family, PORT, self.group, source)

    def send(self, host: Host, address: str, text: str) -> str:
        """Send, and return the received lines."""
        host.run_python(SEND, self.family, address, PORT, text)
        return f"{self.address(host)} {text}"

    def test_a_host_receives_unicast(self) -> None:
        """Over a virtual cable."""
        with hosts(2) as (one, other):
            listener = self.listen(other)
            sent = self.send(one, self.address(other), "hello")
            self.assertEqual(listener.wait_for("heard"), sent)

    def test_every_member_receives_from_the_group(self) -> None:
        """On two hosts besides the sender."""
        with hosts(3) as (one, other, third):
            listeners = [self.listen(host, self.group) for host in (other, third)]
            sent = self.send(one, self.group, "hello")
            for listener in listeners:
                self.assertEqual(listener.wait_for("heard"), sent, listener)

    def test_a_host_without_a_membership_receives_nothing_from_the_group(self) -> None:
        """A later unicast datagram is the first that it receives."""
        with hosts(2) as (one, other):
            listener = self.listen(other)
            self.send(one, self.group, "for members")
            sent = self.send(one, self.address(other), "for you")
            self.assertEqual(listener.wait_for("heard"), sent)

    @skipIf(sys.platform != "linux", "sources are joined on Linux only")
    def test_a_member_for_one_source_receives_only_from_it(self) -> None:
        """An earlier datagram of another host is dropped."""
        with hosts(3) as (one, other, third):
            listener = self.listen(third, self.group, self.address(other))
            self.send(one, self.group, "wrong")
            sent = self.send(other, self.group, "right")
            self.assertEqual(listener.wait_for("heard"), sent)

    def test_a_membership_survives_an_interface_that_was_down(self) -> None:
        """Nothing is received meanwhile; then the group is, without another join."""
        with hosts(3) as (one, other, _):
            listener = self.keep(other)
            other.set_down()
            self.send(one, self.group, "meanwhile")
            other.set_up()
            sent = self.send(one, self.group, "afterwards")
            self.assertEqual(listener.read_line(), f"heard {sent} accepted")

    def test_a_membership_is_restored_on_a_new_interface(self) -> None:
        """Loss and return are reported; later datagrams are accepted."""
        for is_for_one in (False, True):
            with hosts(3) as (one, other, _):
                keeper = self.keep(other, self.address(one) if is_for_one else "-")
                sent = self.send(one, self.group, "before")
                self.assertEqual(keeper.read_line(), f"heard {sent} accepted", is_for_one)
                other.unplug()
                self.assertEqual(keeper.read_line(), f"lost {self.group}", is_for_one)
                other.plug()
                self.assertEqual(keeper.read_line(), f"restored {self.group}", is_for_one)
                sent = self.send(one, self.group, "after")
                self.assertEqual(keeper.read_line(), f"heard {sent} accepted", is_for_one)

    def test_the_kernel_chooses_the_interface_by_its_route(self) -> None:
        """Without a route the caller must name an interface."""
        with hosts(2) as (one, other):
            if self.family == "AF_INET":
                with self.assertRaises(AssertionError) as raised:
                    other.run_python(CHOOSE, self.family, self.group)
                self.assertIn("no route", str(raised.exception))
                other.ip("route", "add", f"{self.group}/32", "dev", other.interface)
            listener = program(other, LISTEN, self.family, PORT, self.group, "-", "0")
            sent = self.send(one, self.group, "hello")
            self.assertEqual(listener.wait_for("heard"), sent)


class Ipv4GroupTests(GroupTests, SynchronousTestCase):
    """Datagrams between hosts in IPv4."""

    family, group = "AF_INET", "224.3.0.5"

    def address(self, host: Host) -> str:
        return host.address


class Ipv6GroupTests(GroupTests, SynchronousTestCase):
    """Datagrams between hosts in IPv6."""

    family, group = "AF_INET6", "ff15::1"

    def address(self, host: Host) -> str:
        return host.address6


class InterfaceTests(SynchronousTestCase):
    """Interfaces that an ordinary machine does not have."""

    def test_an_address_finds_its_interface(self) -> None:
        """Link-local addresses too, with or without a zone; another zone is another address."""
        with hosts(2) as (one, _):
            shown = one.ip("-o", "address", "show", "dev", "eth0", "scope", "link")
            of_link = shown.split("inet6 ")[1].split("/")[0]
            addresses = [one.address, one.address6, of_link, f"{of_link}%eth0"]
            *found, refused = one.run_python(FIND, *addresses, f"{of_link}%lo").splitlines()
            self.assertEqual([line.split()[0] for line in found], ["eth0"] * 4)
            self.assertIn(f"no interface has the address '{of_link}%lo'", refused)

    def test_an_address_of_two_interfaces_is_ambiguous(self) -> None:
        """The message names both."""
        with hosts(2) as (one, _):
            one.ip("address", "add", f"{one.address}/32", "dev", "lo")
            refused = one.run_python(FIND, one.address)
            self.assertIn(f"more than one interface has the address '{one.address}'", refused)
            self.assertIn("lo, eth0", refused)

    def test_broadcast_interfaces_are_up_and_not_loopback(self) -> None:
        """The loopback interface and one that is down are left out."""
        with hosts(2) as (one, _):
            one.ip("link", "add", "name", "down0", "type", "veth", "peer", "name", "down1")
            found = one.run_python(
                "from twsock.datagram.network.interfaces import broadcast_interfaces\n"
                "print(*[found.name for found in broadcast_interfaces()])"
            )
            self.assertEqual(found.split(), [one.interface])

    def test_every_reactor_reports_changes_of_interfaces(self) -> None:
        """The end of the reactor ends the watch."""
        with hosts(1) as (host,):
            for reactor in REACTORS:
                child = program(host, WATCH, reactor)
                host.ip("link", "set", "lo", "down")
                self.assertEqual(child.read_line(), "changed", reactor)
                self.assertEqual(child.read_line(), "ended", reactor)
                host.ip("link", "set", "lo", "up")

    def test_dropped_netlink_messages_are_reported_as_a_change(self) -> None:
        """The kernel reports the drop; the watch continues."""
        with hosts(1) as (host,):
            child = program(host, OVERFLOW)
            for _ in range(20):
                for state in ("down", "up"):
                    host.ip("link", "set", "lo", state)
            child.say("go on")
            self.assertEqual(child.read_line(), "no room")
            self.assertEqual(child.read_line(), "changed, watching")


class HarnessTests(SynchronousTestCase):
    """The hosts of these tests."""

    def test_hosts_leave_no_process_and_no_namespace(self) -> None:
        """Whether or not the test has failed."""
        made: list[tuple[Child, str]] = []
        with contextlib.suppress(ZeroDivisionError), hosts(3) as all_hosts:
            made.extend((host.start("sleep", "1000"), host.namespace) for host in all_hosts)
            raise ZeroDivisionError
        left = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
        for child, namespace in made:
            self.assertIsNotNone(child.process.returncode, (child, namespace))
            self.assertNotIn(namespace, left, (child, namespace))
        self.assertNotIn(f"tw-{os.getpid()}-", left)

    def test_a_child_of_a_process_is_ended(self) -> None:
        """It runs in a namespace of the test."""
        with hosts(1) as (host,):
            child = host.start("sh", "-c", "sleep 1000 & echo $!; wait")
            number = int(child.read_line())
        self.assertFalse(is_running(number))

    def test_a_program_that_fails_fails_its_test(self) -> None:
        """With its output."""
        with hosts(1) as (host,), self.assertRaises(AssertionError) as raised:
            host.run_python("print('reason'); raise SystemExit(3)")
        self.assertIn("ended with 3:\nreason", str(raised.exception))

    def test_a_program_that_ends_early_fails_its_test(self) -> None:
        """The test does not wait for it."""
        with hosts(1) as (host,), self.assertRaises(AssertionError) as raised:
            host.start_python("print('reason')").wait_for("ready")
        self.assertIn("reason", str(raised.exception))

    @needs_hosts
    @needs_netem
    def test_a_network_can_duplicate_datagrams(self) -> None:
        """If the kernel supports it."""
        with hosts(2) as (one, other):
            one.tc("qdisc", "add", "dev", one.interface, "root", "netem", "duplicate", "100%")
            listener = program(other, LISTEN, "AF_INET", PORT, "-", "-")
            one.run_python(SEND, "AF_INET", other.address, PORT, "hello")
            for copy in range(2):
                self.assertEqual(listener.wait_for("heard"), f"{one.address} hello", f"{copy=}")


def is_running(process: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
