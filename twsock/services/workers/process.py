"""
One worker as the parent sees it: pipes → **worker process** → owner.

The pipes of a worker have fixed descriptors. `LOG_PIPE` and `ERROR_PIPE` are its standard output
and error, `COMMAND_PIPE` and `REPORT_PIPE` have the lines of `twsock.services.workers.messages`.
Its sockets follow, from `FIRST_SOCKET` on. Each wait for a worker ends: after a timeout the worker
is killed. Holds an incomplete line of each pipe, and the last lines of standard error until the
worker is ready.
"""

from __future__ import annotations

import contextlib
import signal
import typing
from collections import deque
from typing import Any, Final

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import RemoteProtocolError
from twsock.log import TextLogger
from twsock.services.workers.logs import LogLines, log_line
from twsock.services.workers.messages import (
    MAX_MESSAGE,
    WorkerCommand,
    WorkerFailed,
    WorkerMeasured,
    WorkerReady,
    encode_command,
    parse_report,
)
from twsock.wire.lines import LineDecoder

__all__ = [
    "COMMAND_PIPE",
    "ERROR_PIPE",
    "FIRST_SOCKET",
    "LOG_PIPE",
    "PIPE_TIME",
    "REPORT_PIPE",
    "START_TIMEOUT",
    "WorkerOwner",
    "WorkerProcess",
]

#: The descriptor of a worker for its log: its standard output.
LOG_PIPE: Final = 1

#: The descriptor of a worker for errors that are not in its log.
ERROR_PIPE: Final = 2

#: The descriptor of a worker from which it reads commands.
COMMAND_PIPE: Final = 3

#: The descriptor of a worker to which it writes reports.
REPORT_PIPE: Final = 4

#: The descriptor of the first socket of a worker.
FIRST_SOCKET: Final = 5

#: Seconds within which a worker has to be ready; loading a program takes about one.
START_TIMEOUT: Final = 60.0

#: Seconds from the end of a worker until its pipes are closed. Programs that the worker has started
#: keep its output open, as long as they run.
PIPE_TIME: Final = 1.0

#: Seconds within which a worker ends that aborts its connections.
_HURRY_TIMEOUT: Final = 5.0

#: Lines of standard error that are held until the worker is ready: a traceback.
_HELD_LINES: Final = 50


class WorkerOwner(typing.Protocol):
    """The parent, as a worker reports to it; its methods raise no exception."""

    def worker_ready(self, worker: WorkerProcess) -> None:
        """Handle the report that a worker serves."""

    def worker_measured(self, worker: WorkerProcess, report: WorkerMeasured) -> None:
        """Handle the numbers of a worker."""

    def worker_ended(self, worker: WorkerProcess, how: str) -> None:
        """
        Handle the end of the process; all its reports were handled before.

        :param how: continues a sentence about the worker, such as "was killed by SIGKILL".
        """


