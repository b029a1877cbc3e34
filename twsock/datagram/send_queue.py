"""
The send queue of a UDP socket: datagrams and runs → **queue** → as few system calls as possible.

Each `twsock.datagram.port.DatagramPort` has one. It holds datagrams for which the kernel has no
room: at most ``max_unsent`` bytes and a million items. Consecutive items for one peer that form a
run leave in one call if kernel and route can segment it (``UDP_SEGMENT``), otherwise one by one.
The peer receives the same datagrams either way. `twsock.datagram.runs` decides what forms a run.

How the queue handles an error of a send:

============================  ====================================================================
no room (EAGAIN)              waits until the socket is writable
no memory (ENOBUFS, ENOMEM)   waits 10 ms, since no event reports that memory is free again
a run was refused             sends its datagrams one by one; if that works, and the reason was
                              their size, it does not try runs of that size or more again
an earlier datagram's error   a connected socket reports an ICMP reply at the next call: the queue
(`DatagramCalls` detects it)  reports it to the owner and repeats the send
any other error               fails that datagram; all others are sent
============================  ====================================================================
"""

from __future__ import annotations

import socket
import typing
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.datagram.runs import Segmentation, split_item
from twsock.datagram.syscalls import NO_MEMORY, NO_ROOM, DatagramCalls, send_error
from twsock.errors import BusyError, SocketError, SocketErrorStatus
from twsock.wire.datagrams import (
    MAX_IPV4_DATAGRAM,
    MAX_IPV6_DATAGRAM,
    MAX_SEGMENTS,
    Outgoing,
)

__all__ = ["OUTPUT_HIGH_WATER", "DatagramOutput", "OutputOwner", "Sendable"]

#: Senders should pause when this many bytes are queued: two system calls of the largest size.
OUTPUT_HIGH_WATER: Final = 128 * 1024

#: Default of ``max_unsent``, in bytes: far above what a sender that checks `is_full` queues.
_DEFAULT_MAX_UNSENT: Final = 16 * 1024 * 1024

#: How many items may be queued: each takes some 100 bytes besides its data.
_MAX_ITEMS: Final = 1_000_000

#: How many times one `flush` sends items that callbacks queued meanwhile. Then the reactor has a
#: turn: a sender that repeats each failed datagram would otherwise block the process.
_MAX_ROUNDS: Final = 16

#: Seconds until the next try when the kernel is out of memory: no event reports free memory.
_RETRY_DELAY: Final = 0.01


class OutputOwner(typing.Protocol):
    """Receives the events of a send queue."""

    def wait_until_writable(self, *, is_waiting: bool) -> None:
        """Call `DatagramOutput.flush` when the socket is writable; stop if not ``is_waiting``."""

    def output_drained(self) -> None:
        """The queue was full, and all of it is with the kernel now."""

    def refused(self, error: SocketError) -> None:
        """An ICMP reply refused an earlier datagram."""

    def output_ended(self) -> None:
        """The queue was closed; it calls no further method."""


class Sendable(Outgoing, typing.Protocol):
    """A datagram or run to send, to which the queue reports the outcome."""

    def sent(self) -> None:
        """All of it is with the kernel."""

    def failed(self, error: SocketError) -> None:
        """It was not sent; the queue does not try again."""


