"""
The receiving side of a stream socket: connection → **input stream** → application.

One per socket. `twsock.sockets.stream.connection` passes received bytes to it. It holds the bytes
that were not read: at most `READ_AHEAD_LIMIT` bytes and one receive while no read is pending,
and as many as a pending read asks for. Above that, the transport stops reading.

One read may be pending. Whenever bytes arrive, it is checked whether they complete the read::

    UNCONNECTED ──> OPEN ── peer's FIN ──> ENDED ─────┐
                     │ └──── a reset ────> FAILED ────┤ received bytes can still be read
                     └──────── close() ───────────────┴──> CLOSED
"""

from __future__ import annotations

import enum
import typing
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock

from twsock._enums import DocumentedFlag
from twsock._integers import checked_integer
from twsock.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    SocketError,
)
from twsock.operation import Fired, Operation, fail
from twsock.sockets.stream._read_errors import DelimiterNotFoundError, EndOfStreamError
from twsock.sockets.waiting import ClosesInBlock, check_timeout, limit, lost_again
from twsock.stream.connection import FIRST_MESSAGE_TIME, Connection
from twsock.wire.byte_queue import ByteQueue, as_bytes

__all__ = [
    "DEFAULT_MAX_LOAD",
    "READ_AHEAD_LIMIT",
    "ContinuousRead",
    "DelimiterNotFoundError",
    "EndOfStreamError",
    "InputStream",
    "InputStreamOptions",
]

#: Bytes that are received while no read is pending, besides those of one receive.
READ_AHEAD_LIMIT: Final = 64 * 1024

#: Default of the largest number of bytes that one read may ask for: 16 MiB, as for a frame.
DEFAULT_MAX_LOAD: Final = 16 * 1024 * 1024


class InputStreamOptions(DocumentedFlag):
    """
    When a read is done; ``Windows.Storage.Streams.InputStreamOptions``.

    ``NONE``: when all requested bytes have arrived, or at the end of the stream. ``PARTIAL``: as
    soon as any byte has arrived. ``READ_AHEAD`` permits to receive more than was requested, which
    happens anyway; `DataReader.load` then takes all received bytes.
    """

    NONE = 0
    PARTIAL = 1
    READ_AHEAD = 2


class _Search:
    """The bytes before a delimiter, within a limit."""

    def __init__(self, delimiter: bytes, limit: int) -> None:
        self._delimiter = delimiter
        self._limit = limit
        # How many bytes from the front do not begin the delimiter: no byte is searched twice.
        self._searched = 0

    def attempt(self, queue: ByteQueue, is_ended: bool) -> bytes | None:
        found = queue.find(self._delimiter, self._searched)
        if 0 <= found <= self._limit:
            return queue.take(found + len(self._delimiter))[:found]
        self._searched = max(0, queue.size - len(self._delimiter) + 1)
        if found > 0 or self._searched > self._limit:
            raise DelimiterNotFoundError(self._limit)
        if is_ended:
            raise EndOfStreamError(None, queue.size)
        return None


class ContinuousRead:
    """A read that takes all bytes as they arrive, until the input ends; see `InputStream.pull`."""

    def attempt(self, queue: ByteQueue, is_ended: bool) -> bytes | None:
        """Take bytes from the queue; return ``b""`` when the read is done, and else None."""
        raise NotImplementedError


#: A read that is not simply of a number of bytes.
_Special = _Search | ContinuousRead


class _State(enum.Enum):
    UNCONNECTED = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()
    FAILED = enum.auto()
    CLOSED = enum.auto()


_OPEN: Final = _State.OPEN


