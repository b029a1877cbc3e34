"""
Loggers whose events hold text only, and a rate-limited logger: error → **text** → log.

Every class of twsock that logs uses them. Log observers may keep events for any time. If logging
was never begun (``twisted.internet.task.react``), Twisted keeps the last events in memory. An
exception in an event would keep its traceback and its frames, and so the sockets and buffers of
closed connections.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from typing_extensions import override

__all__ = ["RateLimitedLogger", "TextLogger", "forget_frames"]

#: Seconds between two logged lines.
_PERIOD: Final = 60.0


class TextLogger(Logger):
    """
    A logger whose events hold text and plain values.

    An exception in a field is replaced by its message. ``log_failure`` stays a ``Failure``, as
    observers expect, with the text of its traceback and without frames. Events have no
    ``log_source``, since that would be the connection itself.
    """

    @override
    def __get__(self, instance: object, owner: type | None = None) -> TextLogger:
        if owner is None:
            return self
        return TextLogger(f"{owner.__module__}.{owner.__name__}", observer=self.observer)

    @override
    def failure(
        self,
        format: str,
        failure: Failure | None = None,
        level: Any = LogLevel.critical,
        **fields: object,
    ) -> None:
        # Without a failure Twisted would make one itself, which could not be cleaned here.
        super().failure(format, Failure() if failure is None else failure, level, **fields)

    @override
    def emit(self, level: Any, format: str | None = None, **fields: object) -> None:
        for name, value in fields.items():
            if isinstance(value, Failure):
                forget_frames(value)
            elif isinstance(value, BaseException):
                fields[name] = str(value)
        super().emit(level, format, **fields)


class RateLimitedLogger:
    """
    Logs a warning at most once a minute.

    Each warning also gives the number of warnings that were suppressed since the last one.

    :param now: seconds, on a clock that never goes back.
    """

    __slots__ = ("_log", "_logged_at", "_now", "_suppressed")

    def __init__(self, log: Logger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._logged_at: float | None = None
        self._suppressed = 0

    def warn(self, message: str, **fields: Any) -> None:
        """
        Log a warning, unless one was logged within the last minute.

        :param message: a format of Twisted's logger, for the fields.
        """
        now = self._now()
        if self._logged_at is not None and now - self._logged_at < _PERIOD:
            self._suppressed += 1
            return
        self._logged_at = now
        suppressed, self._suppressed = self._suppressed, 0
        if suppressed:
            message += " ({suppressed} more were suppressed)"
        self._log.warn(message, suppressed=suppressed, **fields)


def forget_frames(failure: Failure) -> None:
    """
    Drop the frames of a failure, and of the causes and contexts of its exception.

    Called by the code that consumes a failure. The text of its traceback stays printable.
    """
    failure.cleanFailure()
    remaining: list[BaseException | None] = [failure.value]
    seen: set[int] = set()
    while remaining:
        error = remaining.pop()
        if error is None or id(error) in seen or isinstance(error, Failure):
            continue
        seen.add(id(error))
        error.__traceback__ = None
        remaining += (error.__cause__, error.__context__)
        remaining += getattr(error, "exceptions", ())  # The members of an exception group.
