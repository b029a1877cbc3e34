"""Claims D1 to D13: sharing of ports, delivery to members, and refused calls."""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import struct
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.loopback.networks import Child, Host, hosts, needs_hosts
from tests.sockets.datagram.cases import LOCALHOST, PATIENCE, DatagramSocketCase
from twsock import (
    DatagramSocket,
    HostName,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.datagram.port import listen_datagrams
from twsock.datagram.udp_socket import DatagramOptions
from twsock.protocols import DatagramProtocol

GROUP, OTHER_GROUP, GROUP6 = "224.3.0.5", "224.3.0.6", "ff15::5"
BROADCAST = "255.255.255.255"
HELLO, MARK = b"Hello", b"mark"

TAKEN = SocketErrorStatus.ADDRESS_ALREADY_IN_USE
REUSE_ADDRESS, REUSE_PORT = (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,)
REUSE_BOTH = REUSE_ADDRESS + REUSE_PORT

#: Receives from a group, and prints the datagrams.
_MEMBER = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twsock import DatagramSocket

group, port, adapter, is_shared = sys.argv[1:]

async def main(reactor):
    async with DatagramSocket(reactor) as member:
        member.control.multicast_only = bool(is_shared)
        member.multicast_group_changed.add(
            lambda _, change: print("lost" if change.is_lost else "heard again", flush=True)
        )
        await member.bind_service_name(port, adapter)
        member.join_multicast_group(group)
        print("bound", member.information.local_port, flush=True)
        async for message in member:
            print("received", message.data.decode(), message.local_address, flush=True)

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""

#: Sends words to a group.
_SENDER = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twsock import DatagramSocket

group, port, adapter, *words = sys.argv[1:]

async def main(reactor):
    async with DatagramSocket(reactor) as sender:
        await sender.bind_service_name("", adapter)
        output = await sender.get_output_stream(group, port)
        for word in words:
            await output.write(word.encode())

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""

#: Sends to a group as a member, with loopback of its own datagrams turned off.
_SILENT = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twsock import DatagramSocket, SocketError

group, port, adapter = sys.argv[1:]

async def main(reactor):
    async with DatagramSocket(reactor) as member:
        member.control.multicast_only = True
        member.control.multicast_loopback = False
        await member.bind_service_name(port, adapter)
        member.join_multicast_group(group)
        output = await member.get_output_stream(group, port)
        await output.write(b"unheard")
        try:
            print("received", await member.receive_from(timeout=0.2))
        except SocketError:
            print("received nothing")

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""

#: Broadcasts in each of the two ways, and prints the interfaces used.
_BROADCASTER = """
import json, socket
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twsock import DatagramSocket

EVERYTHING, OUTGOING = 3, 4
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERYTHING))
tap.setblocking(False)

def interfaces():
    found = []
    try:
        while True:
            packet, (name, _, kind, *_) = tap.recvfrom(2000)
            if kind == OUTGOING and packet[16:20] == bytes([255] * 4) and packet[28:] == b"Hello":
                found.append(name)
    except BlockingIOError:
        return sorted(found)

async def main(reactor):
    async with DatagramSocket(reactor) as connected:
        await connected.connect("255.255.255.255", 22113)
        await connected.output_stream.write(b"Hello")
        by_connection = interfaces()
    async with DatagramSocket(reactor) as bound:
        await bound.bind_service_name("")
        output = await bound.get_output_stream("255.255.255.255", 22113)
        await output.write(b"Hello")
        by_stream = interfaces()
    async with DatagramSocket(reactor) as narrow:
        await narrow.bind_service_name("", "second")
        output = await narrow.get_output_stream("255.255.255.255", 22113)
        await output.write(b"Hello")
        print(json.dumps([by_connection, by_stream, interfaces()]))
    tap.close()

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""


class MulticastCase(DatagramSocketCase):
    """Sockets that are bound to the interface ``lo``."""

    if not Path("/proc/net/igmp").exists():
        skip = "the claims are told in Linux's terms"

    def shared(self, port: str = "") -> DatagramSocket:
        """Bind a socket that shares its port."""
        made = self.make()
        made.control.multicast_only = True
        self.successResultOf(made.bind_service_name(port, "lo"))
        return made

    def member(self, port: str = "", group: str = GROUP, **source: str) -> DatagramSocket:
        """Bind a socket that shares its port, and join a group."""
        made = self.shared(port)
        made.join_multicast_group(group, **source)
        return made

    def exclusive(self, port: str = "") -> DatagramSocket:
        """Bind a socket that does not share."""
        made = self.make()
        self.successResultOf(made.bind_service_name(port, "lo"))
        return made

    def port_of(self, made: DatagramSocket) -> str:
        return made.information.local_port

    def foreign(self, options: tuple[int, ...], host: str = "", port: str = "0") -> socket.socket:
        """Bind a socket of another program."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.settimeout(PATIENCE)
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind((host, int(port)))
        return made

    def tell(self, made: DatagramSocket, *datagrams: bytes, group: str = GROUP) -> None:
        """Send to a group, at the socket's own port."""
        stream = self.successResultOf(made.get_output_stream(group, self.port_of(made)))
        for data in datagrams:
            self.successResultOf(stream.send_all(data))

    def received(self, made: DatagramSocket, end: bytes = MARK) -> list[bytes]:
        """Return the received datagrams up to the last one that was sent."""
        datagrams: list[bytes] = []
        waiting: Deferred[Any] = made.receive()
        deadline = time.monotonic() + PATIENCE
        while datagrams[-1:] != [end]:
            readers: Any = list(self.reactor.readers)
            if not waiting.called:
                left = deadline - time.monotonic()
                self.assertGreater(left, 0, f"received only {datagrams}")
                ready, _, _ = select.select(readers, [], [], left)
                for reader in ready:
                    reader.doRead()
                continue
            datagrams.append(self.successResultOf(waiting).data)
            if datagrams[-1] != end:
                waiting = made.receive()
        return datagrams

    def assert_taken(self, *bindings: Deferred[None]) -> None:
        for binding in bindings:
            error = self.failureResultOf(binding, SocketError).value
            self.assertIs(error.status, TAKEN, binding)


class BindingTests(MulticastCase):
    """Binding to shared ports."""

    def test_d1_by_default_a_port_is_not_shared(self) -> None:
        """D1: no other socket gets it, with any reuse options."""
        port = self.port_of(self.exclusive())
        for options in ((), REUSE_ADDRESS, REUSE_PORT, REUSE_BOTH):
            for host in ("", LOCALHOST, GROUP):
                self.assertRaises(OSError, self.foreign, options, host, port)
        made = self.make()
        self.assert_taken(
            made.bind_service_name(port),
            made.bind_endpoint(LOCALHOST, port),
            made.bind_endpoint("::1", port),
        )

    def test_d2_multicast_only_is_set_before_the_bind(self) -> None:
        """D2: after the bind or connect it is an illegal call; a failed bind does not count."""
        for made in (self.exclusive(), self.shared(), self.connect(self.peer())):
            for value in (True, False):
                with self.assertRaises(LocalProtocolError):
                    made.control.multicast_only = value
        free = self.make()
        self.assert_taken(free.bind_service_name(self.port_of(self.exclusive())))
        free.control.multicast_only = True

    def test_d3_sockets_with_multicast_only_share_a_port(self) -> None:
        """D3: two or three, in both families."""
        port = self.port_of(self.shared())
        self.assertEqual([self.port_of(self.shared(port)) for _ in range(2)], [port] * 2)
        self.assertEqual(len(self.reactor.readers), 6)

    def test_d4_foreign_sockets_share_the_port_with_either_option(self) -> None:
        """D4: ``SO_REUSEADDR`` or ``SO_REUSEPORT``, bound earlier or later."""
        for options in (REUSE_ADDRESS, REUSE_PORT, REUSE_BOTH):
            self.foreign(options, port=self.port_of(self.shared()))
            foreign = self.foreign(options)
            self.shared(str(foreign.getsockname()[1]))

    def test_d5_without_consent_a_port_is_not_shared(self) -> None:
        """D5: the later socket is refused, in either order, and for any address."""
        shared = self.make()
        shared.control.multicast_only = True
        self.assert_taken(shared.bind_service_name(self.port_of(self.exclusive()), "lo"))
        port = self.port_of(self.member())
        made = self.make()
        self.assert_taken(made.bind_service_name(port), made.bind_endpoint(LOCALHOST, port))
        for host in ("", LOCALHOST, GROUP):
            self.assertRaises(OSError, self.foreign, (), host, port)

    def test_a_shared_socket_is_bound_to_all_addresses(self) -> None:
        """The address given to bind selects the interface to send and receive."""
        made = self.make()
        made.control.multicast_only = True
        self.successResultOf(made.bind_endpoint(LOCALHOST, ""))
        self.assertEqual(made.information.local_address, HostName("0.0.0.0"))
        made.join_multicast_group(GROUP)
        self.tell(made, MARK)
        self.assertEqual(self.received(made), [MARK])


class TrafficTests(MulticastCase):
    """Delivery of datagrams."""

    def test_d6_every_member_receives_every_datagram(self) -> None:
        """D6: sockets of twsock and a foreign one."""
        first = self.member()
        port = self.port_of(first)
        others = [self.member(port), self.member(port)]
        foreign = self.foreign(REUSE_BOTH, port=port)
        joining = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(LOCALHOST))
        foreign.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joining)
        self.tell(first, HELLO, MARK)
        for member in (first, *others):
            self.assertEqual(self.received(member), [HELLO, MARK], member)
        self.assertEqual([foreign.recv(9), foreign.recv(9)], [HELLO, MARK])

    def test_d7_unicast_is_not_sent(self) -> None:
        """D7: every call fails with `LocalProtocolError`. Broadcast is not sent either."""
        member = self.member()
        fresh = self.make()
        fresh.control.multicast_only = True
        for host in (LOCALHOST, "::1", BROADCAST):
            self.failureResultOf(member.get_output_stream(host, 9), LocalProtocolError)
            self.failureResultOf(member.send_to(b"x", (host, 9)), LocalProtocolError)
            self.failureResultOf(member.connect(host, 9), LocalProtocolError)
            self.failureResultOf(fresh.connect(host, 9), LocalProtocolError)
            self.failureResultOf(fresh.get_output_stream(host, 9), LocalProtocolError)
        self.tell(member, MARK)
        self.assertEqual(self.received(member), [MARK])

    def test_d7_unicast_is_not_received(self) -> None:
        """
        D7: a shared port drops datagrams that were not sent to one of its groups. WinRT raises an
        undocumented error.
        """
        member = self.member()
        port = int(self.port_of(member))
        self.peer().sendto(b"for one", (LOCALHOST, port))
        self.peer("::1").sendto(b"for one", ("::1", port))
        self.tell(member, MARK)
        self.assertEqual(self.received(member), [MARK])

    def test_d7_unicast_is_counted(self) -> None:
        """D7: the port counts the dropped datagrams."""
        options = DatagramOptions(multicast_only=True, interface=socket.if_nametoindex("lo"))
        port = listen_datagrams(self.reactor, DatagramProtocol(), 0, "", options)
        self.addCleanup(port.stopListening)
        self.peer().sendto(b"for one", (LOCALHOST, port.getHost().port))
        self.pump()
        self.assertEqual((port.counters.unexpected_source, port.counters.received), (1, 0))
        port.stopListening()

    def test_d8_a_group_is_received_only_after_a_join(self) -> None:
        """D8: at once, after the bind; memberships of other sockets have no effect."""
        unbound = self.make()
        unbound.control.multicast_only = True
        self.assertRaises(LocalProtocolError, unbound.join_multicast_group, GROUP)
        member = self.member()
        other = self.member(self.port_of(member), OTHER_GROUP)
        self.tell(member, b"for the group")
        self.tell(member, MARK, group=OTHER_GROUP)
        self.assertEqual(self.received(other), [MARK])
        self.tell(member, HELLO, MARK)
        self.assertEqual(self.received(member), [b"for the group", HELLO, MARK])

    def test_d8_a_group_is_not_received_after_leaving(self) -> None:
        """WinRT has no such call."""
        member = self.member()
        other = self.member(self.port_of(member))
        member.join_multicast_group(OTHER_GROUP)
        member.leave_multicast_group(GROUP)
        self.tell(member, b"for the other")
        self.tell(member, MARK, group=OTHER_GROUP)
        self.assertEqual(self.received(member), [MARK])
        self.assertEqual(self.received(other, b"for the other"), [b"for the other"])

    def test_d8_a_socket_that_does_not_share_can_join(self) -> None:
        """It receives from the group and unicast, and from no other group."""
        made = self.exclusive()
        made.join_multicast_group(GROUP)
        self.peer().sendto(b"for one", (LOCALHOST, int(self.port_of(made))))
        self.member(group=OTHER_GROUP)
        self.tell(made, b"for others", group=OTHER_GROUP)
        self.tell(made, HELLO, MARK)
        self.assertEqual(self.received(made), [b"for one", HELLO, MARK])

    def test_d9_a_socket_bound_to_an_adapter_joins_on_it(self) -> None:
        """D9: without another argument. The kernel lists the memberships."""
        own_group = f"239.255.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
        self.assertNotIn(own_group, joined_on("lo"))
        member = self.member(group=own_group)
        self.assertIn(own_group, joined_on("lo"))
        member.close()
        self.assertNotIn(own_group, joined_on("lo"))

    def test_d11_a_group_cannot_be_connected_to(self) -> None:
        """D11: status ``HOST_NOT_FOUND``, MulticastOnly or not; the socket is unchanged."""
        for made in (self.make(), self.exclusive(), self.shared()):
            for group in (GROUP, GROUP6, "239.255.255.255"):
                error = self.failureResultOf(made.connect(group, 22113), SocketError).value
                self.assertIs(error.status, SocketErrorStatus.HOST_NOT_FOUND, group)
            self.assertEqual(made.information.remote_address, None, made)

    def test_d13_the_sender_receives_too(self) -> None:
        """D13: its datagram comes from its own port and was sent to the group."""
        member = self.member()
        self.tell(member, HELLO)
        self.pump()
        message = self.successResultOf(member.receive())
        self.assertEqual(message.data, HELLO)
        self.assertEqual(message.remote_port, self.port_of(member))
        self.assertEqual(message.local_address, HostName(GROUP))

    def test_a_group_may_be_joined_for_one_source(self) -> None:
        """Datagrams of other senders are dropped."""
        member = self.member(source=LOCALHOST)
        port = self.port_of(member)
        other = self.member(port, source="127.0.0.9")
        other.join_multicast_group(OTHER_GROUP)
        sender = self.peer()
        where = socket.inet_aton(LOCALHOST)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, where)
        for data, group in ((HELLO, GROUP), (MARK, GROUP), (MARK, OTHER_GROUP)):
            sender.sendto(data, (group, int(port)))
        self.assertEqual(self.received(member), [HELLO, MARK])
        self.assertEqual(self.received(other), [MARK])


