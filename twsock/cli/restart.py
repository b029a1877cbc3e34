"""
``twsock restart``: start a program that takes over from a service, and report the result.

The old process reports to its control socket: this command is an observer there, and the program is
the new process of `twsock.restart`. No reactor is needed. Holds one connection and one process.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final, NoReturn

from twsock.cli import _parent
from twsock.cli.arguments import RestartArguments
from twsock.cli.output import EXIT_SIGNAL, CommandError, Output
from twsock.errors import RemoteProtocolError
from twsock.restart.records import (
    MAX_RESTART_PACKET,
    Moved,
    Restarted,
    RestartFailed,
    RestartPacket,
    RestartRefused,
    Watch,
    Watching,
    decode_restart,
    encode_restart,
)

__all__ = ["environment_for", "restart"]

#: Seconds for the first answer of the old process, whose reactor may be busy.
_ANSWER_TIMEOUT: Final = 5.0

#: Seconds from SIGTERM to SIGKILL for a new process that is ended.
_END_TIMEOUT: Final = 5.0


def restart(
    arguments: RestartArguments, output: Output, *, end_timeout: float = _END_TIMEOUT
) -> None:
    """
    Start the program, and wait until it serves.

    :param end_timeout: seconds from SIGTERM to SIGKILL for a program that is ended.
    :raises CommandError: when the old process goes on, or there is none; the program has ended.
    """
    deadline = time.monotonic() + arguments.timeout
    with _Observer(arguments) as observer:
        environment = environment_for(observer.process, os.environ)
        with (
            _Signals() as signals,
            _Program(arguments.command, environment, end_timeout) as program,
        ):
            line = _Wait(observer, program, signals).run(deadline, arguments.timeout)
    output.say(line)


def environment_for(
    process: int, environment: Mapping[str, str], proc: Path = Path("/proc")
) -> dict[str, str]:
    """
    Return the environment of the new process.

    systemd passes NOTIFY_SOCKET to the main process only, so that of the old process is used.

    :param process: the process id of the old process.
    :param environment: that of this command.
    :param proc: where the system shows its processes.
    :raises CommandError: when systemd would not accept the new process as the main one.
    """
    # WATCHDOG_PID names this command, or the old process.
    passed = {name: value for name, value in environment.items() if name != "WATCHDOG_PID"}
    given = _environment_of(proc / str(process))
    if "NOTIFY_SOCKET" in passed:
        # With ``NotifyAccess=all`` systemd passes the socket to this command, and not the watchdog.
        if given.get("NOTIFY_SOCKET") == passed["NOTIFY_SOCKET"] and "WATCHDOG_USEC" in given:
            passed.setdefault("WATCHDOG_USEC", given["WATCHDOG_USEC"])
    elif "NOTIFY_SOCKET" in given:
        theirs, ours = _unit_of(proc / str(process)), _unit_of(proc / "self")
        if theirs is not None and theirs != ours:
            raise CommandError(
                f"process {process} belongs to the unit {theirs}, and a process that is started "
                f"here would not: run systemctl reload {theirs}, with this command as its "
                "ExecReload="
            )
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
            if name in given:
                passed[name] = given[name]
    return passed


class _Observer:
    """
    A connection to the control socket of the old process.

    :ivar process: the process id of the old process.
    """

    def __init__(self, arguments: RestartArguments) -> None:
        self._path = arguments.control
        self._timeout = min(arguments.timeout, _ANSWER_TIMEOUT)
        self._start = shlex.join(arguments.command)
        self._socket = self._connect()
        try:
            self.process = self._ask()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> _Observer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return the descriptor, for poll(2)."""
        return self._socket.fileno()

    def receive(self) -> RestartPacket | None:
        """
        Wait for a packet.

        :returns: None at the end of the connection.
        :raises CommandError: when another program sent it.
        """
        try:
            data = self._read()
            return decode_restart(data) if data else None
        except TimeoutError:
            return self._refuse(f"the process does not answer within {self._timeout:g} s")
        except RemoteProtocolError as error:
            return self._refuse(f"{error}; is it the control socket of another program?")

    def find_successor(self) -> None:
        """
        Ask for the process that serves, after the old one has ended; `Watching` is the answer.

        :raises CommandError: when no process has taken over.
        """
        self._socket.close()
        self._socket = self._connect()
        self._watch()

    def _read(self) -> bytes:
        # After a reset there may be a packet: it was sent before the peer closed the connection.
        for _ in range(2):
            with contextlib.suppress(ConnectionError):
                return self._socket.recv(MAX_RESTART_PACKET + 1)
        return b""

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(self._timeout)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            self._refuse(self._explain(error))
        return connection

    def _explain(self, error: OSError) -> str:
        without = f"start the service without twsock restart: {self._start}"
        if isinstance(error, FileNotFoundError):
            return f"no service runs there; {without}"
        if isinstance(error, ConnectionRefusedError):
            if stat.S_ISSOCK(Path(self._path).stat().st_mode):
                return f"no process listens there; {without}"
            return "it is not a socket"
        if isinstance(error, PermissionError):
            return "it belongs to another user; run this command as the user of the service"
        return f"{error.strerror or error}"

    def _watch(self) -> None:
        # If the process has ended the connection, the next read reports that.
        with contextlib.suppress(ConnectionError):
            self._socket.send(encode_restart(Watch()))

    def _ask(self) -> int:
        self._watch()
        answer = self.receive()
        if isinstance(answer, Watching):
            return answer.process
        if isinstance(answer, RestartRefused):
            self._refuse(answer.reason)
        return self._refuse("the process ended the connection")

    def _refuse(self, reason: str) -> NoReturn:
        raise CommandError(f"cannot restart at {self._path}: {reason}")


