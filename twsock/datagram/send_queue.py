"""
The way out of a UDP socket: datagrams and runs → **queue** → as few system calls as there can be.

One for each `twsock.datagram.port.DatagramPort`. Holds what the kernel has no room for, at
most ``max_unsent`` bytes and a million items. Items for one peer that make a run leave in one call
where kernel and route can cut it (``UDP_SEGMENT``), and one by one where they cannot; nobody can
tell from the result.

What an error of a send means:

============================  ====================================================================
no room (EAGAIN)              wait until the socket is writable
no memory (ENOBUFS, ENOMEM)   wait a moment: no event tells when there is some
a run refused                 send one by one; if that works, and the reason was the size of the
                              datagrams, runs of that size or more are not tried again
an earlier datagram's error   a connected socket tells of an ICMP reply at the next call: the owner
(`DatagramCalls` finds out)    is told, and the send done
anything else                 that datagram fails; all others go on
============================  ====================================================================
"""

from __future__ import annotations

import operator
import socket
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.datagram.syscalls import NO_MEMORY, NO_ROOM, NO_SEGMENTATION, DatagramCalls
from twsock.errors import BusyError, SocketError, SocketErrorStatus
from twsock.wire.datagrams import (
    MAX_IPV4_DATAGRAM,
    MAX_IPV6_DATAGRAM,
    MAX_SEGMENTS,
    Outgoing,
    count_fitting,
    split_run,
)

__all__ = [
    "OUTPUT_HIGH_WATER",
    "DatagramOutput",
    "OutputOwner",
    "Sendable",
]

#: Bytes waiting from which on senders should stop: two calls of the most that a call carries.
OUTPUT_HIGH_WATER: Final = 128 * 1024

#: Bytes that may wait, unless told otherwise. Far above what a sender that looks at `is_full` sees.
_DEFAULT_MAX_UNSENT: Final = 16 * 1024 * 1024

#: How many items may wait: each costs some 100 bytes besides its own.
_MAX_ITEMS: Final = 1_000_000

#: Peers whose refusals of runs are remembered; of others they are met again.
_MAX_REMEMBERED: Final = 256

#: How often what is pushed while others are told may be sent at once, before the reactor has its
#: turn: who sends again whenever something failed would otherwise be alone in the process.
_MAX_ROUNDS: Final = 16

#: Where the kernel is out of memory it does not tell when there is some again; in seconds.
_REST: Final = 0.01


class OutputOwner(typing.Protocol):
    """Who is told what becomes of the output."""

    def wait_until_writable(self, *, is_waiting: bool) -> None:
        """Have `DatagramOutput.flush` called when there is room, or not any more."""

    def output_drained(self) -> None:
        """What waited has left."""

    def refused(self, error: SocketError) -> None:
        """An earlier datagram was refused."""

    def output_ended(self) -> None:
        """Note that the output was closed; no further method is called."""


class Sendable(Outgoing, typing.Protocol):
    """What waits to be sent, and is told what becomes of it."""

    def sent(self) -> None:
        """It is with the kernel."""

    def failed(self, error: SocketError) -> None:
        """It never will be."""


