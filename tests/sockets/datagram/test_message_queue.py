"""Messages are queued in order, and the ports pause while many are queued."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import booleans, lists
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock import (
    BusyError,
    ClosedError,
    DatagramSocketMessageReceivedEventArgs,
    SocketError,
    SocketErrorStatus,
)
from twsock.sockets.datagram.message_queue import MAX_MESSAGE_BYTES, MAX_MESSAGES, MessageQueue

Message = DatagramSocketMessageReceivedEventArgs


def message(data: bytes = b"x") -> Message:
    return Message(data, ("127.0.0.1", 1337), "")


def end() -> SocketError:
    return ClosedError("the socket was closed")


class QueueCase(SynchronousTestCase):
    """A queue whose reports about room are recorded."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.room: list[bool] = []
        self.queue = MessageQueue(self.clock, self.room.append)

    def take(self) -> Message:
        return self.successResultOf(self.queue.take())


class TakeTests(QueueCase):
    """Taking messages."""

    def test_messages_are_taken_in_order(self) -> None:
        """Queued messages are returned at once."""
        messages = [message(), message(b""), message()]
        for each in messages:
            self.queue.put(each)
        self.assertEqual([self.take() for _ in messages], messages)

    def test_a_wait_gets_the_next_message(self) -> None:
        """No other wait gets it."""
        taking = self.queue.take()
        self.assertNoResult(taking)
        first, second = message(), message()
        self.queue.put(first)
        self.queue.put(second)
        self.assertIs(self.successResultOf(taking), first)
        self.assertIs(self.take(), second)

    def test_a_callback_may_take_the_next_message(self) -> None:
        """From within the call that fires its Deferred."""
        again: list[Deferred[Message]] = []
        self.queue.take().addCallback(lambda _: again.append(self.queue.take()))
        self.queue.put(message())
        last = message()
        self.queue.put(last)
        self.assertIs(self.successResultOf(again[0]), last)

    def test_a_second_wait_fails_while_one_is_pending(self) -> None:
        """The first one continues."""
        taking = self.queue.take()
        self.failureResultOf(self.queue.take(), BusyError)
        self.queue.put(message())
        self.successResultOf(taking)

    def test_a_cancelled_wait_takes_no_message(self) -> None:
        """The next wait gets it."""
        taking = self.queue.take()
        taking.cancel()
        self.failureResultOf(taking, CancelledError)
        kept = message()
        self.queue.put(kept)
        self.assertIs(self.take(), kept)

    def test_a_wait_that_takes_too_long_fails(self) -> None:
        """It takes no message."""
        taking = self.queue.take(timeout=3)
        self.clock.advance(2.9)
        self.assertNoResult(taking)
        self.clock.advance(0.2)
        error = self.failureResultOf(taking, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertEqual(error.summary.count("3 s"), 1)
        self.queue.put(message())
        self.take()

    def test_a_finished_wait_leaves_no_timer(self) -> None:
        """Whether the message was queued or arrived later."""
        taking = self.queue.take(timeout=3)
        self.queue.put(message())
        self.successResultOf(taking)
        self.queue.put(message())
        self.successResultOf(self.queue.take(timeout=3))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_negative_timeout_raises_at_the_call(self) -> None:
        """Also if a message is queued."""
        self.queue.put(message())
        self.assertRaises(ValueError, self.queue.take, timeout=-1)

    def test_closing_fails_pending_and_later_waits(self) -> None:
        """Queued messages are dropped."""
        taking = self.queue.take()
        self.queue.close(end)
        self.failureResultOf(taking, ClosedError)
        self.failureResultOf(self.queue.take(), ClosedError)
        other = MessageQueue(self.clock, self.room.append)
        other.put(message())
        other.close(end)
        self.failureResultOf(other.take(), ClosedError)


class StoreTests(QueueCase):
    """Messages that are queued while a wait is pending."""

    def test_a_stored_message_completes_a_wait_when_woken(self) -> None:
        """The wait gets the first message, a callback the next."""
        later: list[Message] = []
        taking = self.queue.take()
        taking.addCallback(lambda taken: later.extend((taken, self.take())))
        first, second = message(b"1"), message(b"2")
        self.queue.store([first, second])
        self.assertTrue(self.queue.is_awaited)
        self.assertEqual(later, [])
        self.queue.wake()
        self.assertEqual(later, [first, second])
        self.assertFalse(self.queue.is_awaited)

    def test_a_stored_message_is_kept_for_the_pending_wait(self) -> None:
        """No other call takes it first."""
        taking = self.queue.take()
        only = message()
        self.queue.store([only])
        self.assertIsNone(self.queue.take_now())
        self.failureResultOf(self.queue.take(), BusyError)
        self.queue.wake()
        self.assertIs(self.successResultOf(taking), only)

    def test_waking_does_nothing_without_a_wait_or_a_message(self) -> None:
        """A cancelled wait leaves the message to the next."""
        self.queue.wake()
        taking = self.queue.take()
        self.queue.wake()
        self.assertNoResult(taking)
        only = message()
        self.queue.store([only])
        taking.cancel()
        self.failureResultOf(taking, CancelledError)
        self.queue.wake()
        self.assertIs(self.queue.take_now(), only)
        self.assertIsNone(self.queue.take_now())


class RoomTests(QueueCase):
    """The limits of the queue."""

    def test_the_ports_pause_at_1024_messages(self) -> None:
        """Even empty ones; they resume when half were taken."""
        for _ in range(MAX_MESSAGES - 1):
            self.queue.put(message(b""))
        self.assertEqual(self.room, [])
        self.queue.put(message(b""))
        self.assertEqual(self.room, [False])
        for _ in range(MAX_MESSAGES // 2 - 1):
            self.take()
        self.assertEqual(self.room, [False])
        self.take()
        self.assertEqual(self.room, [False, True])

    def test_the_ports_pause_at_4_mib(self) -> None:
        """They resume when half of the bytes were taken."""
        large = message(bytes(MAX_MESSAGE_BYTES // 64))
        for _ in range(64):
            self.queue.put(large)
        self.assertEqual(self.room, [False])
        for _ in range(31):
            self.take()
        self.assertEqual(self.room, [False])
        self.take()
        self.assertEqual(self.room, [False, True])

    def test_messages_above_the_limit_are_kept(self) -> None:
        """A run that was read is not dropped."""
        for _ in range(MAX_MESSAGES + 63):
            self.queue.put(message())
        self.assertEqual(self.room, [False])
        for _ in range(MAX_MESSAGES + 63):
            self.take()
        self.assertEqual(self.room, [False, True])

    def test_the_received_part_of_a_truncated_datagram_counts(self) -> None:
        """It takes memory like any other message."""
        error = SocketError("long", status=SocketErrorStatus.MESSAGE_TOO_LONG)
        for _ in range(64):
            self.queue.put(Message(bytes(MAX_MESSAGE_BYTES // 64), ("h", 1), "", error))
        self.assertEqual(self.room, [False])

    @given(lists(booleans(), max_size=200))
    def test_any_order_of_puts_and_takes_keeps_all_messages_in_order(
        self, steps: list[bool]
    ) -> None:
        """None is lost, and none is delivered twice."""
        queue = MessageQueue(self.clock, self.room.append)
        put: list[Message] = []
        taken: list[Message] = []
        taking: Deferred[None] | None = None
        for is_put in steps:
            if is_put:
                put.append(message())
                queue.put(put[-1])
            elif taking is None or taking.called:
                taking = queue.take().addCallback(lambda message: taken.append(message))
        self.assertEqual(taken, put[: len(taken)])
