"""
How the output of a stream socket ends: application or connection → **end of the output** → FIN.

The base of `twsock.sockets.stream.output.OutputStream`, which queues and sends. It holds the reason
why writes are refused, and sends FIN when `close` was called and the last write is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from typing_extensions import Self

from twsock._twisted import silence_unhandled
from twsock.errors import BrokenError, LocalProtocolError, OperationNotSupported, SocketError
from twsock.operation import fail
from twsock.sockets.waiting import lost_again, output_closed, uncancellable
from twsock.stream.connection import Connection

__all__ = ["EndingOutput"]


class EndingOutput:
    """The state of an output from before it is connected until it is closed or lost."""

    __slots__ = ("_ending", "_refusal", "_transport")

    def __init__(self) -> None:
        self._transport: Connection | None = None
        # Makes the error with which a write fails at once; None while writes are accepted.
        self._refusal: Callable[[], SocketError] | None = _not_connected
        # Fires when FIN is sent; None unless `close` was called.
        self._ending: Deferred[None] | None = None

    # Implemented by `OutputStream`.

    @property
    def is_pending(self) -> bool:
        """Whether a write or flush is pending."""
        raise NotImplementedError

    def _send(self) -> None:
        """Pass queued writes to the transport; then `_end_if_empty` is called."""
        raise NotImplementedError

    def _fail_writes(self, error: SocketError) -> None:
        """Fail all pending writes; the connection sends nothing more."""
        raise NotImplementedError

    # Called by applications.

    def close(self) -> Deferred[None]:
        """
        Send the queued writes, then FIN. The application can still read.

        Under TLS, close_notify is sent in place of FIN (:rfc:`8446`, section 6.1). A peer with TLS
        1.2 may then stop sending. Closing twice is harmless. When the peer has ended its output,
        too, the connection ends within the ``close_timeout`` of the socket.

        :returns: fires when the kernel has all written bytes; FIN follows. Cancelling ends the wait
            only. It fails with `OperationNotSupported`, and nothing is closed, if the transport
            cannot end one direction, such as TLS that the application started with ``startTLS``.
        """
        if self._refusal is not None:
            if self._refusal is _not_connected:
                self._refusal = output_closed
            return succeed(None)
        transport = self._transport  # None during a handshake; the end is sent after it.
        if transport is not None and not transport.can_end_output:
            return fail(OperationNotSupported("the output of this stream cannot be closed alone"))
        self._refusal = output_closed
        self._ending = ending = uncancellable()
        self._send()
        return ending

    def abort(self) -> None:
        """
        End the whole connection now, for code that has only this stream, not the socket.

        It drops the queued writes, which fail with `ClosedError`, and sends a reset.
        """
        self._refusal = output_closed
        if self._transport is not None:
            self._transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _type: object, exception: object, _traceback: object) -> None:
        if isinstance(exception, GeneratorExit):
            self.abort()  # An abandoned coroutine can neither await nor complete its message.
        else:
            await self.close()

    # Called by the socket and its connection.

    @property
    def is_open(self) -> bool:
        """Whether writes are accepted: the stream is connected, and neither closed nor lost."""
        return self._refusal is None

    def opened(self, transport: Connection) -> None:
        """Use a transport: the connection is open."""
        self._transport = transport
        if self._refusal is _not_connected:
            self._refusal = None

    def suspend(self) -> None:
        """Queue writes until there is a transport again."""
        self._transport = None

    def refuse(self, refusal: Callable[[], SocketError]) -> None:
        """Refuse further writes with this error: this end was closed."""
        self._refusal = refusal

    def lost(self, error: SocketError) -> None:
        """Fail all pending writes: the connection has ended, or a send has failed."""
        if self._refusal is None or self._refusal is _not_connected:
            self._refusal = lambda: lost_again(error)
        ending, self._ending = self._ending, None
        self._fail_writes(error)
        if ending is not None and not ending.called:
            failure = error.copy()
            ending.errback(failure)
            silence_unhandled(ending, failure)

    def _refuse(self) -> Deferred[Any]:
        assert self._refusal is not None
        error = self._refusal()
        refused: Deferred[Any] = fail(error)
        if isinstance(error, BrokenError):
            silence_unhandled(refused, error)
        return refused

    def _end_if_empty(self) -> None:
        """Send FIN if `close` was called and no write is pending."""
        ending, transport = self._ending, self._transport
        if ending is None or transport is None or self.is_pending:
            return
        self._ending = None
        if transport.is_open and transport.can_end_output:
            transport.end_output()
        if not ending.called:
            ending.callback(None)


def _not_connected() -> SocketError:
    return LocalProtocolError("cannot write: the socket is not connected")
