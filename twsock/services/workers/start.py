"""
How a worker is started: options and sockets → **command line, environment, descriptors** → worker.

A worker is the command line of its parent, run by ``twistd --nodaemon`` with a log on standard
output. One variable of its environment says that it is a worker, and the names of its sockets in
the order of their descriptors::

    TWSOCK_WORKER = {"worker": 1, "sockets": ["tcp:127.0.0.1:1337", "unix:/run/echo.sock"]}

The worker removes the variable, so that its own child processes do not have it. A worker inherits
no descriptors but its pipes and its sockets. Its user, umask and limits are those of the parent.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twsock.services.listening_sockets import SocketName
from twsock.services.signals import hold_signals
from twsock.services.workers.process import (
    COMMAND_PIPE,
    ERROR_PIPE,
    FIRST_SOCKET,
    LOG_PIPE,
    REPORT_PIPE,
    WorkerProcess,
)

__all__ = ["WorkerProgram", "WorkerStart", "describe_error", "take_worker_start"]

_VARIABLE: Final = "TWSOCK_WORKER"

_TWISTD: Final = "sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"


@dataclass(frozen=True, slots=True)
class WorkerStart:
    """
    What the parent passes to a worker at its start.

    :ivar number: from 1.
    :ivar names: those of its sockets; their descriptors begin with `FIRST_SOCKET`.
    """

    number: int
    names: tuple[SocketName, ...]

    def __str__(self) -> str:
        """Return the value of the variable."""
        return json.dumps({"worker": self.number, "sockets": [str(name) for name in self.names]})

    @classmethod
    def parse(cls, text: str) -> WorkerStart:
        """
        Return the start with this text.

        :raises ValueError: when the text is invalid; the error is a line for the user.
        """
        try:
            members = json.loads(text)
            number, names = members["worker"], members["sockets"]
            if type(number) is int and number > 0 and isinstance(names, list):
                return cls(number, tuple(SocketName.parse(str(name)) for name in names))
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise ValueError(f"{_VARIABLE} is for worker processes; {text[:100]!r} is not valid")

    def open_sockets(self, first: int = FIRST_SOCKET) -> list[tuple[SocketName, socket.socket]]:
        """
        Return the sockets, which the caller closes.

        :param first: the descriptor of the first one.
        :raises ValueError: when a descriptor is not a socket.
        """
        opened: list[tuple[SocketName, socket.socket]] = []
        for descriptor, name in enumerate(self.names, first):
            try:
                inherited = socket.socket(fileno=descriptor)
                inherited.set_inheritable(False)
            except OSError as error:
                for _, each in opened:
                    each.close()
                text = f"descriptor {descriptor} is not a socket for {name}: {error.strerror}"
                raise ValueError(text) from error
            opened.append((name, inherited))
        return opened


def take_worker_start(environment: MutableMapping[str, str]) -> WorkerStart | None:
    """
    Return what the parent has passed to this worker; None in a process that is not a worker.

    :param environment: the variable is removed from it.
    :raises ValueError: when the variable has another value; the text is a line for the user.
    """
    text = environment.pop(_VARIABLE, None)
    return None if text is None else WorkerStart.parse(text)


def describe_error(error: OSError) -> str:
    """Return why the system cannot start the process of a worker, and what the user has to do."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror} (raise ulimit -n, or LimitNOFILE= of systemd, of the parent)"
    name = str(error.filename or sys.executable).removesuffix("/.")
    text = f"{name}: {error.strerror}"
    if isinstance(error, PermissionError) and error.filename in (None, sys.executable):
        text += f" (user {os.geteuid()} has to be able to run it, and to read its packages)"
    return text


def _interpreter_options() -> list[str]:
    """Return the options of Python, such as ``-I`` and ``-X dev``, for processes like this one."""
    # Not public, but `multiprocessing` starts its processes with it as well.
    options: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return options


def _program() -> str:
    """Return the program of a worker, which imports modules from where this process does."""
    if sys.flags.isolated or getattr(sys.flags, "safe_path", False):
        return f"import sys; {_TWISTD}"
    # With -c, Python imports from the working directory first; twistd does not.
    return f"import sys; sys.path[0] = {sys.path[0]!r}; {_TWISTD}"


@dataclass(frozen=True, slots=True)
class WorkerProgram:
    """
    The program of all workers of a parent.

    :ivar arguments: those after the name of the Python interpreter.
    :ivar folder: the working directory, to which the arguments are relative.
    """

    arguments: tuple[str, ...]
    folder: str

    @classmethod
    def of(cls, twistd: Any, arguments: Sequence[str]) -> WorkerProgram:
        """
        Return the program for the options of a parent; called before the parent changes its folder.

        :param twistd: the options of ``twistd``. The parent applies those for users, logs and the
            pid file.
        :param arguments: those of the plugin.
        """
        options = ["--nodaemon", "--pidfile=", "--logfile=-"]
        if twistd.get("reactor"):
            options.append(f"--reactor={twistd['reactor']}")
        if twistd.get("rundir", ".") != ".":
            options.append(f"--rundir={twistd['rundir']}")
        interpreter = _interpreter_options()
        command = (*interpreter, "-c", _program(), *options, twistd.subCommand, *arguments)
        return cls(command, str(Path.cwd()))

    def start(
        self,
        reactor: Any,
        worker: WorkerProcess,
        sockets: Sequence[tuple[SocketName, socket.socket]],
    ) -> None:
        """
        Start the process of a worker.

        :param reactor: provides ``IReactorProcess``, and runs.
        :param sockets: the caller still owns them.
        :raises OSError: when the system cannot start a process.
        """
        # The new process enters it, and would report a failure with a traceback.
        os.stat(f"{self.folder}/.")  # noqa: PTH116 - Path would drop the dot
        start = WorkerStart(worker.number, tuple(name for name, _ in sockets))
        empty = os.open(os.devnull, os.O_RDONLY)
        descriptors: dict[int, int | str] = {
            0: empty,
            LOG_PIPE: "r",
            ERROR_PIPE: "r",
            COMMAND_PIPE: "w",
            REPORT_PIPE: "r",
        }
        descriptors.update(
            (number, each.fileno()) for number, (_, each) in enumerate(sockets, FIRST_SOCKET)
        )
        try:
            with hold_signals():
                reactor.spawnProcess(
                    worker,
                    sys.executable,
                    [sys.executable, *self.arguments],
                    env={**os.environ, _VARIABLE: str(start)},
                    path=self.folder,
                    childFDs=descriptors,
                )
        finally:
            with suppress(OSError):
                os.close(empty)
