"""Protocols that move with their state, over sockets of the kernel and without a second process."""

from __future__ import annotations

import resource
import select
import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.datagram.fake_ports import log_lines
from tests.stream.test_transport import IdleReactor, tcp_pair
from tests.stream.test_upgrade import ALLOWED, TLS
from twsock.errors import LocalProtocolError, RemoteProtocolError, SocketError
from twsock.handover.detached import DetachedConnection
from twsock.protocols import (
    FrameEcho,
    FrameProtocol,
    LineEchoFactory,
    StreamServerFactory,
    UpgradeToSsl,
)
from twsock.stream.connection_log import ConnectionLog
from twsock.stream.detaching import name_of
from twsock.stream.listening.proxy_endpoint import ProxyEndpoint
from twsock.stream.listening.server_transport import connect_socket
from twsock.stream.moving_record import MAX_EXPORTED, MovingRecord, encode_record
from twsock.stream.protocol import StreamProtocol
from twsock.stream.resuming import can_move, check_movable, take_out
from twsock.stream.upgrade import UpgradePolicy
from twsock.wire import encode_frame
from twsock.wire.proxy_header import ProxyHeader


class Counting(FrameProtocol):
    """Numbers its frames; the number moves."""

    def __init__(self) -> None:
        self.count = 0
        self.calls: list[str] = []

    def frame_received(self, payload: bytes) -> None:
        self.count += 1
        self.send_frame(b"%d:%b" % (self.count, payload))

    def export_state(self) -> bytes:
        return b"%d" % self.count

    def import_state(self, state: bytes) -> None:
        self.count = int(state)
        self.calls.append("state")

    def connection_made(self) -> None:
        self.calls.append("made")

    def connection_resumed(self) -> None:
        self.calls.append("resumed")

    def connection_lost(self, error: object) -> None:
        self.calls.append(f"lost: {error}")

    def writing_paused(self) -> None:
        self.calls.append("paused")

    def writing_resumed(self) -> None:
        self.calls.append("room")


class Inheriting(Counting):
    """Has a state of its own, which the inherited methods do not know."""


