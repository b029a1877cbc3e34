"""The workers of a process, with processes that are not real."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.services.workers.fake_processes import FakeProcess
from twsock.services.workers.messages import WorkerCommand
from twsock.services.workers.parent import MEASURE_TIMEOUT, STOP_MARGIN, Workers
from twsock.services.workers.process import WorkerProcess

KEPT = "; no further worker is replaced, and the running workers go on"


class ParentCase(SynchronousTestCase):
    """A parent with two workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.started: list[FakeProcess] = []
        self.cannot_start = False
        self.workers = Workers(self.clock, 2, self.start_process, drain_timeout=10)
        self.lines: list[str] = []
        observer: Any = self.observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def observe(self, event: dict[str, Any]) -> None:
        if event["log_level"].name == "error":
            self.lines.append(event["log_format"].format(**event))

    def start_process(self, worker: WorkerProcess) -> None:
        if self.cannot_start:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.started.append(FakeProcess(worker, 100 + len(self.started)))

    def run_both(self) -> None:
        """Start both workers."""
        self.workers.start()
        for process in self.started:
            process.be_ready()

    def numbers(self) -> dict[str, float]:
        """Return the counter of each worker."""
        return {each.labels["worker"]: each.value for each in self.workers.measure()}


class LifeTests(ParentCase):
    """Workers start, serve and die."""

    def test_a_process_is_ready_when_all_workers_are(self) -> None:
        """Not before, and not while one is missing."""
        self.workers.start()
        ready = [self.workers.is_ready]
        for process in self.started:
            process.be_ready()
            ready.append(self.workers.is_ready)
        self.started[0].die()
        ready.append(self.workers.is_ready)
        self.assertEqual(ready, [False, False, True, False])

    def test_a_dead_worker_is_replaced_after_a_pause(self) -> None:
        """Its number is the same; one line says what happened."""
        self.run_both()
        self.started[1].die()
        self.assertEqual(self.lines, ["worker 2 was killed by SIGKILL; the next one starts in 1 s"])
        self.clock.advance(0.9)
        self.assertEqual(len(self.started), 2)
        self.clock.advance(0.1)
        self.assertEqual(self.started[2].worker.number, 2)
        self.started[2].be_ready()
        self.assertTrue(self.workers.is_ready)

    def test_the_pause_of_a_worker_that_dies_at_its_start_grows(self) -> None:
        """One line each time; the other worker serves on."""
        self.run_both()
        for pause in (1, 2, 4):
            self.started[-1].fail("no such file")
            self.clock.advance(pause - 0.01)
            before = len(self.started)
            self.clock.advance(0.01)
            self.assertEqual(len(self.started), before + 1, pause)
        self.assertEqual(
            self.lines,
            [
                f"worker 2 cannot start: no such file; the next one starts in {pause} s"
                for pause in (1, 2, 4)
            ],
        )

    def test_a_process_that_cannot_be_started_is_tried_again(self) -> None:
        """The machine may have no room for it."""
        self.cannot_start = True
        self.workers.start()
        self.assertEqual(len(self.lines), 2)
        self.assertIn("worker 1 cannot be started: ", self.lines[0])
        self.cannot_start = False
        self.clock.advance(1)
        self.assertEqual(len(self.started), 2)
        self.started[0].be_ready()
        self.cannot_start = True
        self.workers.replace()
        self.assertIn("no further worker is replaced", self.lines[-1])


class ReplacementTests(ParentCase):
    """SIGHUP replaces the workers one by one."""

    def test_a_worker_stops_when_its_successor_is_ready(self) -> None:
        """The next one follows; the process is ready all the time."""
        self.run_both()
        first, second = self.started
        self.workers.replace()
        self.assertEqual(first.commands, [])
        self.started[2].be_ready()
        self.assertEqual(first.commands, [WorkerCommand.STOP])
        self.assertTrue(self.workers.is_ready)
        # The first one still drains.
        self.assertEqual([self.started[3].worker.number, second.commands], [2, []])
        self.started[3].be_ready()
        self.assertEqual(second.commands, [WorkerCommand.STOP])
        first.end()
        second.end()
        self.assertTrue(self.workers.is_ready)
        self.assertEqual([len(self.started), self.lines], [4, []])

    def test_a_replacement_ends_the_pause_of_a_dead_worker(self) -> None:
        """The user has corrected what was wrong; the other worker is replaced meanwhile."""
        self.run_both()
        self.started[0].die()
        self.workers.replace()
        successor, started = self.started[2:]
        self.assertEqual([successor.worker.number, started.worker.number], [2, 1])
        started.be_ready()
        self.assertEqual(self.started[1].commands, [])
        successor.be_ready()
        self.assertEqual(self.started[1].commands, [WorkerCommand.STOP])
        self.clock.advance(1)
        self.assertEqual(len(self.started), 4)

    def test_a_successor_that_cannot_start_ends_the_replacement(self) -> None:
        """The old workers go on."""
        self.run_both()
        self.workers.replace()
        self.started[2].fail("no such file")
        self.assertTrue(self.workers.is_ready)
        self.assertEqual([each.commands for each in self.started[:2]], [[], []])
        self.assertEqual(
            self.lines,
            ["worker 1 cannot start: no such file" + KEPT],
        )
        self.workers.replace()
        self.started[3].be_ready()
        self.assertEqual(self.started[0].commands, [WorkerCommand.STOP])

    def test_the_successor_of_a_worker_that_dies_takes_its_place(self) -> None:
        """No third one is started."""
        self.run_both()
        self.workers.replace()
        self.started[0].die()
        self.assertEqual(self.lines, ["worker 1 was killed by SIGKILL; its successor is starting"])
        self.started[2].be_ready()
        self.clock.advance(100)
        self.assertEqual([each.worker.number for each in self.started], [1, 2, 1, 2])

    def test_an_old_worker_that_does_not_end_is_killed(self) -> None:
        """After its drain."""
        self.run_both()
        self.workers.replace()
        self.started[2].be_ready()
        self.clock.advance(10 + STOP_MARGIN)
        self.assertTrue(self.started[0].is_killed)
        self.started[0].die()
        self.assertEqual(self.lines, ["worker 1 did not end within 15 s, and was killed"])