class _Program:
    """
    The new process, in a session of its own; it is ended at the end of the block, unless released.

    :param command: the program and its arguments.
    :raises CommandError: when it cannot be started.
    """

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], end_timeout: float
    ) -> None:
        self.name = command[0]
        self._end_timeout = end_timeout
        self._status: int | None = None
        self._is_kept = False
        self._parent, self._reports = _start_parent(command, environment)
        first = self._reports.readline().decode().strip()
        if not first.isdecimal():
            self._end_parent()
            raise CommandError(f"cannot start {self.name}: {first}")
        # Nobody has reaped it, so the number is that of the program.
        self._process = os.pidfd_open(int(first))

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_kept:
            self._end()
        self._end_parent()
        os.close(self._process)

    def fileno(self) -> int:
        """Return a descriptor that is readable once the process has ended."""
        return self._process

    @property
    def failure(self) -> str | None:
        """How the process has failed; None while it runs, and for a daemon, which ends early."""
        self.wait_for_end(0)
        if not self._status:
            return None
        if self._status > 0:
            return f"{self.name} ended with status {self._status} before it served"
        return f"{self.name} was ended by {signal.Signals(-self._status).name} before it served"

    def keep(self) -> None:
        """Leave the process running at the end of the block: no other process serves."""
        self._is_kept = True

    def release(self) -> None:
        """Leave the process running; when this returns, the kernel has chosen its next parent."""
        self._is_kept = True
        self._end_parent()

    def wait_for_end(self, timeout: float | None = None) -> bool:
        """Wait some seconds for the end of the process; return whether it has ended."""
        seconds = self._end_timeout if timeout is None else timeout
        has_ended = bool(select.select([self], [], [], seconds)[0])
        if has_ended and self._status is None and not self._reports.closed:
            # Without a report, the parent was killed as well.
            self._status = int(self._reports.readline() or -signal.SIGKILL)
        return has_ended

    def _end(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.wait_for_end(0):
                signal.pidfd_send_signal(self._process, number)
                self.wait_for_end()

    def _end_parent(self) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait()
        self._reports.close()


def _start_parent(
    command: Sequence[str], environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a program as a child of `twsock.cli._parent`; return this parent and its reports."""
    reading, writing = os.pipe()
    reports = os.fdopen(reading, "rb", buffering=0)
    try:
        # Isolated and without site-packages: it starts in a fraction of the time.
        parent = subprocess.Popen(
            [sys.executable, "-IS", _parent.__file__, str(writing), *command],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env=environment,
            pass_fds=[writing],
        )
    except (OSError, ValueError) as error:
        reports.close()
        raise CommandError(f"cannot start {command[0]}: {error}") from error
    finally:
        os.close(writing)
    return parent, reports


class _Signals:
    """
    SIGINT and SIGTERM during a restart: readable once one has arrived.

    An exception from a handler could leave a process behind that was just started.

    :ivar number: the signal; None before it.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> _Signals:
        self._reading, self._writing = os.pipe()
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._note) for number in numbers}
        # If this command was started with it ignored, the status of the new process would be lost.
        self._previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        """Return the descriptor, for poll(2)."""
        return self._reading

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            os.write(self._writing, b"x")


