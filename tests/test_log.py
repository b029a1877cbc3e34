"""Log events hold text and plain values, and keep no object in memory."""

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
    """An object that log events must not keep in memory."""

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
    """Fields of an event."""

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
        """
        Neither the logging object nor objects in the frames of an exception and of its causes.
        """
        self.keep_events()
        self.assert_dies(Thing.log_error)
        self.assert_dies(Thing.log_failure)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_stored_failure_is_cleaned(self) -> None:
        """A failure passed to an errback is cleaned too."""

        def log(thing: Thing) -> None:
            try:
                thing.fail()
            except ValueError:
                thing._log.failure("failed", Failure())

        self.keep_events()
        self.assert_dies(log)
        self.flushLoggedErrors(ValueError)

    def test_a_failure_is_logged_with_its_traceback(self) -> None:
        """Twisted's usual observers print it as text."""
        with capturedLogs() as events:
            Thing().log_failure()
        self.flushLoggedErrors(ValueError)
        text = eventAsText(events[0])
        for part in ("it failed", "in fail", 'raise ValueError("wrong") from error', "ValueError"):
            self.assertIn(part, text, f"{part=}: {text}")

    def test_an_error_is_logged_as_its_message(self) -> None:
        """The namespace of the event is the name of the class, as for Twisted's loggers."""
        with capturedLogs() as events:
            Thing().log_error()
        self.assertEqual(events[0]["error"], "wrong")
        self.assertIsNone(events[0]["log_source"])
        self.assertEqual(events[0]["log_namespace"], "tests.test_log.Thing")

    def test_a_logger_of_a_module_has_the_namespace_of_the_module(self) -> None:
        """The same class serves modules."""
        with capturedLogs() as events:
            TextLogger().info("{number}", number=5)
        self.assertEqual(events[0]["log_namespace"], "tests.test_log")
        self.assertEqual(events[0]["number"], 5)


class ForgetFramesTests(SynchronousTestCase):
    """Consumed failures hold no frames."""

    def test_causes_and_groups_are_cleaned(self) -> None:
        """Causes, contexts and exception groups are cleaned; a cycle of causes ends."""
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
    """At most one warning a minute is logged."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.occasional = RateLimitedLogger(Logger(), self.clock.seconds)

    def warn(self, count: int) -> list[str]:
        with capturedLogs() as events:
            for number in range(count):
                self.occasional.warn("{number} is odd", number=number)
        return [formatEvent(event) for event in events]

    def test_the_first_warning_is_logged(self) -> None:
        """Its text is unchanged."""
        self.assertEqual(self.warn(1), ["0 is odd"])

    def test_further_warnings_within_a_minute_are_suppressed(self) -> None:
        """Any number of them."""
        self.assertEqual(self.warn(1000), ["0 is odd"])

    def test_the_next_warning_contains_the_number_suppressed(self) -> None:
        """The number is logged once."""
        self.warn(5)
        self.clock.advance(60)
        self.assertEqual(self.warn(2), ["0 is odd (4 more were suppressed)"])
        self.clock.advance(60)
        self.assertEqual(self.warn(1), ["0 is odd (1 more were suppressed)"])

    def test_two_loggers_count_separately(self) -> None:
        """A warning of one kind does not suppress another kind."""
        self.warn(5)
        self.occasional = RateLimitedLogger(Logger(), self.clock.seconds)
        self.assertEqual(self.warn(1), ["0 is odd"])