class DatagramOutput:
    """
    Sends datagrams and runs through one socket, in order.

    :param udp: non-blocking; its creator closes it.
    :param clock: measures the pause when the kernel is out of memory.
    :param has_runs: whether the kernel segments runs.
    :param max_unsent: bytes that may be queued; above it, `push` raises `BusyError`.
    """

    __slots__ = (
        "_calls",
        "_clock",
        "_closed",
        "_is_blocked",
        "_is_flushing",
        "_is_held",
        "_is_reporting",
        "_is_stuck",
        "_is_waiting",
        "_max_unsent",
        "_owner",
        "_partly_failed",
        "_queue",
        "_retry_call",
        "_segmentation",
        "_sending",
        "_was_full",
        "_withdrawn",
        "max_size",
        "unsent",
    )

    def __init__(
        self,
        udp: socket.socket,
        owner: OutputOwner,
        clock: IReactorTime,
        *,
        has_runs: bool,
        max_unsent: int = _DEFAULT_MAX_UNSENT,
    ) -> None:
        self._calls = DatagramCalls(udp, self._refused)
        self._owner = owner
        self._clock = clock
        self._max_unsent = max_unsent
        self._queue: list[Sendable] = []
        # Withdrawn items that are still in the queue. Searching the queue for each would make a
        # loop that cancels many quadratic.
        self._withdrawn: set[Sendable] = set()
        # Items of the current system call whose outcome has not been reported.
        self._sending: Sequence[Sendable] = ()
        self._is_held = self._is_flushing = False
        # Whether items are queued after a flush; whether the current flush met a full kernel.
        self._is_blocked = self._is_stuck = False
        self._is_reporting = False
        # Whether a sender may have seen `is_full` and now waits for `output_drained`.
        self._was_full = False
        # Whether the owner was asked to wait until the socket is writable.
        self._is_waiting = False
        self._retry_call: IDelayedCall | None = None
        # A run of which one datagram failed before the kernel had no room for the others.
        self._partly_failed: tuple[Sendable, SocketError] | None = None
        # Makes the error of each queued item; None while the queue is open. Each item gets its own
        # exception: a raised exception holds the frames of the coroutine that awaited it.
        self._closed: Callable[[], SocketError] | None = None
        #: The largest datagram of this address family, in bytes.
        self.max_size = MAX_IPV6_DATAGRAM if udp.family == socket.AF_INET6 else MAX_IPV4_DATAGRAM
        self._segmentation = Segmentation(self.max_size, is_offered=has_runs)
        #: Bytes in the queue.
        self.unsent = 0

    @property
    def is_full(self) -> bool:
        """Whether senders should wait for `OutputOwner.output_drained`."""
        return self.unsent >= OUTPUT_HIGH_WATER or self._is_blocked

    @property
    def is_empty(self) -> bool:
        """Whether all items are with the kernel."""
        return not self._queue

    def hold(self) -> bool:
        """Collect pushed items until `release`; return whether they were being collected before."""
        was_held, self._is_held = self._is_held, True
        return was_held

    def release(self) -> None:
        """Send the collected items."""
        self._is_held = False
        if (self._queue or self._was_full) and not self._is_waiting:
            self.flush()

    def push(self, item: Sendable) -> None:
        """
        Send an item, after all queued items.

        :raises SocketError: with status ``MESSAGE_TOO_LONG``, when one of its datagrams is longer
            than `max_size`.
        :raises BusyError: when the queue is at its limit.
        """
        self._accept(item)
        if not self._is_held or self.unsent >= OUTPUT_HIGH_WATER:
            self._pushed()

    def push_all(self, items: Sequence[Sendable]) -> None:
        """Send items, after all queued items; one that `push` would refuse fails, alone."""
        size = sum([len(item.data) for item in items])
        if (
            self._closed is None
            and self.unsent + size <= self._max_unsent
            and len(self._queue) + len(items) <= _MAX_ITEMS
            and max([item.segment_size for item in items], default=0) <= self.max_size
        ):
            self._queue.extend(items)
            self.unsent += size
        else:
            self._push_each(items)
        self._pushed()

    def _push_each(self, items: Sequence[Sendable]) -> None:
        for item in items:
            try:
                if self._closed is not None:
                    raise self._closed()
                self._accept(item)
            except SocketError as error:
                # The frames of its traceback refer to the item.
                item.failed(error.with_traceback(None))

    def _accept(self, item: Sendable) -> None:
        queue = self._queue
        if (
            item.segment_size > self.max_size
            or self.unsent > self._max_unsent
            or len(queue) >= _MAX_ITEMS
        ):
            raise self._refusal(item)
        queue.append(item)
        self.unsent += len(item.data)

    def _pushed(self) -> None:
        if self._is_held or self._is_flushing:
            # Items that leave at once were never seen in the queue.
            if self.unsent >= OUTPUT_HIGH_WATER:
                self._was_full = True
        elif not self._is_waiting:
            self.flush()

    def _refusal(self, item: Outgoing) -> SocketError:
        if item.segment_size > self.max_size:
            return SocketError(
                f"a datagram has at most {self.max_size} bytes, this one has {item.segment_size}",
                status=SocketErrorStatus.MESSAGE_TOO_LONG,
            )
        waiting = f"{len(self._queue)} datagrams or runs of {self.unsent} bytes"
        return BusyError(f"{waiting} wait to be sent: send more after they have been sent")

    def withdraw(self, item: Sendable) -> bool:
        """
        Withdraw a pushed item that was neither reported as sent or failed nor withdrawn.

        :returns: False if the item is being sent.
        """
        is_waiting = self._queue or self._is_flushing
        if not is_waiting or item in self._sending:
            return False
        self._withdrawn.add(item)
        self.unsent -= len(item.data)
        self._compact()
        return True

    def _compact(self) -> None:
        """Remove withdrawn items from the queue, once they are the majority."""
        withdrawn, queue = self._withdrawn, self._queue
        # A flush in progress uses a part of the queue.
        if not self._is_flushing and 2 * len(withdrawn) > len(queue):
            self._queue = [item for item in queue if item not in withdrawn]
            withdrawn.clear()

    def _drop_withdrawn(self, queue: list[Sendable], start: int) -> bool:
        """Remove withdrawn items from the next ones to send; return whether there were any."""
        window = queue[start : start + MAX_SEGMENTS]
        dropped = self._withdrawn.intersection(window)
        if dropped:
            queue[start : start + MAX_SEGMENTS] = [item for item in window if item not in dropped]
            self._withdrawn -= dropped
        return bool(dropped)

    def flush(self) -> None:
        """Send queued items until the kernel has no more room."""
        if self._is_flushing or self._retry_call is not None:
            return
        self._is_flushing = True
        try:
            # Callbacks may push items: these are sent after all items that are removed here.
            for _ in range(_MAX_ROUNDS):
                queue, self._queue = self._queue, []
                start = self._send_queue(queue)
                if start < len(queue):
                    self._keep(queue[start:])
                    break
                if not self._queue:
                    break
            else:
                self._retry_call = self._clock.callLater(0, self._retry)
        finally:
            self._is_flushing = False
            self._sending = ()
        if self._closed is not None:
            self._forget()
        if self._withdrawn:
            self._compact()
        if self._queue or self._is_blocked or self._was_full:
            self._note_blocked()

    def close(self, make_error: Callable[[], SocketError]) -> None:
        """
        Send nothing more, and fail the queued items.

        :param make_error: called for each queued item.
        """
        self._closed = make_error
        if self._retry_call is not None:
            self._retry_call.cancel()
            self._retry_call = None
        queue, self._queue = self._queue, []
        self.unsent = 0
        self._fail_all(queue, make_error)
        if not self._is_flushing:
            self._forget()

    def _forget(self) -> None:
        """Drop unsent items and the reference to the owner."""
        self.unsent = 0
        self._calls.close()
        self._was_full = self._is_blocked = False
        owner, self._owner = self._owner, _NO_OWNER
        owner.output_ended()
        self._partly_failed = None
        self._withdrawn.clear()

    def _fail_all(self, items: Sequence[Sendable], make_error: Callable[[], SocketError]) -> None:
        for item in items:
            if item not in self._withdrawn:
                item.failed(make_error())

    # Sending.

    def _send_queue(self, queue: list[Sendable]) -> int:
        """Send items from the first on; return how many are done, sent or failed."""
        self._is_stuck = False
        if len(queue) == 1 and not self._withdrawn:
            return self._send_batch(queue)
        start = 0
        while start < len(queue) and not self._is_stuck and self._closed is None:
            if self._withdrawn and self._drop_withdrawn(queue, start):
                continue
            window = queue[start : start + MAX_SEGMENTS]
            segmentation = self._segmentation
            count = 0 if segmentation.begins_run(window) else segmentation.count_singles(window)
            if count:
                start += self._send_singles(window[:count])
            else:
                start += self._send_batch(window[: segmentation.count_run(window)])
        return start

    def _send_singles(self, items: list[Sendable]) -> int:
        """Send each item in a call of its own; return how many are done, sent or failed."""
        done, failure = self._calls.send_each(items)
        self._sending = items[:done]
        self._sent(items[:done])
        if failure is None or self._closed is not None:
            return done
        return done + self._not_sent([items[done]], failure, is_run=False)

    def _keep(self, items: list[Sendable]) -> None:
        """Put unsent items back at the head; fail them if the queue was closed meanwhile."""
        if self._closed is None:
            self._queue[:0] = items
        else:
            self._fail_all(items, self._closed)

    def _note_blocked(self) -> None:
        self._is_blocked = bool(self._queue)
        self._was_full = self._was_full or self._is_blocked
        is_waiting = self._is_blocked and self._retry_call is None
        if is_waiting is not self._is_waiting:
            self._is_waiting = is_waiting
            self._owner.wait_until_writable(is_waiting=is_waiting)
        # Also if it was full only while items were collected: a sender may have paused for that.
        if self._was_full and not self._is_blocked and self._closed is None:
            if self._is_reporting:
                # The callback filled the queue again: call it again in the reactor's next turn.
                self._retry_call = self._retry_call or self._clock.callLater(0, self._retry)
                return
            self._was_full = False
            self._is_reporting = True
            self._owner.output_drained()
            self._is_reporting = False

    def _send_batch(self, batch: list[Sendable]) -> int:
        """Send a batch, in one call if that is possible; return how many items are done."""
        first = batch[0]
        is_run = len(batch) > 1 or first.segment_size < len(first.data)
        if is_run and not self._segmentation.allows(first):
            return self._send_separately(batch, None)
        self._sending = batch
        error = self._calls.send(batch, is_run=is_run)
        return self._sent(batch) if error is None else self._not_sent(batch, error, is_run=is_run)

    def _sent(self, batch: list[Sendable]) -> int:
        if self._partly_failed is not None:
            return self._finish_partly_failed(batch, *self._partly_failed)
        one = len(batch) == 1  # Most batches have one item.
        self.unsent -= len(batch[0].data) if one else sum([len(item.data) for item in batch])
        for item in batch:
            item.sent()
        return len(batch)

    def _finish_partly_failed(
        self, batch: list[Sendable], partly_failed: Sendable, error: SocketError
    ) -> int:
        self._partly_failed = None
        self.unsent -= sum([len(item.data) for item in batch])
        for item in batch:
            if item is partly_failed:
                item.failed(error)
            else:
                item.sent()
        return len(batch)

    def _not_sent(self, batch: list[Sendable], error: OSError, *, is_run: bool) -> int:
        """Handle the error of a call; return how many items are done."""
        self._sending = batch
        if batch[0].address is None:
            again = self._calls.send_again(batch, error, is_run=is_run)
            if again is None:
                return self._sent(batch)
            error = again
        if self._closed is not None:
            return 0
        if error.errno in NO_ROOM:
            self._wait(error)
            return 0
        if is_run:
            return self._send_separately(batch, error)
        self.unsent -= len(batch[0].data)
        batch[0].failed(send_error(batch[0], error))
        return 1

    def _send_separately(self, batch: list[Sendable], refusal: OSError | None) -> int:
        """Send each datagram in a call of its own; return how many items are done."""
        size = batch[0].segment_size
        self._sending = batch
        for index, item in enumerate(batch):
            earlier, self._partly_failed = self._partly_failed, None
            failure = earlier[1] if earlier is not None and item is earlier[0] else None
            for number, piece in enumerate(split_item(item)):
                error = self._calls.send([piece], is_run=False)
                if error is not None and item.address is None:
                    error = self._calls.send_again([piece], error, is_run=False)
                if error is None:
                    if refusal is not None and piece.segment_size == size:
                        self._segmentation.note_refusal(refusal, item.address, size)
                elif self._closed is not None:
                    return index
                elif error.errno in NO_ROOM:
                    self._wait(error)
                    # The next flush continues the run after the datagrams that were sent.
                    self.unsent -= number * item.segment_size
                    item.data = item.data[number * item.segment_size :]
                    self._partly_failed = None if failure is None else (item, failure)
                    return index
                else:
                    failure = send_error(item, error)
            self.unsent -= len(item.data)
            if failure is None:
                item.sent()
            else:
                item.failed(failure)
        return len(batch)

    def _wait(self, error: OSError) -> None:
        self._is_stuck = True
        if error.errno in NO_MEMORY:
            self._retry_call = self._clock.callLater(_RETRY_DELAY, self._retry)

    def _refused(self, error: SocketError) -> bool:
        """Report the error of an earlier datagram; return whether the queue is still open."""
        self._owner.refused(error)
        return self._closed is None

    def _retry(self) -> None:
        self._retry_call = None
        self.flush()


class _NoOwner:
    """Replaces the owner of a closed queue."""

    def wait_until_writable(self, *, is_waiting: bool) -> None:
        """Do nothing."""

    def output_drained(self) -> None:
        """Do nothing."""

    def refused(self, error: SocketError) -> None:
        """Do nothing."""

    def output_ended(self) -> None:
        """Do nothing."""


_NO_OWNER: Final = _NoOwner()
