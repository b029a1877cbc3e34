"""
The workers of a process: events of workers and signals → **parent** → actions.

The table of `twsock.services.workers.slot` decides what happens to each slot. This module does it:
it starts and stops processes, waits, and adds the numbers of the workers. Processes are started by
a function that the caller passes in. Holds the slots, with their processes, timers and sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.log import TextLogger
from twsock.services.measurements import Measurement
from twsock.services.workers.messages import WorkerMeasured
from twsock.services.workers.process import WorkerProcess
from twsock.services.workers.slot import Action, Event, Rollout, Slot, State
from twsock.services.workers.start import describe_error
from twsock.services.workers.totals import WorkerTotals
from twsock.waiters import Waiters

__all__ = ["MEASURE_TIMEOUT", "STOP_MARGIN", "Workers"]

#: Seconds that a request for numbers waits for the workers; then it gets their last ones.
MEASURE_TIMEOUT: Final = 1.0

#: Seconds from the end of the drain until a worker that has not ended is killed.
STOP_MARGIN: Final = 5.0


class _Place:
    """A slot, its processes, and its sums."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.slot = Slot()
        self.totals = WorkerTotals(str(number))
        self.current: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
        self.leaving: list[WorkerProcess] = []
        self.pause: IDelayedCall | None = None
        # What happened to the last worker, and how many seconds it ran.
        self.last_end = ""
        self.lifetime = 0.0

    @property
    def processes(self) -> list[WorkerProcess]:
        first = (self.current, self.successor)
        return [*(each for each in first if each is not None), *self.leaving]


