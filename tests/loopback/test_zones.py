"""Each zone has one spelling, and an error explains a missing zone."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, TCP6ClientEndpoint, TCP6ServerEndpoint
from twisted.trial import util
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.loopback.contract import OnEveryReactor, failure_of
from tests.loopback.networks import Child, Host, add_network, hosts, needs_hosts, of_link
from tests.loopback.reactors import REACTORS
from twsock import (
    DatagramSocket,
    EndpointPair,
    HostName,
    SocketErrorStatus,
    StreamSocket,
    StreamSocketListener,
)
from twsock.datagram.endpoint import UdpEndpoint
from twsock.protocols import DatagramProtocol

#: A link-local address of another machine.
ADDRESS = "fe80::5bad:1"

NO_WAY = SocketErrorStatus.UNREACHABLE_HOST
NO_ADDRESS = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS

#: The beginning and the end of each program below.
_BEGIN = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.main import installReactor
from twisted.python.reflect import namedAny

installReactor(namedAny(sys.argv.pop())())

from twisted.internet.task import react
from twsock import DatagramSocket, StreamSocket, StreamSocketListener

def say(*words):
    print(*words, flush=True)
"""
_END = """
from twisted.internet import reactor

try:
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
finally:
    if hasattr(reactor, "loop"):
        reactor.loop.close()  # Twisted leaves it open.
"""

#: Accepts a TCP connection and a datagram, and prints their addresses. Arguments: reactor.
_SERVER = """
async def main(reactor):
    async with StreamSocketListener(reactor) as listener, DatagramSocket(reactor) as receiver:
        await listener.bind_service_name("22113")
        await receiver.bind_service_name("22113")
        say("ready")
        accepted = await listener.accept(timeout=20)
        say(accepted.information.local_address, accepted.information.remote_address)
        message = await receiver.receive(timeout=20)
        say(message.local_address, message.remote_address, message.address[0])
        await message.reply(b"Hello")
        await accepted.close()
"""

#: Connects to an address with TCP and UDP, and prints the addresses. Arguments: address, reactor.
_CLIENT = """
async def main(reactor):
    async with StreamSocket(reactor) as stream, DatagramSocket(reactor) as asking:
        await stream.connect(sys.argv[1], 22113)
        await asking.connect(sys.argv[1], 22113)
        for information in (stream.information, asking.information):
            say(information.local_address, information.remote_address)
        await asking.output_stream.write(b"Hello")
        data, (address, _) = await asking.receive_from(timeout=20)
        say(address)
"""


class MissingTests(OnEveryReactor):
    """A link-local address without a zone cannot be used."""

    def assert_explained(self, error: Exception, status: SocketErrorStatus) -> None:
        self.assertIs(getattr(error, "status", None), status, error)
        self.assertIn("%eth0", str(error))

    def setUp(self) -> None:
        super().setUp()
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((ADDRESS, 9))
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return
                raise SkipTest(f"this system has another answer: {error}") from error
        raise SkipTest("this system takes a link-local address without a zone")

    def test_a_connect_without_a_zone_is_explained(self) -> None:
        """Over TCP and UDP, by a class of twsock or by an endpoint of Twisted."""

        async def work(reactor: Any) -> None:
            stream = StreamSocket(reactor)
            pair = EndpointPair(HostName(ADDRESS), "", HostName("::1"), "9")
            endpoints = (
                TCP6ClientEndpoint(reactor, ADDRESS, 9),
                HostnameEndpoint(reactor, ADDRESS, 9, attemptDelay=0.01),
            )
            self.assert_explained(await failure_of(stream.connect(ADDRESS, 9)), NO_WAY)
            for endpoint in endpoints:
                failing = stream.connect_endpoint(endpoint)
                self.assert_explained(await failure_of(failing), NO_WAY)
            self.assert_explained(await failure_of(stream.connect(pair)), NO_ADDRESS)
            async with DatagramSocket(reactor) as made:
                self.assert_explained(await failure_of(made.connect(ADDRESS, 9)), NO_WAY)
                self.assert_explained(await failure_of(made.connect(pair)), NO_ADDRESS)

        self.conduct(work)

    # Twisted leaves the socket open if its local address cannot be bound.
    test_a_connect_without_a_zone_is_explained.suppress = [  # type: ignore[attr-defined]
        util.suppress(category=ResourceWarning, message="unclosed <socket")
    ]

    def test_a_bind_without_a_zone_is_explained(self) -> None:
        """Over TCP and UDP, by a class of twsock or by an endpoint."""

        async def work(reactor: Any) -> None:
            listening = UdpEndpoint(reactor, 0, ADDRESS).listen(DatagramProtocol())
            self.assert_explained(await failure_of(listening), NO_ADDRESS)
            async with StreamSocketListener(reactor) as listener, DatagramSocket(reactor) as made:
                for failing in (
                    made.bind_endpoint(ADDRESS, ""),
                    listener.bind_endpoint(ADDRESS, ""),
                    listener.listen(TCP6ServerEndpoint(reactor, 0, interface=ADDRESS)),
                ):
                    self.assert_explained(await failure_of(failing), NO_ADDRESS)

        self.conduct(work)


