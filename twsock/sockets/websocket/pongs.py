"""
Pongs that answer no ping: clock → **pongs** → connection.

WinRT can send them as a heartbeat (:rfc:`6455`, section 5.5.3). They keep a connection alive in
proxies and address translators. Only pings show whether the server is gone. Holds one delayed call.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["UnsolicitedPongs"]


class UnsolicitedPongs:
    """
    Sends a pong at the end of each interval.

    :param clock: measures the interval.
    :param interval: seconds between two pongs; above 0.
    :param send: sends a pong; returns whether the WebSocket is still open.
    """

    __slots__ = ("_clock", "_interval", "_next", "_send")

    def __init__(self, clock: IReactorTime, interval: float, send: Callable[[], bool]) -> None:
        self._clock = clock
        self._interval = interval
        self._send: Callable[[], bool] | None = send
        self._next: IDelayedCall | None = clock.callLater(interval, self._send_next)

    def _send_next(self) -> None:
        self._next = None
        if self._send is not None and self._send():
            self._next = self._clock.callLater(self._interval, self._send_next)

    def stop(self) -> None:
        """Send no more pongs; a second call does nothing."""
        self._send = None  # The callable refers to the connection.
        due, self._next = self._next, None
        if due is not None:
            due.cancel()
