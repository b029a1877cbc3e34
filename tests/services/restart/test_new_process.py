"""The new process of a restart, with an old process in a thread, and services in memory."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.services.restart.fakes import FakeReactor, FakeServed, Peer, count_descriptors
from tests.services.restart.test_old_process import open_udp
from twsock.restart.new_side import State
from twsock.restart.records import (
    ConnectionOffer,
    Farewell,
    Listed,
    Moved,
    Ready,
    RestartRefused,
    SharedSocket,
    TakeOver,
)
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.restart import new_process
from twsock.services.restart.new_process import NewProcess, TakeError, find_old_process


class NewProcessTests(SynchronousTestCase):
    """A `NewProcess` and what an old process sends it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name) / "control")
        self.reactor = FakeReactor()
        self.sockets = ListeningSockets()
        self.addCleanup(self.sockets.close)
        self.served = FakeServed()
        self.ends: list[str] = []
        served: Any = self.served
        self.new = NewProcess(
            self.reactor,
            self.sockets,
            served,
            lambda: self.ends.append("end"),
            lambda: self.ends.append("leads"),
            frozenset({os.geteuid()}),
        )
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.listening.close)
        self.udp = open_udp()
        self.addCleanup(self.udp.close)

    def take_over(self, act: Callable[[Peer], None]) -> Peer:
        """Take over from an old process that does something with the channel."""
        self.listening.bind(self.path)
        self.listening.listen()
        peer = Peer()
        peer.close()

        def run() -> None:
            peer.socket, _ = self.listening.accept()
            peer.socket.settimeout(5)
            act(peer)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            self.new.take_over(self.path)
        finally:
            thread.join()
            self.addCleanup(peer.socket.close)
        return peer

    def fails(self, reason: str, act: Callable[[Peer], None]) -> None:
        """Check that nothing is taken, and that no descriptor stays open."""
        before = count_descriptors()
        with self.assertRaisesRegex(TakeError, reason):
            self.take_over(act)
        # Only that of the accepted connection.
        self.assertEqual(count_descriptors(), before + 1)
        self.assertEqual(self.sockets.held(), [])
        self.assertIs(self.new.state, State.FAILED)

    def send_sockets(self, peer: Peer) -> None:
        """Send one UDP socket."""
        self.assertEqual(peer.receive(), TakeOver(os.getpid()))
        peer.send(SharedSocket("udp:127.0.0.1:0"), self.udp)
        peer.send(Listed(1))

    def serve(self) -> Peer:
        """Take over and become ready."""
        peer = self.take_over(self.send_sockets)
        self.new.listen_to_old()
        self.new.started()
        self.addCleanup(self.new.stop)
        self.assertEqual(peer.receive(), Ready())
        return peer

    def test_without_an_old_process_nothing_happens(self) -> None:
        """No file, or a socket on which nobody listens."""
        self.new.take_over(self.path)
        self.assertIsNone(self.new.state)
        self.listening.bind(self.path)
        self.new.take_over(self.path)
        self.assertTrue(self.new.is_alone)
        self.new.listen_to_old()
        self.new.started()
        self.new.stop()

    def test_it_takes_the_sockets(self) -> None:
        """They are in the table under their names, and non-blocking, whatever they were."""
        self.udp.setblocking(True)
        self.take_over(self.send_sockets)
        ((name, taken),) = self.sockets.held()
        self.assertEqual(str(name), "udp:127.0.0.1:0")
        self.assertEqual(taken.getsockname(), self.udp.getsockname())
        self.assertFalse(os.get_blocking(self.udp.fileno()))
        self.assertFalse(self.new.is_alone)
        self.new.stop()

    def test_the_limit_of_descriptors_is_raised(self) -> None:
        """To the hard limit: it may get all connections of the old process at once."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard) - 1, hard))
        self.take_over(self.send_sockets)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (hard, hard))
        self.new.stop()

    def test_a_silent_process_is_not_waited_for(self) -> None:
        """The limit holds for all sockets together."""
        self.patch(new_process, "TAKE_TIMEOUT", 0.05)

        def say_nothing(peer: Peer) -> None:
            self.assertIsInstance(peer.receive(), TakeOver)
            peer.send(SharedSocket("udp:127.0.0.1:0"), self.udp)
            self.assertIsNone(peer.receive())

        self.fails("sent no sockets within 0.05 s", say_nothing)

    def test_a_refusal_has_its_reason(self) -> None:
        """For example that of a restart under way."""
        self.fails("^busy$", lambda peer: peer.send(RestartRefused("busy")))

    def test_what_is_no_socket_is_left_alone(self) -> None:
        """A regular file, or a socket of another type."""
        Path(self.path).write_text("data")
        with self.assertRaisesRegex(TakeError, "not a socket"):
            self.new.take_over(self.path)
        self.assertEqual(Path(self.path).read_text(), "data")
        Path(self.path).unlink()
        with socket.socket(socket.AF_UNIX) as stream:
            stream.bind(self.path)
            stream.listen()
            with self.assertRaisesRegex(TakeError, "another program"):
                find_old_process(self.path)

    def test_a_process_of_another_user_is_refused(self) -> None:
        """Nothing is sent to it."""
        served: Any = self.served
        self.new = NewProcess(
            self.reactor,
            self.sockets,
            served,
            lambda: None,
            lambda: None,
            frozenset({os.geteuid() + 1}),
        )
        line = f"of user {os.geteuid()}: run this one as that user$"
        self.fails(line, lambda peer: self.assertIsNone(peer.receive()))

    def test_a_foreign_program_is_refused(self) -> None:
        """Whatever it sends first, also after valid packets."""

        def greet(peer: Peer) -> None:
            self.assertIsInstance(peer.receive(), TakeOver)
            peer.send(b"220 mail")

        self.fails("not that of a restart", greet)

    def test_another_version_is_named(self) -> None:
        """Both numbers are in the reason."""
        self.fails("version 9 of the restart, this one 1", lambda peer: peer.send(b"TWRE\x09\x02"))

    def test_sockets_after_a_foreign_packet_are_closed(self) -> None:
        """Also those that came before it: connections in their queues are the old process's."""

        def act(peer: Peer) -> None:
            peer.send(SharedSocket("udp:127.0.0.1:0"), self.udp)
            peer.send(b"TWRE\1\2")

        self.fails("SharedSocket cannot have 0 bytes", act)

    def test_a_missing_socket_is_noticed(self) -> None:
        """The old process counts them."""

        def act(peer: Peer) -> None:
            peer.send(SharedSocket("udp:127.0.0.1:0"), self.udp)
            peer.send(Listed(2))

        self.fails("1 of 2 sockets came", act)

    def test_two_sockets_of_one_name_are_refused(self) -> None:
        """One of them would be lost."""

        def act(peer: Peer) -> None:
            for _ in range(2):
                peer.send(SharedSocket("udp:127.0.0.1:0"), self.udp)
            peer.send(Listed(2))

        with self.assertRaisesRegex(TakeError, "same name"):
            self.take_over(act)
        self.assertEqual(self.sockets.held(), [])

    def test_an_unknown_name_is_closed(self) -> None:
        """No endpoint of this process can claim it."""

        def act(peer: Peer) -> None:
            peer.send(SharedSocket("carrier pigeon"), self.udp)
            peer.send(Listed(1))

        self.take_over(act)
        self.assertEqual(self.sockets.held(), [])
        self.new.stop()

    def test_an_old_process_that_dies_early_is_replaced(self) -> None:
        """It had sent nothing, and nobody listens: this process opens its own sockets."""

        def die(peer: Peer) -> None:
            self.listening.close()
            peer.socket.close()

        self.take_over(die)
        self.assertIsNone(self.new.state)

    def test_a_program_that_ends_each_connection_is_refused(self) -> None:
        """After a second, in which a dying process would have ended."""

        def end_all(peer: Peer) -> None:
            peer.socket.close()
            self.listening.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                while True:
                    self.listening.accept()[0].close()

        with self.assertRaisesRegex(TakeError, "sent no socket"):
            self.take_over(end_all)

    def test_it_goes_on_if_the_old_process_dies(self) -> None:
        """It has some sockets, or all of them; it owns their paths then."""

        def act(peer: Peer) -> None:
            peer.send(SharedSocket("udp:127.0.0.1:0"), self.udp)
            peer.socket.close()

        self.take_over(act)
        self.assertIs(self.new.state, State.ALONE)
        self.assertEqual(len(self.sockets.held()), 1)
        self.new.listen_to_old()
        self.new.started()

    def test_a_death_while_the_services_start_is_noticed(self) -> None:
        """The channel is read before this process says that it is ready."""
        peer = self.take_over(self.send_sockets)
        peer.socket.close()
        self.new.listen_to_old()
        self.assertIs(self.new.state, State.ALONE)

    def test_a_refusal_while_the_services_start_ends_the_process(self) -> None:
        """The old process goes on, and so this one accepts nothing."""
        peer = self.take_over(self.send_sockets)
        peer.send(RestartRefused("too late"))
        self.new.listen_to_old()
        self.assertEqual(self.served.calls, ["pause"])
        self.assertFalse(self.sockets.owns_paths)
        self.assertEqual(self.ends, ["end"])

    def test_a_refusal_that_crosses_the_report_ends_the_process(self) -> None:
        """Otherwise both would serve."""
        peer = self.serve()
        peer.send(RestartRefused("too late"))
        with capturedLogs() as logs:
            self.reactor.turn()
        lines = [formatEvent(event) for event in logs]
        self.assertEqual(lines, ["restart refused: too late; this process ends"])
        self.assertEqual((self.ends, self.served.calls), (["end"], ["pause"]))
        self.assertFalse(self.sockets.owns_paths)

    def test_a_connection_for_no_service_is_refused(self) -> None:
        """The old process reads the end of its channel."""
        peer = self.serve()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        with theirs:
            peer.send(ConnectionOffer("LineEcho"), theirs)
        self.reactor.turn()
        self.assertEqual(ours.recv(1), b"")
        self.assertIs(self.new.state, State.READY)

    def test_the_numbers_are_logged(self) -> None:
        """Then the old process ends."""
        peer = self.serve()
        peer.send(Moved(3, 1))
        with capturedLogs() as logs:
            self.reactor.turn()
            peer.socket.close()
            self.reactor.turn()
        self.assertEqual(
            [formatEvent(event) for event in logs],
            [
                "restart: 3 connections have moved here, 1 drain in the old process",
                "restart: the old process has ended; this process serves alone",
            ],
        )
        self.assertTrue(self.new.is_alone)

    def test_a_stopped_process_says_farewell(self) -> None:
        """The old process would accept again otherwise."""
        peer = self.serve()
        self.new.stop()
        self.assertEqual(peer.receive_all(), [Farewell(), None])

    def test_a_process_that_cannot_start_closes_the_channel(self) -> None:
        """Without a farewell: the old process goes on."""
        peer = self.take_over(self.send_sockets)
        self.new.stop("a port is in use")
        self.assertEqual(peer.receive_all(), [None])
        self.assertIs(self.new.state, State.FAILED)

    def test_a_service_that_fails_later_ends_the_process(self) -> None:
        """If an old process goes on; alone, it serves what it can."""
        peer = self.take_over(self.send_sockets)
        self.new.listen_to_old()
        self.new.give_back("no port")
        self.assertEqual((self.ends, peer.receive_all()), (["end"], [None]))
        self.new.give_back("no port")
        self.assertEqual(self.ends, ["end"])

    def test_a_foreign_packet_later_ends_the_old_process(self) -> None:
        """It is alive, and this process serves."""
        peer = self.serve()
        peer.send(b"?")
        self.reactor.turn()
        self.assertEqual(peer.receive_all(), [Farewell(), None])
        self.assertTrue(self.new.is_alone)
