"""
Running handlers of a listener: listener → **running handlers** → the application's code.

A `twsock.StreamSocketListener` adds the Deferred of each handler that it starts; a coroutine was
converted to one. Holds one entry for each handler until it ends. A connection may have several.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from twsock.errors import SocketError
from twsock.log import TextLogger, forget_frames
from twsock.sockets.stream.socket import StreamSocket

__all__ = ["RunningHandlers"]


class _Running:
    """One running handler."""

    __slots__ = ("ending", "is_cancelled", "socket")

    def __init__(self, socket: StreamSocket, ending: Deferred[Any]) -> None:
        self.socket = socket
        self.ending = ending
        self.is_cancelled = False


class RunningHandlers:
    """
    The handlers that were started and have not ended.

    :param failed: called with a failure and its socket when a handler fails that was not cancelled.
    :param emptied: called when the last running handler has ended.
    """

    _log = TextLogger()

    def __init__(
        self, failed: Callable[[Failure, StreamSocket], None], emptied: Callable[[], None]
    ) -> None:
        self._failed = failed
        self._emptied = emptied
        self._running: dict[StreamSocket, list[_Running]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._running.values()))

    def add(self, socket: StreamSocket, ending: Deferred[Any]) -> None:
        """
        Add a running handler.

        :param ending: fires when the handler ends; it is cancelled to end the handler.
        """
        running = _Running(socket, ending)
        self._running.setdefault(socket, []).append(running)
        ending.addBoth(self._ended, running)

    def cancel(self, socket: StreamSocket) -> None:
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
        except Exception as error:  # noqa: BLE001 - logged; the others are cancelled all the same
            self._log.error(
                "{peer} port {port}: a handler could not be cancelled: {error}",
                peer=running.socket.information.remote_address,
                port=running.socket.information.remote_port,
                error=repr(error),
            )

    def _ended(self, result: object, running: _Running) -> None:
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
            self._emptied()

    def _note_cancelled(self, failure: Failure, socket: StreamSocket) -> None:
        is_expected = failure.check(CancelledError, SocketError)
        self._log.emit(
            LogLevel.debug if is_expected else LogLevel.warn,
            "{peer} port {port} ended under its handler, which raised {error}",
            peer=socket.information.remote_address,
            port=socket.information.remote_port,
            error=repr(failure.value),
        )
