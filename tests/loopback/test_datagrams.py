"""A datagram port and a real kernel, on every reactor."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SkipTest
from typing_extensions import override
from zope.interface import implementer

from tests.datagram.fake_udp import error_of
from tests.loopback.contract import OnEveryReactor, turns
from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.owner import IDatagramOwner
from twsock.datagram.port import DatagramPort, listen_datagrams
from twsock.datagram.runs import Run
from twsock.datagram.udp_socket import DatagramOptions, OpenedSocket, open_udp_socket
from twsock.errors import SocketError, SocketErrorStatus

HOST, ALIAS, HOST6 = "127.0.0.1", "127.0.0.2", "::1"
RESET = SocketErrorStatus.CONNECTION_RESET_BY_PEER
TOO_LONG = SocketErrorStatus.MESSAGE_TOO_LONG

#: Room for all that these tests send at once, in bytes.
AMPLE = 2 * 1024 * 1024

#: How often a reactor goes round until a test gives up: nothing on loopback takes so many.
MOST_TURNS = 2000


class CountingSocket(socket.socket):
    """
    A socket that counts how often it sends.

    :ivar sends: system calls.
    :ivar has_room: whether the kernel has room; on loopback it always has.
    """

    sends = 0
    has_room = True

    @override
    def send(self, *arguments: Any) -> int:
        self._begin()
        return super().send(*arguments)

    @override
    def sendto(self, *arguments: Any) -> int:
        self._begin()
        return super().sendto(*arguments)

    @override
    def sendmsg(self, *arguments: Any) -> int:
        self._begin()
        return super().sendmsg(*arguments)

    def _begin(self) -> None:
        self.sends += 1
        if not self.has_room:
            raise error_of(errno.EAGAIN)


@implementer(IDatagramOwner)
class Owner(DatagramProtocol):
    """A protocol that records its events."""

    noisy = False

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.refusals: list[SocketErrorStatus] = []
        self.failures: list[SocketErrorStatus] = []
        self.drained = 0
        self.stops = 0
        self.when_received: Callable[[Run], object] = lambda run: None

    @override
    def stopProtocol(self) -> None:
        self.stops += 1

    def run_received(self, run: Run) -> None:
        self.runs.append(run)
        self.when_received(run)

    def refused(self, error: SocketError) -> None:
        self.refusals.append(error.status)

    def send_failed(self, error: SocketError, address: Any, count: int) -> None:
        self.failures.append(error.status)

    def output_drained(self) -> None:
        self.drained += 1

    def membership_changed(self, change: MembershipChange) -> None:
        raise NotImplementedError

    @property
    def received(self) -> list[bytes]:
        """Return the received datagrams."""
        return [data for run in self.runs for data in run.datagrams()]


class Plain(DatagramProtocol):
    """A protocol written for Twisted's ports."""

    noisy = False

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Any]] = []
        self.refusals = 0

    @override
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append((datagram, addr))
        transport: Any = self.transport
        transport.write(datagram, addr)

    @override
    def connectionRefused(self) -> None:
        self.refusals += 1


class Ports:
    """Ports and sockets of one test, closed together."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._ports: list[DatagramPort] = []
        self._sockets: list[socket.socket] = []

    def open(
        self, host: str = HOST, protocol: Any = None, **options: Any
    ) -> tuple[DatagramPort, Any]:
        """Open a port with a free number, and room for all that these tests send."""
        owner = Owner() if protocol is None else protocol
        options = {"receive_buffer": AMPLE, **options}
        port = listen_datagrams(self.reactor, owner, 0, host, DatagramOptions(**options))
        self._ports.append(port)
        return port, owner

    def count(
        self, host: str = HOST, protocol: Any = None, **options: Any
    ) -> tuple[DatagramPort, CountingSocket]:
        """Open a port whose sends are counted."""
        chosen = DatagramOptions(**options)
        opened = open_udp_socket(host, 0, chosen)
        udp = CountingSocket(fileno=opened.udp.detach())
        opened = OpenedSocket(udp, opened.has_runs, opened.has_packet_info)
        port = DatagramPort(self.reactor, protocol or Owner(), opened, chosen)
        port.startListening()
        self._ports.append(port)
        return port, udp

    def peer(self, host: str = HOST, port: int = 0) -> socket.socket:
        """Open a plain socket."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        udp = socket.socket(family, socket.SOCK_DGRAM)
        self._sockets.append(udp)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, AMPLE)
        udp.settimeout(60)
        udp.bind((host, port))
        return udp

    async def until(self, condition: Callable[[], object]) -> None:
        """Run the reactor until a condition is true."""
        for _ in range(MOST_TURNS):
            if condition():
                return
            await turns(self.reactor, 1)
        raise AssertionError("it never happens")

    async def close(self) -> None:
        """Close all."""
        for port in self._ports:
            await port.stopListening()
        for udp in self._sockets:
            udp.close()


