"""
Processes that are forked from one that has imported what they need: 0.03 s instead of 0.5.

The process of a test has one `Preloaded` for each module that can be run in this way. A request is
a message of JSON, and four descriptors: the standard streams of the run, and a socket for its
process id and its exit status. A run does not wait for the end of the interpreter, which takes
longer than all the rest; tests of that end start a process of their own.

The functions from `serve` on are called by such a module.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["ROOT", "Preloaded", "Run", "run_forked"]

#: The checkout; a child finds the package there even if it is not installed.
ROOT = Path(__file__).parents[1]

#: Seconds after which a test fails that waits for the end of a run.
PATIENCE = 120


class Preloaded:
    """The process that forks for each run; it ends when this one does."""

    _made: ClassVar[dict[str, Preloaded]] = {}

    def __init__(self, module: str) -> None:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path},
            )
        atexit.register(self._end)

    @classmethod
    def get(cls, module: str) -> Preloaded:
        """Return the one of this process."""
        if module not in cls._made:
            cls._made[module] = cls(module)
        return cls._made[module]

    def _end(self) -> None:
        self.control.close()
        self._process.wait(PATIENCE)


class Run:
    """
    A run in a process of its own.

    :param module: the module that has been imported, and calls `run_forked`.
    :param request: what it has to do.
    :param environment: its variables.
    :param streams: descriptors of its standard streams; they stay the caller's.
    """

    def __init__(
        self,
        module: str,
        request: Mapping[str, Any],
        environment: Mapping[str, str],
        streams: Sequence[int],
    ) -> None:
        self.returncode: int | None = None
        ours, theirs = socket.socketpair()
        with theirs:
            message = json.dumps({**request, "environment": environment}).encode()
            control = Preloaded.get(module).control
            socket.send_fds(control, [message], [*streams, theirs.fileno()])
        ours.settimeout(PATIENCE)
        # Unbuffered: `poll` looks whether there is more to read.
        self._reply = ours.makefile("rb", 0)
        ours.close()
        self.pid = int(self._reply.readline())

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Return the exit status; None while the run continues."""
        if self.returncode is None and select.select([self._reply], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """Wait for the end; return the exit status, negative for a signal."""
        if self.returncode is None:
            self.returncode = int(self._reply.readline())
            self._reply.close()
        return self.returncode


def run_forked(work: Callable[[dict[str, Any]], object]) -> None:
    """
    Fork for each request, until the process of the tests ends; the module calls this at its end.

    :param work: called in the forked process, with the request.
    """
    # Nobody waits for the processes that report.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        request = _serve(requests)
    if request is not None:
        status = _call(work, request)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; in the forked process, return the request."""
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1_000_000, 4)
        if not message:
            return None
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            *streams, reply = descriptors
            run = os.fork()
            if run == 0:
                os.close(reply)
                return _prepare(message, streams)
            _report(reply, run, streams)
        for descriptor in descriptors:
            os.close(descriptor)


def _report(reply: int, run: int, streams: list[int]) -> None:
    """Send the process id of the run, and its exit status when it has one."""
    for descriptor in (0, 1, 2, *streams):
        os.close(descriptor)
    os.write(reply, b"%d\n" % run)
    _, status = os.waitpid(run, 0)
    os.write(reply, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _prepare(message: bytes, streams: list[int]) -> dict[str, Any]:
    """Have the streams and the environment of the run."""
    request: dict[str, Any] = json.loads(message)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdin = os.fdopen(0, closefd=False, encoding="utf-8")
    sys.stdout = os.fdopen(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", 1, closefd=False, encoding="utf-8", errors="backslashreplace")
    return request


def _call(work: Callable[[dict[str, Any]], object], request: dict[str, Any]) -> int:
    """Return the exit status that the interpreter would have."""
    try:
        work(request)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - printed, as the interpreter does
        traceback.print_exc()
        return 1
    return 0
