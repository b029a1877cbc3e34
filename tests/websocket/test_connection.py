"""One WebSocket carries out the steps of its table, in both roles."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TcpConnection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.test_transport import FakeProtocol, IdleReactor, tcp_pair
from twsock.errors import BrokenError, ClosedError, SocketError
from twsock.stream.connection import Connection
from twsock.stream.counters import Counters
from twsock.websocket.closing import Role, State
from twsock.websocket.connection import WebSocket
from twsock.websocket.frames import Opcode
from twsock.websocket.messages import MessageEncoder


class Owner:
    """The owner of a WebSocket, and of the connection below."""

    def __init__(
        self, role: Role, ping_interval: float | None = None, transport: Any = None
    ) -> None:
        self.close_timeout = 5.0
        self.held_bytes = 0
        self.events: list[Any] = []
        self.clock = Clock()
        self.transport: Any = transport or StringTransport()
        self.stream = Connection(self, self.transport, self.clock)
        self.socket = WebSocket(self, self.stream, role, self.close_timeout)
        encoder = MessageEncoder(is_server=role is Role.SERVER, random_bytes=bytes)
        self.socket.accept(encoder, ping_interval, 20)

    def sent(self) -> bytes:
        """Return the bytes that were sent since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    # Called by the WebSocket.

    def send_control(self, frame: bytes) -> None:
        self.stream.write(frame)
        self.stream.send()

    def drop_messages(self) -> None:
        self.events.append("drop")

    def socket_closed(self, code: int, reason: str) -> None:
        self.events.append((code, reason))

    # Called by the connection.

    def drop_input(self) -> None:
        """Nothing is held."""

    def output_drained(self) -> None:
        self.socket.drained()

    def output_failed(self, error: BrokenError) -> None:
        self.stream.abort(error)

    def input_ended(self) -> None:
        self.socket.peer_ended()

    def connection_ended(self, error: SocketError | None, reason: Failure) -> None:
        self.events.append(error)
        self.socket.lost()

    def lose(self, error: Exception) -> None:
        """Report the loss of the connection."""
        self.stream.lost(Failure(error))


class ClientTests(SynchronousTestCase):
    """A client masks its frames, and waits until the server ends the connection."""

    def test_close_frame_is_masked(self) -> None:
        """The mask of these tests is zero."""
        owner = Owner(Role.CLIENT)
        owner.socket.close(1000, "")
        self.assertEqual(owner.sent(), b"\x88\x82\0\0\0\0\x03\xe8")
        self.assertEqual(owner.events, ["drop"])

    def test_client_does_not_end_tcp_first(self) -> None:
        """The client ends TCP when the server has ended it, or at the deadline."""
        for end in ("server", "deadline"):
            owner = Owner(Role.CLIENT)
            owner.socket.close(1000, "")
            owner.socket.control_received(Opcode.CLOSE, b"\x03\xe8")
            self.assertIs(owner.socket.state, State.CLOSED, end)
            self.assertFalse(owner.transport.disconnecting, end)
            if end == "server":
                owner.stream.peer_ended()
            else:
                owner.clock.advance(5)
            self.assertTrue(owner.transport.disconnecting, end)

    def test_close_of_the_server_is_answered(self) -> None:
        """The answer has its code, and the wait for its end has the deadline."""
        owner = Owner(Role.CLIENT)
        owner.socket.control_received(Opcode.CLOSE, b"\x03\xe9bye")
        self.assertEqual(owner.sent(), b"\x88\x85\0\0\0\0\x03\xe9bye")
        self.assertFalse(owner.transport.disconnecting)
        self.assertEqual((owner.socket.code, owner.socket.reason), (1001, "bye"))
        owner.clock.advance(5)
        self.assertTrue(owner.transport.disconnecting)

    def test_violation_of_the_server_ends_at_once(self) -> None:
        """Nothing that follows could be parsed."""
        owner = Owner(Role.CLIENT)
        owner.socket.violated(1002, "why")
        self.assertEqual(owner.sent(), b"\x88\x85\0\0\0\0\x03\xeawhy")
        self.assertTrue(owner.transport.disconnecting)