class DatagramOutput:
    """
    Sends through one socket, in order.

    :param udp: non-blocking; whoever made it closes it.
    :param clock: measures the rest when the kernel is out of memory.
    :param has_runs: whether the kernel may be asked to cut runs.
    :param max_unsent: bytes that may wait; what comes on top of that many raises `BusyError`.
    """

    __slots__ = (
        "_calls",
        "_clock",
        "_closed",
        "_half",
        "_has_runs",
        "_is_blocked",
        "_is_flushing",
        "_is_held",
        "_is_stuck",
        "_is_telling",
        "_is_waiting",
        "_leaving",
        "_max_unsent",
        "_owner",
        "_queue",
        "_refused_sizes",
        "_rest",
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
        self._has_runs = has_runs
        self._max_unsent = max_unsent
        self._queue: list[Sendable] = []
        # What was withdrawn and is still in the queue. A search of the queue for each would make a
        # loop that cancels many quadratic.
        self._withdrawn: set[Sendable] = set()
        # The call under way: what the kernel has been given and was not told yet.
        self._leaving: Sequence[Sendable] = ()
        self._is_held = False
        self._is_flushing = False
        # Whether something waits that could not leave; and whether the socket tells when it can.
        self._is_blocked = False
        self._is_stuck = False
        self._is_telling = False
        # Whether somebody may have seen it full, and waits to be told that it is not.
        self._was_full = False
        self._is_waiting = False
        self._rest: IDelayedCall | None = None
        # A run of which a datagram failed, before there was no room for the rest.
        self._half: tuple[Sendable, SocketError] | None = None
        # Segments of this many bytes or more were refused on the way to a peer that takes them one
        # by one.
        self._refused_sizes: dict[Any, int] = {}
        # Makes the error of each item that waited; None while it is open. Each gets one of its own:
        # an exception that is raised holds the frames of who awaited it.
        self._closed: Callable[[], SocketError] | None = None
        #: The largest datagram of this address family, in bytes.
        self.max_size = MAX_IPV6_DATAGRAM if udp.family == socket.AF_INET6 else MAX_IPV4_DATAGRAM
        #: Bytes that wait.
        self.unsent = 0

    @property
    def is_full(self) -> bool:
        """Whether to wait until it has drained before sending more."""
        return self.unsent >= OUTPUT_HIGH_WATER or self._is_blocked

    @property
    def is_empty(self) -> bool:
        """Whether all has left."""
        return not self._queue

    def hold(self) -> bool:
        """Collect what is pushed until `release`; tell whether that was so before."""
        was_held, self._is_held = self._is_held, True
        return was_held

    def release(self) -> None:
        """Send what was collected."""
        self._is_held = False
        if (self._queue or self._was_full) and not self._is_waiting:
            self.flush()

    def push(self, item: Sendable) -> None:
        """
        Send an item, behind all that waits.

        :raises SocketError: with status ``MESSAGE_TOO_LONG``, when a datagram of it is longer than
            can be sent.
        :raises BusyError: when too much waits.
        """
        self._accept(item)
        if not self._is_held or self.unsent >= OUTPUT_HIGH_WATER:
            self._pushed()

    def push_all(self, items: Sequence[Sendable]) -> None:
        """Send items, behind all that waits; one that `push` would refuse fails, alone."""
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
            self._push_what_can_be(items)
        self._pushed()

    def _push_what_can_be(self, items: Sequence[Sendable]) -> None:
        for item in items:
            try:
                if self._closed is not None:
                    raise self._closed()
                self._accept(item)
            except SocketError as error:
                # The frames of its traceback have the item.
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
            # Of what leaves at once, nobody sees that it was much.
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
        return BusyError(f"{waiting} wait to be sent: send more when they have left")

    def withdraw(self, item: Sendable) -> bool:
        """
        Withdraw an item that was pushed, and neither reported as sent or failed nor withdrawn.

        :returns: False if the item is being sent.
        """
        is_waiting = self._queue or self._is_flushing
        if not is_waiting or item in self._leaving:
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
        """Take it out of what is to leave next; return whether there was any."""
        window = queue[start : start + MAX_SEGMENTS]
        dropped = self._withdrawn.intersection(window)
        if dropped:
            queue[start : start + MAX_SEGMENTS] = [item for item in window if item not in dropped]
            self._withdrawn -= dropped
        return bool(dropped)

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        if self._is_flushing or self._rest is not None:
            return
        self._is_flushing = True
        try:
            # Who is told may push: that goes behind all that is taken out here.
            for _ in range(_MAX_ROUNDS):
                queue, self._queue = self._queue, []
                start = self._send_queue(queue)
                if start < len(queue):
                    self._keep(queue[start:])
                    break
                if not self._queue:
                    break
            else:
                self._rest = self._clock.callLater(0, self._rested)
        finally:
            self._is_flushing = False
            self._leaving = ()
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
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
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
        owner, self._owner = self._owner, _NOBODY
        owner.output_ended()
        self._half = None
        self._withdrawn.clear()

    def _fail_all(self, items: Sequence[Sendable], make_error: Callable[[], SocketError]) -> None:
        for item in items:
            if item not in self._withdrawn:
                item.failed(make_error())

    # How items leave.

    def _send_queue(self, queue: list[Sendable]) -> int:
        """Send from the head; tell how many items are done with."""
        self._is_stuck = False
        if len(queue) == 1 and not self._withdrawn:
            return self._send_batch(queue)
        start = 0
        while start < len(queue) and not self._is_stuck and self._closed is None:
            if self._withdrawn and self._drop_withdrawn(queue, start):
                continue
            window = queue[start : start + MAX_SEGMENTS]
            count = 0 if self._begins_a_run(window) else self._count_singles(window)
            if count:
                start += self._send_singles(window[:count])
            elif self._may_cut(window[0]):
                start += self._send_batch(window[: count_fitting(window, 0, self.max_size)])
            else:
                start += self._send_batch(window[:1])
        return start

    def _begins_a_run(self, window: list[Sendable]) -> bool:
        """Tell at a glance whether the first two leave together, wherever they go."""
        size = window[0].segment_size
        return len(window) > 1 and window[1].segment_size == size and self._may_cut(window[0])

    def _count_singles(self, window: list[Sendable]) -> int:
        """Count from the head what is one datagram that the next cannot leave with."""
        sizes = [item.segment_size for item in window]
        lengths = [len(item.data) for item in window]
        # Up to here a datagram may leave together with another.
        largest = self._least_refused(window[0].address) - 1 if self._has_runs else -1
        if sizes == lengths and (
            min(sizes) > largest or not any(map(operator.le, sizes[1:], sizes))
        ):
            return len(window)
        count = 0
        for size, length, following in zip(sizes, lengths, [*sizes[1:], None], strict=True):
            if size != length or (following is not None and following <= size <= largest):
                break
            count += 1
        return count

    def _send_singles(self, items: list[Sendable]) -> int:
        """Send each by itself; tell how many are done with."""
        done, failure = self._calls.send_each(items)
        self._leaving = items[:done]
        self._sent(items[:done])
        if failure is None or self._closed is not None:
            return done
        return done + self._not_sent([items[done]], failure, is_run=False)

    def _keep(self, items: list[Sendable]) -> None:
        """What could not leave stays in front; of a port that was closed meanwhile, it fails."""
        if self._closed is None:
            self._queue[:0] = items
        else:
            self._fail_all(items, self._closed)

    def _note_blocked(self) -> None:
        self._is_blocked = bool(self._queue)
        self._was_full = self._was_full or self._is_blocked
        is_waiting = self._is_blocked and self._rest is None
        if is_waiting is not self._is_waiting:
            self._is_waiting = is_waiting
            self._owner.wait_until_writable(is_waiting=is_waiting)
        # Also where it was full only while it was held: somebody may have stopped for that.
        if self._was_full and not self._is_blocked and self._closed is None:
            if self._is_telling:
                # Filled again by who was just told: the next time in the reactor's next turn.
                self._rest = self._rest or self._clock.callLater(0, self._rested)
                return
            self._was_full = False
            self._is_telling = True
            self._owner.output_drained()
            self._is_telling = False

    def _may_cut(self, item: Outgoing) -> bool:
        return self._has_runs and item.segment_size < self._least_refused(item.address)

    def _least_refused(self, address: Any) -> int:
        if not self._refused_sizes:
            return MAX_IPV6_DATAGRAM + 1
        return self._refused_sizes.get(address, MAX_IPV6_DATAGRAM + 1)

    def _send_batch(self, batch: list[Sendable]) -> int:
        """Send a batch in one call, or in as many as it takes; tell how many items are done."""
        first = batch[0]
        is_run = len(batch) > 1 or first.segment_size < len(first.data)
        if is_run and not self._may_cut(first):
            return self._send_apart(batch, None)
        self._leaving = batch
        error = self._calls.send(batch, is_run=is_run)
        return self._sent(batch) if error is None else self._not_sent(batch, error, is_run=is_run)

    def _sent(self, batch: list[Sendable]) -> int:
        if self._half is not None:
            return self._rest_sent(batch, *self._half)
        # One is what there mostly is.
        one = len(batch) == 1
        self.unsent -= len(batch[0].data) if one else sum([len(item.data) for item in batch])
        for item in batch:
            item.sent()
        return len(batch)

    def _rest_sent(self, batch: list[Sendable], half: Sendable, error: SocketError) -> int:
        self._half = None
        self.unsent -= sum([len(item.data) for item in batch])
        for item in batch:
            if item is half:
                item.failed(error)
            else:
                item.sent()
        return len(batch)

    def _not_sent(self, batch: list[Sendable], error: OSError, *, is_run: bool) -> int:
        """Do what the error asks for; tell how many items are done."""
        self._leaving = batch
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
            return self._send_apart(batch, error)
        self.unsent -= len(batch[0].data)
        batch[0].failed(self._describe(batch[0], error))
        return 1

    def _send_apart(self, batch: list[Sendable], refusal: OSError | None) -> int:
        """Send each datagram by itself; tell how many items are done."""
        size = batch[0].segment_size
        self._leaving = batch
        for index, item in enumerate(batch):
            half, self._half = self._half, None
            failure = half[1] if half is not None and item is half[0] else None
            for number, data in enumerate(split_run(item.data, item.segment_size)):
                piece = (_Piece(data, item),)
                error = self._calls.send(piece, is_run=False)
                if error is not None and item.address is None:
                    error = self._calls.send_again(piece, error, is_run=False)
                if error is None:
                    if len(data) == size:
                        self._learn(refusal, item.address, size)
                elif self._closed is not None:
                    return index
                elif error.errno in NO_ROOM:
                    self._wait(error)
                    # The run goes on where it stopped.
                    self.unsent -= number * item.segment_size
                    item.data = item.data[number * item.segment_size :]
                    self._half = None if failure is None else (item, failure)
                    return index
                else:
                    failure = self._describe(item, error)
            self.unsent -= len(item.data)
            if failure is None:
                item.sent()
            else:
                item.failed(failure)
        return len(batch)

    def _learn(self, refusal: OSError | None, address: Any, segment_size: int) -> None:
        """Note why datagrams could not leave as a run, though each of them can."""
        if refusal is None:
            return
        if refusal.errno in NO_SEGMENTATION:
            self._has_runs = False
        elif segment_size < self._least_refused(address):
            if len(self._refused_sizes) >= _MAX_REMEMBERED:
                self._refused_sizes.clear()
            self._refused_sizes[address] = segment_size

    def _describe(self, item: Sendable, error: OSError) -> SocketError:
        where = "the connected peer" if item.address is None else item.address[0]
        return SocketError.from_exception(error, f"cannot send to {where}: {error.strerror}")

    def _wait(self, error: OSError) -> None:
        self._is_stuck = True
        if error.errno in NO_MEMORY:
            self._rest = self._clock.callLater(_REST, self._rested)

    def _refused(self, error: SocketError) -> bool:
        """Pass on what became of an earlier datagram; tell whether to go on with this one."""
        self._owner.refused(error)
        return self._closed is None

    def _rested(self) -> None:
        self._rest = None
        self.flush()


class _Nobody:
    """Replaces the owner of an output that was closed."""

    def wait_until_writable(self, *, is_waiting: bool) -> None:
        """Do nothing."""

    def output_drained(self) -> None:
        """Do nothing."""

    def refused(self, error: SocketError) -> None:
        """Do nothing."""

    def output_ended(self) -> None:
        """Do nothing."""


_NOBODY: Final = _Nobody()


class _Piece:
    """One datagram of a run that leaves by itself."""

    __slots__ = ("address", "control", "data", "segment_size")

    def __init__(self, data: bytes, run: Outgoing) -> None:
        self.data = data
        self.segment_size = len(data)
        self.address = run.address
        self.control = run.control
