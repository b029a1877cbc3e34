"""
The state of a stream socket: unconnected → connecting → connected → ended.

::

    UNCONNECTED ── connect ──> CONNECTING ── connected ──> CONNECTED ── the connection ends ──> LOST
        │ ^                        │                           ^
        │ └── failed, cancelled ───┘                           │
        └──── accepted, or taken over ─────────────────────────┘

    any phase ── close ──> CLOSED, abort ──> ABORTED

Each `twsock.StreamSocket` has one `StreamSocketState`. It holds the pending connect, which fails
when the socket is closed. It makes the errors of the calls that the phase does not allow.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from twsock.errors import BusyError, ClosedError, LocalProtocolError, SocketError
from twsock.ip.address_errors import connecting_error
from twsock.operation import fail, start_operation
from twsock.sockets.waiting import limit

__all__ = ["StreamSocketState"]


class _Phase(enum.Enum):
    """The phases of a stream socket."""

    UNCONNECTED = enum.auto()
    #: A lookup, an attempt or the handshake of a connect is under way.
    CONNECTING = enum.auto()
    CONNECTED = enum.auto()
    #: The application closed the socket.
    CLOSED = enum.auto()
    #: The application aborted the socket.
    ABORTED = enum.auto()
    #: The connection ended, and the application had neither closed nor aborted the socket.
    LOST = enum.auto()


_ENDED: Final = frozenset({_Phase.CLOSED, _Phase.ABORTED, _Phase.LOST})


class StreamSocketState:
    """
    The phase of one socket, and its pending connect.

    :ivar has_begun_tls: whether a handshake of the connection was started.
    :ivar was_lost: see `twsock.StreamSocket`.
    """

    __slots__ = ("_connecting", "_phase", "has_begun_tls", "was_lost")

    def __init__(self) -> None:
        self._phase = _Phase.UNCONNECTED
        self.has_begun_tls = False
        self.was_lost = False
        self._connecting: Deferred[None] | None = None

    @property
    def is_ended(self) -> bool:
        """Whether the socket was closed or aborted, or its connection was lost."""
        return self._phase in _ENDED

    def is_in_use(self) -> bool:
        """Return whether the options are fixed: the socket is connecting, connected or ended."""
        return self._phase is not _Phase.UNCONNECTED

    def is_securing(self) -> bool:
        """Return whether the options of TLS are fixed: a handshake was started."""
        return self.has_begun_tls

    def connect(
        self,
        work: Coroutine[Deferred[Any], Any, None],
        start_again: Callable[[], None],
        clock: IReactorTime,
        timeout: float | None,
    ) -> Deferred[None]:
        """
        Run a coroutine that connects the socket, and calls `connected` when it has succeeded.

        :param start_again: called when the coroutine fails, or is cancelled, and the socket is
            unconnected again.
        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``; None for no
            limit.
        :returns: fires when the coroutine has ended. It fails with `LocalProtocolError`,
            `BusyError` or `ClosedError` if the phase does not allow to connect the socket, and with
            `ClosedError` when the socket is closed meanwhile.
        """
        refusal = self._refusal_to_connect()
        if refusal is not None:
            work.close()
            return fail(refusal)
        self._phase = _Phase.CONNECTING
        connecting = start_operation(self._guarded(work, start_again))
        if not connecting.called:
            self._connecting = connecting
        return limit(connecting, timeout, clock, "the connect")

    async def _guarded(
        self, work: Coroutine[Deferred[Any], Any, None], start_again: Callable[[], None]
    ) -> None:
        """Restore the unconnected phase if connecting fails."""
        try:
            await work
        except CancelledError:
            if self.is_ended:
                raise ClosedError("the socket was closed while it was being connected") from None
            raise
        except SocketError:
            raise
        except Exception as error:
            raise connecting_error(error) from error
        finally:
            self._connecting = None
            if self._phase is _Phase.CONNECTING:
                self._phase = _Phase.UNCONNECTED
                self.has_begun_tls = False
                start_again()

    def connected(self) -> None:
        """Record that the socket is connected, unless it was closed meanwhile."""
        if not self.is_ended:
            self._phase = _Phase.CONNECTED

    def lost(self, error: SocketError | None) -> None:
        """
        Record the end of a connection.

        This has no effect on a socket that is not connected. A failed connect aborts its
        connection, and the loss is reported later.

        :param error: the reason; None if both ends had ended their output.
        """
        if self._phase is _Phase.CONNECTED:
            self._phase = _Phase.LOST
            self.was_lost = error is not None
        elif self._phase is _Phase.ABORTED:
            self.was_lost = True

    def close(self) -> None:
        """End the socket in order; a pending connect fails."""
        if not self.is_ended:
            self._phase = _Phase.CLOSED
        self._cancel_connecting()

    def abort(self) -> None:
        """End the socket, even if it was closed before; a pending connect fails."""
        self._phase = _Phase.ABORTED
        self._cancel_connecting()

    def _cancel_connecting(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()

    # The errors of calls that the phase does not allow.

    def _refusal_to_connect(self) -> SocketError | None:
        if self._phase is _Phase.CONNECTING:
            return BusyError("cannot connect: another connect is pending")
        if self._phase is _Phase.CONNECTED:
            return LocalProtocolError("cannot connect: the socket is connected")
        if self.is_ended:
            return ClosedError("cannot connect: the socket was closed")
        return None

    def check_upgrade(self) -> None:
        """
        Check that a handshake can be started.

        :raises SocketError: unless the socket is connected, and no handshake was started.
        """
        if self.is_ended:
            raise ClosedError("cannot upgrade: the socket was closed")
        if self._phase is not _Phase.CONNECTED:
            raise LocalProtocolError("cannot upgrade: the socket is not connected")
        if self.has_begun_tls:
            raise LocalProtocolError("cannot upgrade: the connection is secure already")