def address_of(port: DatagramPort, host: str = "") -> tuple[str, int]:
    """Return the address of a port."""
    there = port.getHost()
    return host or there.host, there.port


def unused(host: str = HOST) -> tuple[str, int]:
    """Return an address that no socket has."""
    with socket.socket(
        socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM
    ) as udp:
        udp.bind((host, 0))
        return host, udp.getsockname()[1]


def need_runs() -> None:
    """Skip a test if the kernel does not support runs."""
    opened = open_udp_socket(HOST, 0, DatagramOptions())
    opened.udp.close()
    if not opened.has_runs:
        raise SkipTest("this kernel has no UDP_GRO")


Work = Callable[[Ports], Awaitable[None]]


class DatagramPorts(OnEveryReactor):
    """Ports that exchange datagrams over loopback."""

    def meet(self, work: Work) -> None:
        """Run a coroutine to its end with ports, and close them."""

        async def in_a_room(reactor: Any) -> None:
            ports = Ports(reactor)
            try:
                await work(ports)
            finally:
                await ports.close()

        self.conduct(in_a_room)

    def meet_each(self, work: Callable[[Ports, str, int], Awaitable[None]]) -> None:
        """Run for each family, with an address and the size of the largest datagram."""

        async def both(ports: Ports) -> None:
            await work(ports, HOST, 65_507)
            await work(ports, HOST6, 65_527)

        self.meet(both)

    def test_a_run_arrives_as_one_event(self) -> None:
        """With the same datagrams, the last shorter; it leaves in one system call."""
        need_runs()
        data = b"".join(bytes([number]) * 100 for number in range(64))[:-40]

        async def work(ports: Ports) -> None:
            near, udp = ports.count()
            far, owner = ports.open()
            near.send_run(data, 100, address_of(far))
            await ports.until(lambda: owner.runs)
            (run,) = owner.runs
            self.assertEqual((run.data, run.segment_size, len(run)), (data, 100, 64))
            self.assertEqual((run.source, udp.sends), (address_of(near), 1))
            self.assertEqual((near.counters.sent, far.counters.received), (64, 64))

        self.meet(work)

    def test_sixty_four_answers_are_one_system_call(self) -> None:
        """One for each datagram, sent during their delivery."""
        need_runs()

        async def work(ports: Ports) -> None:
            owner = Owner()
            server, udp = ports.count(protocol=owner)
            client, back = ports.open()

            def answer_each(run: Run) -> None:
                for data in run.datagrams():
                    server.send(data, run.source)

            owner.when_received = answer_each
            data = [bytes([number]) * 100 for number in range(64)]
            client.send_run(b"".join(data), 100, address_of(server))
            await ports.until(lambda: len(back.received) == 64)
            self.assertEqual((back.received, udp.sends), (data, 1))

        self.meet(work)

    def test_datagrams_of_several_sizes_are_grouped(self) -> None:
        """In order, with one system call for each sequence of equal sizes."""
        need_runs()
        sizes = [100, 100, 100, 50, 200, 200, 0, 300]

        async def work(ports: Ports) -> None:
            near, udp = ports.count()
            far, owner = ports.open()
            with near.together():
                for size in sizes:
                    near.send(bytes(size), address_of(far))
            await ports.until(lambda: len(owner.received) == len(sizes))
            self.assertEqual([len(data) for data in owner.received], sizes)
            self.assertEqual(udp.sends, 4)

        self.meet(work)

    def test_without_segmentation_the_same_datagrams_arrive(self) -> None:
        """One by one; a kernel that joins runs hides even that."""

        async def work(ports: Ports) -> None:
            near, udp = ports.count(segmentation=False)
            far, owner = ports.open()
            near.send_run(b"aabbc", 2, address_of(far))
            near.reply(Run(b"ddee", 2, address_of(far), HOST))
            await ports.until(lambda: len(owner.received) == 5)
            self.assertEqual(owner.received, [b"aa", b"bb", b"c", b"dd", b"ee"])
            self.assertEqual(udp.sends, 5)

        self.meet(work)

    def test_an_empty_datagram_arrives(self) -> None:
        """In both directions; on a connected port too."""

        async def work(ports: Ports) -> None:
            server, there = ports.open()
            client, back = ports.open()
            there.when_received = server.reply
            client.send(b"", address_of(server))
            await ports.until(lambda: back.received)
            client.connect(*address_of(server))
            client.send(b"")
            await ports.until(lambda: len(back.received) == 2)
            self.assertEqual((there.received, back.received), ([b"", b""], [b"", b""]))

        self.meet(work)

    def test_the_largest_datagram_of_each_family_arrives(self) -> None:
        """65,507 bytes, or 65,527 on IPv6. A longer one is refused; others are sent."""

        async def work(ports: Ports, host: str, most: int) -> None:
            near, _ = ports.open(host)
            far, owner = ports.open(host)
            near.send(bytes(most), address_of(far))
            with self.assertRaises(SocketError) as caught:
                near.send(bytes(most + 1), address_of(far))
            self.assertIs(caught.exception.status, TOO_LONG)
            near.send(b"a", address_of(far))
            await ports.until(lambda: len(owner.received) == 2)
            self.assertEqual([len(data) for data in owner.received], [most, 1])

        self.meet_each(work)

    def test_the_largest_run_of_each_family_is_one_system_call(self) -> None:
        """It has as many bytes as the headers leave."""
        need_runs()

        async def work(ports: Ports, host: str, most: int) -> None:
            near, udp = ports.count(host)
            far, owner = ports.open(host)
            sizes = [1200] * (most // 1200) + [most % 1200]
            with near.together():
                for size in sizes:
                    near.send(bytes(size), address_of(far))
            await ports.until(lambda: len(owner.received) == len(sizes))
            self.assertEqual([len(data) for data in owner.received], sizes)
            self.assertEqual((near.counters.failed, udp.sends), (0, 1))

        self.meet_each(work)

    def test_datagrams_above_max_datagram_are_flagged(self) -> None:
        """Each by itself, also in a run, whose last one may be short enough."""

        async def work(ports: Ports) -> None:
            near, _ = ports.open()
            far, owner = ports.open(max_datagram=50)
            near.send_run(b"a" * 60 + b"b" * 60 + b"c" * 10, 60, address_of(far))
            near.send(b"d" * 50, address_of(far))
            await ports.until(lambda: len(owner.runs) == 4)
            flags = [(run.data, run.is_truncated) for run in owner.runs]
            wanted = [(b"a" * 50, True), (b"b" * 50, True), (b"c" * 10, False), (b"d" * 50, False)]
            self.assertEqual(flags, wanted)
            self.assertEqual((far.counters.truncated, far.counters.received), (2, 2))

        self.meet(work)

    def test_an_answer_leaves_from_the_address_of_the_request(self) -> None:
        """On a port of all addresses."""

        async def work(ports: Ports) -> None:
            server, there = ports.open("")
            client, back = ports.open()
            there.when_received = server.reply
            client.send(b"a", address_of(server, ALIAS))
            client.send_run(b"bbcc", 2, address_of(server, ALIAS))
            await ports.until(lambda: len(back.received) == 3)
            self.assertEqual({run.destination for run in there.runs}, {ALIAS})
            self.assertEqual({run.interface for run in there.runs}, {socket.if_nametoindex("lo")})
            self.assertEqual({run.source for run in back.runs}, {address_of(server, ALIAS)})

        self.meet(work)

    def test_ipv6_is_answered(self) -> None:
        """With all four parts of an address, on a port of all addresses."""

        async def work(ports: Ports) -> None:
            server, there = ports.open("::")
            client, back = ports.open(HOST6)
            there.when_received = server.reply
            client.send_run(b"aabb", 2, address_of(server, HOST6))
            await ports.until(lambda: len(back.received) == 2)
            self.assertEqual(there.runs[0].source, (*address_of(client), 0, 0))
            self.assertEqual(there.runs[0].destination, HOST6)
            self.assertEqual(back.runs[0].source, (*address_of(server, HOST6), 0, 0))

        self.meet(work)

    def test_an_icmp_error_is_an_event_and_the_port_stays_open(self) -> None:
        """A read gets the error. Later datagrams are received and sent."""

        async def work(ports: Ports, host: str, _: int) -> None:
            there = unused(host)
            port, owner = ports.open(host)
            port.connect(*there)
            port.send(b"a")
            await ports.until(lambda: owner.refusals)
            self.assertEqual((owner.refusals, owner.stops), ([RESET], 0))
            self.assertIn(port, ports.reactor.getReaders())
            peer = ports.peer(*there)
            port.send(b"b")
            self.assertEqual(peer.recvfrom(10)[0], b"b")
            peer.sendto(b"c", address_of(port))
            await ports.until(lambda: owner.received)
            self.assertEqual((owner.received, owner.refusals), ([b"c"], [RESET]))

        self.meet_each(work)

    def test_icmp_errors_do_not_delay_other_datagrams(self) -> None:
        """Each datagram is sent, although each send gets the error of the one before."""

        async def work(ports: Ports) -> None:
            port, owner = ports.open()
            port.connect(*unused())
            for size in range(20):
                port.send(bytes(size))
            await ports.until(lambda: len(owner.refusals) == 20)
            self.assertEqual((port.counters.sent, owner.failures), (20, []))
            self.assertEqual(port.counters.refused, 20)

        self.meet(work)

    def test_an_error_cleared_before_the_reactor_reports_it(self) -> None:
        """A send in the same turn got the error. The port still reads."""

        async def work(ports: Ports) -> None:
            there = unused()
            early, early_owner = ports.open()
            port, owner = ports.open()
            port.connect(*there)
            peers: list[socket.socket] = []

            def take_the_error(run: Run) -> None:
                peers.append(ports.peer(*there))
                port.send(b"b")

            early_owner.when_received = take_the_error
            ports.peer().sendto(b"now", address_of(early))
            port.send(b"a")
            await ports.until(lambda: peers)
            await turns(ports.reactor)
            self.assertEqual(owner.refusals, [RESET])
            peers[0].sendto(b"c", address_of(port))
            await ports.until(lambda: owner.received)

        self.meet(work)

    def test_a_paused_port_gets_the_icmp_error_at_its_next_send(self) -> None:
        """It does not read until then. That datagram is sent."""

        async def work(ports: Ports) -> None:
            there = unused()
            port, owner = ports.open()
            port.connect(*there)
            port.pauseProducing()
            port.send(b"a")
            await turns(ports.reactor)
            self.assertEqual(owner.refusals, [])
            peer = ports.peer(*there)
            port.send(b"b")
            self.assertEqual((peer.recv(10), owner.refusals), (b"b", [RESET]))

        self.meet(work)

    def test_an_icmp_error_on_a_port_that_waits_to_write_keeps_it_open(self) -> None:
        """Some reactors report it as the end of the connection. Queued datagrams are sent."""

        async def work(ports: Ports) -> None:
            owner = Owner()
            port, udp = ports.count(protocol=owner)
            port.connect(*unused())
            port.pauseProducing()
            port.send(b"a")
            udp.has_room = False
            port.send(b"b")
            udp.has_room = True
            self.assertEqual((owner.refusals, ports.reactor.getWriters()), ([], [port]))
            await ports.until(lambda: not ports.reactor.getWriters())
            self.assertEqual((owner.refusals, port.counters.sent), ([RESET], 2))
            self.assertEqual((owner.drained, owner.stops, port.is_open), (1, 0, True))
            self.assertNotIn(port, ports.reactor.getReaders())

        self.meet(work)

    def test_datagrams_of_other_sources_are_dropped(self) -> None:
        """The port drops those from before the connect, the kernel drops later ones."""

        async def work(ports: Ports) -> None:
            port, owner = ports.open()
            peer, stranger = ports.peer(), ports.peer()
            port.pauseProducing()
            stranger.sendto(b"a", address_of(port))
            port.connect(*peer.getsockname())
            stranger.sendto(b"b", address_of(port))
            peer.sendto(b"c", address_of(port))
            port.resumeProducing()
            await ports.until(lambda: owner.received)
            self.assertEqual((owner.received, port.counters.unexpected_source), ([b"c"], 1))

        self.meet(work)

    def test_a_paused_port_receives_later(self) -> None:
        """The kernel keeps the datagrams."""

        async def work(ports: Ports) -> None:
            port, owner = ports.open()
            port.pauseProducing()
            ports.peer().sendto(b"a", address_of(port))
            await turns(ports.reactor)
            self.assertEqual(owner.received, [])
            port.resumeProducing()
            await ports.until(lambda: owner.received)

        self.meet(work)

    def test_a_full_kernel_loses_no_datagram(self) -> None:
        """The order is kept."""

        async def work(ports: Ports) -> None:
            owner = Owner()
            near, udp = ports.count(protocol=owner)
            far, there = ports.open()
            sizes = [1000 + number % 3 for number in range(300)]
            udp.has_room = False
            for size in sizes:
                near.send(bytes(size), address_of(far))
            self.assertTrue(near.is_full)
            udp.has_room = True
            await ports.until(lambda: owner.drained)
            await ports.until(lambda: len(there.received) == len(sizes))
            self.assertEqual([len(data) for data in there.received], sizes)
            self.assertEqual((near.unsent, owner.drained, owner.failures), (0, 1, []))

        self.meet(work)

    def test_a_port_closes_once(self) -> None:
        """Its protocol is stopped once, and its port number is free at once."""

        async def work(ports: Ports) -> None:
            port, owner = ports.open()
            there = address_of(port)
            await port.stopListening()
            await port.stopListening()
            self.assertEqual((owner.stops, port.fileno()), (1, -1))
            ports.peer(*there)

        self.meet(work)

    def test_a_protocol_for_twisted_works(self) -> None:
        """It receives, answers, and gets ICMP errors."""

        async def work(ports: Ports) -> None:
            port, _ = ports.open(protocol=Plain())
            client, back = ports.open()
            client.send_run(b"aabbc", 2, address_of(port))
            await ports.until(lambda: len(back.received) == 3)
            self.assertEqual(back.received, [b"aa", b"bb", b"c"])
            refused, plain = ports.open(protocol=Plain())
            plain.transport.connect(*unused())
            plain.transport.write(b"a")
            await ports.until(lambda: plain.refusals)
            self.assertTrue(refused.is_open)

        self.meet(work)

    def test_datagrams_dropped_by_the_kernel_are_counted(self) -> None:
        """A tiny buffer is full before the port reads."""

        async def work(ports: Ports) -> None:
            port, owner = ports.open(receive_buffer=1)
            port.pauseProducing()
            peer = ports.peer()
            for _ in range(200):
                peer.sendto(bytes(1000), address_of(port))
            dropped = port.dropped_by_kernel
            self.assertGreater(dropped, 0)
            port.resumeProducing()
            await ports.until(lambda: len(owner.received) == 200 - dropped)

        if sys.platform != "linux":
            raise SkipTest("only Linux tells")
        self.meet(work)

    def test_a_stopping_reactor_closes_the_port(self) -> None:
        """Its protocol is stopped, without an error."""
        owner = Owner()
        reactor = self.buildReactor()
        port = listen_datagrams(reactor, owner, 0, HOST)
        reactor.callWhenRunning(reactor.stop)
        self.runReactor(reactor, timeout=20)
        self.assertEqual((owner.stops, owner.refusals, port.is_open), (1, [], False))


globals().update(DatagramPorts.makeTestCaseClasses())
del DatagramPorts
