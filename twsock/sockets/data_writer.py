"""
The data writer: application → typed values → **data writer** → output stream.

`twsock.wire.values` encodes the values; the writer sends ("stores") them. Holds the bytes that were
written and not stored.
"""

from __future__ import annotations

import typing
from collections import deque

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import (
    BusyError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    SocketError,
)
from twsock.operation import fail
from twsock.wire.byte_queue import Buffer
from twsock.wire.values import ValueWriter

__all__ = ["DataWriter", "Writable"]


class Writable(typing.Protocol):
    """A stream that a `DataWriter` can store to."""

    def send_all(self, data: Buffer) -> Deferred[int]:
        """Send bytes; return how many once there is room for them."""

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        """Wait until everything written is with the kernel."""

    def close(self) -> Deferred[None]:
        """Close the stream."""


class _ClosedPieces(list[bytes]):
    """Replaces the bytes of a closed writer, so that an open writer needs no check for closing."""

    @override
    def append(self, _data: bytes) -> None:
        raise ClosedError("cannot write: the writer was closed")


class DataWriter(ValueWriter):
    """
    Writes values, then stores them to a stream; ``Windows.Storage.Streams.DataWriter``.

    The ``write_`` methods only collect bytes; `store` sends all of them as *one* write to the
    stream, which is one datagram on a datagram socket. ``async with`` closes the writer and its
    stream.

    :param stream: the writer closes it, unless `detach_stream` returned it. None for a writer in
        memory, whose bytes `detach_buffer` returns.
    """

    def __init__(self, stream: Writable | None = None) -> None:
        super().__init__()
        self._stream = stream
        # Pending stores, in order; finished ones are removed from the front.
        self._storing: deque[Deferred[int]] = deque()
        self._is_closed = False

    def store(self) -> Deferred[int]:
        """
        Send all bytes that were written.

        Any number of stores may be pending; they are sent in order.

        :returns: fires with the number of bytes once the stream has queued them; see
            ``OutputStream.send_all``. It fails with `BusyError` if the stream accepts no more, as
            ``OutputStream.write`` does at `max_unsent`; the bytes then stay in the writer. It fails
            with `LocalProtocolError` if there is no stream. Cancelling withdraws the store if none
            of its bytes was sent; the bytes are dropped from the writer in any case.
        """
        if self._is_closed:
            return fail(self._refusal("store"))
        if self._stream is None:
            return fail(LocalProtocolError("cannot store: this writer has no stream"))
        data = self.detach_buffer()
        storing = self._stream.send_all(data)
        if not storing.called:
            self._forget_stored()
            self._storing.append(storing)
        elif isinstance(storing.result, Failure) and storing.result.check(BusyError):
            self.write_bytes(data)
        return storing

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        """
        Wait until all stored bytes are with the kernel. Bytes that were not stored are not sent.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with True; see ``OutputStream.flush``.
        """
        if self._is_closed:
            return fail(ClosedError("cannot flush: the writer was closed"))
        if self._stream is None:
            return fail(LocalProtocolError("cannot flush: this writer has no stream"))
        return self._stream.flush(timeout=timeout)

    def detach_stream(self) -> Writable:
        """
        Return the stream, which the writer then does not close.

        :raises BusyError: while a store is pending.
        :raises LocalProtocolError: when the writer has no stream.
        """
        stream = self._stream
        if self._is_closed or self._is_storing:
            raise self._refusal("detach the stream")
        if stream is None:
            raise LocalProtocolError("cannot detach the stream: this writer has none")
        self._stream = None
        return stream

    def close(self) -> Deferred[None]:
        """
        Close the writer, and its stream unless it was detached. Drop bytes that were not stored.

        On a stream socket the peer reads the end of the stream, and the input stays open.
        Closing twice is harmless.

        :returns: fires when the stream is closed. It need not be awaited.
        """
        self._is_closed = True
        self._pieces = _ClosedPieces()
        self._size = self._measured = 0
        stream, self._stream = self._stream, None
        if stream is None:
            return succeed(None)
        return stream.close().addErrback(_has_no_half)

    async def __aenter__(self) -> DataWriter:
        return self

    async def __aexit__(self, _type: object, exception: object, _traceback: object) -> None:
        if isinstance(exception, GeneratorExit):
            self._abandon()
        else:
            await self.close()

    def _abandon(self) -> None:
        """Close without awaiting; abort, so that half a message does not look complete."""
        abort = getattr(self._stream, "abort", None)
        if abort is not None:
            abort()
        self.close()

    @override
    def detach_buffer(self) -> bytes:
        if self._is_closed:
            raise ClosedError("cannot detach the buffer: the writer was closed")
        return ValueWriter.detach_buffer(self)

    @property
    def _is_storing(self) -> bool:
        self._forget_stored()
        return bool(self._storing)

    def _forget_stored(self) -> None:
        storing = self._storing
        while storing and storing[0].called:
            storing.popleft()

    def _refusal(self, what: str) -> SocketError:
        if self._is_closed:
            return ClosedError(f"cannot {what}: the writer was closed")
        return BusyError(f"cannot {what}: a store is pending")


def _has_no_half(failure: Failure) -> None:
    failure.trap(OperationNotSupported)
