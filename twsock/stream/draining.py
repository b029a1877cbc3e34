"""
Closes a connection after everything received was answered: factory → **drain** → connection.

A `twsock.stream.protocol.StreamProtocol` makes a `Drain` when its server ends. The drain closes the
connection when no message is held or handled. While the kernel has bytes for the protocol, it
checks again at intervals. Holds one delayed call.
"""

from __future__ import annotations

import typing
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.stream.connection import FIRST_MESSAGE_TIME, Connection

__all__ = ["Drain", "Drainable"]

#: Seconds between two checks of a connection for which the kernel has bytes.
_INTERVAL: Final = 0.05


class Drainable(typing.Protocol):
    """A protocol whose connection is to be closed."""

    @property
    def clock(self) -> IReactorTime:
        """Measures the intervals."""

    @property
    def was_queued(self) -> bool:
        """Whether the connection was accepted when its port stopped."""

    @property
    def is_idle(self) -> bool:
        """Whether a message could be handled now, and none has arrived."""

    @property
    def is_upgrading(self) -> bool:
        """Whether a handshake runs, or a go-ahead was sent."""

    @property
    def has_delivered(self) -> bool:
        """Whether a message was delivered since the connection was made or secured."""

    def close_drained(self) -> None:
        """Close: no message waits."""


class Drain:
    """
    Closes one connection once it is idle.

    :param protocol: answers the messages.
    :param stream: its connection.
    """

    __slots__ = ("_awaits_first_message", "_looking", "_protocol", "_stream")

    def __init__(self, protocol: Drainable, stream: Connection) -> None:
        self._protocol = protocol
        self._stream = stream
        # The next check whether a message has arrived.
        self._looking: IDelayedCall | None = None
        # Whether it was just accepted, or a handshake was in progress: a message may follow.
        self._awaits_first_message = protocol.was_queued

    def close_if_idle(self) -> None:
        """Close, unless a message is not handled yet, or may wait in the kernel."""
        if not self._protocol.is_idle:
            return
        self.stop()
        wait = self._time_to_wait()
        if wait:
            self._looking = self._protocol.clock.callLater(wait, self._look_again)
        else:
            self._protocol.close_drained()

    def await_first_message(self) -> None:
        """Wait for the first message after a handshake, of TLS or of a WebSocket; then close."""
        self._awaits_first_message = True
        self.close_if_idle()

    def stop(self) -> None:
        """Stop checking."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _time_to_wait(self) -> float:
        """Return the seconds until the next check for a message; 0 to close now."""
        if self._protocol.is_upgrading or self._stream.is_shaking_hands:
            self._awaits_first_message = True
            return _INTERVAL
        if self._awaits_first_message and not self._protocol.has_delivered:
            self._awaits_first_message = False
            return FIRST_MESSAGE_TIME
        # Unread bytes may be a proxy's header, which is not delivered to the protocol.
        return _INTERVAL if self._stream.has_unread_input else 0

    def _look_again(self) -> None:
        self._looking = None
        self.close_if_idle()
