"""The control socket of a process: who may connect, what the first packet is, both roles."""

from __future__ import annotations

import os
import resource
import socket
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.services.restart.fakes import FakeOwner, FakeReactor, FakeServed, Peer
from tests.services.restart.test_old_process import open_udp
from twsock.restart.records import (
    Listed,
    Ready,
    RestartRefused,
    SharedSocket,
    TakeOver,
    Watch,
    Watching,
)
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.restart.control import MOST_SILENT, RestartControl
from twsock.services.restart.new_process import TakeError


class ControlTests(SynchronousTestCase):
    """A `RestartControl` on a path."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "control"
        self.reactor = FakeReactor()
        self.control, self.sockets, self.owner = self.make_control()

    def make_control(self) -> tuple[RestartControl, ListeningSockets, FakeOwner]:
        """Make the control of a further process."""
        sockets, owner = ListeningSockets(), FakeOwner()
        served: Any = FakeServed()
        control = RestartControl(self.reactor, str(self.path), sockets, served, owner)
        self.addCleanup(sockets.close)
        self.addCleanup(self.stop, control)
        return control, sockets, owner

    def start(self, control: RestartControl) -> None:
        """Start a process."""
        control.take_over()
        control.listen()
        control.start()
        control.started()

    def connect(self) -> Peer:
        """Connect to the control socket."""
        peer = Peer()
        peer.close()
        peer.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.socket.settimeout(5)
        self.addCleanup(peer.socket.close)
        peer.socket.connect(str(self.path))
        return peer

    def test_only_its_user_can_connect(self) -> None:
        """The permissions of the socket say so, from the first moment."""
        mask = os.umask(0)
        self.addCleanup(os.umask, mask)
        self.start(self.control)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_a_stale_socket_is_replaced(self) -> None:
        """Nobody listens on it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
            stale.bind(str(self.path))
        self.start(self.control)
        peer = self.connect()
        peer.send(Watch())
        self.reactor.turn()
        self.assertEqual(peer.receive(), Watching(os.getpid()))

    def test_a_file_is_left_alone(self) -> None:
        """Nothing is taken."""
        self.path.write_text("data")
        self.assertRaises(TakeError, self.control.take_over)
        self.assertEqual(self.path.read_text(), "data")

    def test_a_folder_that_is_missing_is_an_error(self) -> None:
        """As is one without permission."""
        self.control, _, _ = self.make_control()
        self.path.parent.rmdir()
        self.control.take_over()
        self.assertRaises(OSError, self.control.listen)
        self.path.parent.mkdir()

    def test_a_process_takes_over(self) -> None:
        """The control socket moves as well, and the path stays."""
        kept, _ = self.sockets.claim("udp", "127.0.0.1", 0, open_udp)
        self.addCleanup(kept.close)
        self.start(self.control)
        before = self.path.stat().st_ino
        new, sockets, owner = self.make_control()
        taking = threading.Thread(target=new.take_over)
        taking.start()
        while taking.is_alive():
            self.reactor.turn()
        taking.join()
        self.assertEqual(
            [str(name) for name, _ in sockets.held()],
            ["udp:127.0.0.1:0", f"control:{self.path}"],
        )
        new.listen()
        new.start()
        with capturedLogs() as logs:
            new.started()
        self.assertIn(
            "restart: closed the sockets that no endpoint uses: udp:127.0.0.1:0",
            [formatEvent(event) for event in logs if event["log_level"] is LogLevel.warn],
        )
        self.reactor.turn()
        self.assertEqual(self.owner.calls, ["begins", f"replaced by {os.getpid()}"])
        self.assertEqual(owner.calls, ["leads"])
        self.assertEqual(self.path.stat().st_ino, before)
        self.stop(self.control)
        self.assertTrue(self.path.exists())
        self.reactor.turn()
        self.stop(new)
        self.assertFalse(self.path.exists())

    def test_a_process_that_took_over_waits_for_the_old_one(self) -> None:
        """A third process is refused until then."""
        self.start(self.control)
        new, _, _ = self.make_control()
        taking = threading.Thread(target=new.take_over)
        taking.start()
        while taking.is_alive():
            self.reactor.turn()
        new.listen()
        new.start()
        new.started()
        self.control.pause()
        third = self.connect()
        third.send(TakeOver(3))
        self.reactor.turn()
        (refusal, end) = third.receive_all()
        self.assertEqual(
            refusal, RestartRefused("a restart is under way: the old process still drains")
        )
        self.assertIsNone(end)
        self.stop(self.control)
        self.stop(new)

    def test_a_new_process_gets_the_sockets(self) -> None:
        """Those of the process, the control socket included."""
        self.start(self.control)
        peer = self.connect()
        peer.send(TakeOver(9))
        self.reactor.turn()
        self.assertEqual(peer.receive_all(), [SharedSocket(f"control:{self.path}"), Listed(1)])

    def test_another_first_packet_is_refused(self) -> None:
        """With one line in the log, which names the process."""
        self.start(self.control)
        for wrong, reason in ((Ready(), "the first packet is Ready"), (b"GET /", "not that of")):
            peer = self.connect()
            peer.send(wrong)
            with capturedLogs() as logs:
                self.reactor.turn()
            refusal, end = peer.receive_all()
            assert isinstance(refusal, RestartRefused)
            self.assertIn(reason, refusal.reason)
            self.assertIsNone(end)
            (line,) = [formatEvent(event) for event in logs]
            self.assertIn(f"control: refused process {os.getpid()} of user", str(line))
        self.assertEqual(self.owner.calls, [])

    def test_silent_processes_are_bounded(self) -> None:
        """In number and in time."""
        self.start(self.control)
        peers = [self.connect() for _ in range(MOST_SILENT + 1)]
        self.reactor.turn()
        self.assertEqual(peers[0].receive_all(), [None])
        self.assertEqual(peers[1].receive_all(), [])
        self.reactor.advance(5)
        self.assertEqual([peer.receive_all() for peer in peers[1:]], [[None]] * MOST_SILENT)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_without_a_free_descriptor_it_rests(self) -> None:
        """One line a second, and the process that waits is accepted later."""
        self.start(self.control)
        peer = self.connect()
        peer.send(Watch())
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        with capturedLogs() as logs:
            for _ in range(3):
                self.reactor.turn()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        (line,) = [formatEvent(event) for event in logs]
        self.assertIn("control: cannot accept: Too many open files", str(line))
        self.reactor.advance(1)
        self.reactor.turn()
        self.assertEqual(peer.receive(), Watching(os.getpid()))

    def test_a_stop_ends_the_rest(self) -> None:
        """The socket is not read again, and no delayed call is left."""
        self.start(self.control)
        self.connect()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        with capturedLogs():
            self.reactor.turn()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.stop(self.control)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))

    def test_a_flood_is_accepted_in_several_turns(self) -> None:
        """Processes that connect without end do not stop the rest of the service."""
        self.start(self.control)
        # One more than the queue of the kernel is long, and than one turn accepts.
        peers = [self.connect() for _ in range(65)]
        oldest = peers[64 - MOST_SILENT]
        self.control.doRead()
        self.assertEqual(oldest.receive_all(), [])
        self.control.doRead()
        self.assertEqual(oldest.receive_all(), [None])

    def test_two_processes_that_start_at_once(self) -> None:
        """Neither has found the other; the later one does not listen, and leaves the path."""
        other, _, _ = self.make_control()
        self.control.take_over()
        other.take_over()
        self.control.listen()
        before = self.path.stat().st_ino
        with self.assertRaisesRegex(OSError, "another process has begun to serve there"):
            other.listen()
        self.assertEqual(self.path.stat().st_ino, before)

    def test_a_file_that_appears_meanwhile_is_left_alone(self) -> None:
        """The path was free when the process started."""
        self.control.take_over()
        self.path.write_text("data")
        with self.assertRaisesRegex(OSError, "it is not a socket"):
            self.control.listen()
        self.assertEqual(self.path.read_text(), "data")

    def test_a_process_that_leaves_is_forgotten(self) -> None:
        """Without a line in the log."""
        self.start(self.control)
        self.connect().socket.close()
        with capturedLogs() as logs:
            self.reactor.turn()
        self.assertEqual(logs, [])
        self.assertEqual(self.reactor.readers, {self.control})

    def test_a_stop_closes_everything(self) -> None:
        """The path is removed, and no descriptor is watched."""
        self.start(self.control)
        self.connect()
        watching = self.connect()
        watching.send(Watch())
        self.reactor.turn()
        self.stop(self.control)
        self.assertFalse(self.path.exists())
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))

    def test_an_abandoned_start_leaves_nothing(self) -> None:
        """The process could not listen."""
        self.control.take_over()
        self.control.listen()
        self.control.abandon("a port is in use")
        self.assertEqual(self.sockets.held(), [])
        self.assertFalse(self.path.exists())

    def stop(self, control: RestartControl) -> None:
        """Stop a process."""
        self.successResultOf(Deferred.fromCoroutine(control.stop()))
