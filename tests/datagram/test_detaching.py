"""UDP ports that change their owner, with a real kernel, on every reactor."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.datagram.fake_udp import FakeUdp
from tests.loopback.contract import OnEveryReactor
from tests.loopback.test_datagrams import HOST, HOST6, Owner, Plain, Ports, address_of
from twsock.datagram.network.interfaces import LinkWatch
from twsock.datagram.network.packet_info import read_source, source_control
from twsock.datagram.port import DatagramPort
from twsock.datagram.runs import Run
from twsock.datagram.udp_socket import DatagramOptions, OpenedSocket
from twsock.errors import ClosedError, LocalProtocolError
from twsock.handover import (
    DatagramState,
    DetachedDatagramPort,
    GroupMembership,
    UnreadDatagram,
    UnsentDatagram,
)

GROUP = "224.3.0.77"


class PortTests(OnEveryReactor):
    """``detach`` and ``from_socket`` of a `DatagramPort`."""

    def meet(self, work: Callable[[Any, Ports], Awaitable[None]]) -> None:
        """Run a coroutine to its end with ports, and close them."""

        async def both(reactor: Any) -> None:
            ports = Ports(reactor)
            try:
                await work(reactor, ports)
            finally:
                await ports.close()

        self.conduct(both)

    def test_a_port_moves_with_what_the_kernel_holds(self) -> None:
        """Datagrams that arrive in between wait in the receive buffer; both families."""

        async def work(reactor: Any, ports: Ports) -> None:
            for host in (HOST, HOST6):
                port, owner = ports.open(host)
                number = port.getHost().port
                peer = ports.peer(host)
                peer.sendto(b"before", (host, number))
                await ports.until(lambda: owner.received)  # noqa: B023
                detached = port.detach()
                self.assertEqual(owner.stops, 1)
                self.assertFalse(port.is_open)
                self.assertFalse(detached.socket.get_inheritable())
                for data in (b"one", b"two"):
                    peer.sendto(data, (host, number))
                other = Owner()
                again = DatagramPort.from_socket(
                    reactor, other, detached.socket, state=detached.state
                )
                self.assertEqual(detached.socket.fileno(), -1)
                self.assertEqual(again.getHost().port, number)
                await ports.until(lambda: len(other.received) == 2)  # noqa: B023
                self.assertEqual(other.received, [b"one", b"two"])
                again.reply(other.runs[0])
                self.assertEqual(peer.recv(9), b"one")
                await again.stopListening()

        self.meet(work)

    def test_unsent_datagrams_move_with_their_addresses(self) -> None:
        """They leave in order, before what the next protocol sends, and are counted there."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, udp = ports.count("")
            udp.has_room = False
            peer, other = ports.peer(), ports.peer()
            for index in range(3):
                port.send(b"%d" % index, peer.getsockname())
            port.send_run(b"abc", 2, other.getsockname())
            self.assertEqual(udp.sends, 1)
            run = Run(b"back", 4, peer.getsockname(), "127.0.0.3", 1, False, "127.0.0.3")
            port.reply(run)
            detached = port.detach()
            self.assertEqual(len(detached.state.unsent), 5)
            self.assertEqual(detached.state.unsent[3].segment_size, 2)
            self.assertEqual(detached.state.unsent[4].source, "127.0.0.3")
            self.assertEqual(port.counters.failed, 0)

            class Eager(Owner):
                @override
                def startProtocol(self) -> None:
                    transport: Any = self.transport
                    transport.write(b"later", peer.getsockname())

            again = DatagramPort.from_socket(
                reactor, Eager(), detached.socket, state=detached.state
            )
            received = [peer.recvfrom(9) for _ in range(5)]
            self.assertEqual([data for data, _ in received], [b"0", b"1", b"2", b"back", b"later"])
            self.assertEqual(received[3][1][0], "127.0.0.3")
            self.assertEqual([other.recv(9), other.recv(9)], [b"ab", b"c"])
            self.assertEqual(again.counters.sent, 7)
            await again.stopListening()

        self.meet(work)

    def test_collected_datagrams_move(self) -> None:
        """A port that is detached within ``together`` sends nothing at the end of the block."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open()
            peer = ports.peer()
            with port.together():
                port.send(b"held", peer.getsockname())
                detached = port.detach()
            address = peer.getsockname()
            self.assertEqual(detached.state.unsent, (UnsentDatagram(b"held", 4, address),))
            again = DatagramPort.from_socket(
                reactor, Owner(), detached.socket, state=detached.state
            )
            self.assertEqual(peer.recv(9), b"held")
            await again.stopListening()

        self.meet(work)

    def test_unread_datagrams_are_delivered_first(self) -> None:
        """With their addresses; a protocol that closes its port gets no further one."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open()
            number = port.getHost().port
            detached = port.detach()
            peer = ports.peer()
            peer.sendto(b"kernel", (HOST, number))
            unread = (
                UnreadDatagram(b"one", peer.getsockname(), HOST, 1, HOST),
                UnreadDatagram(b"cut", peer.getsockname(), is_truncated=True),
            )
            state = replace(detached.state, unread=unread)
            owner = Owner()
            again = DatagramPort.from_socket(reactor, owner, detached.socket, state=state)
            self.assertEqual(owner.received, [b"one", b"cut"])
            self.assertEqual((again.counters.received, again.counters.truncated), (1, 1))
            self.assertTrue(owner.runs[1].is_truncated)
            again.reply(owner.runs[0])
            self.assertEqual(peer.recv(9), b"one")
            await ports.until(lambda: len(owner.received) == 3)
            closing: Any = Owner()
            closing.when_received = lambda run: closing.transport.stopListening()
            detached = again.detach()
            DatagramPort.from_socket(
                reactor, closing, detached.socket, state=replace(detached.state, unread=unread)
            )
            self.assertEqual(closing.received, [b"one"])

        self.meet(work)

    def test_options_and_features_move(self) -> None:
        """What the kernel cannot report, and what has changed since."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open("", max_datagram=4, segmentation=False, hop_limit=9)
            port.set_hop_limit(7)
            detached = port.detach()
            self.assertEqual(
                detached.state.options,
                {
                    "receive_buffer": 2 * 1024 * 1024,
                    "max_datagram": 4,
                    "segmentation": False,
                    "hop_limit": 7,
                },
            )
            self.assertFalse(detached.state.has_runs)
            self.assertTrue(detached.state.has_packet_info)
            number = detached.socket.getsockname()[1]
            owner = Owner()
            again = DatagramPort.from_socket(reactor, owner, detached.socket, state=detached.state)
            self.assertEqual(again.options.hop_limit, 7)
            peer = ports.peer()
            peer.sendto(b"longer", ("127.0.0.3", number))
            await ports.until(lambda: owner.received)
            self.assertTrue(owner.runs[0].is_truncated)
            self.assertEqual(owner.runs[0].destination, "127.0.0.3")
            await again.stopListening()

        self.meet(work)

    def test_runs_are_still_cut(self) -> None:
        """The kernel goes on to join datagrams (``UDP_GRO``), and the next owner knows it."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open()
            sender, _ = ports.open()
            number = port.getHost().port
            detached = port.detach()
            sender.send_run(b"abcdef", 2, (HOST, number))
            owner = Owner()
            again = DatagramPort.from_socket(reactor, owner, detached.socket, state=detached.state)
            await ports.until(lambda: len(owner.received) == 3)
            self.assertEqual(owner.received, [b"ab", b"cd", b"ef"])
            await again.stopListening()

        self.meet(work)

    def test_a_connected_port_stays_connected(self) -> None:
        """Its peer is that of the socket."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open()
            peer, stranger = ports.peer(), ports.peer()
            stranger.sendto(b"early", address_of(port))
            port.connect(*peer.getsockname())
            number = port.getHost().port
            detached = port.detach()
            owner = Owner()
            again = DatagramPort.from_socket(reactor, owner, detached.socket, state=detached.state)
            self.assertEqual(again.get_peer(), peer.getsockname())
            with self.assertRaisesRegex(LocalProtocolError, "connected"):
                again.send(b"x", stranger.getsockname())
            again.send(b"to the peer")
            self.assertEqual(peer.recv(99), b"to the peer")
            stranger.sendto(b"stranger", (HOST, number))
            peer.sendto(b"peer", (HOST, number))
            await ports.until(lambda: owner.received)
            self.assertEqual(owner.received, [b"peer"])
            await again.stopListening()

        self.meet(work)

    def test_groups_move(self) -> None:
        """The socket stays in them, a shared port drops others, and both can be left."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open("", multicast_only=True)
            number = port.getHost().port
            port.join_group(GROUP, "lo")
            detached = port.detach()
            joined = GroupMembership(GROUP, "lo", socket.if_nametoindex("lo"))
            self.assertEqual(detached.state.memberships, (joined,))
            owner = Owner()
            again = DatagramPort.from_socket(reactor, owner, detached.socket, state=detached.state)
            peer = ports.peer()
            loopback = socket.inet_aton(HOST)
            peer.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, loopback)
            peer.sendto(b"unicast", (HOST, number))
            peer.sendto(b"group", (GROUP, number))
            await ports.until(lambda: owner.received)
            self.assertEqual(owner.received, [b"group"])
            readers = [type(reader) for reader in reactor.getReaders()]
            self.assertIn(LinkWatch, readers)
            again.leave_group(GROUP, "lo")
            self.assertEqual(len(again.memberships), 0)
            await again.stopListening()

        self.meet(work)

    def test_a_lost_group_is_still_known(self) -> None:
        """It is joined again when its interface is back, and reported then."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open("")
            detached = port.detach()
            changes: list[Any] = []

            class Changed(Owner):
                def membership_changed(self, change: Any) -> None:
                    changes.append((change.membership.group, change.is_lost))

            gone = GroupMembership(GROUP, "lo", socket.if_nametoindex("lo"), is_lost=True)
            other = GroupMembership("224.3.0.78", "gone9", 9999)
            again = DatagramPort.from_socket(
                reactor,
                Changed(),
                detached.socket,
                state=replace(detached.state, memberships=(gone, other)),
            )
            self.assertEqual(changes, [(GROUP, False), ("224.3.0.78", True)])
            detached = again.detach()
            self.assertEqual([one.is_lost for one in detached.state.memberships], [False, True])
            detached.close()

        self.meet(work)

    def test_a_socket_of_python_is_continued(self) -> None:
        """It is made non-blocking, and its protocol starts."""

        async def work(reactor: Any, ports: Ports) -> None:
            plain, peer = ports.peer(), ports.peer()
            plain.setblocking(True)
            address = plain.getsockname()
            owner = Owner()
            port = DatagramPort.from_socket(reactor, owner, plain)
            self.assertEqual(plain.fileno(), -1)
            self.assertFalse(os.get_blocking(port.fileno()))
            peer.sendto(b"data", address)
            await ports.until(lambda: owner.received)
            await port.stopListening()

        self.meet(work)

    def test_a_protocol_of_twisted_moves(self) -> None:
        """With the datagrams that nobody has read."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open(protocol=Plain())
            number = port.getHost().port
            detached = port.detach()
            peer = ports.peer()
            unread = (UnreadDatagram(b"first", peer.getsockname()),)
            protocol = Plain()
            again = DatagramPort.from_socket(
                reactor, protocol, detached.socket, state=replace(detached.state, unread=unread)
            )
            self.assertEqual(peer.recv(9), b"first")
            peer.sendto(b"second", (HOST, number))
            await ports.until(lambda: len(protocol.received) == 2)
            await again.stopListening()

        self.meet(work)

    def test_a_refused_detach_changes_nothing(self) -> None:
        """In a call of the protocol, the rest of its event would be lost."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, owner = ports.open()
            errors: list[BaseException] = []

            def detach(_run: Run) -> None:
                try:
                    port.detach()
                except LocalProtocolError as error:
                    errors.append(error)

            owner.when_received = detach
            peer = ports.peer()
            peer.sendto(b"one", address_of(port))
            await ports.until(lambda: owner.received)
            self.assertRegex(str(errors[0]), "handles a datagram")
            self.assertTrue(port.is_open)
            await port.stopListening()
            self.assertRaises(ClosedError, port.detach)

        self.meet(work)

    def test_a_port_that_sends_stays(self) -> None:
        """The datagrams of the call that is under way could be sent twice, or not at all."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, udp = ports.count()
            udp.has_room = False
            item = Detaching(port)
            port.submit(item)
            udp.has_room = True
            await ports.until(lambda: item.errors)
            self.assertRegex(str(item.errors[0]), "being sent")
            self.assertTrue(port.is_open)

        self.meet(work)

    def test_a_failed_start_leaves_the_socket_to_its_owner(self) -> None:
        """Nothing was sent or read, and the value is unchanged."""

        async def work(reactor: Any, ports: Ports) -> None:
            port, _ = ports.open()
            peer = ports.peer()
            detached = port.detach()
            unsent = (UnsentDatagram(b"once", 4, peer.getsockname()),)
            state = replace(detached.state, unsent=unsent)

            class Failing(Owner):
                @override
                def startProtocol(self) -> None:
                    raise RuntimeError("no")

            failing = Failing()
            self.assertRaises(
                RuntimeError,
                DatagramPort.from_socket,
                reactor,
                failing,
                detached.socket,
                state=state,
            )
            self.assertEqual(failing.failures, [])
            again = DatagramPort.from_socket(reactor, Owner(), detached.socket, state=state)
            self.assertEqual(peer.recv(9), b"once")
            peer.setblocking(False)
            self.assertRaises(BlockingIOError, peer.recv, 9)
            await again.stopListening()

        self.meet(work)