class Workers:
    """
    Keeps a number of workers running.

    :param clock: measures pauses and timeouts.
    :param count: how many; 1 or more.
    :param start_process: starts the process of a worker; raises ``OSError`` if it cannot.
    :param drain_timeout: seconds that the connections of a worker may take to end.
    """

    _log = TextLogger()

    def __init__(
        self,
        clock: IReactorTime,
        count: int,
        start_process: Callable[[WorkerProcess], object],
        drain_timeout: float,
    ) -> None:
        self._clock = clock
        self._start_process = start_process
        self._stop_timeout = drain_timeout + STOP_MARGIN
        self._places = [_Place(number) for number in range(1, count + 1)]
        self._rollout = Rollout()
        self._is_stopped = False
        self._is_hurried = False
        # The processes that were asked for numbers and have not answered.
        self._asked: set[WorkerProcess] = set()
        self._answered = Waiters()
        self._ended = Waiters()
        self._first_ready = Waiters()

    @property
    def is_ready(self) -> bool:
        """Whether each slot has a worker that serves."""
        return all(place.slot.is_ready for place in self._places)

    @property
    def pids(self) -> list[int]:
        """The process ids of all workers, those that drain included."""
        return [worker.pid for place in self._places for worker in place.processes]

    def wait_until_ready(self) -> Deferred[None]:
        """Wait for the first time that all workers serve."""
        return self._first_ready.wait()

    def start(self) -> None:
        """Start a worker in each slot."""
        self._log.info("starting {count} workers", count=len(self._places))
        for place in self._places:
            self._handle(place, Event.START)

    def replace(self) -> None:
        """
        Replace all workers, one after the other; each serves until its successor is ready.

        A pause of a slot without a worker ends now: the user may have corrected what was wrong.
        Does nothing after `stop`.
        """
        if self._is_stopped:
            return
        self._log.info("replacing {count} workers, one by one", count=len(self._places))
        self._rollout.begin([place.slot for place in self._places])
        self._continue_rollout()
        for place in self._places:
            if place.pause is not None:
                place.pause.cancel()
                self._pause_over(place)

    def stop(self) -> Deferred[None]:
        """
        Stop all workers, which drain their connections.

        :returns: fires when no process is left.
        """
        self._is_stopped = True
        self._rollout.cancel()
        stopped = self._ended.wait()
        for place in self._places:
            self._handle(place, Event.STOP)
            self._check_end(place)
        return stopped

    def hurry(self) -> None:
        """Make workers that drain abort their connections; those that stop later do so at once."""
        self._is_hurried = True
        for place in self._places:
            if place.slot.state is State.STOPPING:
                for worker in place.processes:
                    worker.hurry()

    def kill(self) -> None:
        """End all processes now."""
        for place in self._places:
            for worker in place.processes:
                worker.kill()

    def measure(self) -> Iterator[Measurement]:
        """Return the numbers of all workers as they were last reported."""
        for place in self._places:
            yield from place.totals.measure()

    def refresh(self) -> Deferred[None]:
        """
        Ask all workers for their numbers.

        :returns: fires when all have answered, at the latest after `MEASURE_TIMEOUT`.
        """
        for place in self._places:
            for worker in place.processes:
                if worker.is_ready and worker not in self._asked:
                    self._asked.add(worker)
                    worker.measure()
        timeout = MEASURE_TIMEOUT if self._asked else 0
        return self._answered.wait_at_most(timeout, self._clock)

    # Called by workers.

    def worker_ready(self, worker: WorkerProcess) -> None:
        """Log that the worker serves, and continue the rollout."""
        place = self._place_of(worker)
        self._log.info("worker {number} serves: process {pid}", number=place.number, pid=worker.pid)
        if worker is place.current:
            self._handle(place, Event.READY)
        elif worker is place.successor:
            self._handle(place, Event.SUCCESSOR_READY)
        if self.is_ready:
            self._first_ready.fire()
        self._continue_rollout()

    def worker_measured(self, worker: WorkerProcess, report: WorkerMeasured) -> None:
        """Store its numbers."""
        self._place_of(worker).totals.update(worker.pid, report.values)
        if not report.is_final:
            self._has_answered(worker)

    def worker_ended(self, worker: WorkerProcess, how: str) -> None:
        """Keep its counters, and start the next one if it was not stopped."""
        place = self._place_of(worker)
        place.totals.end(worker.pid)
        self._has_answered(worker)
        self._remove(place, worker, how)
        self._check_end(place)
        self._continue_rollout()

    # What follows from events.

    def _handle(self, place: _Place, event: Event) -> None:
        for action in place.slot.handle(event):
            self.perform(action, place)

    def perform(self, action: Action, place: _Place) -> None:
        """Perform one action of the table."""
        steps: dict[Action, Callable[[_Place], None]] = {
            Action.START: self._start,
            Action.PAUSE: self._pause,
            Action.PROMOTE: self._promote,
            Action.KEEP: self._keep,
            Action.STOP: self._stop,
        }
        steps[action](place)

    def _start(self, place: _Place) -> None:
        worker = WorkerProcess(self._clock, self, place.number)
        is_successor = place.slot.state is State.REPLACING
        try:
            self._start_process(worker)
        except OSError as error:
            worker.abandon()
            place.last_end, place.lifetime = f"cannot be started: {describe_error(error)}", 0.0
            self._handle(place, Event.SUCCESSOR_DIED if is_successor else Event.DIED)
            return
        if is_successor:
            place.successor = worker
        else:
            place.current = worker

    def _pause(self, place: _Place) -> None:
        pause = place.slot.next_pause(place.lifetime)
        self._log.error(
            "worker {number} {end}; the next one starts in {pause:g} s",
            number=place.number,
            end=place.last_end,
            pause=pause,
        )
        place.pause = self._clock.callLater(pause, self._pause_over, place)

    def _pause_over(self, place: _Place) -> None:
        place.pause = None
        self._handle(place, Event.PAUSE_OVER)

    def _promote(self, place: _Place) -> None:
        old, place.current, place.successor = place.current, place.successor, None
        if old is None:
            self._log_end(place, "; its successor is starting")
        else:
            place.leaving.append(old)
            old.stop(self._stop_timeout)

    def _keep(self, place: _Place) -> None:
        self._rollout.cancel()
        self._log_end(place, "; no further worker is replaced, and the running workers go on")

    def _stop(self, place: _Place) -> None:
        if place.pause is not None:
            place.pause.cancel()
            place.pause = None
        for worker in place.processes:
            if self._is_hurried:
                worker.hurry()
            elif worker not in place.leaving:
                worker.stop(self._stop_timeout)

    def _remove(self, place: _Place, worker: WorkerProcess, how: str) -> None:
        place.last_end = how
        place.lifetime = self._clock.seconds() - worker.started
        if worker is place.current:
            place.current = None
            event = Event.DIED
        elif worker is place.successor:
            place.successor = None
            event = Event.SUCCESSOR_DIED
        else:
            place.leaving.remove(worker)
            self._log_unless_clean(place, worker)
            return
        if place.slot.state is State.STOPPING:
            self._log_unless_clean(place, worker)
        self._handle(place, event)

    def _continue_rollout(self) -> None:
        slot = self._rollout.next_slot([place.slot for place in self._places])
        if slot is not None:
            place = next(each for each in self._places if each.slot is slot)
            self._handle(place, Event.REPLACE)

    def _check_end(self, place: _Place) -> None:
        if place.slot.state is State.STOPPING and not place.processes:
            self._handle(place, Event.ENDED)
        if all(each.slot.state is State.ENDED for each in self._places):
            self._ended.fire()

    def _log_unless_clean(self, place: _Place, worker: WorkerProcess) -> None:
        if not worker.ended_in_order:
            self._log_end(place, "")

    def _log_end(self, place: _Place, then: str) -> None:
        self._log.error(
            "worker {number} {end}{then}", number=place.number, end=place.last_end, then=then
        )

    def _place_of(self, worker: WorkerProcess) -> _Place:
        return self._places[worker.number - 1]

    def _has_answered(self, worker: WorkerProcess) -> None:
        self._asked.discard(worker)
        if not self._asked:
            self._answered.fire()
