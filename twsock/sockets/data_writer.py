"""
Values onto a stream: application → **data writer** → output stream.

The values are written by `twsock.wire.values`; here they are stored, which means sent. Holds what
was written and not stored.
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
        """Take bytes, and tell how many once there is room for them."""

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        """Tell when everything written is with the kernel."""

    def close(self) -> Deferred[None]:
        """Take no more."""


class _ClosedPieces(list[bytes]):
    """Stands where the bytes of a closed writer were; an open one need not ask if it is."""

    @override
    def append(self, _data: bytes) -> None:
        raise ClosedError("cannot write: the writer was closed")


class DataWriter(ValueWriter):
    """
    Writes values, then stores them to a stream; ``Windows.Storage.Streams.DataWriter``.

    The ``write_`` methods only collect; `store` sends all of it as *one* write to the stream: so
    many bytes on a stream socket, one datagram on a datagram socket. ``async with`` closes it, and
    its stream.

    :param stream: belongs to the writer, which closes it, until `detach_stream`. None for a writer
        in memory, whose bytes `detach_buffer` gives.
    """

    def __init__(self, stream: Writable | None = None) -> None:
        super().__init__()
        self._stream = stream
        # Pending stores, in order; those that are done are removed from the front.
        self._storing: deque[Deferred[int]] = deque()
        self._is_closed = False

    def store(self) -> Deferred[int]:
        """
        Send all that was written.

        Any number of stores may be pending; they are sent in order.

        :returns: fires with the number of bytes once the stream has taken them; see
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
        Wait until all that was stored is with the kernel. What was not stored is not sent by it.

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
        Give the stream back, so that closing the writer leaves it open.

        :raises BusyError: while a store is pending.
        :raises LocalProtocolError: when there is no stream.
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
        Close the writer, and its stream unless it was detached. What was not stored is lost.

        On a stream socket the peer reads the end of the stream, and the input stays open.
        Closing twice is harmless.

        :returns: fires when the stream is closed. It need not be awaited.
        """
        self._is_closed = True
        self._pieces = _ClosedPieces()
        self._size = 0
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
