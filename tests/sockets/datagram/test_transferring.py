"""Datagram sockets that change their owner, with a real kernel, on every reactor."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.contract import OnEveryReactor, failure_of, turns
from tests.sockets.datagram.cases import FillableSocket, plain_socket, receive
from twsock import (
    ClosedError,
    DatagramSocket,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
    SocketQualityOfService,
)
from twsock.handover import DetachedDatagramPort, DetachedDatagramSocket

HOST = "127.0.0.1"
GROUP = "224.3.0.79"


class Crowded(FillableSocket):
    """A socket, and copies of it, for which the kernel has no room."""

    has_runs = False
    is_full = True

    def take_room(self) -> None:
        if self.is_full:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


class Uncopied(socket.socket):
    """A socket of a process that may have no free descriptor."""

    is_full = False

    def dup(self) -> Any:
        if self.is_full:
            raise OSError(errno.EMFILE, "Too many open files")
        return super().dup()


def plain_socket_at(address: tuple[str, int]) -> socket.socket:
    """Make a socket of Python, bound to an address."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(address)
    return made


async def bound(reactor: Any, **options: Any) -> DatagramSocket:
    """Make a socket that is bound to a free port of all addresses."""
    made = DatagramSocket(reactor)
    for name, value in options.items():
        setattr(made.control, name, value)
    await made.bind_service_name("")
    return made


def number_of(bound: DatagramSocket) -> int:
    """Return the port of a socket."""
    return int(bound.information.local_port)


async def detach_with_unread(
    reactor: Any, made: DatagramSocket, count: int
) -> DetachedDatagramSocket:
    """Detach a socket that has received so many datagrams; it changes its owner until it has."""
    while True:
        detached = made.detach()
        if sum(len(port.state.unread) for port in detached.ports) == count:
            return detached
        made = DatagramSocket.from_socket(reactor, detached)
        await turns(reactor, 1)