def reset(peer: socket.socket) -> None:
    """Reset a connection from its other end."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class MovingCase(SynchronousTestCase):
    """A server, and the sockets of its connections."""

    def setUp(self) -> None:
        self.reactor: Any = IdleReactor()
        self.factories: list[StreamServerFactory] = []
        self.factory = self.serve(Counting)
        self.addCleanup(self.end)

    def end(self) -> None:
        """End all connections."""
        for factory in self.factories:
            for member in factory.group.members:
                member.abort()
        self.reactor.advance(0)

    def serve(self, kind: type[StreamProtocol], **limits: Any) -> StreamServerFactory:
        """Make a server; it has no port."""
        factory = StreamServerFactory(self.reactor, kind, **limits)
        self.factories.append(factory)
        return factory

    def connect(self, factory: StreamServerFactory | None = None) -> tuple[Any, socket.socket]:
        """Return the protocol of a new connection, and its peer."""
        here, peer = tcp_pair()
        # Otherwise the kernel makes its buffers larger, and takes what waited.
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        peer.settimeout(10)
        self.addCleanup(peer.close)
        return (factory or self.factory).resume(DetachedConnection(here)), peer

    def read(self, protocol: Any) -> None:
        """Let the transport read what has arrived."""
        protocol.transport.doRead()

    def move(self, protocol: Any, factory: StreamServerFactory) -> Any:
        """Return the protocol that continues a connection."""
        return factory.resume(*take_out(protocol))


class MovableTests(MovingCase):
    """Which connections can move."""

    def test_a_class_declares_both_methods(self) -> None:
        """Then its connections can move."""
        protocol, _ = self.connect()
        self.assertTrue(can_move(protocol))
        self.assertEqual(self.factory.movable(), [protocol])

    def test_subclassing_inherits_nothing(self) -> None:
        """A subclass may have state of its own, which would be lost."""
        factory = self.serve(Inheriting)
        protocol, _ = self.connect(factory)
        self.assertFalse(can_move(protocol))
        self.assertRaisesRegex(LocalProtocolError, "Inheriting does not define", take_out, protocol)
        self.assertEqual(factory.movable(), [])

    def test_one_of_the_methods_is_not_enough(self) -> None:
        """Nor is one that is inherited."""

        class Half(Counting):
            def export_state(self) -> bytes:
                return b""

        protocol, _ = self.connect(self.serve(Half))
        self.assertFalse(can_move(protocol))

    def test_a_connection_that_needs_tls_stays(self) -> None:
        """The next owner would not know how many messages were dropped before the handshake."""
        factory = self.serve(Counting, upgrade=UpgradeToSsl(TLS, UpgradePolicy.REQUIRED))
        protocol, _ = self.connect(factory)
        self.assertRaisesRegex(LocalProtocolError, "TLS is required", check_movable, protocol)

    def test_a_connection_that_may_get_tls_moves(self) -> None:
        """It is plain, and the peer may still ask for TLS."""
        factory = self.serve(Counting, upgrade=ALLOWED)
        protocol, peer = self.connect(factory)
        moved = self.move(protocol, factory)
        peer.send(encode_frame(b"STARTTLS"))
        self.read(moved)
        self.assertEqual(peer.recv(100), encode_frame(b"OK"))

    def test_a_closed_connection_stays(self) -> None:
        """It ends here."""
        protocol, _ = self.connect()
        protocol.close()
        self.assertFalse(can_move(protocol))


class StateTests(MovingCase):
    """The state of the application."""

    def test_the_state_moves(self) -> None:
        """The next protocol continues the numbers; it is not connected anew."""
        protocol, peer = self.connect()
        peer.send(encode_frame(b"a"))
        self.read(protocol)
        moved = self.move(protocol, self.serve(Counting))
        peer.send(encode_frame(b"b"))
        self.read(moved)
        self.assertEqual(peer.recv(100), encode_frame(b"1:a") + encode_frame(b"2:b"))
        self.assertEqual(protocol.calls, ["made", "lost: None"])
        self.assertEqual(moved.calls, ["state", "resumed"])

    def test_the_state_is_exported_before_the_loss_is_reported(self) -> None:
        """A protocol may drop its state when the connection is lost."""

        class Dropping(Counting):
            def connection_lost(self, error: object) -> None:
                self.count = 0

            def export_state(self) -> bytes:
                return b"%d" % self.count

            def import_state(self, state: bytes) -> None:
                self.count = int(state)

        factory = self.serve(Dropping)
        protocol, _ = self.connect(factory)
        protocol.count = 7
        self.assertEqual(self.move(protocol, factory).count, 7)

    def test_a_state_above_the_limit_stays(self) -> None:
        """One of exactly 64 KiB moves."""
        protocol, _ = self.connect()
        protocol.export_state = lambda: bytes(MAX_EXPORTED + 1)
        self.assertRaisesRegex(
            LocalProtocolError, "65537 bytes, limit is 65536", take_out, protocol
        )
        protocol.export_state = lambda: b"1".zfill(MAX_EXPORTED)
        detached, record = take_out(protocol)
        self.addCleanup(detached.close)
        self.assertGreater(len(record), MAX_EXPORTED)

    def test_a_state_that_is_no_bytes_stays(self) -> None:
        """The connection is served as before."""
        protocol, peer = self.connect()
        protocol.export_state = lambda: "text"
        self.assertRaisesRegex(TypeError, "returns bytes, not str", take_out, protocol)
        peer.send(encode_frame(b"a"))
        self.read(protocol)
        self.assertEqual(peer.recv(100), encode_frame(b"1:a"))

    def test_an_error_of_import_state_changes_nothing(self) -> None:
        """The socket is open, and the earlier owner continues."""
        protocol, peer = self.connect()
        detached, record = take_out(protocol)
        broken = encode_record(
            MovingRecord("tests.stream.test_resuming.Counting", state=b"no number")
        )
        with self.assertRaisesRegex(LocalProtocolError, "Counting raised ValueError"):
            self.factory.resume(detached, broken)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(len(self.factory.group), 0)
        moved = self.factory.resume(detached, record)
        peer.send(encode_frame(b"a"))
        self.read(moved)
        self.assertEqual(peer.recv(100), encode_frame(b"1:a"))

    def test_another_class_is_refused(self) -> None:
        """It would read the bytes in another format, or the state of another program."""
        protocol, _ = self.connect()
        detached, record = take_out(protocol)
        self.addCleanup(detached.close)
        for factory in (LineEchoFactory(self.reactor), self.serve(Inheriting)):
            with self.assertRaisesRegex(LocalProtocolError, "connection is of .*Counting"):
                factory.resume(detached, record)

    def test_a_class_that_no_longer_declares_its_state_is_refused(self) -> None:
        """The other process may have another version of the application."""
        here, peer = tcp_pair()
        with here, peer:
            record = encode_record(MovingRecord(name_of(Inheriting), state=b"1"))
            with self.assertRaisesRegex(LocalProtocolError, "Inheriting, but this server has"):
                self.serve(Inheriting).resume(DetachedConnection(here), record)

    def test_import_state_may_refuse_in_its_own_words(self) -> None:
        """With an error of twsock: its text is for people, and there is no traceback."""

        class Newer(Counting):
            def export_state(self) -> bytes:
                return b"2"

            def import_state(self, state: bytes) -> None:
                raise RemoteProtocolError("a state of version 2, version 1 is known")

        protocol, _ = self.connect(self.serve(Newer))
        detached, record = take_out(protocol)
        self.addCleanup(detached.close)
        with self.assertRaisesRegex(RemoteProtocolError, "version 1 is known"):
            self.serve(Newer).resume(detached, record)

    def test_a_protocol_may_end_when_it_is_resumed(self) -> None:
        """The bytes that moved with it are dropped."""

        class Ending(FullEcho):
            def connection_resumed(self) -> None:
                self.abort()

            def export_state(self) -> bytes:
                return b""

            def import_state(self, state: bytes) -> None: ...

        protocol, _ = self.connect(self.serve(Ending))
        protocol.dataReceived(b"\0\0\0\1")
        other = self.serve(Ending)
        self.assertFalse(self.move(protocol, other).is_open)
        self.assertEqual(other.counters.bytes_received, 0)

    def test_a_connection_that_comes_to_a_server_that_drains_is_drained(self) -> None:
        """Its messages are answered before."""
        protocol, peer = self.connect()
        protocol.dataReceived(encode_frame(b"late")[:5])
        other = self.serve(Counting)
        self.connect(other)
        self.assertFalse(other.group.is_draining)
        busy: Any = other.group.members[0]
        busy.drain = lambda: None
        draining = other.drain(10)
        self.assertTrue(other.group.is_draining)
        moved = self.move(protocol, other)
        self.assertTrue(moved.is_open)
        peer.send(encode_frame(b"late")[5:])
        self.read(moved)
        self.assertEqual(peer.recv(100), encode_frame(b"1:late"))
        self.assertFalse(moved.is_open)
        draining.cancel()
        self.failureResultOf(draining)
        self.assertFalse(other.group.is_draining)

    def test_a_server_that_requires_tls_takes_no_plain_connection(self) -> None:
        """Its peers have to become secure."""
        protocol, _ = self.connect()
        detached, record = take_out(protocol)
        self.addCleanup(detached.close)
        for policy in (UpgradePolicy.REQUIRED, UpgradePolicy.IMPLICIT):
            strict = self.serve(Counting, upgrade=UpgradeToSsl(TLS, policy))
            with self.assertRaisesRegex(LocalProtocolError, "TLS is required"):
                strict.resume(detached, record)

    def test_a_foreign_record_is_refused(self) -> None:
        """And nothing is taken."""
        here, peer = tcp_pair()
        self.addCleanup(peer.close)
        detached = DetachedConnection(here)
        self.assertRaises(RemoteProtocolError, self.factory.resume, detached, b"foreign")
        self.assertGreater(here.fileno(), 0)
        here.close()


class BytesTests(MovingCase):
    """The bytes of a connection, and its limits."""

    def test_a_partial_frame_moves(self) -> None:
        """It is answered once, when it is whole."""
        protocol, peer = self.connect()
        frame = encode_frame(b"in two parts")
        peer.send(encode_frame(b"a") + frame[:7])
        self.read(protocol)
        moved = self.move(protocol, self.factory)
        peer.send(frame[7:])
        self.read(moved)
        self.assertEqual(peer.recv(100), encode_frame(b"1:a") + encode_frame(b"2:in two parts"))

    def fill(self, protocol: Any) -> bytes:
        """Handle frames until the answers wait; return all that the peer has to receive."""
        answers, frame = b"", encode_frame(bytes(60_000))
        while not protocol.is_full:
            answers += frame
            protocol.dataReceived(frame)
        # With each send the kernel takes some bytes.
        protocol.send_frame(bytes(200_000))
        return answers + encode_frame(bytes(200_000))

    def read_all(self, peer: socket.socket, size: int) -> bytes:
        """Read as many bytes at the peer as it has sent."""
        received = b""
        while len(received) < size:
            for writer in list(self.reactor.writers):
                writer.doWrite()
            # The kernel has no room until it has the acknowledgement of the bytes before.
            if select.select([peer], [], [], 0.01)[0]:
                received += peer.recv(1 << 20)
        return received

    def test_an_output_that_is_full_moves(self) -> None:
        """The next owner sends the bytes that wait, and handles no message before."""
        factory = self.serve(FullEcho)
        protocol, peer = self.connect(factory)
        answers = self.fill(protocol)
        late = encode_frame(b"late")
        moved = self.move(protocol, factory)
        self.assertEqual(moved.calls, ["resumed", "paused"])
        self.assertEqual(self.reactor.readers, set())
        peer.send(late)
        self.assertEqual(self.read_all(peer, len(answers)), answers)
        self.assertEqual(moved.calls, ["resumed", "paused", "room"])
        self.assertEqual(len(self.reactor.readers), 1)
        self.read(moved)
        self.assertEqual(peer.recv(100), late)
        self.assertEqual(factory.counters.paused, 2)

    def test_messages_wait_until_the_answers_before_them_are_sent(self) -> None:
        """Those that were received are in order, and do not make the output longer."""
        factory = self.serve(FullEcho)
        protocol, peer = self.connect(factory)
        answers = self.fill(protocol)
        protocol.dataReceived(waiting := encode_frame(b"waiting") * 3)
        moved = self.move(protocol, factory)
        self.assertEqual(moved.buffered, moved.unsent + len(waiting))
        received = self.read_all(peer, len(answers) + len(waiting))
        self.assertEqual(received, answers + waiting)

    def test_pushes_that_wait_pause_no_reading(self) -> None:
        """Two ends that both push would wait for each other for ever."""
        protocol, peer = self.connect()
        while not protocol.is_full:
            protocol.send_frame(bytes(60_000))
        moved = self.move(protocol, self.factory)
        self.assertEqual(moved.calls, ["state", "resumed", "paused"])
        peer.send(encode_frame(b"a"))
        self.read(moved)
        self.assertEqual(moved.count, 1)

    def test_bytes_in_memory_count_for_the_limit_of_all(self) -> None:
        """Those of a connection that is resumed, too."""
        factory = self.serve(FullEcho)
        protocol, _ = self.connect(factory)
        self.fill(protocol)
        protocol.dataReceived(b"\0")
        limit = factory.group.buffer_limit
        assert limit is not None
        moved = self.move(protocol, factory)
        self.assertEqual(limit.total, moved.unsent + 1)
        moved.abort()
        self.reactor.advance(0)
        self.assertEqual(limit.total, 0)

    def test_few_unsent_bytes_count_for_the_limit_of_all(self) -> None:
        """Those below the high-water mark, too."""
        here, peer = socket.socketpair()
        self.addCleanup(peer.close)
        protocol: Any = self.factory.resume(DetachedConnection(here))
        while not protocol.unsent:
            protocol.send_frame(bytes(1_000))
        limit = self.factory.group.buffer_limit
        assert limit is not None
        moved = self.move(protocol, self.factory)
        self.assertGreater(moved.unsent, 0)
        self.assertEqual(limit.total, moved.unsent)

    def test_the_limits_of_the_next_server_hold(self) -> None:
        """A message that is too large for it ends the connection."""
        protocol, peer = self.connect()
        peer.send(encode_frame(bytes(100))[:50])
        self.read(protocol)
        small = self.serve(Counting, max_payload=99)
        self.move(protocol, small)
        self.assertEqual(small.counters.violations, 1)
        self.reactor.advance(0)
        self.assertRaises(ConnectionResetError, peer.recv, 1)

    def test_a_unix_socket_moves(self) -> None:
        """With the bytes that wait."""
        here, peer = socket.socketpair()
        self.addCleanup(peer.close)
        protocol = self.factory.resume(DetachedConnection(here))
        moved = self.move(protocol, self.factory)
        peer.send(encode_frame(b"a"))
        self.read(moved)
        self.assertEqual(peer.recv(100), encode_frame(b"1:a"))
        self.assertEqual(moved.peer, "unnamed UNIX socket")
        self.assertIn("Counting on", repr(vars(moved)["_transport"]))

    def test_no_descriptor_is_needed_to_continue(self) -> None:
        """So a process at its limit loses no connection that nobody took."""
        protocol, peer = self.connect()
        detached, record = take_out(protocol)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as probe:
            lowest = probe.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            moved = self.factory.resume(detached, record)
            self.assertRaises(SocketError, take_out, moved)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        peer.send(encode_frame(b"a"))
        self.read(moved)
        self.assertEqual(peer.recv(100), encode_frame(b"1:a"))

    def test_a_connection_that_was_reset_cannot_continue(self) -> None:
        """The error is the caller's, and the socket its own."""
        protocol, peer = self.connect()
        detached, record = take_out(protocol)
        reset(peer)
        self.assertRaises(SocketError, self.factory.resume, detached, record)
        self.assertEqual(len(self.factory.group), 0)
        detached.close()


