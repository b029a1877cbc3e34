"""Errors of handlers are logged once, and end their connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, FrameRecorder, Waiting
from twsock.errors import BrokenError
from twsock.wire import encode_frame


class HandlerErrorTests(SynchronousTestCase):
    """A handler raises an error."""

    def test_a_handler_that_raises_aborts_only_its_connection(self) -> None:
        """The log has one traceback, that connection is aborted, and other connections continue."""

        class Faulty(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                if payload == b"bad":
                    raise RuntimeError("a bug")
                super().frame_received(payload)

        clock = Clock()
        faulty, other = Connected(Faulty, clock), Connected(Faulty, clock)
        faulty.receive(encode_frame(b"bad") + encode_frame(b"never"))
        other.receive(encode_frame(b"good"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(faulty.transport.disconnected)
        self.assertEqual(faulty.protocol.received, [])
        self.assertEqual(other.protocol.received, [b"good"])
        self.assertEqual(faulty.factory.counters.handler_errors, 1)
        faulty.lose()
        self.assertIsInstance(faulty.protocol.lost[0], BrokenError)

    def test_a_coroutine_that_raises_aborts_its_connection(self) -> None:
        """A handler that fails later is logged once too."""
        connected = Connected(Waiting)
        connected.receive(encode_frame(b"1"))
        connected.protocol.waits[0].errback(RuntimeError("a bug"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(connected.transport.disconnected)

    def test_an_error_of_a_cancelled_handler_is_one_warning(self) -> None:
        """The log has one line for it, without a traceback."""

        class Careless(Waiting):
            async def frame_received(self, payload: bytes) -> None:
                try:
                    await super().frame_received(payload)
                finally:
                    raise ZeroDivisionError

        connected = Connected(Careless)
        connected.receive(encode_frame(b"1"))
        events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(events.append)
        self.addCleanup(publisher.removeObserver, events.append)
        connected.reset()
        [line] = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
        self.assertIn("ZeroDivisionError", line)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_lost_connection_cancels_its_handler(self) -> None:
        """The handler of a lost peer is cancelled, and no error is logged."""
        connected = Connected(Waiting)
        connected.receive(encode_frame(b"1"))
        connected.reset()
        self.assertEqual(connected.protocol.ended, ["CancelledError"])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_error_after_a_close_is_a_traceback(self) -> None:
        """The handler ran when this end was closed, and was not cancelled."""
        connected = Connected(Waiting)
        connected.receive(encode_frame(b"1"))
        connected.protocol.close()
        connected.protocol.waits[0].errback(RuntimeError("a bug"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(connected.factory.counters.handler_errors, 0)