class WorkerProcess(ProcessProtocol):
    """
    One process of a slot.

    :param clock: measures the timeouts.
    :param number: that of the slot, from 1.

    :ivar started: when it was started, in seconds of the clock.
    :ivar is_ready: whether it serves.
    :ivar ended_in_order: whether the process has ended with status 0.
    """

    _log = TextLogger()

    def __init__(self, clock: IReactorTime, owner: WorkerOwner, number: int) -> None:
        self._clock = clock
        self._owner = owner
        self.number = number
        self.started = clock.seconds()
        self.is_ready = False
        self.ended_in_order = False
        self.pid = 0
        self._has_ended = False
        self._is_stopped = False
        self._closing: IDelayedCall | None = None
        self._reason = ""
        self._decoder = LineDecoder(MAX_MESSAGE)
        self._logs = LogLines()
        self._errors = LogLines()
        self._held: deque[str] | None = deque(maxlen=_HELD_LINES)
        self._deadline: IDelayedCall | None = clock.callLater(
            START_TIMEOUT, self._expired, f"was not ready within {START_TIMEOUT:g} s"
        )

    # Called by the parent.

    def measure(self) -> None:
        """Ask for a report of the numbers."""
        self._send(WorkerCommand.MEASURE)

    def stop(self, timeout: float) -> None:
        """
        Stop listening, drain and end.

        :param timeout: seconds until the process is killed.
        """
        self._send(WorkerCommand.STOP)
        self._expect_end(timeout)

    def hurry(self) -> None:
        """Abort all connections and end."""
        self._send(WorkerCommand.HURRY)
        self._expect_end(_HURRY_TIMEOUT)

    def abandon(self) -> None:
        """Stop the timer of a process that could not be started."""
        self._cancel_deadline()

    def kill(self) -> None:
        """End the process now."""
        transport: Any = self.transport
        try:
            transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass  # Its end is about to be reported.

    # Called by Twisted.

    @override
    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.pid = transport.pid

    @override
    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == LOG_PIPE:
            for line in self._logs.feed(data):
                log_line(line, self.number)
        elif childFD == ERROR_PIPE:
            for line in self._errors.feed(data):
                self._handle_error_line(line)
        else:
            self._handle_reports(data)

    @override
    def processExited(self, reason: Failure) -> None:
        """Close the pipes after `PIPE_TIME`; most end at once."""
        self._has_ended = True
        self._cancel_deadline()
        self._closing = self._clock.callLater(PIPE_TIME, self._close_pipes)

    def _close_pipes(self) -> None:
        self._closing = None
        transport: Any = self.transport
        for descriptor in (LOG_PIPE, ERROR_PIPE, COMMAND_PIPE, REPORT_PIPE):
            transport.closeChildFD(descriptor)

    @override
    def processEnded(self, reason: Failure) -> None:
        """Report the end; all pipes have ended before."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        for line in self._logs.end():
            log_line(line, self.number)
        for line in self._errors.end():
            self._handle_error_line(line)
        self.ended_in_order = getattr(reason.value, "exitCode", None) == 0
        self._owner.worker_ended(self, self._describe_end(reason.value))

    def _handle_error_line(self, line: str) -> None:
        if self._held is None:
            log_line(line, self.number, LogLevel.warn)
        else:
            self._held.append(line)

    def _handle_reports(self, data: bytes) -> None:
        if self._reason:
            return
        self._decoder.feed(data)
        try:
            for line in self._decoder.lines():
                self._handle_report(parse_report(line))
        except RemoteProtocolError as error:
            self._expired(f"sent a line that the parent cannot read ({error})")

    def _handle_report(self, report: WorkerReady | WorkerFailed | WorkerMeasured) -> None:
        if isinstance(report, WorkerFailed):
            self._reason = f"cannot start: {report.reason}"
        elif isinstance(report, WorkerMeasured):
            self._owner.worker_measured(self, report)
        elif not self.is_ready:
            self.is_ready = True
            self._cancel_deadline()
            self._release_held()
            self._owner.worker_ready(self)

    def _release_held(self) -> None:
        held, self._held = self._held or (), None
        for line in held:
            log_line(line, self.number, LogLevel.warn)

    def _describe_end(self, error: BaseException | None) -> str:
        if self._held and not self._reason:
            # The last line of a traceback, or the one line for the user.
            self._reason = f"cannot start: {self._held.pop()}"
        if not self._is_stopped:
            self._release_held()
        number = getattr(error, "signal", None)
        status = getattr(error, "exitCode", None)
        if self._reason:
            return self._reason
        if number is not None:
            return f"was killed by {_name_of(number)}"
        return f"ended with status {status}"

    def _expect_end(self, timeout: float) -> None:
        self._is_stopped = True
        self._cancel_deadline()
        text = f"did not end within {timeout:g} s"
        self._deadline = None if self._has_ended else self._later(timeout, text)

    def _later(self, timeout: float, text: str) -> IDelayedCall:
        return self._clock.callLater(timeout, self._expired, text)

    def _expired(self, text: str) -> None:
        self._cancel_deadline()
        self._reason = f"{text}, and was killed"
        self.kill()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _send(self, command: WorkerCommand) -> None:
        transport: Any = self.transport
        # The pipe has no entry any more if the worker has closed it, and is about to end.
        with contextlib.suppress(KeyError):
            transport.writeToChild(COMMAND_PIPE, encode_command(command))


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
