"""
The receiving side of a message WebSocket: connection → **receiver** → handlers, or `receive`.

The connection pulls messages while `WebSocketMessageReceiver.take` returns True; otherwise it
pauses reading. So this end holds at most one message that the application has not asked for, and
the bytes of one read. A server that sends more has to wait. One message is pulled in advance, so
that pings in front of it are answered.
"""

from __future__ import annotations

import inspect
import typing
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twsock.errors import BusyError, ClosedError, LocalProtocolError, SocketError
from twsock.log import TextLogger, forget_frames
from twsock.operation import Fired, Operation, fail
from twsock.sockets.event import Event
from twsock.sockets.waiting import check_timeout, limit
from twsock.sockets.websocket.message import (
    MessageWebSocketMessageReceivedEventArgs,
    SocketMessageType,
)
from twsock.stream.connection import Connection
from twsock.websocket.frames import Opcode

__all__ = ["MessageSource", "Receiver", "WebSocketMessageReceiver"]

_Args = MessageWebSocketMessageReceivedEventArgs


class MessageSource(typing.Protocol):
    """The connection that messages are pulled from."""

    @property
    def stream(self) -> Connection:
        """The stream connection below, from the handshake to the loss."""

    def pull(self) -> None:
        """Pass on messages until `WebSocketMessageReceiver.take` returns False."""

    def next_message(self) -> str | bytes | None:
        """Return the next message if `pull` runs and a message has arrived; otherwise None."""

    def handler_failed(self) -> None:
        """Close the WebSocket: a handler has failed."""


class Receiver(typing.Protocol):
    """Delivers messages to the application."""

    @property
    def is_full(self) -> bool:
        """Whether no message may be pulled."""

    @property
    def may_read(self) -> bool:
        """Whether the connection may read."""

    @property
    def is_waiting(self) -> bool:
        """Whether the application waits for the next message, and handles none."""

    @property
    def held_bytes(self) -> int:
        """Bytes that were taken and not delivered."""

    def opened(self, source: MessageSource, owner: object) -> None:
        """Begin to receive messages from a connection: the handshake is done."""

    def take(self, opcode: Opcode, payload: Any, is_complete: bool) -> bool:
        """Deliver or hold a message; return whether the next one may be pulled."""

    def end(self, error: SocketError) -> None:
        """Record that no more messages follow, and why."""

    def drop(self, error: SocketError) -> None:
        """Drop messages that were taken and not delivered: this end was closed."""


