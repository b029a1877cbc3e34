"""Several callers wait for one event, and each can cancel its wait."""

from __future__ import annotations

import random

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.work import count_comparisons
from twsock.waiters import NO_WAIT, Waiters


class WaitersTests(SynchronousTestCase):
    """Waits for one event."""

    def setUp(self) -> None:
        self.waiters = Waiters()
        self.order: list[int] = []

    def wait(self, number: int) -> Deferred[None]:
        return self.waiters.wait().addCallback(lambda _: self.order.append(number))

    def test_an_event_fires_all_waits_in_order(self) -> None:
        """No wait is left afterwards."""
        for number in range(3):
            self.wait(number)
        self.assertEqual(len(self.waiters), 3)
        self.waiters.fire()
        self.assertEqual(self.order, [0, 1, 2])
        self.assertEqual(len(self.waiters), 0)
        self.waiters.fire()

    def test_a_cancelled_wait_is_not_fired(self) -> None:
        """The other waits are fired."""
        waits = [self.wait(number) for number in range(3)]
        waits[1].cancel()
        self.failureResultOf(waits[1], CancelledError)
        self.waiters.fire()
        self.assertEqual(self.order, [0, 2])

    def test_a_callback_may_cancel_other_waits(self) -> None:
        """The cancelled waits are not fired; later ones are."""
        first = self.waiters.wait()
        second, third = self.wait(2), self.wait(3)
        second.addErrback(lambda _: None)
        first.addCallback(lambda _: second.cancel())
        self.waiters.fire()
        self.assertEqual(self.order, [3])
        self.successResultOf(third)

    def test_a_wait_started_by_a_callback_is_fired(self) -> None:
        """The event has occurred for it, too."""
        self.wait(1).addCallback(lambda _: self.wait(2))
        self.waiters.fire()
        self.assertEqual(self.order, [1, 2])

    def test_one_wait_can_be_fired_before_the_event(self) -> None:
        """For example at a deadline; the others stay pending."""
        early = self.waiters.wait()
        self.wait(1)
        self.waiters.fire_one(early)
        self.successResultOf(early)
        self.assertEqual(self.order, [])
        self.assertEqual(len(self.waiters), 1)

    def test_cancelling_takes_constant_time(self) -> None:
        """No wait is compared with another, in any order of cancelling."""
        for shuffle in (list.reverse, random.Random(11).shuffle):
            waits = [self.waiters.wait().addErrback(lambda _: None) for _ in range(1000)]
            shuffle(waits)
            with count_comparisons() as comparisons:
                for wait in waits:
                    wait.cancel()
            self.assertLess(comparisons.value, 1000, shuffle)
            self.assertEqual(len(self.waiters), 0, shuffle)

    def test_a_wait_with_a_timeout_ends_with_the_event_or_the_timeout(self) -> None:
        """No timer is left, and other waits continue. A timeout of 0 fires at once."""
        clock = Clock()
        first, second = (self.waiters.wait_at_most(seconds, clock) for seconds in (2, 3))
        clock.advance(2)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.waiters.fire()
        self.successResultOf(second)
        for seconds in (0, -1):
            self.successResultOf(self.waiters.wait_at_most(seconds, clock))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_cancelled_wait_with_a_timeout_leaves_no_timer(self) -> None:
        """The event does not fire the cancelled wait."""
        clock = Clock()
        waiting = self.waiters.wait_at_most(2, clock)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(len(self.waiters), 0)


class NoWaitTests(SynchronousTestCase):
    """`NO_WAIT` stands for an event that has occurred."""

    def test_each_wait_has_fired(self) -> None:
        """`NO_WAIT` holds no entry for a wait."""
        self.assertIsNone(self.successResultOf(NO_WAIT.wait()))
        self.assertEqual(len(NO_WAIT), 0)
