"""A worker's side of the pipes to its parent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.services.workers.fake_processes import counted
from twsock.services.measurements import Measurement
from twsock.services.workers.link import ParentLink, link_to_parent, report_failure
from twsock.services.workers.messages import (
    WorkerCommand,
    WorkerFailed,
    WorkerMeasured,
    WorkerReady,
    WorkerReport,
    encode_command,
    parse_report,
)


class Service:
    """Records what the parent wants."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.stopped: Deferred[None] = Deferred()

    def measure(self) -> Iterable[Measurement]:
        return [counted(3)]

    def stop(self) -> None:
        self.calls.append("stop")
        if not self.stopped.called:
            self.stopped.callback(None)

    def hurry(self) -> None:
        self.calls.append("hurry")

    def parent_ended(self) -> None:
        self.calls.append("parent ended")


class Pipes(StringTransport):
    """The transport of both pipes."""

    def __init__(self) -> None:
        super().__init__()
        self.lose_output: Callable[[], object] = list

    def loseWriteConnection(self) -> None:
        self.lose_output()


class LinkTests(SynchronousTestCase):
    """Commands and reports."""

    def setUp(self) -> None:
        self.service = Service()
        self.link = ParentLink(self.service)
        self.transport = Pipes()
        self.transport.lose_output = self.link.writeConnectionLost
        self.link.makeConnection(self.transport)

    def reports(self) -> list[WorkerReport]:
        """Return what was sent."""
        return [parse_report(line) for line in self.transport.value().splitlines()]

    def test_both_ends_are_reported_apart(self) -> None:
        """The reports of a stop follow the end of the commands."""
        self.assertTrue(verifyObject(IHalfCloseableProtocol, self.link))

    def test_commands_are_obeyed(self) -> None:
        """In any pieces."""
        for byte in b"".join(map(encode_command, WorkerCommand)):
            self.link.dataReceived(bytes([byte]))
        self.assertEqual(self.reports(), [WorkerMeasured((counted(3),), is_final=False)])
        self.assertEqual(self.service.calls, ["stop", "hurry", "stop"])

    def test_a_worker_reports_that_it_serves(self) -> None:
        """Once it does."""
        self.link.report_ready()
        self.assertEqual(self.reports(), [WorkerReady()])

    def test_the_end_of_the_parent_stops_the_worker_once(self) -> None:
        """Whichever pipe ends first."""
        self.link.readConnectionLost()
        self.link.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.service.calls, ["parent ended", "stop"])

    def test_an_unknown_command_stops_the_worker(self) -> None:
        """Nothing that follows is obeyed."""
        self.link.dataReceived(b"hello\n" + encode_command(WorkerCommand.HURRY))
        self.assertEqual(self.service.calls, ["parent ended", "stop"])

    def test_the_final_numbers_are_flushed(self) -> None:
        """Then the pipe is closed."""
        self.successResultOf(self.link.finish())
        self.assertEqual(self.reports(), [WorkerMeasured((counted(3),), is_final=True)])

    def test_a_wait_for_the_flush_ends_with_the_parent(self) -> None:
        """Nobody reads the numbers then."""
        self.transport.lose_output = list
        flushed = self.link.finish()
        self.assertNoResult(flushed)
        self.link.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(flushed)


class PipeTests(TestCase):
    """The pipes of a process."""

    async def test_a_closed_pipe_is_the_end_of_the_parent(self) -> None:
        """The last numbers are still sent."""
        commands, theirs = os.pipe()
        ours, reports = os.pipe()
        service = Service()
        os.set_inheritable(commands, True)
        os.set_inheritable(reports, True)
        link = link_to_parent(reactor, service, commands, reports)
        # Programs that the worker starts do not keep them open.
        self.assertFalse(os.get_inheritable(commands) or os.get_inheritable(reports))
        os.close(theirs)
        await service.stopped
        await link.finish()
        sent = os.read(ours, 10_000)
        self.assertEqual(parse_report(sent), WorkerMeasured((counted(3),), is_final=True))
        # `StandardIO` leaves both open, as a process has no other end of them.
        for descriptor in (commands, reports, ours):
            os.close(descriptor)
        self.assertEqual(service.calls, ["parent ended", "stop"])

    def test_a_failed_start_is_reported_before_the_reactor_runs(self) -> None:
        """Without a parent, the worker prints the line itself."""
        ours, reports = os.pipe()
        self.assertTrue(report_failure("no such file", reports))
        self.assertEqual(parse_report(os.read(ours, 1000)), WorkerFailed("no such file"))
        for descriptor in (ours, reports):
            os.close(descriptor)
        self.assertFalse(report_failure("no such file", reports))
