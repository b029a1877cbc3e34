"""
Notices that a peer is gone after it had ended its output: descriptor → **hang-up watch** → owner.

A reactor stops watching a connection whose input has ended, as a descriptor with an end of file is
always readable. The peer may still be there, waiting for an answer; where it is not, nobody would
notice before the next write. Used by `twsock.protocols` and by the sockets. Holds one delayed call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.errors import BrokenError, SocketErrorStatus
from twsock.transport.descriptor import hung_up

__all__ = ["HangUpWatch", "hung_up_error"]

#: Seconds to the first look; each further one waits twice as long as the one before.
_FIRST_INTERVAL: Final = 0.5

#: Seconds between two looks at most.
_LAST_INTERVAL: Final = 8.0


class HangUpWatch:
    """
    Looks now and then whether a connection is gone whose peer has ended its output.

    :param descriptor: at the bottom of the connection; its output is open.
    :param gone: called once, when the peer is gone for good.
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
        """Look no more. Harmless when it has ended."""
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
    """Make the error of a connection whose peer is gone."""
    return BrokenError(
        "the peer ended its output, and then the connection",
        status=SocketErrorStatus.CONNECTION_RESET_BY_PEER,
    )