class WebSocketMessageReceiver:
    """
    Delivers the messages of one WebSocket.

    :param clock: measures timeouts.
    :param received: the handlers of messages; if there are none, `receive` returns the messages.
    """

    __slots__ = (
        "_clock", "_ending", "_has_failed", "_held", "_is_draining", "_is_running", "_owner",
        "_received", "_source", "_waiting",
    )  # fmt: skip

    _log = TextLogger()

    def __init__(self, clock: IReactorTime, received: Event[Any]) -> None:
        self._clock = clock
        self._received = received
        # The first argument of the handlers; None once no handler will be called.
        self._owner: object = None
        self._source: MessageSource | None = None
        # The message that the application has not asked for.
        self._held: _Args | None = None
        self._waiting: Deferred[str | bytes] | None = None
        self._is_draining = False
        # Whether a handler runs that returned a coroutine or a Deferred.
        self._is_running = False
        # Whether a handler has failed because the connection had ended.
        self._has_failed = False
        # The reason why no more messages follow.
        self._ending: SocketError | None = None

    @property
    def is_full(self) -> bool:
        """Whether a message waits that the application has not asked for."""
        return self._held is not None

    @property
    def may_read(self) -> bool:
        """Whether no message waits."""
        return self._held is None

    @property
    def is_waiting(self) -> bool:
        """Whether a receive is pending, or no handler runs."""
        if self._received.handlers:
            return not self._is_running and self._held is None
        return self._waiting is not None

    @property
    def held_bytes(self) -> int:
        """The size of the message that waits: bytes, or characters of a text."""
        held = self._held
        return 0 if held is None else len(held.data)

    # Called by the socket.

    def receive(self, timeout: float | None) -> Deferred[str | bytes]:
        """Return the next message; see ``MessageWebSocket.receive``."""
        if timeout is not None:
            check_timeout(timeout)
        message = self.take_next()
        return self._wait(timeout) if message is None else Fired(message)

    def take_next(self) -> str | bytes | None:
        """Take the next message if it has arrived; None if `receive` has to wait, or fails."""
        if self._waiting is not None or self._received.handlers:
            return None
        source = self._source
        held = self._held
        if held is None:
            return None if source is None else source.next_message()
        self._held = None
        if source is not None:
            source.pull()
        message: str | bytes = held.data
        return message

    def _wait(self, timeout: float | None) -> Deferred[str | bytes]:
        """Wait for the next message; a handler of ``closed`` may just have received or closed."""
        if self._received.handlers:
            return fail(LocalProtocolError("cannot receive: handlers take the messages"))
        if self._waiting is not None:
            return fail(BusyError("cannot receive: another receive is pending"))
        if self._ending is not None:
            return fail(self._ending.copy())
        if self._source is None:
            return fail(LocalProtocolError("cannot receive: the WebSocket is not connected"))
        waiting: Deferred[str | bytes] = Operation(self._forget)
        self._waiting = waiting
        if self._is_draining:
            self._source.pull()
        if timeout is not None and not waiting.called:
            limit(waiting, timeout, self._clock, "the receive")
        return waiting

    def _forget(self, _waiting: object) -> None:
        self._waiting = None

    def end_when_drained(self) -> None:
        """Close the connection when the application waits and no message has arrived."""
        self._is_draining = True

    # Called by the connection.

    def opened(self, source: MessageSource, owner: object) -> None:
        """
        Begin to receive messages from a connection: the handshake is done.

        :param owner: the WebSocket, which is the first argument of the handlers.
        """
        self._source = source
        self._owner = owner

    def take(self, opcode: Opcode, payload: Any, is_complete: bool) -> bool:
        """Deliver or hold a message; return whether the next one may be pulled."""
        waiting = self._waiting
        if waiting is not None:
            self._waiting = None  # Cleared first: the callback may receive again.
            waiting.callback(payload)
            return True
        is_text = opcode is Opcode.TEXT
        kind = SocketMessageType.UTF8 if is_text else SocketMessageType.BINARY
        args = _Args(payload, kind, is_complete)
        if self._received.handlers and not self._is_running:
            self._call_handlers(args)
        else:
            self._held = args
        return self._held is None

    def end(self, error: SocketError) -> None:
        """Record that no more messages follow, and why."""
        self._source = None
        if self._ending is None:
            self._ending = error
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.errback(error.copy())
        if not self._is_running:
            self._report_failure()

    def drop(self, error: SocketError) -> None:
        """Drop the message that is held: this end was closed."""
        self._held = None
        self.end(error)

    # The handlers.

    def _call_handlers(self, args: _Args) -> None:
        """Call all handlers; the next message waits until all of them have ended."""
        pending = []
        for handler in self._received.handlers:
            try:
                handled = handler(self._owner, args)
                if inspect.iscoroutine(handled):
                    handled = Deferred.fromCoroutine(handled)
            except Exception:  # noqa: BLE001 - logged, and it closes the WebSocket
                self._failed(Failure())
                continue
            if isinstance(handled, Deferred):
                handled.addErrback(self._failed)
                if not handled.called or handled.paused:
                    pending.append(handled)
        if pending:
            self._is_running = True
            DeferredList(pending).addCallback(self._finished)

    def _finished(self, _results: object) -> None:
        """Continue with the next message: all handlers of the last one have ended."""
        self._is_running = False
        held, self._held = self._held, None
        if held is not None:
            self._call_handlers(held)
        if self._source is not None:
            self._source.pull()
        elif not self._is_running:
            self._report_failure()

    def _report_failure(self) -> None:
        """Report a failure, which is no close frame, to the handlers, as WinRT does."""
        error = self._ending
        if error is not None and self._owner is not None and not isinstance(error, ClosedError):
            self._call_handlers(_Args(b"", SocketMessageType.BINARY, error=error))
        self._owner = None  # The owner refers to this object, and the cycle would stay.

    def _failed(self, failure: Failure) -> None:
        """Log the error of a handler; close the WebSocket unless the connection is the reason."""
        error = failure.value
        if isinstance(error, SocketError) and not isinstance(
            error, (LocalProtocolError, BusyError)
        ):
            forget_frames(failure)
            if not self._has_failed:  # One line, even if the handler fails for several messages.
                self._has_failed = True
                self._log.info("the handler of a message failed: {error}", error=error)
            return
        self._log.failure("a handler failed: the WebSocket is closed", failure)
        if self._source is not None:
            self._source.handler_failed()