class Detaching:
    """A datagram that detaches its port when it was sent."""

    def __init__(self, port: DatagramPort) -> None:
        self.data, self.segment_size = b"x", 1
        self.address: tuple[Any, ...] | None = (HOST, 9)
        self.control: tuple[int, int, bytes] | None = None
        self.port = port
        self.errors: list[BaseException] = []

    def sent(self) -> None:
        try:
            self.port.detach()
        except LocalProtocolError as error:
            self.errors.append(error)

    def failed(self, error: BaseException) -> None:
        raise AssertionError(error)


class ArgumentTests(SynchronousTestCase):
    """What is wrong before anything has changed."""

    def test_what_is_no_bound_udp_socket_is_refused(self) -> None:
        """It stays open."""
        near, far = socket.socketpair()
        unbound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with near, far, unbound:
            for wrong in (near, unbound):
                with self.assertRaisesRegex(ValueError, "a bound UDP socket"):
                    DatagramPort.from_socket(None, Owner(), wrong)
                self.assertNotEqual(wrong.fileno(), -1)

    def test_an_unknown_option_is_refused(self) -> None:
        """So is one that is out of bounds."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind((HOST, 0))
            for options in ({"colour": 1}, {"hop_limit": 0}):
                state = DatagramState(options=options)
                with self.assertRaises(ValueError):
                    DatagramPort.from_socket(None, Owner(), udp, state=state)

    def test_a_socket_in_memory_stays(self) -> None:
        """Another process could not use it."""
        udp: Any = FakeUdp()
        port = DatagramPort(None, Owner(), OpenedSocket(udp, False, False), DatagramOptions())
        with self.assertRaisesRegex(LocalProtocolError, "not one of the kernel"):
            port.detach()

    def test_the_source_of_an_answer_survives(self) -> None:
        """The control message is made again from its two parts."""
        for source in (("127.0.0.2", 0), ("0.0.0.0", 3), ("::1", 4), ("::", 5)):
            self.assertEqual(read_source(source_control(*source)), source)
        self.assertEqual(read_source(source_control("", 3)), ("0.0.0.0", 3))

    def test_a_value_can_be_closed(self) -> None:
        """Closing twice is harmless."""
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        value = DetachedDatagramPort(udp)
        value.close()
        value.close()
        self.assertEqual(udp.fileno(), -1)


globals().update(PortTests.makeTestCaseClasses())
