"""Whether a process is a parent, a worker, or neither."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.datagram import Options as DatagramOptions
from twsock.services.everything import Options as EverythingOptions
from twsock.services.listening_sockets import ListeningSockets, SocketName
from twsock.services.multicast import Options as MulticastOptions
from twsock.services.start_error import StartError
from twsock.services.stream import Options as StreamOptions
from twsock.services.websocket import Options as WebSocketOptions
from twsock.services.workers.role import MAX_WORKERS, WorkersRole
from twsock.services.workers.start import WorkerStart


class TwistdOptions(dict[str, Any]):
    """The options of ``twistd -n``."""

    subCommand = "twsock-stream"  # noqa: N815

    def __init__(self, **given: Any) -> None:
        super().__init__(nodaemon=True, pidfile="", rundir=".", **given)


def parsed(options: Any, *arguments: str, **twistd: Any) -> Any:
    """Return the options of a plugin after they were parsed under ``twistd``."""
    options.parent = TwistdOptions(**twistd)
    options.parseOptions(arguments)
    return options


class OptionTests(SynchronousTestCase):
    """``--workers``."""

    def refusal(self, options: Any, *arguments: str, **twistd: Any) -> str:
        """Return why options are refused."""
        return str(self.assertRaises(UsageError, parsed, options, *arguments, **twistd))

    def test_a_process_has_no_workers_by_default(self) -> None:
        """It keeps no sockets either."""
        options = parsed(StreamOptions())
        self.assertEqual((options.workers.count, options.sockets), (None, None))

    def test_services_have_a_number_of_workers_or_one_for_each_core(self) -> None:
        """Their endpoints keep the sockets."""
        for kind in (StreamOptions, DatagramOptions, WebSocketOptions):
            options = parsed(kind(), "--workers", "3")
            self.assertEqual(options.workers.count, 3, kind)
            self.assertEqual(len(options.worker_sockets), 3, kind)
        options = parsed(StreamOptions(), "--workers", "auto")
        self.assertEqual(options.workers.count, len(os.sched_getaffinity(0)))

    def test_any_other_number_is_refused(self) -> None:
        """The line says what it takes."""
        for text in ("0", "-1", "x", str(MAX_WORKERS + 1), "1.5"):
            line = self.refusal(StreamOptions(), "--workers", text)
            self.assertIn("--workers takes a whole number, 1 to 1024", line, text)
            self.assertTrue(line.endswith("; or auto"), text)

    def test_services_that_cannot_have_workers_say_why(self) -> None:
        """Each worker would receive the datagrams of a group."""
        for options, reason in (
            (MulticastOptions(), "every worker would receive and answer"),
            (EverythingOptions(), "run twsock-stream, twsock-websocket or twsock-datagram"),
        ):
            self.assertIn(f"--workers: {reason}", self.refusal(options, "--workers", "2"))

    def test_programs_that_cannot_have_workers_say_why(self) -> None:
        """Another program than twistd, and one that leaves its folders."""
        line = self.refusal(StreamOptions(), "--workers", "2", chroot="/")
        self.assertIn("--workers excludes twistd's --chroot", line)
        line = self.refusal(StreamOptions(), "--workers", "2", "--control", "path")
        self.assertIn("--workers excludes --control", line)
        alone = StreamOptions()
        line = str(self.assertRaises(UsageError, alone.parseOptions, ["--workers", "2"]))
        self.assertIn("--workers needs twistd", line)


class WorkerTests(SynchronousTestCase):
    """A worker serves the sockets of its parent."""

    def role(self, *names: SocketName) -> WorkersRole:
        """Return the role of a worker with some sockets."""
        return WorkersRole(WorkerStart(1, names), ())

    def test_sockets_that_the_parent_has_not_are_refused(self) -> None:
        """Its other workers would not serve them."""
        sockets = ListeningSockets()
        self.addCleanup(sockets.close)
        kept, _ = sockets.claim("tcp", "127.0.0.1", 0, socket.socket)
        self.addCleanup(kept.close)
        error = self.assertRaises(StartError, self.role().check_sockets, sockets)
        self.assertIn("this worker and its parent differ in tcp:127.0.0.1:0", str(error))
        self.role(SocketName("tcp", "127.0.0.1")).check_sockets(sockets)

    def test_sockets_that_no_port_serves_are_refused(self) -> None:
        """Connections would wait in them for ever."""
        sockets = ListeningSockets()
        sockets.inherit([(SocketName("udp", "127.0.0.1", 5), socket.socket())])
        role = self.role(SocketName("udp", "127.0.0.1", 5))
        error = self.assertRaises(StartError, role.check_sockets, sockets)
        self.assertIn("udp:127.0.0.1:5", str(error))
        self.assertEqual(sockets.held(), [])

    def test_a_variable_that_is_set_by_hand_is_one_line(self) -> None:
        """It is removed, so that no child process has it."""
        self.patch(os, "environ", {**os.environ, "TWSOCK_WORKER": "yes"})
        error = self.assertRaises(StartError, StreamOptions().parseOptions, [])
        self.assertIn("TWSOCK_WORKER is for worker processes", str(error))
        self.assertNotIn("TWSOCK_WORKER", os.environ)