class SocketTests(OnEveryReactor):
    """``detach``, ``from_socket`` and ``bind_socket`` of a `DatagramSocket`."""

    def test_a_socket_moves_with_unread_datagrams(self) -> None:
        """They are received first, with their addresses; both families move."""

        async def work(reactor: Any) -> None:
            made = await bound(reactor)
            number = number_of(made)
            with plain_socket() as four, plain_socket("::1") as six:
                four.sendto(b"first", ("127.0.0.2", number))
                self.assertEqual((await made.receive_from())[0], b"first")
                four.sendto(b"4", ("127.0.0.2", number))
                six.sendto(b"6", ("::1", number))
                detached = await detach_with_unread(reactor, made, 2)
                self.assertFalse(made.is_open)
                self.assertEqual(len(detached.ports), 2)
                unread = [one for port in detached.ports for one in port.state.unread]
                self.assertEqual([one.data for one in unread], [b"4", b"6"])
                four.sendto(b"kernel", ("127.0.0.2", number))
                again = DatagramSocket.from_socket(reactor, detached)
                self.assertEqual(number_of(again), number)
                messages = [await again.receive(timeout=60) for _ in range(3)]
                self.assertEqual([message.data for message in messages], [b"4", b"6", b"kernel"])
                self.assertEqual(str(messages[0].local_address), "127.0.0.2")
                await messages[0].reply(b"answer")
                self.assertEqual(four.recvfrom(9), (b"answer", ("127.0.0.2", number)))
                await again.close()

        self.conduct(work)

    def test_options_groups_and_adapter_move(self) -> None:
        """``control`` shows them, and they are still set."""

        async def work(reactor: Any) -> None:
            made = DatagramSocket(reactor)
            made.control.outbound_multicast_hop_limit = 3
            made.control.quality_of_service = SocketQualityOfService.LOW_LATENCY
            made.control.inbound_buffer_size = 65_536
            made.control.multicast_only = True
            made.control.max_datagram = 100
            await made.bind_endpoint(HOST, "")
            made.control.outbound_unicast_hop_limit = 9
            made.join_multicast_group(GROUP)
            again = DatagramSocket.from_socket(reactor, made.detach())
            control = again.control
            self.assertEqual(control.outbound_multicast_hop_limit, 3)
            self.assertIs(control.quality_of_service, SocketQualityOfService.LOW_LATENCY)
            self.assertEqual(control.inbound_buffer_size, 65_536)
            self.assertEqual(control.outbound_unicast_hop_limit, 9)
            self.assertEqual(control.max_datagram, 100)
            self.assertTrue(control.multicast_only)
            with self.assertRaises(LocalProtocolError):
                control.max_datagram = 7
            with plain_socket() as peer:
                peer.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HOST))
                peer.sendto(b"group", (GROUP, number_of(again)))
                self.assertEqual((await again.receive_from(timeout=60))[0], b"group")
            again.leave_multicast_group(GROUP)
            again.join_multicast_group(GROUP)  # On the adapter, which moved.
            detached = again.detach()
            self.assertEqual(detached.adapter, socket.if_nametoindex("lo"))
            self.assertEqual(detached.ports[0].state.memberships[0].interface, "lo")
            detached.close()

        self.conduct(work)

    def test_a_connected_socket_stays_connected(self) -> None:
        """Its output stream sends to the peer."""

        async def work(reactor: Any) -> None:
            with plain_socket() as peer:
                made = DatagramSocket(reactor)
                await made.connect(*peer.getsockname())
                again = DatagramSocket.from_socket(reactor, made.detach())
                self.assertEqual(str(again.information.remote_address), HOST)
                await again.output_stream.write(b"moved")
                data, address = peer.recvfrom(9)
                self.assertEqual(data, b"moved")
                peer.sendto(b"back", address)
                self.assertEqual((await again.receive_from(timeout=60))[0], b"back")
                error = await failure_of(again.send_to(b"x", peer.getsockname()))
                self.assertIsInstance(error, LocalProtocolError)
                await again.close()

        self.conduct(work)

    def test_unsent_datagrams_move(self) -> None:
        """A write that nobody awaits fires, and the next owner sends it; both in order."""

        async def work(reactor: Any) -> None:
            with plain_socket() as peer:
                made = self.make_full(reactor)
                writes = [made.send_to(b"%d" % index, peer.getsockname()) for index in range(3)]
                stream = await made.get_output_stream(*peer.getsockname())
                writes.append(stream.write(b"stream"))
                detached = made.detach()
                Crowded.is_full = False
                self.assertEqual([await write for write in writes], [1, 1, 1, 6])
                again = DatagramSocket.from_socket(reactor, detached)
                self.assertEqual(receive(peer, 4), [b"0", b"1", b"2", b"stream"])
                error = await failure_of(stream.write(b"late"))
                self.assertIsInstance(error, ClosedError)
                await again.close()

        self.conduct(work)

    def make_full(self, reactor: Any) -> DatagramSocket:
        """Make a socket whose kernel has no room."""
        self.patch(Crowded, "is_full", True)
        return DatagramSocket.from_socket(reactor, Crowded(fileno=plain_socket().detach()))

    def test_handlers_get_unread_datagrams(self) -> None:
        """They are added before the bind, and answer at once."""

        async def work(reactor: Any) -> None:
            first = await bound(reactor)
            with plain_socket() as peer:
                peer.sendto(b"question", (HOST, number_of(first)))
                detached = await detach_with_unread(reactor, first, 1)
                made = DatagramSocket(reactor)
                seen: list[bytes] = []

                async def answer(_: DatagramSocket, message: Any) -> None:
                    seen.append(message.data)
                    await message.reply(b"answer")

                made.message_received.add(answer)
                await made.bind_socket(detached)
                self.assertEqual(seen, [b"question"])
                self.assertEqual(peer.recv(9), b"answer")
                error = await failure_of(made.bind_socket(peer))
                self.assertIsInstance(error, LocalProtocolError)
                await made.close()

        self.conduct(work)

    def test_a_refused_detach_changes_nothing(self) -> None:
        """Each pending operation and each running handler is a reason."""

        async def work(reactor: Any) -> None:
            made = DatagramSocket(reactor)
            with self.assertRaisesRegex(LocalProtocolError, "not bound"):
                made.detach()
            await made.bind_endpoint(HOST, "")
            receiving = made.receive_from()
            with self.assertRaisesRegex(LocalProtocolError, "cancel_io"):
                made.detach()
            made.cancel_io()
            error = await failure_of(receiving)
            self.assertIs(error.status, SocketErrorStatus.OPERATION_ABORTED)
            looking_up = made.get_output_stream("localhost", 9)
            with self.assertRaisesRegex(LocalProtocolError, "an operation is pending"):
                made.detach()
            await looking_up
            detached = made.detach()
            again = DatagramSocket.from_socket(reactor, detached)
            await again.close()
            self.assertRaises(ClosedError, again.detach)
            self.assertRaises(ClosedError, made.detach)

        self.conduct(work)

    def test_a_report_of_a_refusal_does_not_move(self) -> None:
        """It is no datagram; those behind it move."""

        async def work(reactor: Any) -> None:
            made = DatagramSocket(reactor)
            with plain_socket() as peer:
                address = peer.getsockname()
                await made.connect(*address)
                number = number_of(made)
            await made.output_stream.write(b"to nobody")
            await turns(reactor)
            with plain_socket_at(address) as peer:
                peer.sendto(b"data", (HOST, number))
                detached = await detach_with_unread(reactor, made, 1)
                self.assertEqual(detached.ports[0].state.unread[0].data, b"data")
                detached.close()

        self.conduct(work)

    def test_two_sockets_move_together_or_not_at_all(self) -> None:
        """Neither side keeps a copy of the first if the second fails."""

        async def work(reactor: Any) -> None:
            four, six = plain_socket(), Uncopied(fileno=plain_socket("::1").detach())
            value = DetachedDatagramSocket((DetachedDatagramPort(four), DetachedDatagramPort(six)))
            self.patch(Uncopied, "is_full", True)
            with self.assertRaisesRegex(SocketError, "Too many open files"):
                DatagramSocket.from_socket(reactor, value)
            self.assertNotIn(-1, (four.fileno(), six.fileno()))
            Uncopied.is_full = False
            made = DatagramSocket.from_socket(reactor, value)
            Uncopied.is_full = True
            with self.assertRaisesRegex(SocketError, "Too many open files"):
                made.detach()
            self.assertTrue(made.is_open)
            await made.close()

        self.conduct(work)

    def test_an_awaited_write_and_a_flush_are_pending(self) -> None:
        """After ``cancel_io`` their datagrams are neither sent nor moved."""

        async def work(reactor: Any) -> None:
            with plain_socket() as peer:
                made = self.make_full(reactor)
                write = made.send_to(b"awaited", peer.getsockname())
                failing = failure_of(write.addCallback(lambda size: size))
                awaiting = Deferred.fromCoroutine(failing)
                with self.assertRaisesRegex(LocalProtocolError, "cancel_io"):
                    made.detach()
                made.cancel_io()
                await awaiting
                stream = await made.get_output_stream(*peer.getsockname())
                stream.write(b"before the flush")
                flushing = stream.flush()
                with self.assertRaisesRegex(LocalProtocolError, "cancel_io"):
                    made.detach()
                made.cancel_io()
                await failure_of(flushing)
                detached = made.detach()
                self.assertEqual(detached.ports[0].state.unsent, ())
                detached.close()

        self.conduct(work)

    def test_a_running_handler_keeps_the_socket(self) -> None:
        """Its answer could not be sent; also if it makes the call itself."""

        async def work(reactor: Any) -> None:
            made = DatagramSocket(reactor)
            errors: list[BaseException] = []
            may_end: Deferred[None] = Deferred()

            async def handle(one: DatagramSocket, message: Any) -> None:
                try:
                    one.detach()
                except LocalProtocolError as error:
                    errors.append(error)
                await may_end

            made.message_received.add(handle)
            await made.bind_endpoint(HOST, "")
            with plain_socket() as peer:
                peer.sendto(b"x", (HOST, number_of(made)))
                while not errors:
                    await turns(reactor, 1)
            with self.assertRaisesRegex(LocalProtocolError, "a handler runs"):
                made.detach()
            may_end.callback(None)
            made.detach().close()

        self.conduct(work)

    def test_a_receiver_may_detach(self) -> None:
        """The coroutine that received a datagram is no handler."""

        async def work(reactor: Any) -> None:
            made = await bound(reactor)
            with plain_socket() as peer:

                async def receive_and_detach() -> DetachedDatagramSocket:
                    await made.receive()
                    return made.detach()

                receiving = Deferred.fromCoroutine(receive_and_detach())
                peer.sendto(b"x", (HOST, number_of(made)))
                (await receiving).close()

        self.conduct(work)


class ArgumentTests(SynchronousTestCase):
    """What is wrong before anything has changed."""

    def test_what_is_no_udp_socket_is_refused(self) -> None:
        """It stays open, and the socket can be bound to another one."""
        near, far = socket.socketpair()
        with near, far:
            made = DatagramSocket(None)
            failure = self.failureResultOf(made.bind_socket(near), ValueError)
            self.assertIn("a bound UDP socket", str(failure.value))
            self.assertFalse(made.is_open)
            self.assertNotEqual(near.fileno(), -1)

    def test_a_family_has_one_socket(self) -> None:
        """Two would be confused; none is no socket."""
        with plain_socket() as one, plain_socket() as other:
            two = (DetachedDatagramPort(one), DetachedDatagramPort(other))
            for ports in ((), two):
                value = DetachedDatagramSocket(ports)
                with self.assertRaisesRegex(ValueError, "one UDP socket for each"):
                    DatagramSocket.from_socket(None, value)


globals().update(SocketTests.makeTestCaseClasses())
