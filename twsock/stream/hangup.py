"""
Detects a reset after the peer has ended its output: descriptor → **hang-up watch** → owner.

A reactor stops watching a connection whose input has ended, since a descriptor at the end of file
is always readable. The peer may still wait for an answer. If it has reset the connection, only the
next write would report that. Used by `twsock.protocols` and the sockets. Holds one delayed call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.errors import BrokenError, SocketErrorStatus
from twsock.stream.descriptor import hung_up

__all__ = ["HangUpWatch", "hung_up_error"]

#: Seconds until the first check; each further interval is twice as long as the one before.
_FIRST_INTERVAL: Final = 0.5

#: The longest interval between two checks, in seconds.
_LAST_INTERVAL: Final = 8.0


class HangUpWatch:
    """
    Checks at intervals whether a peer that has ended its output has reset the connection.

    :param descriptor: of the bottom of the connection; its output is open.
    :param gone: called once, when the connection was reset or, on a UNIX socket, closed.
    """

    __slots__ = ("_clock", "_descriptor", "_gone", "_interval", "_looking")

    def __init__(
        self, clock: IReactorTime, descriptor: FileDescriptor, gone: Callable[[], object]
    ) -> None:
        self._clock = clock
        self._descriptor = descriptor
        self._gone = gone
        self._interval = _FIRST_INTERVAL
        self._looking: IDelayedCall | None = clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        """Stop checking. Does nothing if the watch has ended."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _look(self) -> None:
        self._looking = None
        # With TCP, a hang-up means both directions: while this end's is open, that is a reset. A
        # UNIX socket is hung up when its peer has closed it.
        if hung_up(self._descriptor):
            self._gone()
        else:
            self._interval = min(2 * self._interval, _LAST_INTERVAL)
            self._looking = self._clock.callLater(self._interval, self._look)


def hung_up_error() -> BrokenError:
    """Return the error for a connection that the peer reset after it ended its output."""
    return BrokenError(
        "the peer reset the connection after it had ended its output",
        status=SocketErrorStatus.CONNECTION_RESET_BY_PEER,
    )
