"""
The state of a datagram socket: unbound → opening → bound → connected → closed.

Each `twsock.DatagramSocket` has one. It holds the operations under way, which fail when the socket
is closed, and makes the error of each call that the state does not allow.
"""

from __future__ import annotations

import enum
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twsock.errors import BusyError, ClosedError, LocalProtocolError, SocketError
from twsock.log import forget_frames
from twsock.operation import fail, start_operation

__all__ = ["DatagramSocketState", "Phase", "socket_closed"]


class Phase(enum.Enum):
    """The phases of a datagram socket."""

    UNBOUND = enum.auto()
    #: A lookup, a bind or a connect is under way.
    OPENING = enum.auto()
    BOUND = enum.auto()
    CONNECTED = enum.auto()
    CLOSED = enum.auto()


class DatagramSocketState:
    """
    The phase of one socket, and its operations under way.

    :ivar phase: where the socket is now; its operations change it.
    """

    __slots__ = ("__weakref__", "_operations", "phase")

    def __init__(self) -> None:
        self.phase = Phase.UNBOUND
        self._operations: set[Deferred[Any]] = set()

    @property
    def is_open(self) -> bool:
        """Whether the socket is bound or connected, and not closed."""
        return self.phase in (Phase.BOUND, Phase.CONNECTED)

    @property
    def is_closed(self) -> bool:
        """Whether the socket was closed."""
        return self.phase is Phase.CLOSED

    @property
    def is_busy(self) -> bool:
        """Whether a lookup, a bind or a connect is under way."""
        return bool(self._operations)

    def is_in_use(self) -> bool:
        """Return whether options and handlers are fixed, from the first bind or connect on."""
        return self.phase is not Phase.UNBOUND

    def open(
        self, work: Coroutine[Deferred[Any], Any, Any], *, is_connecting: bool = False
    ) -> Deferred[Any]:
        """
        Run a coroutine that binds or connects the socket, and sets the phase once it has.

        :returns: fires with its result. If it fails, the phase is again what it was before. It
            fails with `LocalProtocolError`, `BusyError` or `ClosedError` if the phase does not
            allow to open the socket, and with `ClosedError` when the socket is closed meanwhile.
        """
        error = self._opening_error(is_connecting=is_connecting)
        if error is not None:
            work.close()
            return fail(error)
        before, self.phase = self.phase, Phase.OPENING

        def opened(result: Any) -> Any:
            if self.phase is Phase.OPENING:  # Neither opened nor closed meanwhile: it failed.
                self.phase = before
            return result

        return self.ended_by_close(start_operation(work).addBoth(opened))

    def ended_by_close(self, operation: Deferred[Any]) -> Deferred[Any]:
        """Fail a pending operation with `ClosedError` when the socket is closed; return it."""

        def ended(result: Any) -> Any:
            self._operations.discard(operation)
            if isinstance(result, Failure) and self.is_closed:
                forget_frames(result)
                return Failure(socket_closed())
            return result

        if not operation.called:
            self._operations.add(operation)
            operation.addBoth(ended)
        return operation

    def close(self) -> None:
        """End all operations under way."""
        self.phase = Phase.CLOSED
        for operation in list(self._operations):
            operation.cancel()

    # The errors of calls that the phase does not allow.

    def _opening_error(self, *, is_connecting: bool) -> SocketError | None:
        phase = self.phase
        if phase is Phase.CLOSED:
            return socket_closed()
        if phase is Phase.OPENING:
            return BusyError("this socket is being bound or connected")
        if phase is Phase.CONNECTED or (phase is Phase.BOUND and not is_connecting):
            what = "connected" if phase is Phase.CONNECTED else "bound"
            return LocalProtocolError(f"this socket is {what} already")
        return None

    def check_group_call(self) -> None:
        """
        Check that groups can be joined and left.

        :raises SocketError: unless the socket is bound and not connected.
        """
        if self.phase is Phase.CLOSED:
            raise socket_closed()
        if self.phase is Phase.OPENING:
            raise BusyError("this socket is being bound or connected")
        if self.phase is not Phase.BOUND:
            raise LocalProtocolError("a group is joined when the socket is bound, not connected")

    def not_connected(self) -> SocketError:
        """Return the error of a write to the peer of a socket that has no peer."""
        if self.phase is Phase.CLOSED:
            return socket_closed()
        return LocalProtocolError("cannot write: this socket is not connected")

    def not_bound(self) -> SocketError:
        """Return the error of a write to an address by a socket that is not bound."""
        if self.phase is Phase.CLOSED:
            return socket_closed()
        if self.phase is Phase.CONNECTED:
            return LocalProtocolError("this socket is connected: use its output_stream")
        return BusyError("this socket is being bound or connected")


def socket_closed() -> SocketError:
    """Return the error of an operation on a closed socket; a new error for each operation."""
    return ClosedError("the socket was closed")