class InputStream(ClosesInBlock):
    """
    The receiving side of a stream socket.

    The Deferreds of reads fail with `LocalProtocolError` before the socket is connected, with
    `ClosedError` after this end was closed, with `BusyError` while another read is pending (which
    continues), and with `BrokenError` after the connection broke and all received bytes were read.
    A read that fails, is cancelled or times out takes nothing: the next read gets the bytes.

    ``async for chunk in stream`` returns received bytes until the peer ends its output.

    :param clock: measures timeouts.
    :ivar max_load: largest number of bytes that one read may ask for.
    """

    __slots__ = (
        "_clock",
        "_error",
        "_grace",
        "_is_draining",
        "_is_exact",
        "_least",
        "_most",
        "_queue",
        "_read",
        "_search",
        "_state",
        "_transport",
        "max_load",
    )

    def __init__(self, clock: IReactorTime, max_load: int = DEFAULT_MAX_LOAD) -> None:
        self.max_load = max_load
        self._clock = clock
        self._queue = ByteQueue()
        self._state = _State.UNCONNECTED
        # The pending read, and what it asks for: as soon as `_least` bytes have arrived, up to
        # `_most` of them, or what `_search` finds. If `_is_exact`, the end of the stream fails it.
        self._read: Deferred[bytes] | None = None
        self._least = self._most = 0
        self._is_exact = False
        self._search: _Special | None = None
        self._error: SocketError | None = None
        self._is_draining = False
        # Set when a draining connection becomes secure: the drain continues when this is due.
        self._grace: IDelayedCall | None = None
        self._transport: Connection | None = None

    @classmethod
    def from_buffer(cls, data: bytes) -> InputStream:
        """
        Make a stream of these bytes, followed by the end of the stream.

        :param data: at most 16 MiB; with more, one read could not return all of it.
        """
        stream = cls(Clock())  # The clock is not used, since no read waits.
        stream._queue.feed(data)
        stream._state = _State.ENDED
        return stream

    @property
    def buffered(self) -> int:
        """How many bytes were received and not read."""
        return self._queue.size

    # Called by applications.

    def read(
        self,
        count: int,
        options: InputStreamOptions = InputStreamOptions.NONE,
        *,
        timeout: float | None = None,
    ) -> Deferred[bytes]:
        """
        Read as WinRT does.

        :param count: how many bytes; 0 to `max_load`, both included. 0 returns ``b""`` at once.
        :param options: with ``PARTIAL``, fewer bytes as soon as any have arrived.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: ``count`` bytes; at the end of the stream the remaining ones, and then ``b""``.
        :raises ValueError: at once, when a number is out of bounds.
        """
        # The common case, that the bytes have arrived, costs half as much this way.
        is_idle = self._state is _OPEN and self._read is None and timeout is None
        if is_idle and type(count) is int and 0 < count <= self._queue.size:
            return Fired(self._queue.take(count))
        self._check(count, timeout)
        is_partial = count and options & InputStreamOptions.PARTIAL
        return self._start(1 if is_partial else count, count, timeout)

    def receive_some(
        self, max_bytes: int | None = None, *, timeout: float | None = None
    ) -> Deferred[bytes]:
        """
        Wait until any bytes have arrived, and take them.

        :param max_bytes: how many at most; 1 to `max_load`, both included. None for 64 KiB, or
            `max_load` if that is less.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: at least one byte; ``b""`` once the peer has ended its output.
        :raises ValueError: at once, when a number is out of bounds.
        """
        if max_bytes is None:
            max_bytes = min(READ_AHEAD_LIMIT, self.max_load)
        self._check(max_bytes, timeout, least=1)
        return self._start(1, max_bytes, timeout)

    def receive_exactly(self, count: int, *, timeout: float | None = None) -> Deferred[bytes]:
        """
        Wait until this many bytes have arrived, and take them.

        :param count: how many; 0 to `max_load`, both included.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: that many bytes. It fails with `EndOfStreamError` when the peer ends its output
            before.
        :raises ValueError: at once, when a number is out of bounds.
        """
        # The common cases: the bytes have arrived, or the read waits. Without the general path they
        # cost half as much.
        is_idle = self._state is _OPEN and self._read is None and timeout is None
        if is_idle and type(count) is int and count > 0:
            if count <= self._queue.size:
                return Fired(self._queue.take(count))
            if count <= self.max_load:
                return self._wait(count, count, is_exact=True)
        self._check(count, timeout)
        return self._start(count, count, timeout, is_exact=True)

    def receive_until(
        self, delimiter: bytes, limit: int, *, timeout: float | None = None
    ) -> Deferred[bytes]:
        """
        Wait until a delimiter has arrived, and take the bytes before it; drop the delimiter.

        :param delimiter: one byte or more.
        :param limit: how many bytes may precede it; 0 to `max_load`, both included.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: the bytes before the delimiter. It fails with `DelimiterNotFoundError` as soon as
            more than ``limit`` bytes have arrived that do not begin it, and with `EndOfStreamError`
            when the peer ends its output before.
        :raises ValueError: at once, when a number is out of bounds or the delimiter is empty.
        """
        self._check(limit, timeout)
        delimiter = as_bytes(delimiter)
        if not delimiter:
            raise ValueError("a delimiter has one byte or more")
        return self._start(1, limit, timeout, search=_Search(delimiter, limit))

    def close(self) -> Deferred[None]:
        """
        Stop reading. The output stays open; bytes that the peer still sends are dropped.

        A pending read fails with `ClosedError`. Closing twice is harmless.

        :returns: a Deferred that has already fired.
        """
        self._state = _State.CLOSED
        self._queue = ByteQueue()
        self._end_grace()
        if self._transport is not None:
            self._transport.resume_reading()
        self._end_read(ClosedError("this end was closed while a read was pending"))
        return succeed(None)

    def __aiter__(self) -> InputStream:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.receive_some()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    # Called by the socket and its connection.

    @property
    def is_pending(self) -> bool:
        """Whether a read is pending."""
        return self._read is not None

    @property
    def is_open(self) -> bool:
        """Whether it is connected and was not closed; received bytes or the end can be read."""
        return self._state in (_OPEN, _State.ENDED)

    @property
    def transport(self) -> Connection | None:
        """The connection below the stream; None before it is open."""
        return self._transport

    @property
    def reads_continuously(self) -> bool:
        """Whether the pending read is one of `pull`."""
        return isinstance(self._search, ContinuousRead)

    def pull(self, read: ContinuousRead) -> Deferred[bytes]:
        """
        Read until the input ends; ``read`` pauses and resumes the transport itself.

        :returns: fires with ``b""`` then. It fails, and is cancelled, as other reads.
        """
        return self._start(0, 0, None, search=read)

    def pull_again(self) -> None:
        """Let the pending read take bytes that it has left in the queue."""
        self._try_again()

    def take_buffered(self) -> bytes:
        """Take all bytes that were received and not read, for another reader."""
        return self._queue.take(self._queue.size)

    def drop_received(self) -> None:
        """Drop all bytes that were received and not read: the connection is being aborted."""
        self._queue = ByteQueue()

    def cancel_read(self, error: SocketError) -> None:
        """Fail the pending read, if there is one; the stream stays open."""
        self._end_read(error)

    def opened(self, transport: Connection) -> None:
        """Use a transport: the connection is open."""
        self._transport = transport
        if self._state is _State.UNCONNECTED:
            self._state = _OPEN
        if self._is_draining:
            # It became secure during a drain: the peer's first bytes follow the handshake.
            self._is_draining = False
            self._grace = self._clock.callLater(FIRST_MESSAGE_TIME, self.end_when_drained)

    def feed(self, data: bytes) -> int:
        """
        Add received bytes, and complete the pending read if they suffice.

        :returns: how many bytes are left that were not read.
        """
        if self._state is not _OPEN:
            return 0
        queue = self._queue
        queue.feed(data)
        read = self._read
        if read is not None and queue.size >= self._least:
            if self._search is None:
                self._read = None  # Cleared first: the callback may read again.
                read.callback(queue.take(min(self._most, queue.size)))
            else:
                self._try_again()
        left = self._queue.size  # A callback may have closed the stream.
        if left >= READ_AHEAD_LIMIT and self._read is None and self._transport is not None:
            self._transport.pause_reading()
        return left

    def end_when_drained(self) -> None:
        """Report the end of the stream to the pending read and to later reads without bytes."""
        self._is_draining = True
        self._end_grace()
        self._end_if_drained()

    def ended(self) -> None:
        """Note the end of the stream: the peer ended its output."""
        if self._state is _OPEN:
            self._state = _State.ENDED
            self._end_grace()
            self._try_again()

    def failed(self, error: SocketError) -> None:
        """Note that the connection broke; received bytes can still be read."""
        if self._state in (_State.UNCONNECTED, _OPEN):
            self._state = _State.FAILED
            self._error = error
            self._end_grace()
            self._end_read(self._broken())

    # One read.

    def _check(self, count: int, timeout: float | None, least: int = 0) -> None:
        if type(count) is int and least <= count <= self.max_load and timeout is None:
            return  # The common case.
        if not least <= checked_integer(count, "a count of bytes") <= self.max_load:
            raise ValueError(f"a read is of {least} to {self.max_load} bytes, not {count}")
        check_timeout(timeout)

    def _refusal(self) -> SocketError | None:
        if self._state is _State.UNCONNECTED:
            return LocalProtocolError("cannot read: the socket is not connected")
        if self._state is _State.CLOSED:
            return ClosedError("cannot read: this end was closed")
        if self._read is not None:
            return BusyError("cannot read: another read is pending")
        return None

    def _broken(self) -> BrokenError | ClosedError:
        return lost_again(typing.cast(SocketError, self._error))

    def _start(
        self,
        least: int,
        most: int,
        timeout: float | None,
        *,
        is_exact: bool = False,
        search: _Special | None = None,
    ) -> Deferred[bytes]:
        is_idle = self._state is _OPEN and self._read is None
        if not is_idle and (refusal := self._refusal()) is not None:
            return fail(refusal)
        try:
            taken = self._take(least, most, is_exact, search)
        except SocketError as error:
            return fail(error)
        if taken is not None:
            return Fired(taken)
        if self._state is _State.FAILED:
            return fail(self._broken())
        read = self._wait(least, most, is_exact, search)
        return read if timeout is None else limit(read, timeout, self._clock, "the read")

    def _take(self, least: int, most: int, is_exact: bool, search: _Special | None) -> bytes | None:
        """Take what a read asks for; None if it has not arrived."""
        queue, is_ended = self._queue, self._state is _State.ENDED
        if search is not None:
            return search.attempt(queue, is_ended)
        if queue.size >= least or (is_ended and not is_exact):
            return queue.take(min(most, queue.size))
        if is_ended:
            raise EndOfStreamError(most, queue.size)
        return None

    def _wait(
        self, least: int, most: int, is_exact: bool, search: _Special | None = None
    ) -> Deferred[bytes]:
        """Make a read that is pending."""
        self._least, self._most, self._is_exact, self._search = least, most, is_exact, search
        read: Deferred[bytes] = Operation(self._forget)
        self._read = read
        transport = self._transport
        if transport is not None and not transport.is_reading:
            transport.resume_reading()
        if self._is_draining:
            self._end_if_drained()
        return read

    def _end_grace(self) -> None:
        grace, self._grace = self._grace, None
        if grace is not None and grace.active():
            grace.cancel()

    def _end_if_drained(self) -> None:
        transport = self._transport
        is_idle = self._read is not None and not self._queue.size
        if self._is_draining and is_idle and not (transport and transport.has_unread_input):
            self.ended()

    def _try_again(self) -> None:
        read = self._read
        if read is None:
            return
        try:
            taken = self._take(self._least, self._most, self._is_exact, self._search)
        except SocketError as error:
            self._end_read(error)
            return
        if taken is not None:
            self._read = self._search = None  # Cleared first: the callback may read again.
            read.callback(taken)

    def _forget(self, _read: Deferred[bytes]) -> None:
        self._read = self._search = None

    def _end_read(self, error: SocketError) -> None:
        read, self._read, self._search = self._read, None, None
        if read is not None:
            read.errback(error)
