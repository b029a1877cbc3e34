"""
Timeouts and cancellation of pending operations: operation → **limit** → its result, or a timeout.

Used by all calls of sockets that take a ``timeout`` or can be cancelled.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from typing_extensions import Self

from twsock.errors import BrokenError, ClosedError, SocketError, SocketErrorStatus

__all__ = [
    "SENDS_PER_TURN",
    "ClosesInBlock",
    "check_timeout",
    "limit",
    "lost_again",
    "operation_cancelled",
    "output_closed",
    "uncancellable",
]

T = TypeVar("T")

#: Sends of one output stream in one turn of the reactor. Without this limit, a loop of awaited
#: writes to a fast peer would block the process.
SENDS_PER_TURN: Final = 64


class ClosesInBlock:
    """An object that ``async with`` closes; the end of the block waits until it is closed."""

    __slots__ = ()

    def close(self) -> Deferred[None]:
        """Close the object; a second call has no effect."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, _type: object, exception: object, _traceback: object) -> None:
        closing = self.close()
        if not isinstance(exception, GeneratorExit):  # Then the coroutine cannot await any more.
            await closing


def check_timeout(timeout: float | None) -> None:
    """
    Check a number of seconds.

    :raises ValueError: unless it is None, or 0 seconds or more.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is 0 seconds or more, not {timeout!r}")


def operation_cancelled() -> SocketError:
    """Return the error of an operation that ``cancel_io`` ends; a new error for each operation."""
    return SocketError("the operation was cancelled", status=SocketErrorStatus.OPERATION_ABORTED)


def output_closed() -> SocketError:
    """Return the error of a write after the output was closed; a new error for each write."""
    return ClosedError("cannot write: this end was closed")


def lost_again(error: SocketError) -> BrokenError | ClosedError:
    """Return a new error for an operation on a connection that this error has ended."""
    kind = ClosedError if isinstance(error, ClosedError) else BrokenError
    return kind.from_exception(error)


def uncancellable() -> Deferred[Any]:
    """Return a Deferred for a wait: cancelling the wait does not cancel the operation."""
    return Deferred(_ignore)


def _ignore(_deferred: Deferred[Any]) -> None:
    """Do nothing: Twisted then fails the Deferred with ``CancelledError``."""


def limit(
    operation: Deferred[T], timeout: float | None, clock: IReactorTime, name: str
) -> Deferred[T]:
    """
    Cancel an operation that takes too long.

    :param timeout: seconds; None for no limit.
    :param name: name of the operation in the message of the error.
    :returns: the operation itself. After the timeout it fails with `SocketError`, status
        ``CONNECTION_TIMED_OUT``, and leaves what cancelling leaves.
    """
    if timeout is not None:
        message = f"{name} took longer than {timeout:g} s"

        def time_out(_result: object, _timeout: float) -> Failure:
            # Not raised: a frame of Twisted refers to the Deferred, and the Deferred to the error.
            return Failure(SocketError(message, status=SocketErrorStatus.CONNECTION_TIMED_OUT))

        operation.addTimeout(timeout, clock, time_out)
    return operation
