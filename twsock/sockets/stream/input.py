"""
What comes in, taken when it is wanted: connection → **input stream** → application.

Fed by `twsock.sockets.stream.connection.Connection`, one per socket. Holds what was received and
not taken: at most `READ_AHEAD_LIMIT` bytes and one receive while nobody asks; as much as is asked
for while somebody does. Beyond that the peer waits.

One read may be pending. What it wishes for says whether what is there is enough, and is asked again
whenever more has come::

    UNCONNECTED ──> OPEN ── peer's FIN ──> ENDED ─────┐
                     │ └──── a reset ────> FAILED ────┤ what is there can still be read
                     └──────── close() ───────────────┴──> CLOSED
"""

from __future__ import annotations

import enum
import typing
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock
from typing_extensions import override

from twsock._enums import DocumentedFlag
from twsock._integers import checked_integer
from twsock.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    SocketError,
)
from twsock.operation import Operation, fail
from twsock.sockets.waiting import ClosesInBlock, check_timeout, limit, lost_again
from twsock.stream.transport import FIRST_MESSAGE_TIME, StreamTransport
from twsock.wire.byte_queue import ByteQueue, as_bytes

__all__ = [
    "DEFAULT_MAX_LOAD",
    "READ_AHEAD_LIMIT",
    "DelimiterNotFoundError",
    "EndOfStreamError",
    "InputStream",
    "InputStreamOptions",
]

#: Bytes that are received before anybody asks for them, besides those of one receive.
READ_AHEAD_LIMIT: Final = 64 * 1024

#: Largest number of bytes that one read may ask for, unless told otherwise: the 16 MiB of a frame.
DEFAULT_MAX_LOAD: Final = 16 * 1024 * 1024

# ERROR_HANDLE_EOF of Win32.
_END_OF_FILE: Final = 0x8007_0026


class InputStreamOptions(DocumentedFlag):
    """
    When a read is done; ``Windows.Storage.Streams.InputStreamOptions``.

    ``NONE``: with all that was asked for, or at the end of the stream. ``PARTIAL``: as soon as
    there is anything. ``READ_AHEAD`` permits to receive more than was asked for, which happens
    anyway; `DataReader.load` then takes all there is.
    """

    NONE = 0
    PARTIAL = 1
    READ_AHEAD = 2


class EndOfStreamError(BrokenError):
    """
    The peer ended its output before all that was asked for had come. What came can be read.

    :ivar wanted: how many bytes were asked for, or None for bytes up to a delimiter.
    :ivar available: how many came; 0 where the peer ended between two messages.
    """

    _class_hresult = _END_OF_FILE

    def __init__(self, wanted: int | None, available: int) -> None:
        asked = "the delimiter" if wanted is None else f"{wanted} bytes"
        super().__init__(f"the peer ended its output before {asked} had come, after {available}")
        self.wanted = wanted
        self.available = available


