"""
The base class of all awaitable WebSockets: application → **facts, pings, the end** → connection.

`AwaitableWebSocket` passes calls on to its connection, and receives the events of that connection
(`twsock.sockets.websocket.connection`). Holds the phase of the socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from typing_extensions import Self

from twsock.errors import ClosedError, LocalProtocolError, SocketError
from twsock.log import TextLogger
from twsock.operation import fail
from twsock.sockets.event import Event
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.sockets.stream.state import StreamSocketState
from twsock.sockets.websocket.closed import WebSocketClosedEventArgs
from twsock.sockets.websocket.connection import WebSocketConnection
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.receiving import Receiver
from twsock.websocket.close_frame import (
    CloseCode,
    check_code,
    check_reason,
)

__all__ = ["AwaitableWebSocket"]


class AwaitableWebSocket:
    """
    One WebSocket of a client or a server.

    ``async with`` closes the WebSocket at the end of the block with the code 1000, or aborts it
    when the block raises an error. A `SocketError` does not abort a WebSocket that is no longer
    open, since an abort could destroy its last frames. Then the end of the block waits for the end
    of the connection.

    :param reactor: runs timeouts.
    :param close_timeout: seconds from the first close frame to the end of the connection; 0 or
        more. No traffic extends this time.
    :raises ValueError: when ``close_timeout`` is negative.

    :ivar information: addresses, subprotocol, TLS facts and statistics.
    :ivar output_stream: the sending side. Each write is one message.
    :ivar closed: an event whose handlers are called with the WebSocket and a
        `WebSocketClosedEventArgs`: once, when the close frame of the peer arrives, or when `close`
        is called. They are not called when the connection is lost without a close frame.
    """

    _log = TextLogger()

    # Made by the subclasses.
    information: StreamSocketInformation
    output_stream: WebSocketOutputStream
    _receiver: Receiver

    def __init__(self, reactor: Any, close_timeout: float) -> None:
        if not close_timeout >= 0:
            raise ValueError(f"close_timeout is 0 seconds or more, not {close_timeout!r}")
        self._reactor = reactor
        self._close_timeout = close_timeout
        self._state = StreamSocketState()
        self._connection: WebSocketConnection | None = None
        self.closed: Event[Callable[[Any, WebSocketClosedEventArgs], Any]] = Event("closed")

    # Facts.

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: the WebSocket is connected, and neither closed nor lost."""
        return self._connection is not None and self._connection.is_open

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted, and the peer was accepted."""
        return self._connection is not None and self._connection.is_secure

    # Ending.

    def ping(self) -> Deferred[float]:
        """
        Send a ping. Not in WinRT.

        :returns: fires with the seconds until the pong arrived. It fails with `ClosedError` when
            the WebSocket closes before the pong, with `BrokenError` when the connection is lost
            without a close frame, and with `LocalProtocolError` before the first `connect`. While
            the application does not receive messages, this end may not read, and then no pong
            arrives. Cancelling stops the wait.
        """
        if self._connection is None:
            return fail(LocalProtocolError("cannot ping: the WebSocket is not connected"))
        return self._connection.ping()

    def close(self, code: int = CloseCode.NO_STATUS_RECEIVED, reason: str = "") -> Deferred[None]:
        """
        Send the queued messages and a close frame, then wait until the peer ends the connection.

        A pending receive, read or connect fails with `ClosedError`. Received messages that the
        application has not taken are dropped. The peer has ``close_timeout`` seconds to answer
        with its close frame and to end the connection. Closing twice is harmless: only the first
        call sends a close frame.

        :param code: 1000 to 1003, 1007 to 1014 or 3000 to 4999. 1005, the default, sends an empty
            close frame, which has no code.
        :param reason: at most 123 bytes in UTF-8; empty with code 1005.
        :returns: fires when the connection is lost; at once if there is none. The Deferred need not
            be awaited. Cancelling it does not cancel the close.
        :raises ValueError: at once, when the code or the reason cannot be sent.
        """
        code = check_code(code)
        check_reason(code, reason)
        self._state.close()
        if self._connection is None:
            self._close_unconnected()
            return succeed(None)
        return self._connection.close(code, reason)

    def wait_closed(self) -> Deferred[None]:
        """
        Wait until the connection has ended, for any reason. Not in WinRT.

        :returns: fires when the connection is lost; at once if there is none. Cancelling stops the
            wait.
        """
        return succeed(None) if self._connection is None else self._connection.when_lost()

    def abort(self) -> Deferred[None]:
        """
        End the connection now, without a close frame, and with a reset. Not in WinRT.

        :returns: fires when the connection is lost; at once if there is none. The Deferred need not
            be awaited. Cancelling it does not cancel the abort.
        """
        self._state.abort()
        if self._connection is None:
            self._close_unconnected()
            return succeed(None)
        return self._connection.abort()

    def _close_unconnected(self) -> None:
        error = ClosedError("the WebSocket was closed")
        self._receiver.drop(error)
        self.output_stream.frames.refuse(error.copy)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _type: object, exception: object, _traceback: object) -> None:
        if isinstance(exception, GeneratorExit):
            self.abort()  # An abandoned coroutine cannot await.
        elif exception is None or (isinstance(exception, SocketError) and not self.is_open):
            await self.close(CloseCode.NORMAL_CLOSURE)
        else:
            await self.abort()

    # Called by the connection.

    def connection_closed(self, code: int, reason: str) -> None:
        """Call the handlers of `closed`."""
        args = WebSocketClosedEventArgs(code, reason)
        for handler in self.closed.handlers:
            try:
                handled = handler(self, args)
                if hasattr(handled, "__await__") and not isinstance(handled, Deferred):
                    handled = Deferred.fromCoroutine(handled)
            except Exception:  # noqa: BLE001 - logged; the other handlers are called too
                self._log.failure("a handler of the event closed failed")
                continue
            if isinstance(handled, Deferred):
                handled.addErrback(
                    lambda failure: self._log.failure(
                        "a handler of the event closed failed", failure
                    )
                )

    def connection_lost(self, error: SocketError | None) -> None:
        """Record the loss."""
        self._state.lost(error)
        self.information.lost()