class _Wait:
    """The wait for the result of a restart."""

    def __init__(self, observer: _Observer, program: _Program, signals: _Signals) -> None:
        self._observer = observer
        self._program = program
        self._signals = signals
        self._old = observer.process
        self._fate = f"process {self._old} goes on"
        self._poll = select.poll()
        for each in (observer, program, signals):
            self._poll.register(each, select.POLLIN)

    def run(self, deadline: float, timeout: float) -> str:
        """Return the line about a restart that succeeded; the program is released then."""
        while True:
            left = max(0.0, deadline - time.monotonic())
            ready = {descriptor for descriptor, _ in self._poll.poll(left * 1_000)}
            # First: a process that serves is not ended.
            if self._observer.fileno() in ready:
                if line := self._read():
                    return line
            elif self._signals.number is not None:
                number = self._signals.number
                line = f"{signal.Signals(number).name}: {self._fate}"
                raise CommandError(line, EXIT_SIGNAL + number)
            elif self._program.fileno() in ready:
                if self._program.failure:
                    raise CommandError(f"{self._program.failure}; {self._fate}")
                # A daemon goes on in a process of its own.
                self._poll.unregister(self._program)
            elif not ready:
                name = self._program.name
                raise CommandError(f"{name} does not serve within {timeout:g} s; {self._fate}")

    def _read(self) -> str | None:
        """Read a packet; return the line if the restart has succeeded."""
        packet = self._observer.receive()
        if isinstance(packet, (RestartFailed, RestartRefused)):
            # The program ends by itself, and may report the reason.
            self._program.wait_for_end()
            reason = self._program.failure or f"the restart failed: {packet.reason}"
            raise CommandError(f"{reason}; {self._fate}")
        if isinstance(packet, Restarted):
            self._program.release()
            return f"process {packet.process} serves now, {self._describe_old()}"
        if isinstance(packet, Watching):
            return f"process {packet.process} serves now, process {self._old} has ended"
        if packet is not None:
            raise CommandError(f"the restart failed: unexpected answer {packet}; {self._fate}")
        self._old_has_ended()
        return None

    def _describe_old(self) -> str:
        """
        Return what the old process does after the restart.

        :raises CommandError: when the new process has ended meanwhile, and the old one serves.
        """
        counts = None
        with contextlib.suppress(CommandError):
            counts = self._observer.receive()
        if isinstance(counts, RestartFailed):
            raise CommandError(f"the new process has served, but {counts.reason}; {self._fate}")
        if not isinstance(counts, Moved):
            return f"process {self._old} drains its connections"
        connections = "connection" if counts.draining == 1 else "connections"
        return f"process {self._old} drains {counts.draining} {connections}"

    def _old_has_ended(self) -> None:
        """Ask the new process, which may go on alone, and is not ended here."""
        has_ended = f"process {self._old} has ended"
        if self._fate == has_ended:
            raise CommandError(f"{self._program.name} does not serve; {has_ended}")
        self._fate = has_ended
        self._program.keep()
        self._poll.unregister(self._observer)
        try:
            self._observer.find_successor()
        except CommandError:
            raise CommandError(f"{has_ended}, and no process has taken over") from None
        self._poll.register(self._observer, select.POLLIN)


def _environment_of(process: Path) -> dict[str, str]:
    try:
        entries = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}


def _unit_of(process: Path) -> str | None:
    """Return the unit of systemd that a process belongs to; None for none."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" or controllers == "name=systemd":
            units = [each for each in path.split("/") if each.endswith((".service", ".scope"))]
            if units:
                return units[-1]
    return None
