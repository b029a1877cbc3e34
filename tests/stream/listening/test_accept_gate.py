"""An `AcceptGate` lets a listener wait for room."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, cast

from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.stream.test_transport import IdleReactor
from twsock.stream.listening.accept_gate import AcceptGate


class Exhaustible(socket.socket):
    """A listening socket that can run out of file descriptors."""

    error: int = 0
    errors: list[int] = []

    def accept(self) -> Any:
        number = self.errors.pop() if self.errors else self.error
        if number:
            raise OSError(number, os.strerror(number))
        return super().accept()


class Endless:
    """A listening socket with a peer behind every peer."""

    def accept(self) -> tuple[Endless, tuple[str, int]]:
        return self, ("127.0.0.1", 1)

    def close(self) -> None:
        """Let go of nothing."""


class AcceptGateTests(SynchronousTestCase):
    """Between a port and its socket."""

    def setUp(self) -> None:
        self.room = True
        self.reactor = IdleReactor()
        self.port = cast(Any, Port)(0, None, interface="127.0.0.1", reactor=self.reactor)
        self.socket: Any = Exhaustible()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen()
        self.socket.setblocking(False)
        self.addCleanup(self.socket.close)
        self.port.socket = self.socket
        self.port._realPortNumber = self.socket.getsockname()[1]
        self.port.fileno = self.socket.fileno
        self.port.connected = True
        self.port.numberAccepts = 100
        self.port.startReading()
        self.gate = AcceptGate(self.port, self.reactor, lambda: self.room)
        self.client = socket.create_connection(self.socket.getsockname())
        self.addCleanup(self.client.close)
        self.events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(self.events.append)
        self.addCleanup(publisher.removeObserver, self.events.append)

    @property
    def is_listening(self) -> bool:
        """Whether the reactor watches the port."""
        return self.port in self.reactor.readers

    def test_whom_it_does_not_admit_it_closes(self) -> None:
        """It is called with the peer's address, and returns the next admitted connection."""
        asked: list[str | None] = []

        def admits(host: str | None) -> bool:
            asked.append(host)
            return len(asked) > 1

        self.port.socket = self.socket
        gate = AcceptGate(self.port, self.reactor, lambda: self.room, admits)
        with socket.create_connection(self.socket.getsockname()) as second:
            accepted, address = gate.accept()
            accepted.close()
            self.assertEqual(address, second.getsockname())
        self.client.settimeout(60)
        self.assertEqual(self.client.recv(1), b"")
        self.assertEqual(asked, ["127.0.0.1"] * 2)

    def test_a_crowd_that_is_not_admitted_lets_others_have_their_turn(self) -> None:
        """After some of them the gate reports that no connection waits, and continues later."""
        self.port.socket = self.socket
        gate = AcceptGate(self.port, self.reactor, lambda: self.room, lambda _host: False)
        crowd = [socket.create_connection(self.socket.getsockname()) for _ in range(100)]
        for connection in crowd:
            self.addCleanup(connection.close)
        self.assertRaises(BlockingIOError, gate.accept)
        with self.socket.accept()[0]:
            self.assertTrue(self.is_listening)

    def test_with_room_it_accepts(self) -> None:
        """An open gate gives what the socket gives."""
        accepted, address = self.gate.accept()
        self.addCleanup(accepted.close)
        self.assertEqual(address, self.client.getsockname())

    def test_without_room_nobody_is_there(self) -> None:
        """A shut gate says what an empty backlog says, and the port stops listening."""
        self.room = False
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.assertFalse(self.is_listening)

    def test_it_reopens_when_there_is_room(self) -> None:
        """The port listens again once there is room, and not before."""
        self.room = False
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.gate.reopen()
        self.assertFalse(self.is_listening)
        self.room = True
        self.gate.reopen()
        self.assertTrue(self.is_listening)

    def test_out_of_descriptors_it_rests_and_tells_once(self) -> None:
        """EMFILE stops the port for a moment instead of spinning; one event tells of it."""
        self.socket.error = errno.EMFILE
        for attempt in range(5):
            self.assertRaises(BlockingIOError, self.gate.accept)
            self.assertFalse(self.is_listening, f"{attempt=}")
            self.reactor.advance(0.1)
            self.assertTrue(self.is_listening, f"{attempt=}")
        self.assertEqual(len([event for event in self.events if "rest" in event]), 1)

    def test_room_elsewhere_does_not_cut_the_rest_short(self) -> None:
        """While it rests, a connection that ends does not reopen it early."""
        self.socket.error = errno.EMFILE
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.gate.reopen()
        self.assertFalse(self.is_listening)

    def test_other_errors_are_the_ports(self) -> None:
        """What is not exhaustion reaches Twisted, which knows what to do with it."""
        self.socket.error = errno.ECONNABORTED
        self.assertRaises(OSError, self.gate.accept)
        self.assertTrue(self.is_listening)

    def test_closed_it_stays_shut_and_leaves_nothing(self) -> None:
        """After `close` no timer is left, and nothing reopens it."""
        self.socket.error = errno.EMFILE
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.gate.close()
        self.gate.reopen()
        self.assertFalse(self.is_listening)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_it_is_the_socket_in_every_other_way(self) -> None:
        """Name, number and end are the socket's own."""
        self.assertEqual(self.gate.fileno(), self.socket.fileno())
        self.gate.close()
        self.gate._socket.close()
        self.assertEqual(self.socket.fileno(), -1)

    def test_a_port_that_stops_closes_its_socket(self) -> None:
        """No descriptor is left, though the gate is still there."""
        self.assertFalse(self.gate.is_closed)
        self.gate.close()
        self.assertTrue(self.gate.is_closed)

    def stop(self, end: str = "close") -> list[object]:
        """Stop the port; return the addresses of the connections accepted meanwhile."""
        accepted: list[object] = []

        class Refusing(Factory):
            @override
            def buildProtocol(self, addr: object) -> None:
                accepted.append(addr)

        self.port.factory = Refusing()
        self.port.disconnecting = True
        getattr(self.gate, end)(*[socket.SHUT_RDWR] * (end == "shutdown"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return accepted

    def test_a_port_that_stops_accepts_what_is_queued(self) -> None:
        """However its socket is closed; and once."""
        self.assertEqual(len(self.stop("shutdown")), 1)
        self.assertEqual(self.stop(), [])

    def test_without_room_what_is_queued_is_not_accepted(self) -> None:
        """Nor after `shut`, nor where the machine ran out."""
        self.room = False
        self.assertEqual(self.stop("shutdown"), [])
        for name, refuse in (
            ("shut", lambda: self.gate.shut()),
            ("EMFILE", lambda: setattr(self.socket, "error", errno.EMFILE)),
        ):
            self.setUp()
            refuse()
            self.assertEqual(self.stop(), [], f"{name=}")

    def test_it_stops_though_peers_keep_coming(self) -> None:
        """After as many as a full queue may hold."""
        self.socket.close()
        self.gate._socket = Endless()  # type: ignore[assignment]
        self.assertEqual(len(self.stop()), 4096)

    def test_it_stops_though_accepting_fails(self) -> None:
        """Again and again: no error keeps a port from stopping."""
        self.socket.error = errno.EINVAL
        self.assertEqual(self.stop(), [])
        self.assertGreaterEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_peer_that_is_gone_hides_nobody_behind_it(self) -> None:
        """Its error is skipped."""
        self.socket.errors = [errno.ECONNABORTED] * 3
        self.assertEqual(len(self.stop()), 1)

    def test_nobody_is_accepted_when_the_reactor_ends(self) -> None:
        """It closes what it has, and would not know of them."""
        self.port.factory = None
        self.gate.close()
        self.client.settimeout(60)
        self.assertRaises(ConnectionResetError, self.client.recv, 1)

    def test_a_port_that_others_paused_stays_paused(self) -> None:
        """Only who shut the door opens it."""
        self.port.pauseProducing()
        self.gate.reopen()
        self.assertFalse(self.is_listening)
