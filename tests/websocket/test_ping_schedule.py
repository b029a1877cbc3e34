"""A schedule wakes many sleepers with one delayed call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock.websocket.ping_schedule import PingSchedule


class Sleeper:
    """Notes when it is woken, and sleeps again if it has to."""

    def __init__(self, clock: Clock, schedule: PingSchedule, *times: float) -> None:
        self.clock = clock
        self.schedule = schedule
        self.times = [*times]
        self.woken: list[float] = []
        self.sleep()

    def sleep(self) -> None:
        """Sleep until the next time."""
        if self.times:
            self.number = self.schedule.add(self, self.times.pop(0))

    def wake(self) -> None:
        """Note the time."""
        self.woken.append(self.clock.seconds())
        self.sleep()


class ScheduleTests(SynchronousTestCase):
    """Rounds of a second: the interval is 16 seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.schedule = PingSchedule(self.clock, 16)

    def test_sleepers_are_woken_at_the_end_of_their_rounds(self) -> None:
        """At their time if that is the end of a round, and not before it."""
        first = Sleeper(self.clock, self.schedule, 3, 4.5)
        second = Sleeper(self.clock, self.schedule, 2.25)
        self.clock.pump([0.25] * 40)
        self.assertEqual((first.woken, second.woken), ([3, 5], [3]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_sleepers_need_one_delayed_call(self) -> None:
        """The call is for the earliest sleeper; without a sleeper there is no call."""
        sleepers = [Sleeper(self.clock, self.schedule, 9 - n / 10) for n in range(90)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for sleeper in sleepers:
            self.schedule.remove(sleeper, sleeper.number)
            self.schedule.remove(sleeper, sleeper.number)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sleeper_may_remove_others(self) -> None:
        """Sleepers of its own round are woken once; sleepers of a later round are not."""

        class Removing(Sleeper):
            def wake(self) -> None:
                super().wake()
                for sleeper in sleepers:
                    self.schedule.remove(sleeper, sleeper.number)

        sleepers: list[Sleeper] = []
        sleepers += [Removing(self.clock, self.schedule, time) for time in (1, 1, 2, 7)]
        self.clock.advance(5)
        self.assertEqual([sleeper.woken for sleeper in sleepers], [[5], [5], [], []])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failed_sleeper_does_not_stop_the_others(self) -> None:
        """Its error is logged."""

        class Failing(Sleeper):
            def wake(self) -> None:
                raise RuntimeError("no")

        Failing(self.clock, self.schedule, 1)
        other = Sleeper(self.clock, self.schedule, 1)
        self.clock.advance(1)
        self.assertEqual(other.woken, [1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_time_in_the_past_is_the_next_round(self) -> None:
        """A sleeper that asks for the time at which it is woken does not keep the schedule busy."""
        sleeper = Sleeper(self.clock, self.schedule, 1, 1, 1)
        self.clock.pump([1] * 5)
        self.assertEqual(sleeper.woken, [1, 2, 3])

    @given(
        st.lists(st.floats(0, 100), min_size=1, max_size=20),
        st.floats(0.1, 50),
        st.lists(st.floats(0.01, 20), min_size=1, max_size=50),
    )
    def test_nobody_is_woken_early_or_forgotten(
        self, times: list[float], interval: float, steps: list[float]
    ) -> None:
        """Each sleeper is woken once, within one round, whatever the steps of the clock."""
        clock = Clock()
        schedule = PingSchedule(clock, interval)
        sleepers = {time: Sleeper(clock, schedule, time) for time in times}
        clock.pump([*steps, 100, 100])
        for time, sleeper in sleepers.items():
            self.assertEqual(len(sleeper.woken), 1)
            self.assertGreaterEqual(sleeper.woken[0] + 1e-9, time)
        self.assertEqual(clock.getDelayedCalls(), [])