class FactsTests(MovingCase):
    """What the next process cannot know."""

    def test_a_connection_is_accepted_above_the_limits(self) -> None:
        """It was accepted before; and it counts."""
        full = self.serve(Counting, max_connections=1, max_connections_per_address=1)
        for _ in range(3):
            self.move(self.connect()[0], full)
        self.assertEqual(len(full.group), 3)
        self.assertFalse(full.group.has_room)
        self.assertFalse(full.group.admits("127.0.0.1"))
        self.assertEqual((full.counters.accepted, full.counters.refused), (0, 1))

    def test_a_factory_that_builds_its_protocols_itself_builds_this_one(self) -> None:
        """With the address of the peer; it may have more to set, or refuse."""
        addresses: list[Any] = []

        class Building(StreamServerFactory):
            def buildProtocol(self, addr: Any) -> Any:
                addresses.append(addr)
                return super().buildProtocol(addr) if len(addresses) < 3 else None

        factory = Building(self.reactor, Counting, max_connections=1)
        self.factories.append(factory)
        header = ProxyHeader(("2001:db8::1", 1000), ("2001:db8::2", 2000))
        peers = []
        for record in (b"", encode_record(MovingRecord(name_of(Counting), "", b"0", header))):
            here, peer = tcp_pair()
            self.addCleanup(peer.close)
            peers.append(IPv4Address("TCP", *here.getpeername()))
            factory.resume(DetachedConnection(here), record)
        self.assertEqual(addresses, [peers[0], IPv6Address("TCP", "2001:db8::1", 1000)])
        self.assertEqual(factory.counters.refused, 0)
        here, peer = tcp_pair()
        with here, peer, self.assertRaisesRegex(LocalProtocolError, "builds no protocol"):
            factory.resume(DetachedConnection(here))

    def test_bytes_are_counted_once(self) -> None:
        """The sum of both processes is what the peer sent, and what it received."""
        protocol, peer = self.connect()
        peer.send(encode_frame(b"a") + encode_frame(b"b")[:-1])
        self.read(protocol)
        other = self.serve(Counting)
        moved = self.move(protocol, other)
        peer.send(b"b")
        self.read(moved)
        counters = (self.factory.counters, other.counters)
        self.assertEqual(sum(each.bytes_received for each in counters), 10)
        self.assertEqual(sum(each.messages for each in counters), 2)
        self.assertEqual(sum(each.bytes_sent for each in counters), len(peer.recv(100)))

    def test_a_connection_counts_for_its_port(self) -> None:
        """In each process, if it has a port of that name."""
        factories = [self.serve(Counting) for _ in range(2)]
        counters = [each.group.add_port(each, "tcp:127.0.0.1:7") for each in factories]
        record = encode_record(MovingRecord(name_of(Counting), "tcp:127.0.0.1:7", b"0"))
        here, peer = tcp_pair()
        self.addCleanup(peer.close)
        protocol = factories[0].resume(DetachedConnection(here), record)
        self.move(self.move(protocol, factories[1]), self.factory)
        self.assertEqual([(each.taken, each.ended) for each in counters], [(1, 1), (1, 1)])
        self.assertEqual((self.factory.counters.taken, self.factory.counters.ended), (1, 0))

    def test_unsent_bytes_are_counted_once(self) -> None:
        """Where they were written."""
        protocol, _ = self.connect()
        while not protocol.is_full:
            protocol.send_frame(bytes(60_000))
        other = self.serve(Counting)
        self.move(protocol, other)
        self.assertEqual(other.counters.bytes_sent, 0)

    def test_idle_time_moves(self) -> None:
        """A silent peer does not stay for longer because of a restart."""
        idle = self.serve(Counting, idle_timeout=10)
        protocol, _ = self.connect(idle)
        self.reactor.pump([5, 5])
        moved = self.move(protocol, self.serve(Counting, idle_timeout=20))
        self.reactor.advance(10)
        self.assertTrue(moved.is_open)
        self.reactor.advance(10)
        self.assertFalse(moved.is_open)

    def test_one_line_in_the_log_for_both_processes(self) -> None:
        """The process in which the connection ends has its whole time and all its bytes."""
        other = self.serve(Counting)
        for factory in (self.factory, other):
            factory.group.connection_log = ConnectionLog(self.reactor)
        protocol, peer = self.connect()
        peer.send(encode_frame(b"a") + b"\0")
        self.read(protocol)
        self.reactor.advance(2)
        with log_lines() as lines:
            moved = self.move(protocol, other)
            self.reactor.advance(1)
            peer.send(encode_frame(b"b")[1:])
            self.read(moved)
            self.assertEqual(lines, [])
            moved.transport.connectionLost(Failure(ConnectionDone()))
        (line,) = lines
        self.assertIn(
            " ended after 3.000 s: plaintext, 2 messages, 10 bytes in, 14 bytes out, in order", line
        )

    def test_a_connection_from_before_the_log_begins_with_the_next_process(self) -> None:
        """The earlier one did not note when it was accepted."""
        other = self.serve(Counting)
        other.group.connection_log = ConnectionLog(self.reactor)
        protocol, _ = self.connect()
        self.reactor.advance(2)
        moved = self.move(protocol, other)
        self.reactor.advance(1)
        with log_lines() as lines:
            moved.transport.connectionLost(Failure(ConnectionDone()))
        self.assertIn(" ended after 1.000 s: ", lines[0])

    def test_the_addresses_of_a_proxy_header_move(self) -> None:
        """The next process sees a connection of the proxy, whose header was read."""
        here, peer = tcp_pair()
        peer.settimeout(10)
        self.addCleanup(peer.close)
        endpoint = Listening()
        ProxyEndpoint(self.reactor, endpoint).listen(self.factory)
        connection = endpoint.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        connect_socket(self.reactor, here, connection)
        peer.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n" + encode_frame(b"a")[:3])
        connection.transport.doRead()
        (protocol,) = self.factory.movable()
        self.assertRaisesRegex(LocalProtocolError, "not a plain socket", protocol.detach)
        other = self.serve(Counting, max_connections_per_address=1)
        moved = self.move(self.move(protocol, other), other)
        peer.send(encode_frame(b"a")[3:])
        self.read(moved)
        moved.transport.doWrite()
        self.assertEqual(peer.recv(100), encode_frame(b"1:a"))
        self.assertEqual(moved.peer, "192.0.2.1:56324")
        self.assertEqual(moved.transport.getHost(), IPv4Address("TCP", "192.0.2.2", 443))
        self.assertFalse(other.group.admits("192.0.2.1"))
        self.assertTrue(other.group.admits("127.0.0.1"))
        moved.abort()
        self.reactor.advance(0)
        self.assertTrue(other.group.admits("192.0.2.1"))


@implementer(IStreamServerEndpoint)
class Listening:
    """Keeps the factory that it listens for."""

    factory: Any = None

    def listen(self, protocolFactory: Any) -> Deferred[Any]:  # noqa: N803 - Twisted's name
        self.factory = protocolFactory
        return Deferred()


class FullEcho(FrameEcho):
    """Records what it is called with."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def connection_resumed(self) -> None:
        self.calls.append("resumed")

    def writing_paused(self) -> None:
        self.calls.append("paused")

    def writing_resumed(self) -> None:
        self.calls.append("room")

    def export_state(self) -> bytes:
        return b""

    def import_state(self, state: bytes) -> None: ...
