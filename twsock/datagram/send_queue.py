"""
The send queue of a UDP socket: datagrams and runs → **queue** → as few system calls as possible.

Each `twsock.datagram.port.DatagramPort` has one. It holds datagrams for which the kernel has no
room: at most ``max_unsent`` bytes and a million items. Consecutive items for one peer that form a
run leave in one call if kernel and route can segment it (``UDP_SEGMENT``), otherwise one by one.
The peer receives the same datagrams either way. `twsock.datagram.syscalls` decides what forms a
run; the states of the queue are in `twsock.datagram.sending`.

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
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.datagram.network.packet_info import Control
from twsock.datagram.runs import Address, DatagramCounters
from twsock.datagram.sending import TABLE, Event, OutputOwner, Sendable, State
from twsock.datagram.syscalls import (
    NO_MEMORY,
    NO_ROOM,
    DatagramCalls,
    Segmentation,
    refusal_of,
    send_error,
    split_item,
)
from twsock.errors import SocketError
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM, MAX_IPV6_DATAGRAM, MAX_SEGMENTS

__all__ = ["OUTPUT_HIGH_WATER", "CountedRun", "DatagramOutput"]

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

# Cached: a global lookup costs less than an enum attribute.
_IDLE, _HELD, _FLUSHING = State.IDLE, State.HELD, State.FLUSHING
_BLOCKED, _REPORTING, _CLOSED = State.BLOCKED, State.REPORTING, State.CLOSED
_HOLD, _RELEASE, _PUSH, _DRAINED = Event.HOLD, Event.RELEASE, Event.PUSH, Event.DRAINED


class DatagramOutput:
    """
    Sends datagrams and runs through one socket, in order.

    When a method of the owner or of an item is called, the state has changed already: it may call
    the queue again.

    :param udp: non-blocking; its creator closes it.
    :param clock: measures the pause when the kernel is out of memory.
    :param has_runs: whether the kernel segments runs.
    :param max_unsent: bytes that may be queued; above it, `push` raises `BusyError`.
    :ivar is_full: whether senders should wait for `OutputOwner.output_drained`, which follows.
    """

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
        self._state = _IDLE
        # The error of a call that `push` has made for the first item; handled by the next flush.
        self._first_error: OSError | None = None
        self.is_full = False
        self._retry_call: IDelayedCall | None = None
        # A run of which one datagram failed before the kernel had no room for the others.
        self._partly_failed: tuple[Sendable, SocketError] | None = None
        # Makes the error of each item once the queue is closed. Each item gets its own exception: a
        # raised exception holds the frames of the coroutine that awaited it.
        self._make_error: Callable[[], SocketError] | None = None
        #: The largest datagram of this address family, in bytes.
        self.max_size = MAX_IPV6_DATAGRAM if udp.family == socket.AF_INET6 else MAX_IPV4_DATAGRAM
        self._segmentation = Segmentation(self.max_size, is_offered=has_runs)
        #: Bytes in the queue.
        self.unsent = 0

    @property
    def is_empty(self) -> bool:
        """Whether all items are with the kernel."""
        return not self._queue

    @property
    def is_waiting(self) -> bool:
        """Whether the owner waits until the socket is writable."""
        return self._state is _BLOCKED

    @property
    def is_sending(self) -> bool:
        """Whether a flush is under way, in which an item or the owner is called."""
        return self._state is _FLUSHING

    def hold(self) -> bool:
        """
        Collect pushed items.

        :returns: whether the caller has to `release` them; otherwise an earlier hold or a flush
            will send them.
        """
        state = self._state
        self._state = TABLE[state, _HOLD]
        return state is _IDLE

    def release(self) -> None:
        """Send the collected items."""
        self._state = TABLE[self._state, _RELEASE]
        if self._queue or self.is_full:
            self._advance(_PUSH)

    def send_held(self) -> None:
        """Send the collected items, and collect again until `release`, which no item may call."""
        if self._state is _HELD:
            self.flush()
            self._state = TABLE[self._state, _HOLD]

    def push(self, item: Sendable) -> None:
        """
        Send an item, after all queued items.

        If the kernel accepts or refuses the item at once, the item is notified within this call.

        :raises SocketError: with status ``MESSAGE_TOO_LONG``, when one of its datagrams is longer
            than `max_size`.
        :raises BusyError: when the queue is at its limit.
        :raises Exception: the error of `close`, when the queue was closed.
        """
        if self._state is _IDLE and item.segment_size == len(item.data) <= self.max_size:
            # The usual case outside an event: nothing waits. The queue handles an error.
            self._first_error = self._calls.send((item,), is_run=False)
            if self._first_error is None:
                item.sent()
                return
        self._accept(item)
        if self._state is not _HELD or self.unsent >= OUTPUT_HIGH_WATER:
            self._pushed()

    def push_all(self, items: Sequence[Sendable]) -> None:
        """Send items, after all queued items. An item that `push` would refuse fails alone."""
        size = sum([len(item.data) for item in items])
        if (
            self._state is not _CLOSED
            and self.unsent + size <= self._max_unsent
            and len(self._queue) + len(items) <= _MAX_ITEMS
            and max([item.segment_size for item in items], default=0) <= self.max_size
        ):
            self._queue.extend(items)
            self.unsent += size
        else:
            self._push_each(items)
        if self._queue:
            self._pushed()

    def _push_each(self, items: Sequence[Sendable]) -> None:
        for item in items:
            try:
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
            or self._state is _CLOSED
        ):
            if self._make_error is not None:
                raise self._make_error()
            raise refusal_of(item, self.max_size, len(queue), self.unsent)
        queue.append(item)
        self.unsent += len(item.data)

    def _pushed(self) -> None:
        # In IDLE all items leave at once, so the queue does not count as full.
        if self.unsent >= OUTPUT_HIGH_WATER and self._state is not _IDLE:
            self.is_full = True
        self._advance(_PUSH)

    def withdraw(self, item: Sendable) -> bool:
        """
        Withdraw a pushed item that was neither reported as sent or failed nor withdrawn.

        :returns: False if the item is being sent.
        """
        if not (self._queue or self._state is _FLUSHING) or item in self._sending:
            return False
        self._withdrawn.add(item)
        self.unsent -= len(item.data)
        self._compact()
        return True

    def _compact(self) -> None:
        """Remove withdrawn items from the queue, once they are the majority."""
        withdrawn, queue = self._withdrawn, self._queue
        # A flush in progress uses a part of the queue.
        if self._state is not _FLUSHING and 2 * len(withdrawn) > len(queue):
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
        """Send queued items until the kernel has no more room: the socket may be writable."""
        self._advance(Event.WRITABLE)

    def close(self, make_error: Callable[[], SocketError]) -> None:
        """Send nothing more, and fail each queued item with such an error; twice is harmless."""
        before, self._state = self._state, TABLE[self._state, Event.CLOSE]
        if before is _CLOSED:
            return
        self._make_error = make_error
        if self._retry_call is not None:
            self._retry_call.cancel()
            self._retry_call = None
        queue, self._queue = self._queue, []
        self.unsent = 0
        self.is_full = False
        self._fail_all(queue, make_error)
        if before is not _FLUSHING:
            self._forget()

    def take_unsent(self) -> list[Sendable]:
        """Remove and return the queued items, neither sent nor failed; not while `is_sending`."""
        taken = [item for item in self._queue if item not in self._withdrawn]
        self._queue, self.unsent = [], 0
        self._withdrawn.clear()
        return taken

    # Changes of the state.

    def _advance(self, event: Event) -> None:
        """Handle an event; send the queue if the state becomes FLUSHING."""
        before = self._state
        self._state = state = TABLE[before, event]
        if state is not _FLUSHING or before is _FLUSHING:
            return
        try:
            # Callbacks may push items: these are sent after all items that are removed here.
            for _ in range(_MAX_ROUNDS):
                queue, self._queue = self._queue, []
                start = self._send_queue(queue)
                if start < len(queue):
                    self._keep(queue[start:])
                if not self._queue or self._state is not _FLUSHING:
                    break
        finally:
            self._sending = ()
            if self._state is _FLUSHING:
                # A report within a report would nest the calls of an owner that fills the queue.
                if self._queue or (self.is_full and before is _REPORTING):
                    outcome = Event.TURN_OVER
                else:
                    outcome = Event.DRAINED_FULL if self.is_full else _DRAINED
                self._state = TABLE[_FLUSHING, outcome]
            if self._withdrawn:
                self._compact()
            if self._state is not _IDLE:
                self._wait_or_report(before)

    def _wait_or_report(self, before: State) -> None:
        """Wait for what the state needs after a flush; report that a full queue has drained."""
        state = self._state
        if state is _CLOSED:
            self._forget()
            return
        self.is_full = True
        if (state is _BLOCKED) is not (before is _BLOCKED):
            self._owner.wait_until_writable(is_waiting=state is _BLOCKED)
        if state is State.RESTING and self._retry_call is None:
            self._retry_call = self._clock.callLater(0, self._retry)
        if state is not _REPORTING:
            return
        self.is_full = False
        self._owner.output_drained()
        if self._state is _REPORTING:
            if self._queue or self.is_full:
                self.flush()
            else:
                self._state = TABLE[_REPORTING, Event.REPORTED]

    def _forget(self) -> None:
        """Drop unsent items and the reference to the owner."""
        self.unsent = 0
        self._calls.close()
        owner = self._owner
        del self._owner  # A closed queue calls no further method of it.
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
        if len(queue) == 1 and not self._withdrawn:
            return self._send_batch(queue)
        start = 0
        while start < len(queue) and self._state is _FLUSHING:
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
        has_failed = failure is not None and failure.errno not in NO_ROOM
        self._sending = items[: done + has_failed]
        self._sent(items[:done])
        if failure is None or self._state is _CLOSED:
            return done
        return done + self._not_sent([items[done]], failure, is_run=False)

    def _keep(self, items: list[Sendable]) -> None:
        """Put unsent items back at the head; fail them if the queue was closed meanwhile."""
        if self._make_error is None:
            self._queue[:0] = items
        else:
            self._fail_all(items, self._make_error)

    def _send_batch(self, batch: list[Sendable]) -> int:
        """Send a batch, in one call if that is possible; return how many items are done."""
        first = batch[0]
        is_run = len(batch) > 1 or first.segment_size < len(first.data)
        if is_run and not self._segmentation.allows(first):
            return self._send_separately(batch, None)
        self._sending = batch
        error, self._first_error = self._first_error, None
        if error is None:
            error = self._calls.send(batch, is_run=is_run)
        return self._sent(batch) if error is None else self._not_sent(batch, error, is_run=is_run)

    def _sent(self, batch: list[Sendable]) -> int:
        one = len(batch) == 1  # Most batches have one item.
        self.unsent -= len(batch[0].data) if one else sum([len(item.data) for item in batch])
        partly_failed, self._partly_failed = self._partly_failed, None
        for item in batch:
            if partly_failed is None or item is not partly_failed[0]:
                item.sent()
            else:
                item.failed(partly_failed[1])
        return len(batch)

    def _not_sent(self, batch: list[Sendable], error: OSError, *, is_run: bool) -> int:
        """Handle the error of a call; return how many items are done."""
        self._sending = batch
        if batch[0].address is None:
            again = self._calls.send_again(batch, error, is_run=is_run)
            if again is None:
                return self._sent(batch)
            error = again
        if self._state is _CLOSED:
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
                elif self._state is _CLOSED:
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
        has_no_memory = error.errno in NO_MEMORY
        self._state = TABLE[self._state, Event.NO_MEMORY if has_no_memory else Event.NO_ROOM]
        if has_no_memory:
            self._retry_call = self._clock.callLater(_RETRY_DELAY, self._retry)

    def _refused(self, error: SocketError) -> bool:
        """Report the error of an earlier datagram; return whether the queue is still open."""
        self._owner.refused(error)
        return self._state is not _CLOSED

    def _retry(self) -> None:
        self._retry_call = None
        self._advance(Event.TIMER)


class CountedRun:
    """A datagram or run that a port sends for its protocol: its outcome is counted or reported."""

    __slots__ = ("_counters", "_failed", "address", "control", "count", "data", "segment_size")

    def __init__(
        self,
        counters: DatagramCounters,
        failed: Callable[[SocketError, CountedRun], None],
        data: bytes,
        segment_size: int,
        address: Address | None,
        control: Control | None,
    ) -> None:
        self._counters = counters
        self._failed = failed
        self.data = data
        self.segment_size = segment_size
        self.address = address
        self.control = control
        self.count = 1 if segment_size == len(data) else -(-len(data) // segment_size)

    def sent(self) -> None:
        """Count the datagrams as sent."""
        self._counters.sent += self.count

    def failed(self, error: SocketError) -> None:
        """Report that the datagrams could not be sent."""
        self._failed(error, self)
