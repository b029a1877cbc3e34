"""Processes of workers without a kernel, for the tests of the parent."""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure

from twsock.services.measurements import Kind, Measurement
from twsock.services.workers.messages import (
    WorkerCommand,
    WorkerFailed,
    WorkerMeasured,
    WorkerReady,
    WorkerReport,
    encode_report,
    parse_command,
)
from twsock.services.workers.process import (
    COMMAND_PIPE,
    ERROR_PIPE,
    LOG_PIPE,
    REPORT_PIPE,
    WorkerProcess,
)

__all__ = ["FakeProcess", "counted"]


class FakeProcess:
    """
    The transport of a worker; the test decides what the process does.

    :ivar commands: what it has received.
    """

    def __init__(self, worker: WorkerProcess, pid: int) -> None:
        self.worker = worker
        self.pid = pid
        self.commands: list[WorkerCommand] = []
        self.is_closed = False
        self.has_ended = False
        self.is_killed = False
        worker.makeConnection(self)

    # What the parent calls.

    def writeToChild(self, descriptor: int, data: bytes) -> None:  # noqa: N802
        assert descriptor == COMMAND_PIPE
        if self.is_closed:
            raise KeyError(descriptor)
        self.commands += [parse_command(line) for line in data.splitlines()]

    def signalProcess(self, name: str) -> None:  # noqa: N802
        assert name == "KILL"
        if self.has_ended:
            raise ProcessExitedAlready
        self.is_killed = True

    def closeChildFD(self, descriptor: int) -> None:  # noqa: N802
        self._open.remove(descriptor)
        if not self._open:
            self.worker.processEnded(self._reason)

    # What the process does.

    def log(self, text: str) -> None:
        """Write on its standard output."""
        self.worker.childDataReceived(LOG_PIPE, text.encode())

    def print_error(self, text: str) -> None:
        """Write on its standard error."""
        self.worker.childDataReceived(ERROR_PIPE, text.encode())

    def report(self, report: WorkerReport) -> None:
        """Send a report."""
        self.send(encode_report(report))

    def send(self, data: bytes) -> None:
        """Send bytes in place of a report."""
        self.worker.childDataReceived(REPORT_PIPE, data)

    def be_ready(self) -> None:
        """Serve."""
        self.report(WorkerReady())

    def fail(self, reason: str) -> None:
        """End at the start."""
        self.report(WorkerFailed(reason))
        self.end(status=1)

    def measured(self, count: int, *, is_final: bool = False) -> None:
        """Report a number."""
        self.report(WorkerMeasured((counted(count),), is_final))

    def end(self, status: int = 0, killed_by: int | None = None) -> None:
        """End by itself, with a status or by a signal."""
        self.is_closed = True
        self.exit(status, killed_by)
        self.worker.processEnded(self._reason)

    def exit(self, status: int = 0, killed_by: int | None = None) -> None:
        """End while another program keeps the pipes open; the kernel closes none of them."""
        self.has_ended = True
        error: Any = ProcessDone(0)
        if status or killed_by is not None:
            error = ProcessTerminated(None if killed_by else status, killed_by)
        self._reason = Failure(error)
        self._open = {LOG_PIPE, ERROR_PIPE, COMMAND_PIPE, REPORT_PIPE}
        self.worker.processExited(self._reason)

    def die(self) -> None:
        """End as the kernel ends it after SIGKILL."""
        self.end(killed_by=signal.SIGKILL)


def counted(count: float) -> Measurement:
    """Return a counter."""
    return Measurement("twsock_connections", "Accepted.", Kind.COUNTER, {}, count)
