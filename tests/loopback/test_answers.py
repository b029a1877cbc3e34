"""
An answer leaves from the destination of its request, on sockets and ports of all addresses.

A peer that is connected to that address receives no other answer.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.protocol import DatagramProtocol as PlainProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from tests.loopback.contract import OnEveryReactor
from tests.loopback.networks import Child, Host, add_network, hosts, needs_hosts, of_link
from tests.loopback.reactors import REACTORS
from twsock import (
    DatagramSocket,
    DatagramSocketMessageReceivedEventArgs,
    EndpointPair,
    HostName,
    SocketError,
    SocketErrorStatus,
)
from twsock.datagram.port import listen_datagrams
from twsock.datagram.udp_socket import (
    DatagramOptions,
    IReactorUdpSockets,
    OpenedSocket,
    open_udp_socket,
)
from twsock.protocols import DatagramProtocol

HOST, ALIAS, HOST6 = "127.0.0.1", "127.0.0.2", "::1"

#: Seconds after which an answer that should have come is missed.
PATIENCE = 120

Message = DatagramSocketMessageReceivedEventArgs
Handler = Callable[[DatagramSocket, Message], Any]


async def reply(_server: DatagramSocket, message: Message) -> None:
    """Answer with the shortest call."""
    await message.reply(message.data.upper())


async def reply_by_pair(server: DatagramSocket, message: Message) -> None:
    """Answer as in WinRT, with the endpoint pair of the message."""
    output = await server.get_output_stream(message.endpoint_pair)
    await output.write(message.data.upper())


async def reply_by_own_pair(server: DatagramSocket, message: Message) -> None:
    """Answer with an endpoint pair made by the application."""
    pair = EndpointPair(
        message.local_address,
        server.information.local_port,
        message.remote_address,
        message.remote_port,
    )
    output = await server.get_output_stream(pair)
    await output.write(message.data.upper())


async def send_back(server: DatagramSocket, message: Message) -> None:
    """Answer to the address of the message."""
    await server.send_to(message.data.upper(), message.address)


WAYS: tuple[Handler, ...] = (reply, reply_by_pair, reply_by_own_pair, send_back)


class Shout(DatagramProtocol):
    """Answers each datagram, to its source address."""

    def datagram_received(self, data: bytes, source: Any) -> None:
        self.send(data.upper(), source)


class ShoutByRun(DatagramProtocol):
    """Answers a run with a run."""

    def run_received(self, run: Any) -> None:
        self.transport.send_run(run.data.upper(), run.segment_size, run.source)


class PlainShout(PlainProtocol):
    """The same, as a protocol for Twisted's ports."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.transport.write(datagram.upper(), addr)  # type: ignore[union-attr]