globals().update(MissingTests.makeTestCaseClasses())


class SpellingTests(SynchronousTestCase):
    """The zone of an address is the name of the interface, for TCP and UDP alike."""

    @needs_hosts
    def test_both_ends_name_the_interface(self) -> None:
        """In the local and the remote address, for any spelling by the client."""
        with hosts(2) as (one, other):
            near, far = (f"{of_link(host)}%eth0" for host in (one, other))
            there, back = far, near
            number = one.ip("-o", "link", "show", one.interface).split(":")[0]
            for reactor, zone in [(REACTORS[0], number)] + [(each, "eth0") for each in REACTORS]:
                server = other.start_python(_BEGIN + _SERVER + _END, reactor)
                server.wait_for("ready")
                asked = f"{of_link(other)}%{zone}"
                client = one.run_python(_BEGIN + _CLIENT + _END, asked, reactor)
                self.assertEqual(
                    client.splitlines(), [f"{near} {there}"] * 2 + [there], (reactor, zone)
                )
                self.assertEqual(server.read_line(), f"{far} {back}", (reactor, zone))
                self.assertEqual(server.read_line(), f"{far} {back} {back}", (reactor, zone))
                self.assertEqual(server.wait(), 0, (reactor, zone))


#: Receives from a group on one interface, and prints the data. Without twsock. Arguments:
#: interface, group.
_LISTEN = """
import socket, sys

index = socket.if_nametoindex(sys.argv[1])
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
# Linux also delivers to sockets that joined the group on another interface.
udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[1].encode())
udp.bind(("::", 22113))
request = socket.inet_pton(socket.AF_INET6, sys.argv[2]) + index.to_bytes(4, sys.byteorder)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
print("ready", flush=True)
while (data := udp.recv(100)) != b"end":
    print(data.decode(), flush=True)
print("end", flush=True)
"""

#: Sends to a group through the interface of its zone with every call, and at last through each
#: interface without a zone. Arguments: group, interface, reactor.
_SPEAK = """
from twsock.protocols import DatagramProtocol
from twsock.datagram.udp_socket import DatagramOptions
from twsock.datagram.port import listen_datagrams
import socket

async def main(reactor):
    group, interface = sys.argv[1:3]
    zoned = f"{group}%{interface}"
    async with DatagramSocket(reactor) as speaker:
        await (await speaker.get_output_stream(zoned, 22113)).write(b"stream")
        await speaker.send_to(b"send_to", (zoned, 22113))
    for shared in (False, True):
        protocol = DatagramProtocol()
        options = DatagramOptions(multicast_only=shared)
        port = listen_datagrams(reactor, protocol, 0, "::", options)
        protocol.send(b"protocol", (zoned, 22113))
        port.send_run(b"runrun", 3, (group, 22113, 0, socket.if_nametoindex(interface)))
        port.connect(zoned, 22113)
        protocol.send(b"connected")
        port.stopListening()
    for each in ("eth0", "eth1"):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as plain:
            index = socket.if_nametoindex(each)
            plain.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            plain.sendto(b"end", (group, 22113))
"""

