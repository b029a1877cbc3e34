"""
Real ``twistd`` processes: started in an empty folder, read until they listen, ended by a signal.

`twistd` runs in the foreground, and its output is read; `forked_twistd` does the same in a process
that has imported the services (`tests.services.preloaded`). `daemon` leaves a background process,
which is known by its pid file only.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.forking import Run

#: The checkout: child processes find the plugins there if the project is not installed.
_TOP = Path(__file__).parents[2]

#: Seconds after which a process that has not ended is killed, and its test fails.
PATIENCE = 120

_AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""

TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


class Twistd:
    """
    A running ``twistd -n``.

    :ivar log: its output so far.
    :ivar folder: its working directory, which holds its files.
    """

    def __init__(self, process: subprocess.Popen[str] | _Forked, folder: str) -> None:
        self.process = process
        # A process that hangs is a failure with a log; the test run does not hang.
        self._patience = threading.Timer(PATIENCE, self.process.kill)
        self._patience.start()
        self.log = ""
        self.folder = Path(folder)

    def wait_for(self, pattern: str) -> str:
        """Read the log up to a matching line; return the first group of the match."""
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
        """Send SIGTERM, as systemd does."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end, and read the rest of its log; return what ``Popen.returncode`` is."""
        assert self.process.stdout is not None
        self.log += self.process.stdout.read()
        return self.process.wait()

    def wait_for_end(self) -> int:
        """Wait for its end only: processes that it has left may have its output open."""
        return self.process.wait()

    def end(self) -> None:
        """Kill the process if it runs, and remove its folder."""
        self._patience.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def twistd(
    *arguments: str,
    max_files: int | None = None,
    inherited: socket.socket | None = None,
    environment: Mapping[str, str] | None = None,
    before: str = "",
) -> Iterator[Twistd]:
    """
    Run ``twistd --pidfile= -n`` with arguments, in an empty folder of its own.

    :param max_files: its limit of file descriptors; None for the limit of this process.
    :param inherited: the socket that systemd would have opened for it.
    :param environment: variables besides those of this process.
    :param before: a statement that runs before ``twistd`` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [
                *_passing(inherited),
                *(sys.executable, "-c", f"{before}\n{TWISTD}", "--pidfile=", "-n"),
                *arguments,
            ],
            cwd=folder,
            env={**_environment(folder), **(environment or {})},
            pass_fds=() if inherited is None else (inherited.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=None if max_files is None else lambda: _limit_files(max_files),
        )
        with _running(process, folder) as running:
            yield running


@contextlib.contextmanager
def forked_twistd(
    *arguments: str,
    max_files: int | None = None,
    environment: Mapping[str, str] | None = None,
    before: str = "",
) -> Iterator[Twistd]:
    """Run the same, without the time of the start and of the end of an interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        request = {
            "words": ["--pidfile=", "-n", *arguments],
            "folder": folder,
            "max_files": max_files,
            "before": before,
        }
        process = _Forked(request, {**_environment(folder), **(environment or {})})
        with _running(process, folder) as running:
            yield running


@contextlib.contextmanager
def _running(process: subprocess.Popen[str] | _Forked, folder: str) -> Iterator[Twistd]:
    running = Twistd(process, folder)
    try:
        yield running
    finally:
        running.end()


def why_no_other_user() -> str | None:
    """Return why no process of another user can reach temporary files; None if one can."""
    if os.geteuid() != 0:
        return "only root can start a process of another user"
    folder = Path(tempfile.gettempdir()).resolve()
    if closed := [each for each in (folder, *folder.parents) if not each.stat().st_mode & 1]:
        return f"closed to other users: {closed[-1]}"
    return None


class _Forked(Run):
    """
    A run of ``twistd``, with the part of ``Popen`` that `Twistd` uses.

    :ivar stdout: its output.
    """

    def __init__(self, request: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        output, theirs = os.pipe()
        self.stdout = os.fdopen(output, encoding="utf-8")
        try:
            with Path(os.devnull).open() as nothing:
                streams = (nothing.fileno(), theirs, theirs)
                super().__init__("tests.services.preloaded", request, environment, streams)
        finally:
            os.close(theirs)

    def kill(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            self.send_signal(signal.SIGKILL)


class Daemon:
    """
    The result of a ``twistd`` without ``-n``: a daemon, or the reason why there is none.

    :ivar status: the exit status of the process that the user started.
    :ivar output: the output of that process.
    :ivar folder: the working directory, with pid file and log.
    """

    def __init__(
        self, arguments: Sequence[str], folder: str, environment: Mapping[str, str]
    ) -> None:
        self.folder = Path(folder)
        ended, inherited = os.pipe()
        # A file, not a pipe: a daemon that keeps its output open would keep the pipe open.
        with (self.folder / "output").open("w+") as output, os.fdopen(ended) as end_of_daemon:
            self.status = subprocess.run(
                [sys.executable, "-c", TWISTD, *arguments],
                cwd=folder,
                env={**_environment(folder), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=PATIENCE,
                check=False,
                pass_fds=(inherited,),
            ).returncode
            os.close(inherited)
            if self.status:
                # The process that was to become the daemon may still write its log.
                end_of_daemon.read()
            output.seek(0)
            self.output = output.read()

    @property
    def pid_file(self) -> Path:
        """The path of the pid file, which exists while the daemon runs."""
        return self.folder / "twistd.pid"

    @property
    def log(self) -> str:
        """The daemon's log so far."""
        file = self.folder / "twistd.log"
        return file.read_text() if file.exists() else ""

    def exchange(self, name: str) -> None:
        """
        Let a UNIX socket in the folder echo a byte: then the reactor runs, and handles signals.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.folder / name))
            connection.sendall(struct.pack(">I", 1) + b"x")
            answer = connection.recv(5)
        if answer != b"\0\0\0\1x":
            raise AssertionError(f"the daemon answered {answer!r}")

    def end(self, *signals: int) -> None:
        """
        Send signals to the daemon, if it runs, and wait for its end; without signals it is killed.
        """
        if not self.pid_file.exists():
            return
        pid = int(self.pid_file.read_text())
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            for number in signals or (signal.SIGKILL,):
                os.kill(pid, number)
            ended, _, _ = select.select([process], [], [], PATIENCE)
            if not ended:
                raise AssertionError(f"the daemon does not end:\n{self.log}")
        finally:
            os.close(process)


@contextlib.contextmanager
def daemon(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """
    Run ``twistd`` with arguments and without ``-n``, in an empty folder of its own.

    :param environment: variables besides those of this process.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            yield Daemon(arguments, folder, environment or {})
        finally:
            _kill(Path(folder) / "twistd.pid")


def _kill(pid_file: Path) -> None:
    """Kill a daemon, also one whose parent process hung."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


def _passing(inherited: socket.socket | None) -> list[str]:
    """Start a program as systemd does: descriptor 3 is the socket, LISTEN_PID its process id."""
    if inherited is None:
        return []
    return [sys.executable, "-c", _AS_SYSTEMD, str(inherited.fileno())]


def _environment(folder: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(_TOP),
        "PYTHONUNBUFFERED": "1",
        # No file is written to the home directory of the user who runs the tests.
        "XDG_STATE_HOME": folder,
    }


def echo(port: int, payload: bytes = b"Hello, World!") -> bytes:
    """Exchange one frame on a new connection, with ``struct`` only."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.sendall(struct.pack(">I", len(payload)) + payload)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">I", stream.read(4))
            return stream.read(size)


def _limit_files(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