class StopTests(ParentCase):
    """SIGTERM drains all workers."""

    def test_a_stop_ends_with_the_last_process(self) -> None:
        """In any order; an orderly end is no line."""
        self.run_both()
        stopped = self.workers.stop()
        self.assertEqual([each.commands for each in self.started], [[WorkerCommand.STOP]] * 2)
        self.started[1].end()
        self.assertNoResult(stopped)
        self.started[0].end()
        self.successResultOf(stopped)
        self.assertEqual([self.lines, self.clock.getDelayedCalls()], [[], []])

    def test_a_stop_ends_starting_draining_and_missing_workers(self) -> None:
        """Two of the first slot, none of the second."""
        self.run_both()
        self.workers.replace()
        self.started[2].be_ready()
        self.started[1].die()
        self.started[3].die()
        stopped = self.workers.stop()
        self.assertEqual(self.started[0].commands, [WorkerCommand.STOP])
        self.started[0].end()
        self.assertNoResult(stopped)
        self.started[2].be_ready()
        self.started[2].end()
        self.successResultOf(stopped)
        self.clock.advance(100)
        self.assertEqual(len(self.started), 4)

    def test_a_replacement_during_a_stop_is_ignored(self) -> None:
        """A successor would have no socket to serve."""
        self.run_both()
        self.workers.stop()
        lines: list[str] = []
        observer: Any = lambda event: lines.append(event["log_format"])  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.workers.replace()
        self.assertEqual((len(self.started), lines), (2, []))

    def test_a_stop_before_the_start_ends_at_once(self) -> None:
        """No process was started."""
        self.successResultOf(self.workers.stop())

    def test_a_second_signal_hurries(self) -> None:
        """Before the stop, the workers are hurried when it comes."""
        self.run_both()
        self.workers.stop()
        self.workers.hurry()
        self.assertEqual(self.started[0].commands, [WorkerCommand.STOP, WorkerCommand.HURRY])
        self.setUp()
        self.run_both()
        self.workers.hurry()
        self.assertEqual(self.started[0].commands, [])
        self.workers.stop()
        self.assertEqual(self.started[0].commands, [WorkerCommand.HURRY])

    def test_a_third_signal_kills(self) -> None:
        """The parent ends at once then, and leaves no process."""
        self.run_both()
        self.workers.stop()
        self.workers.kill()
        self.assertTrue(all(each.is_killed for each in self.started))

    def test_a_worker_that_dies_while_it_drains_is_a_line(self) -> None:
        """Its connections were lost."""
        self.run_both()
        self.workers.stop()
        self.started[0].die()
        self.assertEqual(self.lines, ["worker 1 was killed by SIGKILL"])


class NumberTests(ParentCase):
    """The numbers of all workers."""

    def test_workers_are_asked_for_their_numbers(self) -> None:
        """The request ends with the last answer."""
        self.run_both()
        refreshed = self.workers.refresh()
        self.started[0].measured(3)
        self.assertNoResult(refreshed)
        self.started[1].measured(4)
        self.successResultOf(refreshed)
        self.assertEqual(self.numbers(), {"1": 3, "2": 4})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_worker_that_does_not_answer_is_not_waited_for(self) -> None:
        """Its last numbers are used, and it is not asked twice."""
        self.run_both()
        refreshed = self.workers.refresh()
        self.started[0].measured(3)
        self.clock.advance(MEASURE_TIMEOUT)
        self.successResultOf(refreshed)
        self.assertEqual(self.numbers(), {"1": 3})
        self.workers.refresh()
        asked = [each.commands.count(WorkerCommand.MEASURE) for each in self.started]
        self.assertEqual(asked, [2, 1])

    def test_without_workers_there_is_nothing_to_wait_for(self) -> None:
        """One that starts has no numbers."""
        self.workers.start()
        self.successResultOf(self.workers.refresh())

    def test_an_ended_worker_is_not_waited_for(self) -> None:
        """Its counters stay."""
        self.run_both()
        self.workers.refresh()
        for process in self.started:
            process.measured(3)
        refreshed = self.workers.refresh()
        self.started[0].measured(5)
        self.started[1].die()
        self.successResultOf(refreshed)
        self.assertEqual(self.numbers(), {"1": 5, "2": 3})

    def test_the_final_numbers_of_a_worker_stay(self) -> None:
        """They are added to those of its successor."""
        self.run_both()
        self.workers.replace()
        self.started[2].be_ready()
        self.started[2].measured(1)
        self.started[0].measured(7, is_final=True)
        self.started[0].end()
        self.assertEqual(self.numbers(), {"1": 8})