class EndTests(SynchronousTestCase):
    """What the end of a WebSocket leaves."""

    def test_loss_is_reported_once(self) -> None:
        """A second report does nothing, and nothing follows it."""
        owner = Owner(Role.SERVER, ping_interval=20)
        pinged = owner.socket.ping()
        owner.lose(ConnectionLost())
        owner.socket.lost()
        self.assertIsInstance(owner.events[0], BrokenError)
        self.assertEqual(owner.events[1:], [(1006, "")])
        self.failureResultOf(pinged, BrokenError)
        self.assertEqual(owner.clock.getDelayedCalls(), [])
        owner.socket.close(1000, "")
        owner.socket.abort()
        owner.socket.failed()
        self.assertEqual(len(owner.events), 2)

    def test_first_close_frame_is_the_reason(self) -> None:
        """A close frame that answers another one changes neither code nor reason."""
        owner = Owner(Role.SERVER)
        owner.socket.close(4000, "first")
        owner.socket.control_received(Opcode.CLOSE, b"\x03\xe9second")
        self.assertEqual((owner.socket.code, owner.socket.reason), (4000, "first"))

    def test_callback_of_a_ping_may_cancel_another(self) -> None:
        """Each Deferred fires once."""
        owner = Owner(Role.SERVER)
        first, second = owner.socket.ping(), owner.socket.ping()
        first.addErrback(lambda _: second.cancel())
        second.addErrback(lambda _: None)
        owner.socket.close(1000, "")
        self.successResultOf(second)
        self.failureResultOf(owner.socket.ping(), ClosedError)

    def test_control_frames_after_the_end_are_dropped(self) -> None:
        """A ping behind a close frame is not answered."""
        owner = Owner(Role.SERVER)
        owner.socket.control_received(Opcode.CLOSE, b"")
        owner.sent()
        owner.socket.control_received(Opcode.PING, b"x")
        owner.socket.drained()
        self.assertEqual(owner.sent(), b"")


class PingTests(SynchronousTestCase):
    """Pings at intervals."""

    def test_slow_reader_that_takes_bytes_is_alive(self) -> None:
        """Its pong waits behind the bytes that it has not read."""
        owner = Owner(Role.SERVER, ping_interval=10)
        owner.transport.producer.pauseProducing()
        owner.stream.write(b"x" * 1000)
        owner.stream.send()
        owner.clock.advance(10)
        self.assertEqual(owner.stream.unsent, 1000)
        owner.transport.producer.queued = 500
        owner.clock.advance(10)
        owner.transport.producer.queued = 100
        owner.clock.advance(10)
        self.assertFalse(owner.transport.disconnected)
        owner.clock.advance(20)
        self.assertTrue(owner.transport.disconnected)

    def test_peer_whose_bytes_wait_to_be_read_is_alive(self) -> None:
        """The process of this end was busy, and has not read them."""
        near, far = tcp_pair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        transport: Any = TcpConnection(near, cast(Any, FakeProtocol()), cast(Any, IdleReactor()))
        transport.connected = 1
        owner = Owner(Role.SERVER, ping_interval=10, transport=transport)
        far.sendall(b"x")
        for _ in range(10):
            owner.clock.advance(10)
        self.assertIs(owner.socket.state, State.OPEN)
        near.recv(1)
        owner.stream.counters = Counters()
        owner.clock.pump([10, 10])
        self.assertIs(owner.socket.state, State.ABORTED)
        self.assertEqual(owner.stream.counters.unanswered_pings, 1)

    def test_full_output_gets_no_pings(self) -> None:
        """A peer that does not read would only find them late."""
        owner = Owner(Role.SERVER, ping_interval=10)
        owner.transport.producer.pauseProducing()
        owner.stream.write(b"x" * 100_000)
        owner.stream.send()
        owner.sent()
        owner.clock.advance(10)
        self.assertEqual(owner.sent(), b"")
