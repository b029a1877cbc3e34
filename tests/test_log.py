"""Log events hold text and facts, and keep no object alive."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import (
    LimitedHistoryLogObserver,
    Logger,
    capturedLogs,
    eventAsText,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twsock.log import RateLimitedLogger, TextLogger, forget_frames


class Thing:
    """What must not be kept alive."""

    _log = TextLogger()

    def fail(self) -> None:
        """Raise, with a cause and another exception around it."""
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise ValueError("wrong") from error

    def log_failure(self) -> None:
        """Log what was raised, with its traceback."""
        try:
            self.fail()
        except ValueError:
            self._log.failure("{thing} failed", thing="it")

    def log_error(self) -> None:
        """Log what was raised, as one line."""
        try:
            self.fail()
        except ValueError as error:
            self._log.warn("ended: {error}", error=error)


class TextLoggerTests(SynchronousTestCase):
    """What is in an event, and what is not."""

    def keep_events(self) -> None:
        """Keep every event, as Twisted does before logging has begun."""
        history = LimitedHistoryLogObserver(200)
        globalLogPublisher.addObserver(history)
        self.addCleanup(globalLogPublisher.removeObserver, history)

    def assert_dies(self, log: Any) -> None:
        """Log with a new thing, and see it die with its last reference."""
        gc.disable()
        self.addCleanup(gc.enable)
        thing = Thing()
        log(thing)
        reference = weakref.ref(thing)
        del thing
        self.assertIsNone(reference())

    def test_an_event_keeps_no_object_alive(self) -> None:
        """Neither that which logs, nor one in a frame of an exception or of its causes."""
        self.keep_events()
        self.assert_dies(Thing.log_error)
        self.assert_dies(Thing.log_failure)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_stored_failure_is_cleaned(self) -> None:
        """One that was given, as an errback has it."""

        def log(thing: Thing) -> None:
            try:
                thing.fail()
            except ValueError:
                thing._log.failure("failed", Failure())

        self.keep_events()
        self.assert_dies(log)
        self.flushLoggedErrors(ValueError)

    def test_a_failure_is_logged_with_its_traceback(self) -> None:
        """As text, by the observers that everybody uses."""
        with capturedLogs() as events:
            Thing().log_failure()
        self.flushLoggedErrors(ValueError)
        text = eventAsText(events[0])
        for part in ("it failed", "in fail", 'raise ValueError("wrong") from error', "ValueError"):
            self.assertIn(part, text)

    def test_an_error_is_logged_as_its_message(self) -> None:
        """And the name of the class, as any logger of Twisted has it."""
        with capturedLogs() as events:
            Thing().log_error()
        self.assertEqual(events[0]["error"], "wrong")
        self.assertIsNone(events[0]["log_source"])
        self.assertEqual(events[0]["log_namespace"], "tests.test_log.Thing")

    def test_a_logger_of_a_module_may_be_used_too(self) -> None:
        """Its events have the name of the module."""
        with capturedLogs() as events:
            TextLogger().info("{number}", number=5)
        self.assertEqual(events[0]["log_namespace"], "tests.test_log")
        self.assertEqual(events[0]["number"], 5)


class ForgetFramesTests(SynchronousTestCase):
    """Failures that were consumed hold no frames."""

    def test_causes_and_groups_are_cleaned(self) -> None:
        """However they are chained, in a circle too."""
        failure: Any = None
        try:
            Thing().fail()
        except ValueError:
            failure = Failure()
        failed, cause = failure.value, failure.value.__cause__
        cause.exceptions = (OSError(),)
        cause.__context__ = failed
        self.assertIsNotNone(cause.__traceback__)
        forget_frames(failure)
        self.assertIsNone(failed.__traceback__)
        self.assertIsNone(cause.__traceback__)
        self.assertIn("in fail", failure.getTraceback())


class RateLimitedLoggerTests(SynchronousTestCase):
    """Lines, and what is kept back."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.occasional = RateLimitedLogger(Logger(), self.clock.seconds)

    def warn(self, count: int) -> list[str]:
        with capturedLogs() as events:
            for number in range(count):
                self.occasional.warn("{number} is odd", number=number)
        return [formatEvent(event) for event in events]

    def test_the_first_is_logged(self) -> None:
        """As it is."""
        self.assertEqual(self.warn(1), ["0 is odd"])

    def test_what_follows_is_kept_back(self) -> None:
        """However much it is."""
        self.assertEqual(self.warn(1000), ["0 is odd"])

    def test_after_a_minute_their_number_is_told(self) -> None:
        """With the next, and only once."""
        self.warn(5)
        self.clock.advance(60)
        self.assertEqual(self.warn(2), ["0 is odd (and 4 more like it before)"])
        self.clock.advance(60)
        self.assertEqual(self.warn(1), ["0 is odd (and 1 more like it before)"])

    def test_two_logs_do_not_count_together(self) -> None:
        """One kind of event does not hide another."""
        self.warn(5)
        self.occasional = RateLimitedLogger(Logger(), self.clock.seconds)
        self.assertEqual(self.warn(1), ["0 is odd"])