class AnswerCase(OnEveryReactor):
    """Sends a request to each address of a server on all addresses."""

    def run_with(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run(reactor: Any) -> None:
            self.reactor = reactor
            await work()

        self.conduct(run)

    @asynccontextmanager
    async def serving(self, handler: Handler | None = None) -> AsyncIterator[DatagramSocket]:
        async with DatagramSocket(self.reactor) as server:
            if handler is not None:
                server.message_received.add(handler)
            await server.bind_service_name("")
            yield server

    async def ask(self, address: str, port: int | str, data: bytes = b"hello") -> bytes:
        """Send a request as a client that is connected to one address; return the answer."""
        async with DatagramSocket(self.reactor) as client:
            await client.connect(address, port)
            await client.output_stream.write(data)
            answer, _ = await client.receive_from(timeout=PATIENCE)
            return answer


class SocketTests(AnswerCase):
    """A `DatagramSocket` that is bound to all addresses."""

    def test_an_answer_leaves_from_the_address_of_the_request(self) -> None:
        """For each way to answer in a handler."""

        async def work() -> None:
            for way in WAYS:
                async with self.serving(way) as server:
                    for address in (ALIAS, HOST, HOST6):
                        answer = await self.ask(address, server.information.local_port)
                        self.assertEqual(answer, b"HELLO", (way.__name__, address))

        self.run_with(work)

    def test_a_late_answer_leaves_from_the_address_of_its_request(self) -> None:
        """Also if other messages arrived in between."""

        async def slowly(server: DatagramSocket, message: Message) -> None:
            for way in WAYS:
                await deferLater(self.reactor, 0)
                await way(server, message)

        async def work() -> None:
            async with self.serving(slowly) as server, DatagramSocket(self.reactor) as client:
                port = server.information.local_port
                await client.connect(ALIAS, port)
                writing = client.output_stream.write(b"hello")
                self.assertEqual(await self.ask(HOST, port), b"HELLO")
                await writing
                for number, _ in enumerate(WAYS):
                    answer, _ = await client.receive_from(timeout=PATIENCE)
                    self.assertEqual(answer, b"HELLO", f"{number=}")

        self.run_with(work)

    def test_received_messages_are_answered_from_the_address_of_the_request(self) -> None:
        """As messages, and as pairs of data and address."""

        async def work() -> None:
            async with self.serving() as server, DatagramSocket(self.reactor) as client:
                await client.connect(ALIAS, server.information.local_port)
                for number in range(3):
                    client.output_stream.write(b"%d" % number)
                await client.output_stream.flush()
                data, address = await server.receive_from(timeout=PATIENCE)
                await server.send_to(data, address)
                message = await server.receive(timeout=PATIENCE)
                await message.reply(message.data)
                data, (host, port) = await server.receive_from(timeout=PATIENCE)
                pair = EndpointPair(HostName(ALIAS), "", HostName(host), str(port))
                stream = await server.get_output_stream(pair)
                await stream.write(data)
                for number in range(3):
                    answer, _ = await client.receive_from(timeout=PATIENCE)
                    self.assertEqual(answer, b"%d" % number, number)

        self.run_with(work)

    def test_many_answers_leave_in_one_call(self) -> None:
        """Answers of one size to one address, as other datagrams do."""

        async def work() -> None:
            async with self.serving(reply) as server, DatagramSocket(self.reactor) as client:
                await client.connect(ALIAS, server.information.local_port)
                for number in range(100):
                    client.output_stream.write(b"%03d" % number)
                await client.output_stream.flush()
                answers = [await client.receive_from(timeout=PATIENCE) for _ in range(100)]
                wanted = [b"%03d" % number for number in range(100)]
                self.assertEqual([answer for answer, _ in answers], wanted)

        self.run_with(work)

    def test_an_endpoint_pair_with_a_foreign_local_address_is_refused(self) -> None:
        """Also one with another port, or of another family."""

        async def work() -> None:
            async with self.serving() as server:
                own, peer = server.information.local_port, HostName(HOST)
                for host, port, status in (
                    ("192.0.2.1", own, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS),
                    (HOST6, own, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED),
                    (HOST, str(int(own) ^ 1), SocketErrorStatus.UNKNOWN),
                ):
                    asking = server.get_output_stream(EndpointPair(HostName(host), port, peer, "9"))
                    error = await self.error_of(asking)
                    self.assertIs(error.status, status, (host, port, status))

        self.run_with(work)

    async def error_of(self, operation: Awaitable[Any]) -> SocketError:
        try:
            await operation
        except SocketError as error:
            return error
        raise AssertionError("it succeeded")


class SilentSystemTests(AnswerCase):
    """A system without packet info."""

    def test_the_kernel_chooses_the_source_of_answers(self) -> None:
        """For each way to answer. No message has a local address."""

        async def work() -> None:
            alsoProvides(self.reactor, IReactorUdpSockets)
            self.reactor.open_udp_socket = open_without_packet_info
            for way in WAYS:
                await self.ask_in_silence(way)

        self.run_with(work)

    async def ask_in_silence(self, way: Handler) -> None:
        found: list[object] = []

        async def answer(server: DatagramSocket, message: Message) -> None:
            found.extend([message.local_address, message.endpoint_pair.local_host_name])
            await way(server, message)

        async with self.serving(answer) as server, DatagramSocket(self.reactor) as client:
            port = int(server.information.local_port)
            # The client is not connected, so it receives from any address.
            await client.send_to(b"hello", (ALIAS, port))
            data, address = await client.receive_from(timeout=PATIENCE)
            self.assertEqual((data, address), (b"HELLO", (HOST, port)))
            self.assertEqual(found, [None, None])
            self.assertEqual(await self.ask(HOST6, port), b"HELLO")

    def test_protocols_answer_without_packet_info(self) -> None:
        """From the address that the kernel chooses."""

        async def work() -> None:
            alsoProvides(self.reactor, IReactorUdpSockets)
            self.reactor.open_udp_socket = open_without_packet_info
            for protocol in (Shout(), ShoutByRun(), PlainShout()):
                port = listen_datagrams(self.reactor, protocol, 0, "0.0.0.0")
                self.assertEqual(await self.ask(HOST, port.getHost().port), b"HELLO", protocol)
                await port.stopListening()

        self.run_with(work)


class ProtocolTests(AnswerCase):
    """Protocols on a port of all addresses."""

    def test_an_answer_leaves_from_the_address_of_the_request(self) -> None:
        """For datagrams, runs, and protocols written for Twisted."""

        async def work() -> None:
            for protocol in (Shout(), ShoutByRun(), PlainShout()):
                for wildcard, addresses in (("0.0.0.0", (ALIAS, HOST)), ("::", (HOST6,))):
                    port = listen_datagrams(self.reactor, protocol, 0, wildcard)
                    for address in addresses:
                        answer = await self.ask(address, port.getHost().port)
                        self.assertEqual(answer, b"HELLO", (protocol, address))
                    await port.stopListening()

        self.run_with(work)

    def test_datagrams_to_other_hosts_leave_from_the_kernels_choice(self) -> None:
        """A protocol that forwards sends no answer."""

        async def work() -> None:
            async with DatagramSocket(self.reactor) as target:
                await target.bind_endpoint("127.0.0.3", "")
                number = int(target.information.local_port)

                class Forward(DatagramProtocol):
                    def datagram_received(self, data: bytes, source: Any) -> None:
                        self.send(data, ("127.0.0.3", number))

                port = listen_datagrams(self.reactor, Forward(), 0, "0.0.0.0")
                async with DatagramSocket(self.reactor) as client:
                    await client.connect(ALIAS, port.getHost().port)
                    await client.output_stream.write(b"hello")
                    _, (host, _) = await target.receive_from(timeout=PATIENCE)
                    self.assertNotEqual(host, ALIAS)
                await port.stopListening()

        self.run_with(work)


#: Answers in every way on all addresses of both families: a socket on one port, with three answers
#: to each message, a protocol on another. Arguments: groups as ``group%interface``, reactor.
_SERVER = """
import sys
from twisted.internet.defer import Deferred
from twisted.internet.main import installReactor
from twisted.python.reflect import namedAny

installReactor(namedAny(sys.argv.pop())())

from twisted.internet.task import react
from twsock import DatagramSocket
from twsock.protocols import DatagramProtocol
from twsock.datagram.port import listen_datagrams

class Answering(DatagramProtocol):
    def datagram_received(self, data, source):
        self.send(data, source)

async def answer(server, message):
    await message.reply(message.data)
    await (await server.get_output_stream(message.endpoint_pair)).write(message.data)
    await server.send_to(message.data, message.address)

async def main(reactor):
    server = DatagramSocket(reactor)
    server.message_received.add(answer)
    await server.bind_service_name("22113")
    ports = {
        family: listen_datagrams(reactor, Answering(), 22114, address)
        for family, address in (("4", ""), ("6", "::"))
    }
    for argument in sys.argv[1:]:
        group, _, interface = argument.partition("%")
        server.join_multicast_group(group, interface)
        ports["6" if ":" in group else "4"].join_group(group, interface)
    print("ready", flush=True)
    await Deferred()

react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
"""

#: Sends to both ports, and prints the source of each answer. Without twsock. Arguments:
#: destination, interface, own address or ``-``.
_ASK = """
import socket, sys

destination, interface, own = sys.argv[1:]
index = socket.if_nametoindex(interface)
is_ipv6 = ":" in destination
with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.settimeout(60)
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if is_ipv6:
        asking.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    else:
        request = bytes(8) + index.to_bytes(4, sys.byteorder)
        asking.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
    if own != "-":
        asking.bind((own, 0))
    for port, answers in ((22113, 3), (22114, 1)):
        asking.sendto(b"hello", (destination, port))
        for _ in range(answers):
            print(port, asking.recvfrom(100)[1][0].partition("%")[0])
"""


class HostTests(SynchronousTestCase):
    """Hosts with two addresses, and with two networks between them."""

    def assert_answers_from(
        self, asking: Host, address: str, destination: str, interface: str = "eth0", own: str = "-"
    ) -> None:
        """Send requests, and check the source address of each answer."""
        printed = asking.run_python(_ASK, destination, interface, own)
        self.assertEqual(printed.split(), ["22113", address] * 3 + ["22114", address], destination)

    @needs_hosts
    def test_each_address_of_a_host_answers_for_itself(self) -> None:
        """In both families, on every reactor; link-local addresses too."""
        with hosts(2) as (one, other):
            second, second6 = "10.77.0.50", "fd77::50"
            other.ip("address", "add", f"{second}/24", "dev", other.interface)
            other.ip("address", "add", f"{second6}/64", "dev", other.interface, "nodad")
            for reactor in REACTORS:
                server = serve(other, reactor)
                for address in (second, other.address, second6, other.address6):
                    self.assert_answers_from(one, address, address)
                link = of_link(other)
                self.assert_answers_from(one, link, f"{link}%{one.interface}")
                server.end()

    @needs_hosts
    def test_multicast_and_broadcast_are_answered_from_the_receiving_interface(self) -> None:
        """From its unicast address, also if the route to the peer uses another interface."""
        groups, groups6 = ("224.3.0.5%eth0", "224.3.0.5%eth1"), ("ff15::5%eth0", "ff15::5%eth1")
        with hosts(2) as (one, other):
            add_network(one, other)
            server = serve(other, REACTORS[0], *groups, *groups6, "ff02::5%eth1")
            for interface, address, address6 in (
                ("eth0", other.address, other.address6),
                ("eth1", "10.88.0.2", "fd88::2"),
            ):
                self.assert_answers_from(one, address, "224.3.0.5", interface)
                self.assert_answers_from(one, address6, "ff15::5", interface)
            for broadcast in ("10.88.0.255", "10.77.0.255"):
                address = "10.88.0.2" if "88" in broadcast else other.address
                self.assert_answers_from(one, address, broadcast)
            self.assert_answers_from(one, of_link(other, "eth1"), "ff02::5%eth1", "eth1")
            # The peer sends through the second network with its address of the first. The kernel
            # would answer from the first.
            self.assert_answers_from(one, "10.88.0.2", "224.3.0.5", "eth1", own=one.address)
            self.assert_answers_from(one, "fd88::2", "ff15::5", "eth1", own=one.address6)
            server.end()


def serve(host: Host, reactor: str, *groups: str) -> Child:
    """Start the server, and wait until it answers."""
    server = host.start_python(_SERVER, *groups, reactor)
    server.wait_for("ready")
    return server


for case in (SocketTests, SilentSystemTests, ProtocolTests):
    globals().update(case.makeTestCaseClasses())
del case


def open_without_packet_info(address: str, port: int, options: DatagramOptions) -> OpenedSocket:
    """Open a socket as on a system without packet info."""
    opened = open_udp_socket(address, port, options)
    is_ipv6 = opened.udp.family == socket.AF_INET6
    if is_ipv6:
        opened.udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 0)
    else:
        opened.udp.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_PKTINFO", 8), 0)
    return OpenedSocket(opened.udp, opened.has_runs, False)
