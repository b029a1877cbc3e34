"""
Handlers of accepted connections: listener → **running handlers** → application.

A `twsock.StreamSocketListener` starts the handlers of each accepted connection here. Holds one
entry for each handler that returned a coroutine or a Deferred, until that handler ends; a
connection may have several. Logs the error of a handler, and aborts its socket.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from twsock.errors import BusyError, LocalProtocolError, RemoteProtocolError, SocketError
from twsock.log import TextLogger, forget_frames
from twsock.sockets.stream.input import EndOfStreamError
from twsock.sockets.stream.socket import StreamSocket
from twsock.stream.counters import NOT_COUNTED
from twsock.waiters import Waiters

__all__ = ["RunningHandlers", "StreamSocketListenerConnectionReceivedEventArgs"]


S = TypeVar("S", bound=Any)


@dataclass(frozen=True, slots=True)
class StreamSocketListenerConnectionReceivedEventArgs:
    """
    Argument of a handler of ``connection_received``.

    :ivar socket: the new connection, which the handler uses and closes.
    """

    socket: StreamSocket


class _Running:
    """One running handler."""

    __slots__ = ("ending", "is_cancelled", "socket")

    def __init__(self, socket: Any, ending: Deferred[Any]) -> None:
        self.socket = socket
        self.ending = ending
        self.is_cancelled = False


class RunningHandlers(Generic[S]):
    """
    The handlers of a listener that were started and have not ended.

    :param clock: measures timeouts.
    """

    _log = TextLogger()

    #: Errors of an end in order: the socket is closed, not aborted.
    _in_order: tuple[type[SocketError], ...] = (EndOfStreamError,)

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        # Fires when the last running handler has ended.
        self._emptied = Waiters()
        self._running: dict[S, list[_Running]] = {}
        #: Counts the handlers; set by the listener.
        self.counters = NOT_COUNTED

    def __len__(self) -> int:
        return sum(map(len, self._running.values()))

    def start(
        self,
        handler: Callable[..., Any],
        listener: object,
        args: object,
        socket: S,
    ) -> None:
        """Call a handler; it runs until the coroutine or Deferred that it returns has ended."""
        try:
            handled = handler(listener, args)
        except Exception:  # noqa: BLE001 - logged, and it ends the connection
            self._failed(Failure(), socket)
            return
        if inspect.iscoroutine(handled):
            handled = Deferred.fromCoroutine(handled)
        if isinstance(handled, Deferred):
            self.add(socket, handled)
            if socket.was_lost:  # The connection was lost within the call.
                self.cancel(socket)

    def add(self, socket: S, ending: Deferred[Any]) -> None:
        """
        Add a running handler.

        :param ending: fires when the handler ends; it is cancelled to end the handler.
        """
        running = _Running(socket, ending)
        self._running.setdefault(socket, []).append(running)
        ending.addBoth(self._ended, running, self._clock.seconds())

    def wait(self, timeout: float) -> Deferred[None]:
        """
        Wait until no handler runs.

        :param timeout: seconds until the deadline.
        :returns: fires when no handler runs, or at the deadline. Cancelling stops the wait only.
        """
        return self._emptied.wait_at_most(timeout if self._running else 0, self._clock)

    def cancel(self, socket: S) -> None:
        """
        Cancel the handlers of one connection; their errors no longer count as failures.

        A handler that was already cancelled is not cancelled again: it may be cleaning up.
        """
        for running in list(self._running.get(socket, ())):
            if not running.is_cancelled:
                self._cancel(running)

    def cancel_all(self) -> None:
        """Cancel every running handler, even one that was already cancelled."""
        for handlers in list(self._running.values()):
            for running in list(handlers):
                self._cancel(running)

    def _cancel(self, running: _Running) -> None:
        running.is_cancelled = True
        try:
            running.ending.cancel()
        except Exception as error:  # noqa: BLE001 - logged; the other handlers are cancelled too
            self._log.error(
                "{peer} port {port}: a handler could not be cancelled: {error}",
                peer=running.socket.information.remote_address,
                port=running.socket.information.remote_port,
                error=repr(error),
            )

    def _ended(self, result: object, running: _Running, begun: float) -> None:
        self.counters.handler_seconds.observe(self._clock.seconds() - begun)
        others = self._running[running.socket]
        others.remove(running)
        if not others:
            del self._running[running.socket]
        if isinstance(result, Failure):
            if running.is_cancelled:
                self._note_cancelled(result, running.socket)
            else:
                self._failed(result, running.socket)
            forget_frames(result)
        if not self._running:
            self._emptied.fire()

    def _note_cancelled(self, failure: Failure, socket: S) -> None:
        is_expected = failure.check(CancelledError, SocketError)
        self._log.emit(
            LogLevel.debug if is_expected else LogLevel.warn,
            "{peer} port {port} disconnected while its handler ran; the handler raised {error}",
            peer=socket.information.remote_address,
            port=socket.information.remote_port,
            error=repr(failure.value),
        )

    def _failed(self, failure: Failure, socket: S) -> None:
        """Log the error of a handler that was not cancelled, and end its connection."""
        peer = socket.information.remote_address or "a peer"
        port = socket.information.remote_port
        error = failure.value
        if isinstance(error, SocketError) and not isinstance(
            error, (LocalProtocolError, BusyError)
        ):
            # The peer disconnected, broke a rule or was silent: one line, without a traceback.
            self._log.info("{peer} port {port} ended: {error}", peer=peer, port=port, error=error)
            self.counters.violations += isinstance(error, RemoteProtocolError)
            if isinstance(error, self._in_order):
                socket.close()
                self.cancel(socket)  # Other handlers of this connection.
            else:
                self._end_broken(socket)
        else:
            self.counters.handler_errors += 1
            self._log.failure(
                "handler failed: {peer} port {port} aborted", failure, peer=peer, port=port
            )
            self._end_failed(socket)

    def _end_broken(self, socket: S) -> None:
        """End a connection whose handler has raised an error of a connection."""
        socket.abort()

    def _end_failed(self, socket: S) -> None:
        """End a connection whose handler has failed."""
        socket.abort()
