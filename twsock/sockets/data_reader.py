"""
Values off a stream: input stream → **data reader** → application.

The values are read by `twsock.wire.values`; here they are loaded. Holds what was loaded and not
read.
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
        """How many bytes it has received and not given."""

    def read(
        self, count: int, options: InputStreamOptions, *, timeout: float | None = None
    ) -> Deferred[bytes]:
        """Give bytes; fewer at the end, or with ``PARTIAL``."""

    def close(self) -> Deferred[None]:
        """Give no more."""


class _NoStream:
    """Stands where there is no stream, or not any more."""

    max_load = DEFAULT_MAX_LOAD
    buffered = 0

    def read(self, *_: object, **__: object) -> Deferred[bytes]:
        return fail(LocalProtocolError("cannot load: this reader has no stream"))

    def close(self) -> Deferred[None]:
        return succeed(None)


class _ClosedQueue(ByteQueue):
    """Stands where the bytes of a closed reader were; an open one need not ask if it is."""

    def __init__(self) -> None:
        """Hold nothing."""

    @property
    def size(self) -> int:  # type: ignore[override]
        raise ClosedError("cannot read: the reader was closed")


_NO_STREAM: Final = _NoStream()

#: Looked up for each load, and a name of the module is found in half the time.
_NONE: Final = InputStreamOptions.NONE


class DataReader(ClosesInBlock, ValueReader):
    """
    Loads from a stream, then reads values; ``Windows.Storage.Streams.DataReader``.

    First `load` brings bytes, then the ``read_`` methods take them. Those wait for nothing: reading
    more than is loaded raises `OutOfBoundsError`. ``async with`` closes it, and its stream.

    :param stream: belongs to the reader, which closes it, until `detach_stream`.
    :raises ValueError: when it is None.
    :ivar input_stream_options: when a `load` is done; at first ``NONE``.
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
        Make a reader of what is there already. It has no stream: nothing can be loaded.

        :param buffer: any bytes; what can change is copied.
        """
        reader = cls(_NO_STREAM)
        reader.feed(as_bytes(buffer))
        return reader

    def load(self, count: int, *, timeout: float | None = None) -> Deferred[int]:
        """
        Bring bytes from the stream, behind those that are there.

        :param count: how many; 0 to the stream's ``max_load`` (16 MiB), both included.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: how many bytes this call brought: ``count``, or fewer when the stream ended, down
            to 0; with ``PARTIAL`` at least one unless it ended; with ``READ_AHEAD`` all there are
            if they are more. It fails as the reads of `InputStream` do, and with `BusyError` while
            another load is pending. Cancelling takes nothing off the stream.
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
            # There already, which is the common case: no need to be called back.
            self.feed(loading.result)
            return succeed(len(loading.result))
        self._loading = loading
        loaded: Deferred[int] = loading.addCallbacks(self._loaded, self._failed)
        return loaded

    def detach_stream(self) -> Readable:
        """
        Give the stream back, so that closing the reader leaves it open. What is loaded stays here.

        :raises BusyError: while a load is pending.
        :raises LocalProtocolError: when there is no stream.
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
