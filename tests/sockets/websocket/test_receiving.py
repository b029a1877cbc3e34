"""Messages are pulled while somebody asks for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from twsock import BrokenError, ClosedError
from twsock.sockets.event import Event
from twsock.sockets.websocket.receiving import WebSocketMessageReceiver
from twsock.stream.connection import Connection
from twsock.websocket.frames import Opcode


class Source:
    """Counts what a receiver asks for."""

    stream: Connection

    def __init__(self) -> None:
        self.pulls = 0
        self.failures = 0

    def pull(self) -> None:
        self.pulls += 1

    def next_message(self) -> None:
        """No message is here."""

    def handler_failed(self) -> None:
        self.failures += 1


class ReceiverTests(SynchronousTestCase):
    """One receiver."""

    def setUp(self) -> None:
        self.received: Event[Any] = Event("message_received", lambda: False)
        self.source = Source()
        self.receiver = WebSocketMessageReceiver(Clock(), self.received)
        self.receiver.opened(self.source, self)

    def test_one_message_more_than_asked_for_is_taken(self) -> None:
        """The next one may be pulled when it was received."""
        receiving = self.receiver.receive(None)
        self.assertTrue(self.receiver.take(Opcode.TEXT, "a", True))
        self.assertEqual(self.successResultOf(receiving), "a")
        self.assertFalse(self.receiver.take(Opcode.TEXT, "bc", True))
        self.assertTrue(self.receiver.is_full)
        self.assertFalse(self.receiver.may_read)
        self.assertEqual(self.receiver.held_bytes, 2)
        self.assertEqual(self.source.pulls, 0)
        self.assertEqual(self.successResultOf(self.receiver.receive(None)), "bc")
        self.assertEqual((self.source.pulls, self.receiver.is_full), (1, False))

    def test_end_is_reported_to_each_receive(self) -> None:
        """With an error of its own; the first end counts."""
        receiving = self.receiver.receive(None)
        self.receiver.end(BrokenError("lost"))
        self.receiver.end(ClosedError("late"))
        first = self.failureResultOf(receiving, BrokenError).value
        second = self.failureResultOf(self.receiver.receive(None), BrokenError).value
        self.assertIsNot(first, second)

    def test_drop_forgets_the_held_message(self) -> None:
        """The next receive fails."""
        self.receiver.take(Opcode.TEXT, "a", True)
        self.receiver.drop(ClosedError("closed"))
        self.failureResultOf(self.receiver.receive(None), ClosedError)

    def test_handlers_run_for_one_message_at_a_time(self) -> None:
        """All handlers of a message, then those of the next one, then the failure."""
        waits: list[Deferred[None]] = []
        events: list[Any] = []

        def handle(owner: object, args: Any) -> Deferred[None]:
            self.assertIs(owner, self)
            events.append(args.error or args.data)
            waits.append(Deferred())
            return waits[-1]

        self.received.add(handle)
        self.received.add(handle)
        self.assertTrue(self.receiver.take(Opcode.TEXT, "a", True))
        self.assertFalse(self.receiver.take(Opcode.TEXT, "b", True))
        waits[0].callback(None)
        self.assertEqual(events, ["a", "a"])
        waits[1].callback(None)
        self.assertEqual((events, self.source.pulls), (["a", "a", "b", "b"], 1))
        error = BrokenError("lost")
        self.receiver.end(error)
        waits[2].callback(None)
        waits[3].callback(None)
        self.assertEqual(events[4:], [error, error])

    def test_closes_are_no_failures(self) -> None:
        """No handler is called."""
        events: list[object] = []
        self.received.add(lambda _, args: events.append(args))
        self.receiver.end(ClosedError("closed"))
        self.assertEqual(events, [])

    def test_handlers_that_fail_are_logged(self) -> None:
        """A lost connection is no failure of the handler, and its error is one line."""

        def fail(_: object, args: Any) -> None:
            raise BrokenError("lost") if args.data == "lost" else ValueError("wrong")

        self.received.add(fail)
        with capturedLogs() as events:
            for _ in range(100):  # That had arrived in front of the loss.
                self.receiver.take(Opcode.TEXT, "lost", True)
        self.assertEqual(len(events), 1)
        self.assertEqual(self.source.failures, 0)
        self.receiver.take(Opcode.TEXT, "a", True)
        self.assertEqual(self.source.failures, 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
