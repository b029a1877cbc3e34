"""A parent of workers that is killed at each step: its workers serve what is queued, and end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import THOROUGH
from tests.loopback.fault_points import statement
from tests.loopback.restarts import frame, to_port
from tests.services.processes import PATIENCE, Twistd, twistd

_WORKERS = ("twsock-stream", "--workers", "2", "-e", "tcp:0:interface=127.0.0.1")

#: Steps at which connections exist, and the signal to the parent that leads to them.
_LATER = {
    "parent after START:3 KILL": signal.SIGHUP,
    "parent before PROMOTE KILL": signal.SIGHUP,
    "parent after PROMOTE KILL": signal.SIGHUP,
    "parent after STOP KILL": signal.SIGTERM,
    "parent after STOP:2 KILL": signal.SIGTERM,
}


def processes_in(folder: Path) -> list[int]:
    """Return the processes whose working directory is a folder; zombies have none."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if each.readlink() == folder:
                found.append(int(each.parent.name))
    return found


@skipIf(not THOROUGH, "processes are started with TWSOCK_TESTS=thorough")
class ParentFaultTests(SynchronousTestCase):
    """A parent is killed at a step."""

    def assert_no_process_is_left(self, parent: Twistd, fault: str) -> None:
        """Wait for the end of all workers."""
        self.assertEqual(parent.wait_for_end(), -signal.SIGKILL, fault)
        deadline = time.monotonic() + PATIENCE
        while left := processes_in(parent.folder):
            if time.monotonic() > deadline:
                for each in left:
                    os.kill(each, signal.SIGKILL)
                self.fail(f"{fault}: {len(left)} workers are left")
            time.sleep(0.01)

    def test_at_the_start_no_worker_is_left(self) -> None:
        """One or both of them were started."""
        for step in ("after START", "after START:2"):
            fault = f"parent {step} KILL"
            with twistd(*_WORKERS, before=statement(fault)) as parent:
                self.assert_no_process_is_left(parent, fault)

    def test_each_message_is_answered_once(self) -> None:
        """While workers are replaced, and while they drain; then the connections end in order."""
        for fault, number in _LATER.items():
            with twistd(*_WORKERS, before=statement(fault)) as parent:
                self.check(parent, fault, number)

    def check(self, parent: Twistd, fault: str, number: int) -> None:
        """Check the answers of connections with a message under way."""
        (port,) = parent.wait_for_ports()
        for _ in range(2):
            parent.wait_for("worker . serves")
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(to_port(port)()) for _ in range(20)]
            for connection in connections:
                connection.sendall(frame(b"under way"))
            parent.process.send_signal(number)
            answers = [read_to_end(connection) for connection in connections]
        self.assertEqual(answers, [frame(b"under way")] * 20, fault)
        self.assert_no_process_is_left(parent, fault)
        self.assertRaises(ConnectionRefusedError, to_port(port))


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that arrives; a reset is an error."""
    with connection.makefile("rb") as stream:
        return stream.read()
