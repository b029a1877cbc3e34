"""
The data reader: input stream → **data reader** → typed values → application.

Loads bytes from a stream; `twsock.wire.values` decodes values from them. Holds the bytes that were
loaded and not read.
"""

from __future__ import annotations

import typing
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twsock._integers import checked_integer
from twsock.errors import BusyError, ClosedError, LocalProtocolError, SocketError
from twsock.operation import fail
from twsock.sockets.stream.input import DEFAULT_MAX_LOAD, InputStreamOptions
from twsock.sockets.waiting import ClosesInBlock
from twsock.wire.byte_queue import Buffer, ByteQueue, as_bytes
from twsock.wire.values import ValueReader

__all__ = ["DataReader", "Readable"]


class Readable(typing.Protocol):
    """A stream that a `DataReader` can load from."""

    max_load: int

    @property
    def buffered(self) -> int:
        """How many bytes the stream has received and no read has taken."""

    def read(
        self, count: int, options: InputStreamOptions, *, timeout: float | None = None
    ) -> Deferred[bytes]:
        """Read bytes; fewer at the end of the stream, or with ``PARTIAL``."""

    def close(self) -> Deferred[None]:
        """Close the stream."""


class _NoStream:
    """Replaces the stream of a reader that has none, or no longer has one."""

    max_load = DEFAULT_MAX_LOAD
    buffered = 0

    def read(self, *_: object, **__: object) -> Deferred[bytes]:
        return fail(LocalProtocolError("cannot load: this reader has no stream"))

    def close(self) -> Deferred[None]:
        return succeed(None)


class _ClosedQueue(ByteQueue):
    """Replaces the bytes of a closed reader, so that an open reader needs no check for closing."""

    def __init__(self) -> None:
        """Hold nothing."""

    @property
    def size(self) -> int:  # type: ignore[override]
        raise ClosedError("cannot read: the reader was closed")


_NO_STREAM: Final = _NoStream()

#: Looked up for each load; a global lookup costs half of an enum attribute.
_NONE: Final = InputStreamOptions.NONE


class DataReader(ClosesInBlock, ValueReader):
    """
    Loads from a stream, then reads values; ``Windows.Storage.Streams.DataReader``.

    `load` receives bytes, and the ``read_`` methods decode them. These never wait: reading more
    than was loaded raises `OutOfBoundsError`. ``async with`` closes the reader and its stream.

    :param stream: the reader closes it, unless `detach_stream` returned it.
    :raises ValueError: when the stream is None.
    :ivar input_stream_options: when a `load` is done; default ``NONE``.
    """

    def __init__(self, stream: Readable) -> None:
        super().__init__()
        if stream is None:
            raise ValueError("a reader needs a stream, or else from_buffer()")
        self.input_stream_options = _NONE
        self._stream = stream
        self._loading: Deferred[bytes] | None = None
        self._is_closed = False

    @classmethod
    def from_buffer(cls, buffer: Buffer) -> DataReader:
        """
        Make a reader of these bytes. It has no stream, so it cannot load more.

        :param buffer: any bytes; a mutable buffer is copied.
        """
        reader = cls(_NO_STREAM)
        reader.feed(as_bytes(buffer))
        return reader

    def load(self, count: int, *, timeout: float | None = None) -> Deferred[int]:
        """
        Receive bytes from the stream, and append them to those already loaded.

        :param count: how many; 0 to the stream's ``max_load`` (16 MiB), both included.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: how many bytes this call loaded: ``count``, or fewer, down to 0, at the end of the
            stream; with ``PARTIAL`` at least one, unless the stream ended; with ``READ_AHEAD`` all
            received bytes, even more than ``count``. It fails as the reads of `InputStream` do, and
            with `BusyError` while another load is pending. Cancelling takes nothing off the stream.
        :raises ValueError: at once, when a number is out of bounds.
        """
        stream = self._stream
        if not 0 <= checked_integer(count, "a count of bytes") <= stream.max_load:
            raise ValueError(f"a load is of 0 to {stream.max_load} bytes, not {count}")
        if self._is_closed or self._loading is not None:
            return fail(self._refusal("load"))
        options = self.input_stream_options
        if count and options is not _NONE and options & InputStreamOptions.READ_AHEAD:
            count = max(count, min(stream.buffered, stream.max_load))
        loading = stream.read(count, options, timeout=timeout)
        if loading.called and isinstance(loading.result, bytes):
            # The common case: the bytes were received before, so no callback is needed.
            self.feed(loading.result)
            return succeed(len(loading.result))
        self._forget_read()
        self._loading = loading
        loaded: Deferred[int] = loading.addCallbacks(self._loaded, self._failed)
        return loaded

    def detach_stream(self) -> Readable:
        """
        Return the stream, which the reader then does not close. Loaded bytes stay in the reader.

        :raises BusyError: while a load is pending.
        :raises LocalProtocolError: when the reader has no stream.
        """
        stream = self._stream
        if self._is_closed or self._loading is not None:
            raise self._refusal("detach the stream")
        if stream is _NO_STREAM:
            raise LocalProtocolError("cannot detach the stream: this reader has none")
        self._stream = _NO_STREAM
        return stream

    def close(self) -> Deferred[None]:
        """
        Close the reader, and its stream unless it was detached. Closing twice is harmless.

        :returns: fires when the stream is closed. It need not be awaited.
        """
        self._is_closed = True
        # The position is behind the end, so that each read uses the queue, even one of no bytes.
        self._front, self._position = b"", 1
        self._queue = _ClosedQueue()
        stream, self._stream = self._stream, _NO_STREAM
        return stream.close()

    def _refusal(self, what: str) -> SocketError:
        if self._is_closed:
            return ClosedError(f"cannot {what}: the reader was closed")
        return BusyError(f"cannot {what}: a load is pending")

    def _loaded(self, data: bytes) -> int:
        self._loading = None
        self.feed(data)
        return len(data)

    def _failed(self, failure: Failure) -> Failure:
        self._loading = None
        return failure
