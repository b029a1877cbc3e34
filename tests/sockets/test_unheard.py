"""A failure that nobody listens to is one line of its owner's, not a traceback."""

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twsock import BrokenError
from twsock.sockets.unheard import let_go_unheard


class UnheardTests(SynchronousTestCase):
    """A Deferred that has just failed."""

    def setUp(self) -> None:
        self.error = BrokenError("gone")
        self.deferred: Deferred[object] = Deferred()

    def test_unheard_it_is_not_logged(self) -> None:
        """Not even when it is collected."""
        self.deferred.errback(self.error)
        self.assertTrue(let_go_unheard(self.deferred, self.error))
        del self.deferred
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_left_alone_it_would_be(self) -> None:
        """As Twisted does with every failure."""
        self.deferred.errback(self.error)
        del self.deferred
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(BrokenError)), 1)

    def test_it_still_has_its_failure(self) -> None:
        """For whoever awaits it later, once more."""
        self.deferred.errback(self.error)
        let_go_unheard(self.deferred, self.error)
        self.assertIs(self.failureResultOf(self.deferred).value, self.error)
        self.assertFalse(let_go_unheard(self.deferred, self.error))

    def test_who_heard_it_is_told_apart(self) -> None:
        """Nobody else need be told then."""
        self.deferred.addErrback(lambda _: None)
        self.deferred.errback(self.error)
        self.assertFalse(let_go_unheard(self.deferred, self.error))

    def test_another_failure_of_the_listener_is_logged(self) -> None:
        """What came of hearing it is its own."""

        def fail(_failure: object) -> None:
            raise ZeroDivisionError

        self.deferred.addErrback(fail)
        self.deferred.errback(self.error)
        self.assertFalse(let_go_unheard(self.deferred, self.error))
        del self.deferred
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_success_is_none(self) -> None:
        """Nothing is there to be let go."""
        self.deferred.callback(None)
        self.assertFalse(let_go_unheard(self.deferred, self.error))
