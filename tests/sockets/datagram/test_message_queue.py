"""Messages wait in order for whoever asks, and the ports rest while many do."""

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
    """A queue whose news about room is noted."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.room: list[bool] = []
        self.queue = MessageQueue(self.clock, self.room.append)

    def take(self) -> Message:
        return self.successResultOf(self.queue.take())


class TakeTests(QueueCase):
    """Taking messages."""

    def test_they_come_in_order(self) -> None:
        """Those that are there are given at once."""
        messages = [message(), message(b""), message()]
        for each in messages:
            self.queue.put(each)
        self.assertEqual([self.take() for _ in messages], messages)

    def test_who_comes_first_waits(self) -> None:
        """Until there is one, which nobody else gets."""
        taking = self.queue.take()
        self.assertNoResult(taking)
        first, second = message(), message()
        self.queue.put(first)
        self.queue.put(second)
        self.assertIs(self.successResultOf(taking), first)
        self.assertIs(self.take(), second)

    def test_who_was_given_one_may_ask_again(self) -> None:
        """From within the call that gives it."""
        again: list[Deferred[Message]] = []
        self.queue.take().addCallback(lambda _: again.append(self.queue.take()))
        self.queue.put(message())
        last = message()
        self.queue.put(last)
        self.assertIs(self.successResultOf(again[0]), last)

    def test_a_second_wait_is_refused(self) -> None:
        """The first is not disturbed."""
        taking = self.queue.take()
        self.failureResultOf(self.queue.take(), BusyError)
        self.queue.put(message())
        self.successResultOf(taking)

    def test_a_cancelled_wait_takes_nothing(self) -> None:
        """What comes is for the next."""
        taking = self.queue.take()
        taking.cancel()
        self.failureResultOf(taking, CancelledError)
        kept = message()
        self.queue.put(kept)
        self.assertIs(self.take(), kept)

    def test_a_wait_has_an_end(self) -> None:
        """After its time it fails, and takes nothing."""
        taking = self.queue.take(timeout=3)
        self.clock.advance(2.9)
        self.assertNoResult(taking)
        self.clock.advance(0.2)
        error = self.failureResultOf(taking, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertEqual(error.summary.count("3 s"), 1)
        self.queue.put(message())
        self.take()

    def test_in_time_nothing_is_left_of_the_timeout(self) -> None:
        """Whether there was one, or it came."""
        taking = self.queue.take(timeout=3)
        self.queue.put(message())
        self.successResultOf(taking)
        self.queue.put(message())
        self.successResultOf(self.queue.take(timeout=3))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_negative_time_is_refused(self) -> None:
        """At once, also where a message waits."""
        self.queue.put(message())
        self.assertRaises(ValueError, self.queue.take, timeout=-1)

    def test_at_the_end_everything_fails(self) -> None:
        """Who waits, and who asks later; what was not taken is dropped."""
        taking = self.queue.take()
        self.queue.close(end)
        self.failureResultOf(taking, ClosedError)
        self.failureResultOf(self.queue.take(), ClosedError)
        other = MessageQueue(self.clock, self.room.append)
        other.put(message())
        other.close(end)
        self.failureResultOf(other.take(), ClosedError)


class RoomTests(QueueCase):
    """How much waits."""

    def test_with_1024_messages_the_ports_rest(self) -> None:
        """Even empty ones; they go on when half were taken."""
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

    def test_with_4_mib_the_ports_rest(self) -> None:
        """They go on when half of them were taken."""
        large = message(bytes(MAX_MESSAGE_BYTES // 64))
        for _ in range(64):
            self.queue.put(large)
        self.assertEqual(self.room, [False])
        for _ in range(31):
            self.take()
        self.assertEqual(self.room, [False])
        self.take()
        self.assertEqual(self.room, [False, True])

    def test_what_comes_without_room_is_kept(self) -> None:
        """A run that was read is not dropped."""
        for _ in range(MAX_MESSAGES + 63):
            self.queue.put(message())
        self.assertEqual(self.room, [False])
        for _ in range(MAX_MESSAGES + 63):
            self.take()
        self.assertEqual(self.room, [False, True])

    def test_the_beginning_of_one_that_was_too_long_counts(self) -> None:
        """It is held like any other."""
        error = SocketError("long", status=SocketErrorStatus.MESSAGE_TOO_LONG)
        for _ in range(64):
            self.queue.put(Message(bytes(MAX_MESSAGE_BYTES // 64), ("h", 1), "", error))
        self.assertEqual(self.room, [False])

    @given(lists(booleans(), max_size=200))
    def test_nothing_is_lost_or_doubled(self, steps: list[bool]) -> None:
        """However puts and takes follow each other, the order is that of coming."""
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
