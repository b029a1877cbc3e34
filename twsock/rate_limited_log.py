"""
What a peer can cause as often as it likes, logged now and then: events → **a line a minute**.

Used by the datagram protocols: without it, whoever sends a small datagram writes a line of the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger

__all__ = ["OccasionalLog"]

#: Seconds from one line to the next.
_PERIOD: Final = 60.0


class OccasionalLog:
    """
    Warns at the first event, and at the first after each minute, of how many there were meanwhile.

    :param now: seconds, on a clock that never goes back.
    """

    __slots__ = ("_kept_back", "_log", "_now", "_told_at")

    def __init__(self, log: Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._told_at: float | None = None
        self._kept_back = 0

    def warn(self, message: str, **fields: Any) -> None:
        """
        Log a warning, unless there was one within the last minute.

        :param message: a format of Twisted's logger, for the fields.
        """
        now = self._now()
        if self._told_at is not None and now - self._told_at < _PERIOD:
            self._kept_back += 1
            return
        self._told_at = now
        kept_back, self._kept_back = self._kept_back, 0
        if kept_back:
            message += " (and {kept_back} more like it before)"
        self._log.warn(message, kept_back=kept_back, **fields)
