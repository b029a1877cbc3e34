"""
The queue of received messages: delivery → **message queue** → ``receive``, ``async for``.

Used by a datagram socket without handlers. Holds the messages that the application has not taken.
At its limit the ports stop reading, so that further datagrams wait in the kernel, or are lost when
its buffer is full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from twsock.errors import BusyError, SocketError
from twsock.operation import Fired, Operation, fail
from twsock.sockets.datagram.message import DatagramSocketMessageReceivedEventArgs
from twsock.sockets.waiting import check_timeout, limit

__all__ = ["MAX_MESSAGES", "MAX_MESSAGE_BYTES", "MessageQueue"]

#: The ports stop reading at this many messages; the last run may add 63 more.
MAX_MESSAGES: Final = 1024
#: They also stop at this many bytes; the last run may add 64 KiB more.
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024

_Message = DatagramSocketMessageReceivedEventArgs


class MessageQueue:
    """
    Received messages, in order.

    :param clock: measures timeouts.
    :param room_changed: called with whether the queue has room, when that changes.
    """

    def __init__(self, clock: IReactorTime, room_changed: Callable[[bool], None]) -> None:
        self._clock = clock
        self._room_changed = room_changed
        self._messages: deque[_Message] = deque()
        self._size = 0
        self._taker: Deferred[_Message] | None = None
        self._end: Callable[[], SocketError] | None = None
        self._has_room = True

    @property
    def is_awaited(self) -> bool:
        """Whether a wait is pending, and `wake` would complete it."""
        return self._taker is not None and bool(self._messages)

    @property
    def is_pending(self) -> bool:
        """Whether a wait is pending."""
        return self._taker is not None

    def put(self, message: _Message) -> None:
        """Complete the pending wait with a message, or queue it."""
        self.store((message,))
        self.wake()

    def store(self, messages: Sequence[_Message]) -> None:
        """Queue messages without completing a pending wait; call `wake` afterwards."""
        for message in messages:
            self._messages.append(message)
            self._size += len(message.beginning)
        if len(self._messages) >= MAX_MESSAGES or self._size >= MAX_MESSAGE_BYTES:
            self._look_at_room()

    def wake(self) -> None:
        """Complete the pending wait with the first message, if there is a wait and a message."""
        taker = self._taker
        if taker is not None and self._messages:
            self._taker = None  # Cleared first: the callback may call `take` again.
            message = self.take_now()
            assert message is not None  # There are messages, and no other wait.
            taker.callback(message)

    def take(self, *, timeout: float | None = None) -> Deferred[_Message]:
        """
        Take the next message.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with the message. It fails with `BusyError` while another wait is pending,
            and after `close` with the error of the close. Cancelling takes no message.
        :raises ValueError: at once, when the timeout is negative.
        """
        if timeout is not None:
            check_timeout(timeout)
        if self._taker is not None:
            return fail(BusyError("cannot receive: another wait is pending"))
        message = self.take_now()
        if message is not None:
            return Fired(message)
        if self._end is not None:
            return fail(self._end())
        self._taker = Operation(self._forget_taker)
        if timeout is None:
            return self._taker
        return limit(self._taker, timeout, self._clock, "the wait for a datagram")

    def take_now(self) -> _Message | None:
        """Take the next message without a Deferred; None if `take` has to wait or fails."""
        if self._taker is not None or not self._messages:
            return None
        message = self._messages.popleft()
        self._size -= len(message.beginning)
        if not self._has_room:
            self._look_at_room()
        return message

    def take_all(self) -> list[_Message]:
        """Take all messages; nothing more is received, so reading is not resumed."""
        messages = list(self._messages)
        self._messages.clear()
        self._size = 0
        return messages

    def cancel(self, make_error: Callable[[], SocketError]) -> None:
        """Fail the pending wait; it takes no message."""
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.errback(make_error())

    def keep_only(self, address: tuple[str, int]) -> None:
        """Drop the messages of all senders but this host and port."""
        kept = [message for message in self._messages if message.address == address]
        self._messages = deque(kept)
        self._size = sum(len(message.beginning) for message in kept)
        self._look_at_room()

    def close(self, end: Callable[[], SocketError]) -> None:
        """Drop all messages, and fail the pending wait."""
        self._end = end
        self._messages.clear()
        self._size = 0
        self.cancel(end)

    def _forget_taker(self, _taker: Deferred[_Message]) -> None:
        self._taker = None

    def _look_at_room(self) -> None:
        count, size = len(self._messages), self._size
        if self._has_room:
            has_room = count < MAX_MESSAGES and size < MAX_MESSAGE_BYTES
        else:
            # Only at half of the limit, so that not each message stops and resumes reading.
            has_room = count <= MAX_MESSAGES // 2 and size <= MAX_MESSAGE_BYTES // 2
        if has_room is not self._has_room:
            self._has_room = has_room
            self._room_changed(has_room)
