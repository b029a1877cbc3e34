"""One worker, as the parent sees it."""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.services.workers.fake_processes import FakeProcess, counted
from twsock.services.workers.messages import WorkerCommand, WorkerMeasured
from twsock.services.workers.process import PIPE_TIME, START_TIMEOUT, WorkerProcess


class Owner:
    """Records the reports."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def worker_ready(self, worker: WorkerProcess) -> None:
        self.reports.append("ready")

    def worker_measured(self, worker: WorkerProcess, report: WorkerMeasured) -> None:
        self.reports.append(report)

    def worker_ended(self, worker: WorkerProcess, how: str) -> None:
        self.reports.append(how)


class ProcessTests(SynchronousTestCase):
    """What the parent learns, and what it sends."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.owner = Owner()
        self.worker = WorkerProcess(self.clock, self.owner, 2)
        self.process = FakeProcess(self.worker, 100)
        self.lines: list[str] = []
        observer: Any = lambda event: self.lines.append(event.get("text", ""))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_a_worker_is_ready_once(self) -> None:
        """A second report changes nothing."""
        self.process.be_ready()
        self.process.be_ready()
        self.assertEqual(self.owner.reports, ["ready"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reports_may_arrive_in_pieces(self) -> None:
        """A pipe has no boundaries."""
        line = b'{"report":"measured","is_final":false,"values":[["twsock_connections","",'
        self.process.send(line)
        self.assertEqual(self.owner.reports, [])
        self.process.send(b'"counter","Accepted.",{},3]]}\n{"report":"ready"}\n')
        self.assertEqual(self.owner.reports, [WorkerMeasured((counted(3),), False), "ready"])

    def test_commands_are_sent_while_the_pipe_is_open(self) -> None:
        """Later ones are dropped: the process is about to end."""
        self.worker.measure()
        self.process.is_closed = True
        self.worker.measure()
        self.assertEqual(self.process.commands, [WorkerCommand.MEASURE])

    def test_a_worker_that_is_not_ready_in_time_is_killed(self) -> None:
        """Its end says why."""
        self.clock.advance(START_TIMEOUT - 0.1)
        self.assertFalse(self.process.is_killed)
        self.clock.advance(0.1)
        self.assertTrue(self.process.is_killed)
        self.process.die()
        self.assertEqual(
            self.owner.reports, [f"was not ready within {START_TIMEOUT:g} s, and was killed"]
        )

    def test_a_worker_that_does_not_stop_in_time_is_killed(self) -> None:
        """After its timeout."""
        self.process.be_ready()
        self.worker.stop(15)
        self.clock.advance(14.9)
        self.assertFalse(self.process.is_killed)
        self.clock.advance(0.1)
        self.assertTrue(self.process.is_killed)
        self.process.die()
        self.assertEqual(self.owner.reports[-1], "did not end within 15 s, and was killed")

    def test_a_hurried_worker_has_less_time(self) -> None:
        """It aborts its connections."""
        self.process.be_ready()
        self.worker.stop(15)
        self.worker.hurry()
        self.assertEqual(self.process.commands, [WorkerCommand.STOP, WorkerCommand.HURRY])
        self.clock.advance(5)
        self.assertTrue(self.process.is_killed)

    def test_an_ended_worker_leaves_no_timer(self) -> None:
        """Whatever it was waited for, and whatever it is sent then."""
        self.worker.stop(15)
        self.process.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.worker.stop(15)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.worker.kill()

    def test_the_end_is_reported_while_others_keep_the_pipes_open(self) -> None:
        """A program that the worker has started has its output, and may run for ever."""
        self.process.be_ready()
        self.process.exit(killed_by=signal.SIGKILL)
        self.worker.stop(15)
        self.assertEqual(self.owner.reports, ["ready"])
        self.clock.advance(PIPE_TIME)
        self.assertEqual(self.owner.reports, ["ready", "was killed by SIGKILL"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_worker_that_is_stopped_at_its_start_ends_quietly(self) -> None:
        """A traceback of a start that nobody waits for is not logged."""
        self.process.print_error("Traceback\nKeyboardInterrupt\n")
        self.worker.stop(15)
        self.process.end(status=1)
        self.assertEqual(self.lines, [])
        self.assertEqual(self.owner.reports, ["cannot start: KeyboardInterrupt"])

    def test_the_end_is_described(self) -> None:
        """By its status or signal."""
        for killed_by, how in (
            (None, "ended with status 3"),
            (signal.SIGSEGV, "was killed by SIGSEGV"),
            (63, "was killed by signal 63"),
        ):
            self.setUp()
            self.process.be_ready()
            self.process.end(status=3, killed_by=killed_by)
            self.assertEqual(self.owner.reports, ["ready", how])

    def test_a_failed_start_is_described_by_the_worker(self) -> None:
        """The line that a single process would print."""
        self.process.fail("cannot read the certificate")
        self.assertEqual(self.owner.reports, ["cannot start: cannot read the certificate"])

    def test_the_last_line_of_a_traceback_describes_a_failed_start(self) -> None:
        """The lines before it are logged."""
        self.process.print_error("Traceback:\n  line 1\nImportError: no module")
        self.process.end(status=1)
        self.assertEqual(self.owner.reports, ["cannot start: ImportError: no module"])
        self.assertEqual(self.lines, ["Traceback:", "  line 1"])

    def test_lines_of_a_running_worker_are_logged(self) -> None:
        """Those of its start as well, once it is ready."""
        self.process.print_error("a warning\n")
        self.process.log("started\n")
        self.assertEqual(self.lines, ["started"])
        self.process.be_ready()
        self.process.print_error("another\nunfinished")
        self.process.log("the last")
        self.process.end()
        expected = ["started", "a warning", "another", "the last", "unfinished"]
        self.assertEqual(self.lines, expected)

    def test_held_lines_are_bounded(self) -> None:
        """The last ones are kept."""
        self.process.print_error("".join(f"line {number}\n" for number in range(1000)))
        self.process.end(status=1)
        self.assertEqual(self.owner.reports, ["cannot start: line 999"])
        self.assertEqual(self.lines[0], "line 950")

    def test_a_line_that_is_no_report_ends_the_worker(self) -> None:
        """Nothing that follows is read."""
        for data in (b"hello\n", b"x" * (1024 * 1024 + 2)):
            self.setUp()
            self.process.send(data)
            self.process.be_ready()
            self.assertTrue(self.process.is_killed)
            self.process.die()
            (how,) = self.owner.reports
            self.assertIn("sent a line that the parent cannot read", how)
