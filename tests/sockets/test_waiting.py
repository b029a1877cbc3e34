"""Operations that take too long are cancelled, and fail with a timeout."""

from __future__ import annotations

import gc

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock._twisted import silence_unhandled
from twsock.errors import BrokenError, ClosedError, SocketError, SocketErrorStatus
from twsock.sockets.waiting import (
    check_timeout,
    limit,
    lost_again,
    output_closed,
    uncancellable,
)


class CheckTimeoutTests(SynchronousTestCase):
    """Numbers of seconds."""

    def test_none_and_numbers_from_0_on_are_accepted(self) -> None:
        """Infinity as well."""
        for timeout in (None, 0, 0.0, 1, 2.5, float("inf")):
            check_timeout(timeout)

    def test_negative_numbers_and_nan_are_refused(self) -> None:
        """The message shows the number."""
        for timeout, shown in ((-1, "-1"), (-0.5, "-0.5"), (float("nan"), "nan")):
            self.assertRaisesRegex(ValueError, f"not {shown}", check_timeout, timeout)


class LimitTests(SynchronousTestCase):
    """An operation with a limit of 2.5 s."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cancelled: list[object] = []
        self.operation: Deferred[str] = Deferred(self.cancelled.append)
        self.limited = limit(self.operation, 2.5, self.clock, "the read")

    def test_limit_returns_the_operation_itself(self) -> None:
        """So that no second Deferred can be missed."""
        self.assertIs(self.limited, self.operation)

    def test_a_result_in_time_is_passed_on(self) -> None:
        """No delayed call is left."""
        self.operation.callback("done")
        self.assertEqual(self.successResultOf(self.limited), "done")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure_in_time_is_passed_on(self) -> None:
        """It is not reported as a timeout."""
        self.operation.errback(KeyError())
        self.failureResultOf(self.limited, KeyError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_before_the_timeout_the_operation_continues(self) -> None:
        """It is not cancelled."""
        self.clock.advance(2.4)
        self.assertNoResult(self.limited)
        self.assertEqual(self.cancelled, [])

    def test_after_the_timeout_the_operation_is_cancelled(self) -> None:
        """As by the application."""
        self.clock.advance(2.5)
        self.failureResultOf(self.limited)
        self.assertEqual(self.cancelled, [self.operation])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_error_names_the_operation_and_the_time(self) -> None:
        """Its status is that of a timeout."""
        self.clock.advance(2.5)
        error = self.failureResultOf(self.limited, SocketError).value
        assert isinstance(error, SocketError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertEqual(str(error), "the read took longer than 2.5 s")

    def test_cancelling_is_no_timeout(self) -> None:
        """A cancelled operation fails with ``CancelledError``, and no delayed call is left."""
        self.limited.cancel()
        self.failureResultOf(self.limited, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_a_limit_the_clock_is_not_used(self) -> None:
        """None waits for ever."""
        operation: Deferred[None] = Deferred()
        self.assertIs(limit(operation, None, clock := Clock(), "the read"), operation)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_a_finished_operation_does_not_time_out(self) -> None:
        """Not even with a limit of 0."""
        done = limit(succeed("done"), 0, clock := Clock(), "the read")
        clock.advance(1)
        self.assertEqual(self.successResultOf(done), "done")
        self.assertEqual(clock.getDelayedCalls(), [])


class SilenceTests(SynchronousTestCase):
    """A Deferred that has just failed."""

    def setUp(self) -> None:
        self.error = BrokenError("gone")
        self.deferred: Deferred[object] = Deferred()

    def test_an_unawaited_failure_is_not_logged(self) -> None:
        """Not even when it is freed."""
        self.deferred.errback(self.error)
        self.assertTrue(silence_unhandled(self.deferred, self.error))
        del self.deferred
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_without_the_call_the_failure_is_logged(self) -> None:
        """As Twisted does with every unhandled failure."""
        self.deferred.errback(self.error)
        del self.deferred
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(BrokenError)), 1)

    def test_a_silenced_deferred_keeps_its_failure(self) -> None:
        """For code that awaits it later."""
        self.deferred.errback(self.error)
        silence_unhandled(self.deferred, self.error)
        self.assertIs(self.failureResultOf(self.deferred).value, self.error)
        self.assertFalse(silence_unhandled(self.deferred, self.error))

    def test_a_handled_failure_returns_false(self) -> None:
        """The caller need not report it."""
        self.deferred.addErrback(lambda _: None)
        self.deferred.errback(self.error)
        self.assertFalse(silence_unhandled(self.deferred, self.error))

    def test_an_error_of_the_errback_is_logged(self) -> None:
        """Only the original failure is silenced."""

        def fail(_failure: object) -> None:
            raise ZeroDivisionError

        self.deferred.addErrback(fail)
        self.deferred.errback(self.error)
        self.assertFalse(silence_unhandled(self.deferred, self.error))
        del self.deferred
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_success_returns_false(self) -> None:
        """There is no failure to silence."""
        self.deferred.callback(None)
        self.assertFalse(silence_unhandled(self.deferred, self.error))


class ErrorTests(SynchronousTestCase):
    """Each pending operation gets an exception of its own."""

    def test_a_closed_output_fails_each_write_with_a_new_error(self) -> None:
        """The errors are not shared, since each keeps the frames of the code that awaited it."""
        first, second = output_closed(), output_closed()
        self.assertIsNot(first, second)
        self.assertIsInstance(first, ClosedError)

    def test_a_lost_connection_fails_later_operations_with_the_same_reason(self) -> None:
        """A connection closed at this end gives `ClosedError`, any other `BrokenError`."""
        for error, kind in ((ClosedError("closed"), ClosedError), (SocketError("x"), BrokenError)):
            again = lost_again(error)
            self.assertIsNot(again, error, (error, kind))
            self.assertIs(type(again), kind, (error, kind))
            self.assertIs(again.status, error.status, (error, kind))

    def test_cancelling_a_wait_leaves_the_operation_alone(self) -> None:
        """The Deferred fails, and the code that would fire it sees that it has been called."""
        wait = uncancellable()
        wait.cancel()
        self.failureResultOf(wait, CancelledError)
        self.assertTrue(wait.called)
