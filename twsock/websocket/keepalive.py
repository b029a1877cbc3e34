"""
When to ping a peer, and when to drop it: times → **keepalive** → ping or end. No I/O, no clock.

`twsock.websocket.connection` holds one `KeepAlive` for each WebSocket that sends pings, and calls
`KeepAlive.advance` when `twsock.websocket.ping_schedule` wakes it. A `KeepAlive` holds two times.

A ping leaves at the end of each interval. Any byte that arrives after the ping is a sign of life,
not only its pong. A peer that sends a long message can send the pong only after that message. Bytes
that wait in the kernel count, too. So a process that was blocked does not drop all its peers when
it continues. Time in which this end does not read (back-pressure) does not count, since no pong
could be received.
"""

from __future__ import annotations

import enum
from typing import Final

__all__ = [
    "DEFAULT_PING_INTERVAL",
    "DEFAULT_PING_TIMEOUT",
    "Due",
    "KeepAlive",
    "check_times",
]

#: Seconds between two pings. Proxies and address translators (NAT) drop silent connections after 30
#: seconds or more.
DEFAULT_PING_INTERVAL: Final = 20.0

#: Seconds after a ping within which a byte of the peer has to arrive.
DEFAULT_PING_TIMEOUT: Final = 20.0


class Due(enum.Enum):
    """What is due at a time."""

    NOTHING = "nothing"
    PING = "a ping"
    END = "the end: there was no sign of life"


def check_times(interval: float | None, timeout: float | None) -> None:
    """
    Check the seconds between two pings, and the seconds that a ping waits for a byte of the peer.

    :param interval: None for no pings.
    :param timeout: None for no limit.
    :raises ValueError: when one is not above 0.
    """
    if interval is not None and not interval > 0:
        raise ValueError(f"ping_interval is above 0 seconds, not {interval:g}")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"ping_timeout is above 0 seconds, not {timeout:g}")


class KeepAlive:
    """
    The times of the pings of one WebSocket.

    :param interval: seconds between two pings; above 0.
    :param timeout: seconds after a ping within which a byte has to arrive; above 0. None for no
        limit.
    :param now: the time at which the WebSocket was opened, in seconds on any clock.
    :raises ValueError: when a number is not above 0.

    :ivar has_received: whether a byte has arrived since the last `advance`; set by the owner.
    """

    __slots__ = ("_end_at", "_interval", "_ping_at", "_timeout", "has_received")

    def __init__(self, interval: float, timeout: float | None, now: float) -> None:
        check_times(interval, timeout)
        self._interval = interval
        self._timeout = timeout
        self.has_received = False
        self._ping_at = now + interval
        # The time at which the wait for a sign of life ends; None while nothing is awaited.
        self._end_at: float | None = None

    @property
    def next_deadline(self) -> float:
        """The time at which `advance` has to be called, in seconds on the clock of ``now``."""
        end_at = self._end_at
        return self._ping_at if end_at is None else min(end_at, self._ping_at)

    def advance(self, now: float, *, ignores_silence: bool = False) -> Due:
        """
        Return what is due; afterwards, `next_deadline` is later than ``now``.

        :param ignores_silence: whether the peer may be alive in spite of its silence. That is so if
            this end does not read now, if bytes wait to be read, or if the peer is reading the
            bytes in front of the ping.
        """
        if self.has_received or ignores_silence:
            self.has_received = False
            if self._end_at is not None:
                # Until now the silence meant nothing, so the wait starts again.
                self._end_at = now + (self._timeout or 0) if ignores_silence else None
        if self._end_at is not None and now >= self._end_at:
            self._end_at = None
            self._ping_at = now + self._interval
            return Due.END
        if now < self._ping_at:
            return Due.NOTHING
        self._ping_at = now + self._interval
        if self._end_at is None and self._timeout is not None:
            self._end_at = now + self._timeout
        return Due.PING