class DelimiterNotFoundError(RemoteProtocolError):
    """
    The peer sent too much without the delimiter. All of it is still there.

    :ivar limit: how many bytes there may be before the delimiter.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"peer sent more than {limit} bytes without the delimiter")
        self.limit = limit


class _Wish(typing.Protocol):
    """What a read asks for."""

    def attempt(self, queue: ByteQueue, is_ended: bool) -> bytes | None:
        """Take it, or nothing while it is not there."""


class _Some:
    """Whatever there is."""

    def __init__(self, count: int) -> None:
        self._count = count

    def attempt(self, queue: ByteQueue, is_ended: bool) -> bytes | None:
        if queue.size or is_ended:
            return queue.take(min(self._count, queue.size))
        return None


class _AtMost(_Some):
    """All that was asked for, or less at the end."""

    @override
    def attempt(self, queue: ByteQueue, is_ended: bool) -> bytes | None:
        if queue.size >= self._count or is_ended:
            return queue.take(min(self._count, queue.size))
        return None


class _Exactly(_Some):
    """All that was asked for, or an error."""

    @override
    def attempt(self, queue: ByteQueue, is_ended: bool) -> bytes | None:
        if queue.size >= self._count:
            return queue.take(self._count)
        if is_ended:
            raise EndOfStreamError(self._count, queue.size)
        return None


class _Until:
    """Up to a delimiter, within a limit."""

    def __init__(self, delimiter: bytes, limit: int) -> None:
        self._delimiter = delimiter
        self._limit = limit
        # How many bytes from the front do not begin the delimiter: no byte is looked at twice.
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


class _State(enum.Enum):
    UNCONNECTED = enum.auto()
    OPEN = enum.auto()
    ENDED = enum.auto()
    FAILED = enum.auto()
    CLOSED = enum.auto()


_OPEN: Final = _State.OPEN


class InputStream(ClosesInBlock):
    """
    The bytes from the peer, in pieces of any size.

    All reads return a Deferred. They fail, through it, with `LocalProtocolError` before the socket
    is connected, with `ClosedError` once this end was closed, with `BusyError` while another read
    is pending (which goes on undisturbed), and with `BrokenError` when the connection died: after
    what had been received was read. Where a read fails, is cancelled or times out, nothing was
    taken: what came is there for the next one.

    ``async for chunk in stream`` gives what comes until the peer ends its output.

    :param clock: measures timeouts.
    :ivar max_load: largest number of bytes that one read may ask for.
    """

    __slots__ = (
        "_clock",
        "_error",
        "_grace",
        "_is_draining",
        "_queue",
        "_read",
        "_state",
        "_transport",
        "_wish",
        "max_load",
    )

    def __init__(self, clock: IReactorTime, max_load: int = DEFAULT_MAX_LOAD) -> None:
        self.max_load = max_load
        self._clock = clock
        self._queue = ByteQueue()
        self._state = _State.UNCONNECTED
        # The pending read, and what it asks for.
        self._read: Deferred[bytes] | None = None
        self._wish: _Wish | None = None
        self._error: SocketError | None = None
        self._is_draining = False
        # Set when a draining connection becomes secure: the drain continues when this is due.
        self._grace: IDelayedCall | None = None
        self._transport: StreamTransport | None = None

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
        """How many bytes were received and not taken."""
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

        :param count: how many bytes; 0 to `max_load`, both included. 0 gives ``b""`` at once.
        :param options: with ``PARTIAL``, what there is as soon as there is anything.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: ``count`` bytes; at the end of the stream those that were left, and then ``b""``.
        :raises ValueError: at once, when a number is out of bounds.
        """
        # What is there already is the common case, and half as dear this way.
        is_idle = self._state is _OPEN and self._read is None
        if is_idle and type(count) is int and 0 < count <= self._queue.size:
            return succeed(self._queue.take(count))
        self._check(count, timeout)
        if not count:
            return succeed(b"") if self._refusal() is None else self._refuse()
        kind = _Some if options & InputStreamOptions.PARTIAL else _AtMost
        return self._start(kind(count), timeout)

    def receive_some(
        self, max_bytes: int | None = None, *, timeout: float | None = None
    ) -> Deferred[bytes]:
        """
        Wait until there is anything, and take it.

        :param max_bytes: how much of it; 1 to `max_load`, both included. None for 64 KiB, or
            `max_load` where that is less.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: at least one byte; ``b""`` once the peer has ended its output.
        :raises ValueError: at once, when a number is out of bounds.
        """
        if max_bytes is None:
            max_bytes = min(READ_AHEAD_LIMIT, self.max_load)
        self._check(max_bytes, timeout, least=1)
        return self._start(_Some(max_bytes), timeout)

    def receive_exactly(self, count: int, *, timeout: float | None = None) -> Deferred[bytes]:
        """
        Wait until so many bytes are there, and take them.

        :param count: how many; 0 to `max_load`, both included.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: that many bytes. It fails with `EndOfStreamError` when the peer ends first.
        :raises ValueError: at once, when a number is out of bounds.
        """
        # What is there already is the common case, and half as dear this way.
        is_idle = self._state is _OPEN and self._read is None
        if is_idle and type(count) is int and 0 < count <= self._queue.size:
            return succeed(self._queue.take(count))
        self._check(count, timeout)
        return self._start(_Exactly(count), timeout)

    def receive_until(
        self, delimiter: bytes, limit: int, *, timeout: float | None = None
    ) -> Deferred[bytes]:
        """
        Wait until a delimiter has come, and take what is before it; the delimiter is dropped.

        :param delimiter: one byte or more.
        :param limit: how many bytes there may be before it; 0 to `max_load`, both included.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: the bytes before the delimiter. It fails with `DelimiterNotFoundError` as soon as
            more than ``limit`` bytes are there that cannot begin it, and with `EndOfStreamError`
            when the peer ends first.
        :raises ValueError: at once, when a number is out of bounds or the delimiter empty.
        """
        self._check(limit, timeout)
        delimiter = as_bytes(delimiter)
        if not delimiter:
            raise ValueError("a delimiter has one byte or more")
        return self._start(_Until(delimiter, limit), timeout)

    def close(self) -> Deferred[None]:
        """
        Read no more. The output goes on; what the peer still sends is received and dropped.

        A pending read fails with `ClosedError`. Closing twice is harmless.

        :returns: has fired already.
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

    def take_buffered(self) -> bytes:
        """Hand over all that was received and not read, for whoever reads from here on."""
        return self._queue.take(self._queue.size)

    def drop_received(self) -> None:
        """Forget all that was received and not read: the connection is being aborted for it."""
        self._queue = ByteQueue()

    def cancel_read(self, error: SocketError) -> None:
        """Let the pending read fail, if there is one; the stream goes on."""
        self._end_read(error)

    def opened(self, transport: StreamTransport) -> None:
        """The connection stands."""
        self._transport = transport
        if self._state is _State.UNCONNECTED:
            self._state = _OPEN
        if self._is_draining:
            # It has become secure meanwhile: what its peer has to say comes behind the handshake.
            self._is_draining = False
            self._grace = self._clock.callLater(FIRST_MESSAGE_TIME, self.end_when_drained)

    def feed(self, data: bytes) -> None:
        """Bytes have come."""
        if self._state is not _OPEN:
            return
        queue = self._queue
        queue.feed(data)
        if self._read is not None:
            self._try_again()
        if self._read is None and queue.size >= READ_AHEAD_LIMIT and self._transport is not None:
            self._transport.pause_reading()

    def end_when_drained(self) -> None:
        """Let a read that finds nothing see the end of the stream, now and from here on."""
        self._is_draining = True
        self._end_grace()
        self._end_if_drained()

    def ended(self) -> None:
        """No more will come: the peer has ended its output."""
        if self._state is _OPEN:
            self._state = _State.ENDED
            self._end_grace()
            self._try_again()

    def failed(self, error: SocketError) -> None:
        """No more will come: the connection died."""
        if self._state in (_State.UNCONNECTED, _OPEN):
            self._state = _State.FAILED
            self._error = error
            self._end_grace()
            self._end_read(self._broken())

    # How a read goes.

    def _check(self, count: int, timeout: float | None, least: int = 0) -> None:
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

    def _refuse(self) -> Deferred[bytes]:
        return fail(typing.cast(SocketError, self._refusal()))

    def _broken(self) -> BrokenError | ClosedError:
        return lost_again(typing.cast(SocketError, self._error))

    def _start(self, wish: _Wish, timeout: float | None) -> Deferred[bytes]:
        if self._refusal() is not None:
            return self._refuse()
        try:
            taken = wish.attempt(self._queue, self._state is _State.ENDED)
        except SocketError as error:
            return fail(error)
        if taken is not None:
            return succeed(taken)
        if self._state is _State.FAILED:
            return fail(self._broken())
        read: Deferred[bytes] = Operation(self._forget)
        self._read = read
        self._wish = wish
        if self._transport is not None:
            self._transport.resume_reading()
            self._end_if_drained()
        return read if timeout is None else limit(read, timeout, self._clock, "the read")

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
        read, wish = self._read, self._wish
        if read is None or wish is None:
            return
        try:
            taken = wish.attempt(self._queue, self._state is _State.ENDED)
        except SocketError as error:
            self._end_read(error)
            return
        if taken is not None:
            self._read = self._wish = None  # cleared first: the callback may read again
            read.callback(taken)

    def _forget(self, _read: Deferred[bytes]) -> None:
        self._read = self._wish = None

    def _end_read(self, error: SocketError) -> None:
        read, self._read, self._wish = self._read, None, None
        if read is not None:
            read.errback(error)