def joined_on(interface: str) -> list[str]:
    """Return the IPv4 groups of an interface, as the kernel lists them."""
    groups: list[str] = []
    name = ""
    for line in Path("/proc/net/igmp").read_text().splitlines()[1:]:
        words = line.split()
        if not line.startswith("\t"):
            name = words[1]
        elif name == interface:
            number = struct.pack("=I", int(words[0], 16))
            groups.append(str(ipaddress.IPv4Address(number)))
    return groups


class HostTests(MulticastCase):
    """Claims that need a network of their own."""

    def join(self, host: Host, group: str, adapter: str, *, is_shared: bool = True) -> Child:
        """Start a program that joins a group at port 22113, and wait until it has joined."""
        child = host.start_python(_MEMBER, group, "22113", adapter, "shared" if is_shared else "")
        child.wait_for("bound")
        return child

    def send_from(self, host: Host, group: str, adapter: str, *words: str) -> None:
        host.run_python(_SENDER, group, "22113", adapter, *words)

    @needs_hosts
    def test_d9_other_interfaces_are_not_received_from(self) -> None:
        """D9: a member that is bound to ``lo`` receives nothing from the network, shared or not."""
        for is_shared in (True, False):
            with hosts(2) as (here, there):
                near = self.join(here, GROUP, "lo", is_shared=is_shared)
                self.send_from(there, GROUP, there.interface, "by-cable")
                self.send_from(here, GROUP, "lo", "by-lo")
                self.assertEqual(near.wait_for("received"), f"by-lo {GROUP}", is_shared)

    @needs_hosts
    def test_d10_a_new_address_changes_nothing(self) -> None:
        """
        D10: a membership belongs to the interface, not to its address, so it stays. In WinRT a
        program joins again after the address has changed.
        """
        with hosts(2) as (here, there):
            member = self.join(here, GROUP, here.interface)
            here.ip("address", "add", "10.77.0.99/24", "dev", here.interface)
            here.ip("address", "delete", f"{here.address}/24", "dev", here.interface)
            self.send_from(there, GROUP, there.interface, "still-heard")
            self.assertEqual(member.wait_for("received"), f"still-heard {GROUP}")

    @needs_hosts
    def test_an_interface_that_goes_down_and_up_changes_nothing(self) -> None:
        """The group is received again when the interface is up."""
        with hosts(2) as (here, there):
            member = self.join(here, GROUP, here.interface)
            here.set_down()
            here.set_up()
            self.send_from(there, GROUP, there.interface, "still-heard")
            self.assertEqual(member.read_line(), f"received still-heard {GROUP}")

    @needs_hosts
    def test_a_removed_and_a_new_interface_are_events(self) -> None:
        """The handlers get the loss and the return of the membership."""
        with hosts(2) as (here, there):
            member = self.join(here, GROUP, here.interface)
            here.unplug()
            self.assertEqual(member.read_line(), "lost")
            here.plug()
            self.assertEqual(member.read_line(), "heard again")
            self.send_from(there, GROUP, there.interface, "heard")
            self.assertEqual(member.read_line(), f"received heard {GROUP}")

    @needs_hosts
    def test_d12_a_connected_broadcast_leaves_through_one_interface(self) -> None:
        """
        D12: a stream to the broadcast address uses all interfaces, unless the socket is bound to
        one.
        """
        with hosts(2) as (here, there):
            self.add_interface("second", here, there)
            here.ip("route", "add", "default", "dev", here.interface)
            self.assert_broadcasts(here)

    @needs_hosts
    def test_d12_a_broadcast_needs_no_default_route(self) -> None:
        """D12: connect succeeds on a network without a route to elsewhere."""
        with hosts(2) as (here, there):
            self.add_interface("second", here, there)
            self.assert_broadcasts(here)

    def add_interface(self, name: str, here: Host, there: Host) -> None:
        peer = ("peer", "name", name, "netns", there.namespace)
        here.ip("link", "add", name, "type", "veth", *peer)
        here.ip("address", "add", "10.78.0.1/24", "dev", name)
        for host in (here, there):
            host.ip("link", "set", name, "up")

    def assert_broadcasts(self, host: Host) -> None:
        connected, everywhere, bound = json.loads(host.run_python(_BROADCASTER).splitlines()[-1])
        self.assertEqual(everywhere, [host.interface, "second"])
        self.assertEqual(bound, ["second"])
        self.assertEqual(connected, [host.interface])

    @needs_hosts
    def test_d13_own_datagrams_need_not_loop_back(self) -> None:
        """
        Where that is turned off, other hosts hear the group, and nobody on this one. On ``lo``
        there is no other host, so everybody does.
        """
        with hosts(2) as (here, there):
            near = self.join(here, GROUP, here.interface)
            far = self.join(there, GROUP, there.interface)
            printed = here.run_python(_SILENT, GROUP, "22113", here.interface)
            self.assertEqual(printed.strip(), "received nothing")
            self.send_from(there, GROUP, there.interface, "mark")
            self.assertEqual(near.wait_for("received"), f"mark {GROUP}")
            self.assertEqual(far.wait_for("received"), f"unheard {GROUP}")

    @needs_hosts
    def test_an_ipv6_group_is_shared(self) -> None:
        """Two members on one host receive from another host; `lo` has no such groups."""
        with hosts(2) as (here, there):
            members = [self.join(here, GROUP6, here.interface) for _ in range(2)]
            self.send_from(there, GROUP6, there.interface, "Hello", "again")
            for member in members:
                self.assertEqual(member.wait_for("received"), f"Hello {GROUP6}", member)
                self.assertEqual(member.wait_for("received"), f"again {GROUP6}", member)

    @needs_hosts
    def test_two_processes_share_a_port_and_a_third_is_refused(self) -> None:
        """Both receive each datagram; the third does not share."""
        with hosts(1) as (host,):
            members = [self.join(host, GROUP, "lo") for _ in range(2)]
            third = host.start_python(_MEMBER, GROUP, "22113", "lo", "")
            self.assertNotEqual(third.wait(), 0)
            self.assertIn("cannot bind UDP port 22113", third.printed)
            self.send_from(host, GROUP, "lo", "for-both")
            for member in members:
                self.assertEqual(member.wait_for("received"), f"for-both {GROUP}", member)

    @needs_hosts
    def test_a_failed_bind_does_not_keep_its_adapter(self) -> None:
        """Later calls of bind and connect do not use it."""
        program = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twsock import DatagramSocket, SocketError

async def main(reactor):
    async with DatagramSocket(reactor) as other, DatagramSocket(reactor) as made:
        await other.bind_service_name("22113")
        try:
            await made.bind_service_name("22113", "lo")
        except SocketError:
            await made.connect(sys.argv[1], 9)
            await made.output_stream.write(b"x")
            print("sent from", made.information.local_address)

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""
        with hosts(2) as (here, there):
            printed = here.run_python(program, there.address)
            self.assertEqual(printed.strip(), f"sent from {here.address}")
