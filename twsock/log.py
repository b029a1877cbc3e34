"""
Log events that refer to no connection: error → **text** → log.

Used by every class of twsock that logs. Log observers may keep events for any time. If logging was
never begun (``twisted.internet.task.react``), Twisted keeps the last events in memory. An exception
in an event would keep its traceback and its frames, and so the sockets and buffers of closed
connections.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from typing_extensions import override

__all__ = ["TextLogger", "forget_frames"]


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


def forget_frames(failure: Failure) -> None:
    """
    Drop the frames of a failure, and of the causes and contexts of its exception.

    Called when a failure is consumed. Its traceback can still be printed.
    """
    failure.cleanFailure()
    left: list[BaseException | None] = [failure.value]
    seen: set[int] = set()
    while left:
        error = left.pop()
        if error is None or id(error) in seen or isinstance(error, Failure):
            continue
        seen.add(id(error))
        error.__traceback__ = None
        left += (error.__cause__, error.__context__)
        left += getattr(error, "exceptions", ())  # An exception group's.
