"""
A worker's side of the pipes to its parent: commands → **link** → service, numbers → parent.

The end of a pipe is the end of the parent. The worker then stops as for a command: it accepts what
is queued, drains its connections and ends. Holds an incomplete line of commands, and the reports
that the parent has not read: at most one for each command.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twsock.errors import RemoteProtocolError
from twsock.log import TextLogger
from twsock.services.measurements import Measurement
from twsock.services.workers.messages import (
    MAX_MESSAGE,
    WorkerCommand,
    WorkerFailed,
    WorkerMeasured,
    WorkerReady,
    WorkerReport,
    encode_report,
    parse_command,
)
from twsock.services.workers.process import COMMAND_PIPE, ERROR_PIPE, LOG_PIPE, REPORT_PIPE
from twsock.waiters import NO_WAIT, Waiters
from twsock.wire.lines import LineDecoder

__all__ = ["LinkedService", "ParentLink", "leave_log_of_parent", "link_to_parent", "report_failure"]


class LinkedService(typing.Protocol):
    """The service of a worker, as its parent commands it."""

    def measure(self) -> Iterable[Measurement]:
        """Return the numbers of the worker."""

    def stop(self) -> None:
        """Stop the process in order; called once or more."""

    def hurry(self) -> None:
        """End a running or later stop at once."""

    def parent_ended(self) -> None:
        """Handle the end of the parent; `stop` follows."""


@implementer(IHalfCloseableProtocol)
class ParentLink(Protocol):
    """The protocol of both pipes of a worker."""

    _log = TextLogger()

    def __init__(self, service: LinkedService) -> None:
        self._service = service
        self._decoder = LineDecoder(MAX_MESSAGE)
        self._has_parent = True
        self._flushed = Waiters()

    # Called by the service.

    def report_ready(self) -> None:
        """Report that the worker serves."""
        self._report(WorkerReady())

    def finish(self) -> Deferred[None]:
        """
        Report the final numbers of a worker that has stopped.

        :returns: fires when the parent's pipe has them, or when the parent has ended.
        """
        self._report(WorkerMeasured(tuple(self._service.measure()), is_final=True))
        flushed = self._flushed.wait()
        transport: Any = self.transport
        transport.loseWriteConnection()
        return flushed

    # Called by Twisted.

    @override
    def dataReceived(self, data: bytes) -> None:
        self._decoder.feed(data)
        try:
            for line in self._decoder.lines():
                self._obey(parse_command(line))
        except RemoteProtocolError as error:
            self._log.error("{error}; stopping", error=error)
            self._end()

    def readConnectionLost(self) -> None:
        """Stop, as the parent has ended."""
        self._end()

    def writeConnectionLost(self) -> None:
        """Report that the pipe was flushed, or that the parent has closed it."""
        flushed, self._flushed = self._flushed, NO_WAIT
        flushed.fire()

    @override
    def connectionLost(self, reason: Failure | None = None) -> None:
        """Both pipes have ended."""
        self.writeConnectionLost()
        self._end()

    def _obey(self, command: WorkerCommand) -> None:
        if command is WorkerCommand.MEASURE:
            self._report(WorkerMeasured(tuple(self._service.measure()), is_final=False))
        elif command is WorkerCommand.HURRY:
            self._service.hurry()
            self._service.stop()
        else:
            self._service.stop()

    def _report(self, report: WorkerReport) -> None:
        transport: Any = self.transport
        transport.write(encode_report(report))

    def _end(self) -> None:
        if self._has_parent:
            self._has_parent = False
            self._service.parent_ended()
            self._service.stop()


def link_to_parent(
    reactor: Any, service: LinkedService, commands: int = COMMAND_PIPE, reports: int = REPORT_PIPE
) -> ParentLink:
    """
    Read the commands of the parent from now on.

    :param commands: the descriptor of their pipe; the caller owns both.
    :param reports: the descriptor of the other pipe.
    """
    for descriptor in (commands, reports):
        os.set_inheritable(descriptor, False)
    link = ParentLink(service)
    make_transport: Any = StandardIO
    make_transport(link, commands, reports, reactor)
    return link


def report_failure(reason: str, reports: int = REPORT_PIPE) -> bool:
    """
    Report why the worker cannot start, before its reactor runs.

    :param reports: the descriptor of the pipe.
    :returns: whether the pipe has the report; False if there is no parent.
    """
    try:
        # A line of a kilobyte fits into the empty pipe.
        os.write(reports, encode_report(WorkerFailed(reason)))
    except OSError:
        return False
    return True


def leave_log_of_parent() -> None:
    """Write nothing more to the pipes of a parent that has ended: each write would fail."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (LOG_PIPE, ERROR_PIPE):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
