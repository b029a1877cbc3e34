"""
Operations that take their time: coroutine, or event → **operation** → the caller's Deferred.

Used by every call that returns a Deferred which may fail. What fails is reported by an error that
keeps nothing alive: a traceback holds frames, frames hold sockets and buffers, and where one of
them refers back to the error, all of it stays until the garbage collector finds it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import SocketError
from twsock.transport.log import forget_frames

__all__ = ["Operation", "fail", "start_operation"]

T = TypeVar("T")


class Operation(Deferred[T]):
    """
    A Deferred that may be awaited after it has failed.

    Where Twisted's raises the error of a failure that was there before, error and failure refer to
    each other for ever. This one is done with the failure then, as every Deferred is that fails
    while it is awaited: awaited once more, it gives None.
    """

    @override
    def errback(self, fail: Failure | BaseException | None = None) -> None:
        super().errback(fail)
        if isinstance(fail, BaseException):
            # Since Python 3.13 the frame of a coroutine that caught the error and has ended keeps
            # those that called it, which are ours and Twisted's, and with them the error.
            fail.__traceback__ = None

    @override
    def __await__(self) -> Generator[Deferred[Any], None, T]:
        if self.called and not self.paused and isinstance(self.result, Failure):
            failure: Failure = self.result
            self.addErrback(_ignore)  # It is heard.
            return _Raise(failure.value)  # type: ignore[return-value]
        return super().__await__()


class _Raise:
    """An iterator that raises an error, and does not keep it."""

    __slots__ = ("_error",)

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def __iter__(self) -> _Raise:
        return self

    def __next__(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # This frame is in its traceback.


def fail(error: SocketError) -> Deferred[Any]:
    """Make an operation that has failed."""
    operation: Operation[Any] = Operation()
    operation.errback(error)
    return operation


def start_operation(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """
    Start a coroutine at once, whether its Deferred is awaited or not.

    :returns: a `SocketError` or ``CancelledError`` with which it fails has no frames. Those of
        Twisted's coroutines refer back to the error that went through them.
    """
    started: Any = ensureDeferred(work).addErrback(_without_frames)
    # Twisted makes the Deferred, and has no way to be given a class. One that is chained to it
    # would be cancelled in another way.
    started.__class__ = Operation
    operation: Operation[T] = started
    return operation


def _without_frames(failure: Failure) -> Failure:
    if failure.check(SocketError, CancelledError):
        forget_frames(failure)
    return failure


def _ignore(_failure: Failure) -> None:
    """Take a failure that was raised."""
