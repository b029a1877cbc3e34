"""An `AcceptGate` stops a listener from accepting while its server is full."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any, cast

from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.stream.test_transport import IdleReactor
from twsock.stream.listening.accept_gate import AcceptGate, hold_port, release_port


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
    """A listening socket that always has another peer."""

    def accept(self) -> tuple[Endless, tuple[str, int]]:
        return self, ("127.0.0.1", 1)

    def setsockopt(self, *_: int) -> None:
        """Do nothing: there is no socket."""

    def close(self) -> None:
        """Do nothing: there is no socket."""


class AcceptGateTests(SynchronousTestCase):
    """An `AcceptGate` between a port and its socket."""

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

    def test_accepted_connections_have_no_delay(self) -> None:
        """Connections inherit the option if the gate says so; otherwise each connection sets it."""
        accepted, _ = self.gate.accept()
        with accepted:
            option = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        self.assertEqual(bool(option), self.gate.has_no_delay)
        self.assertEqual(self.gate.has_no_delay, sys.platform == "linux")

    def test_connections_from_before_the_gate_have_no_delay(self) -> None:
        """The one that started the process by its socket, for example, inherited nothing."""
        self.gate.accept()[0].close()
        self.port.socket = self.socket
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        address = self.socket.getsockname()
        with socket.create_connection(address):
            gate = AcceptGate(self.port, self.reactor, lambda: self.room)
            with socket.create_connection(address):
                options = []
                for _ in range(2):
                    accepted, _ = gate.accept()
                    with accepted:
                        option = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    options.append(bool(option))
        self.assertEqual(options, [gate.has_no_delay] * 2)

    def test_a_peer_that_is_not_admitted_is_closed(self) -> None:
        """
        The function is called with the peer's address; the gate returns the next admitted
        connection.
        """
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

    def test_many_refused_peers_do_not_hold_the_reactor(self) -> None:
        """After some of them the gate reports that no connection waits, and continues later."""
        self.port.socket = self.socket
        gate = AcceptGate(self.port, self.reactor, lambda: self.room, lambda _host: False)
        crowd = [socket.create_connection(self.socket.getsockname()) for _ in range(100)]
        for connection in crowd:
            self.addCleanup(connection.close)
        self.assertRaises(BlockingIOError, gate.accept)
        with self.socket.accept()[0]:
            self.assertTrue(self.is_listening)

    def test_an_open_gate_accepts(self) -> None:
        """It returns what the socket returns."""
        accepted, address = self.gate.accept()
        self.addCleanup(accepted.close)
        self.assertEqual(address, self.client.getsockname())

    def test_a_full_server_stops_listening(self) -> None:
        """
        A shut gate raises `BlockingIOError`, as an empty backlog does, and the port stops
        listening.
        """
        self.room = False
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.assertFalse(self.is_listening)

    def test_a_shut_gate_reopens_when_there_is_room(self) -> None:
        """The port listens again when a connection has ended, and not before."""
        self.room = False
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.gate.reopen()
        self.assertFalse(self.is_listening)
        self.room = True
        self.gate.reopen()
        self.assertTrue(self.is_listening)

    def test_out_of_descriptors_the_gate_pauses_and_logs_once(self) -> None:
        """EMFILE stops the port for a moment, so it does not spin; one event reports it."""
        self.socket.error = errno.EMFILE
        for attempt in range(5):
            self.assertRaises(BlockingIOError, self.gate.accept)
            self.assertFalse(self.is_listening, f"{attempt=}")
            self.reactor.advance(0.1)
            self.assertTrue(self.is_listening, f"{attempt=}")
        self.assertEqual(len([event for event in self.events if "rest" in event]), 1)

    def test_a_connection_that_ends_does_not_shorten_the_pause(self) -> None:
        """During the pause after EMFILE, `reopen` does not open the gate."""
        self.socket.error = errno.EMFILE
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.gate.reopen()
        self.assertFalse(self.is_listening)

    def test_other_errors_reach_twisted(self) -> None:
        """Errors other than exhaustion are raised to Twisted's port."""
        self.socket.error = errno.ECONNABORTED
        self.assertRaises(OSError, self.gate.accept)
        self.assertTrue(self.is_listening)

    def test_a_closed_gate_stays_shut_and_leaves_no_timer(self) -> None:
        """After `close` nothing reopens it."""
        self.socket.error = errno.EMFILE
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.gate.close()
        self.gate.reopen()
        self.assertFalse(self.is_listening)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_other_attributes_are_those_of_the_socket(self) -> None:
        """Name, number and close are the socket's own."""
        self.assertEqual(self.gate.fileno(), self.socket.fileno())
        self.gate.close()
        self.gate._socket.close()
        self.assertEqual(self.socket.fileno(), -1)

    def test_a_stopped_port_closes_its_socket(self) -> None:
        """No descriptor is left, although the gate still exists."""
        self.assertFalse(self.gate.is_closed)
        self.gate.close()
        self.assertTrue(self.gate.is_closed)

    def stop(self, end: str = "close") -> list[object]:
        """Stop the port; return the addresses of the connections that it accepted meanwhile."""
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

    def test_a_stopped_port_accepts_the_queue_of_the_kernel_once(self) -> None:
        """However its socket is closed."""
        self.assertEqual(len(self.stop("shutdown")), 1)
        self.assertEqual(self.stop(), [])

    def test_a_full_server_does_not_accept_the_queue_at_the_stop(self) -> None:
        """Nor does it after `shut`, or without file descriptors."""
        self.room = False
        self.assertEqual(self.stop("shutdown"), [])
        for name, refuse in (
            ("shut", lambda: self.gate.shut()),
            ("EMFILE", lambda: setattr(self.socket, "error", errno.EMFILE)),
        ):
            self.setUp()
            refuse()
            self.assertEqual(self.stop(), [], f"{name=}")

    def test_a_stop_ends_although_peers_keep_connecting(self) -> None:
        """It accepts as many as a full queue holds."""
        self.socket.close()
        self.gate._socket = Endless()  # type: ignore[assignment]
        self.assertEqual(len(self.stop()), 4096)

    def test_a_stop_ends_although_accepting_fails(self) -> None:
        """Repeated errors do not keep the port from stopping."""
        self.socket.error = errno.EINVAL
        self.assertEqual(self.stop(), [])
        self.assertGreaterEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_peer_that_is_gone_does_not_hide_the_next(self) -> None:
        """The error of its accept is skipped."""
        self.socket.errors = [errno.ECONNABORTED] * 3
        self.assertEqual(len(self.stop()), 1)

    def test_no_connection_is_accepted_when_the_reactor_stops(self) -> None:
        """The reactor closes the connections it knows; a new one would stay open."""
        self.port.factory = None
        self.gate.close()
        self.client.settimeout(60)
        self.assertRaises(ConnectionResetError, self.client.recv, 1)

    def test_a_port_paused_by_others_stays_paused(self) -> None:
        """The gate resumes only a port that it paused itself."""
        self.port.pauseProducing()
        self.gate.reopen()
        self.assertFalse(self.is_listening)

    def test_a_held_gate_accepts_nothing(self) -> None:
        """Another process accepts from the same socket; a connection that ends changes nothing."""
        self.gate.hold()
        self.assertFalse(self.is_listening)
        self.assertRaises(BlockingIOError, self.gate.accept)
        self.gate.reopen()
        self.assertFalse(self.is_listening)

    def test_a_released_gate_accepts_if_there_is_room(self) -> None:
        """At the limit of connections it waits for room."""
        self.gate.hold()
        self.room = False
        self.gate.release()
        self.assertFalse(self.is_listening)
        self.room = True
        self.gate.reopen()
        self.assertTrue(self.is_listening)
        accepted, _ = self.gate.accept()
        accepted.close()

    def test_a_held_port_leaves_the_queue_when_it_stops(self) -> None:
        """The connections in it are those of the other process."""
        with self.socket.dup() as copy:
            self.gate.hold()
            self.port.disconnecting = True
            self.gate.close()
            accepted, _ = copy.accept()
            accepted.close()

    def test_ports_without_a_gate_are_paused(self) -> None:
        """A port that cannot pause is left alone."""
        port = cast(Any, Port)(0, None, interface="127.0.0.1", reactor=self.reactor)
        port.connected = True
        release_port(port)
        self.assertIn(port, self.reactor.readers)
        hold_port(port)
        self.assertNotIn(port, self.reactor.readers)
        hold_port(object())
        release_port(object())
        hold_port(self.port)
        self.assertRaises(BlockingIOError, self.gate.accept)
