"""Several callers wait for one event, and each may stop waiting."""

from __future__ import annotations

import random

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.work import count_comparisons
from twsock.waiters import Waiters


class WaitersTests(SynchronousTestCase):
    """Waits that are fired together."""

    def setUp(self) -> None:
        self.waiters = Waiters()
        self.order: list[int] = []

    def wait(self, number: int) -> Deferred[None]:
        return self.waiters.wait().addCallback(lambda _: self.order.append(number))

    def test_all_are_fired_in_order(self) -> None:
        """Then none is left."""
        for number in range(3):
            self.wait(number)
        self.assertEqual(len(self.waiters), 3)
        self.waiters.fire()
        self.assertEqual(self.order, [0, 1, 2])
        self.assertEqual(len(self.waiters), 0)
        self.waiters.fire()

    def test_a_cancelled_wait_is_not_fired(self) -> None:
        """The others are."""
        waits = [self.wait(number) for number in range(3)]
        waits[1].cancel()
        self.failureResultOf(waits[1], CancelledError)
        self.waiters.fire()
        self.assertEqual(self.order, [0, 2])

    def test_a_callback_may_cancel_other_waits(self) -> None:
        """They are not fired; those behind them are."""
        first = self.waiters.wait()
        second, third = self.wait(2), self.wait(3)
        second.addErrback(lambda _: None)
        first.addCallback(lambda _: second.cancel())
        self.waiters.fire()
        self.assertEqual(self.order, [3])
        self.successResultOf(third)

    def test_a_wait_that_a_callback_begins_is_fired(self) -> None:
        """The event has happened for it, too."""
        self.wait(1).addCallback(lambda _: self.wait(2))
        self.waiters.fire()
        self.assertEqual(self.order, [1, 2])

    def test_one_is_fired_before_the_event(self) -> None:
        """At a deadline, say; the others go on waiting."""
        early = self.waiters.wait()
        self.wait(1)
        self.waiters.fire_one(early)
        self.successResultOf(early)
        self.assertEqual(self.order, [])
        self.assertEqual(len(self.waiters), 1)

    def test_the_work_of_cancelling_is_the_same_however_many_wait(self) -> None:
        """In any order, no wait is compared with the others."""
        for shuffle in (list.reverse, random.Random(11).shuffle):
            waits = [self.waiters.wait().addErrback(lambda _: None) for _ in range(1000)]
            shuffle(waits)
            with count_comparisons() as comparisons:
                for wait in waits:
                    wait.cancel()
            self.assertLess(comparisons.value, 1000)
            self.assertEqual(len(self.waiters), 0)
