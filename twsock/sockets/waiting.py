"""
Waits that end: any pending operation → **deadline** → the same operation, or a timeout.

Used by everything here that takes a ``timeout``.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from twsock.errors import SocketError, SocketErrorStatus

__all__ = ["called_off", "check_timeout", "limit", "silence_unhandled"]

T = TypeVar("T")


def check_timeout(timeout: float | None) -> None:
    """
    Refuse what is no span of time.

    :raises ValueError: unless it is None, or 0 seconds or more.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is 0 seconds or more, not {timeout!r}")


def called_off() -> SocketError:
    """Return the error of an operation that ``cancel_io`` ends; a new error for each operation."""
    return SocketError("the operation was called off", status=SocketErrorStatus.OPERATION_ABORTED)


def limit(
    operation: Deferred[T], timeout: float | None, clock: IReactorTime, name: str
) -> Deferred[T]:
    """
    Cancel an operation that takes too long.

    :param timeout: seconds; None to wait for ever.
    :param name: what is told to have taken too long.
    :returns: the operation itself. After its time it has failed with `SocketError`, status
        ``CONNECTION_TIMED_OUT``, and has left what cancelling leaves.
    """
    if timeout is not None:
        message = f"{name} took longer than {timeout:g} s"

        def time_out(_result: object, _timeout: float) -> Failure:
            # Not raised: a frame of Twisted's refers to the Deferred, and that to the error.
            return Failure(SocketError(message, status=SocketErrorStatus.CONNECTION_TIMED_OUT))

        operation.addTimeout(timeout, clock, time_out)
    return operation


def silence_unhandled(deferred: Deferred[Any], error: SocketError) -> bool:
    """
    Have a failure that nobody awaits not logged by itself.

    Five writes and a flush on a connection that dies are one error, which the flush reports; the
    writes that nobody awaited would log five tracebacks when they are collected. The failure stays
    for whoever awaits the write later.

    :param deferred: has just failed.
    :param error: with this.
    :returns: whether nobody was told of it.
    """
    # What is cleared is Twisted's note to log it (private, as of 26.10).
    information = deferred._debugInfo
    failure = None if information is None else information.failResult
    if information is None or failure is None or failure.value is not error:
        return False  # Somebody heard; what came of that is theirs.
    information.failResult = None
    return True
