"""
Real ``twistd`` processes: started in an empty folder, read until they listen, ended by a signal.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

#: The checkout, so that a child process finds the plugins whether or not the project is installed.
_TOP = Path(__file__).parents[2]

#: Seconds after which a process that should have ended is killed, and its test fails.
PATIENCE = 30

_TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


class Twistd:
    """
    A running ``twistd -n``.

    :ivar log: what it has printed so far.
    :ivar folder: it runs in this one, and keeps what it makes there.
    """

    def __init__(self, arguments: Sequence[str], folder: str, max_files: int | None) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(_TOP),
            "PYTHONUNBUFFERED": "1",
            # Nothing is put into the home of who runs the tests.
            "XDG_STATE_HOME": folder,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TWISTD, "--pidfile=", "-n", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=None if max_files is None else lambda: _limit_files(max_files),
        )
        # A process that hangs is a failure with a log, not a test run that hangs.
        self._patience = threading.Timer(PATIENCE, self.process.kill)
        self._patience.start()
        self.log = ""
        self.folder = Path(folder)

    def wait_for(self, pattern: str) -> str:
        """Read the log up to a line; give the first group of its match."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log += line
            if match := re.search(pattern, line):
                return match[match.re.groups and 1]
        raise AssertionError(f"twistd ended without {pattern!r}:\n{self.log}")

    def wait_for_ports(self, count: int = 1) -> list[int]:
        """Read the log until it has named that many TCP ports."""
        return [int(self.wait_for(r"listening on tcp:.*?(\d+) \(")) for _ in range(count)]

    def terminate(self) -> None:
        """Ask it to stop, as systemd does."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Let it end, with the rest of its log; give what ``Popen.returncode`` is."""
        assert self.process.stdout is not None
        self.log += self.process.stdout.read()
        return self.process.wait()

    def end(self) -> None:
        """Leave nothing behind."""
        self._patience.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def twistd(*arguments: str, max_files: int | None = None) -> Iterator[Twistd]:
    """
    Run ``twistd --pidfile= -n`` with arguments, in an empty folder of its own.

    :param max_files: how many file descriptors it may have; None for as many as this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        running = Twistd(arguments, folder, max_files)
        try:
            yield running
        finally:
            running.end()


def echo(port: int, payload: bytes = b"Hello, World!") -> bytes:
    """Exchange one frame on a connection of its own, with ``struct`` only."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(struct.pack(">I", len(payload)) + payload)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">I", stream.read(4))
            return stream.read(size)


def _limit_files(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