_ALL_WAYS = ["stream", "send_to", *["protocol", "run", "run", "connected"] * 2]

#: Joins a group with a zone with every call, and prints what each one receives, twice. Arguments:
#: group with zone, reactor.
_JOIN = """
from twsock.protocols import DatagramProtocol
from twsock.datagram.endpoint import datagram_endpoint_from_string

class Member(DatagramProtocol):
    def datagram_received(self, data, source):
        say("protocol", data.decode())

async def main(reactor):
    endpoint = f"multicast:[{sys.argv[1]}]:22113"
    port = await datagram_endpoint_from_string(reactor, endpoint).listen(Member())
    member = DatagramSocket(reactor)
    member.control.multicast_only = True
    await member.bind_service_name("22113")
    member.join_multicast_group(sys.argv[1])
    say("ready")
    async for message in member:
        say("socket", message.data.decode())
"""


class GroupTests(SynchronousTestCase):
    """The zone of an IPv6 group is the interface, for any scope of the group."""

    @needs_hosts
    def test_a_multicast_datagram_leaves_through_the_interface_of_its_zone(self) -> None:
        """For each way to send, on every reactor; the kernel would choose the first interface."""
        with hosts(2) as (one, other):
            add_network(one, other)
            for reactor in REACTORS:
                for interface in ("eth0", "eth1"):
                    listeners = {each: self.listen(other, each) for each in ("eth0", "eth1")}
                    one.run_python(_BEGIN + _SPEAK + _END, "ff15::9", interface, reactor)
                    for each, listener in listeners.items():
                        heard = _ALL_WAYS if each == interface else []
                        self.assertEqual(self.rest(listener), heard, (reactor, interface, each))

    @needs_hosts
    def test_a_group_is_joined_on_the_interface_of_its_zone(self) -> None:
        """By a socket and by an endpoint; no other interface receives from it."""
        with hosts(2) as (one, other):
            add_network(one, other)
            member = other.start_python(_BEGIN + _JOIN + _END, "ff15::9%eth1", REACTORS[0])
            member.wait_for("ready")
            for interface in ("eth0", "eth1"):
                one.run_python(_BEGIN + _SPEAK + _END, "ff15::9", interface, REACTORS[0])
            # Both programs send an end on both interfaces; the first sends nothing else on this.
            wanted = sorted(["end", *_ALL_WAYS, "end"])
            lines = [member.read_line().split() for _ in range(2 * len(wanted))]
            for who in ("socket", "protocol"):
                heard = [word for name, word in lines if name == who]
                self.assertEqual(sorted(heard), wanted, who)
                self.assertEqual(heard[0], "end", who)

    @needs_hosts
    def test_services_and_the_command_accept_zones(self) -> None:
        """They meet on the interface of the zone, without another option."""
        with hosts(2) as (one, other):
            add_network(one, other)
            target = "multicast:[ff15::9%eth1]:22113"
            service = "from twisted.scripts.twistd import run; run()"
            arguments = ("--pidfile=", "-n", "twsock-multicast", "--endpoint", target)
            server = other.start_python(service, *arguments)
            while "listening on" not in (line := server.read_line()):
                pass
            self.assertIn("eth1", line)
            printed = one.run(sys.executable, "-m", "twsock", "echo", target, "--count", "2", "Hi")
            self.assertIn("2 sent, 2 answered", printed)

    def listen(self, host: Host, interface: str) -> Child:
        listener = host.start_python(_LISTEN, interface, "ff15::9")
        listener.wait_for("ready")
        return listener

    def rest(self, listener: Child) -> list[str]:
        lines = []
        while (line := listener.read_line()) != "end":
            lines.append(line)
        return lines
