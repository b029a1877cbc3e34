"""
Deferreds of asynchronous calls: coroutine or event → **operation** → the caller's Deferred.

Each call whose Deferred may fail returns an `Operation`. Its error has no frames: a traceback
holds frames, and frames hold sockets and buffers. If one of these refers back to the error, all of
them stay in memory until the garbage collector runs. A call whose result is known returns a
`Fired`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import SocketError
from twsock.log import forget_frames

__all__ = ["Fired", "Operation", "fail", "run_coroutine", "start_operation"]

T = TypeVar("T")

#: Stands for the end of a coroutine, where a Deferred stands for a wait.
_ENDED: Final = object()


class Operation(Deferred[T]):
    """
    A Deferred that can be awaited after it has failed.

    If a Deferred of Twisted fails before it is awaited, its error and its failure refer to each
    other after the await. An `Operation` drops the failure when it raises the error; Twisted does
    that itself for a Deferred that fails during the await. A second await returns None.
    """

    @override
    def errback(self, fail: Failure | BaseException | None = None) -> None:
        # Twisted reports the error of a coroutine without an argument.
        failure = Failure() if fail is None else fail
        super().errback(failure)
        error = failure.value if isinstance(failure, Failure) else failure
        if isinstance(error, (SocketError, CancelledError)):
            # A coroutine that caught the error may have ended. Since Python 3.12 its frame keeps
            # the frames of its callers (twsock's and Twisted's), and these keep the error.
            error.__traceback__ = None

    @override
    def __await__(self) -> Generator[Deferred[Any], None, T]:
        while not self.called or self.paused:
            try:
                yield self
            except GeneratorExit:
                self._abandon()
                raise
        result: Any = self.result
        if isinstance(result, Failure):
            error: Any = result.value
            self.addErrback(_ignore)  # The failure counts as handled.
            del result
            try:
                raise error
            finally:
                del error  # This frame is in its traceback.
        fired: T = result
        return fired

    def _abandon(self) -> None:
        """
        Never fire: the coroutine that awaits this Deferred is being closed.

        If the coroutine aborts its socket now, this Deferred would fail, and resume the coroutine
        while it runs. The callbacks are kept: they may hold the last reference to a coroutine
        around it, which cannot be freed yet.
        """
        vars(self).update(callback=_discard, errback=_discard)


class Fired(Deferred[T]):
    """
    A Deferred that has fired with a result.

    Made in one call; ``succeed`` of Twisted takes two. Most calls on a busy stream return one.
    """

    called = True
    _canceller = None

    def __init__(self, result: T) -> None:
        # ``Deferred.__init__`` sets the same two, and does more only if Deferreds are debugged.
        self._callbacks = []
        self.result = result

    @override
    def __await__(self) -> Generator[Deferred[Any], None, T]:
        result: Any = self.result
        # The general path costs a sixth more. Most results are the bytes of a read.
        if self.paused or (type(result) is not bytes and isinstance(result, Failure)):
            result = yield from super().__await__()
        fired: T = result
        return fired


def fail(error: SocketError) -> Deferred[Any]:
    """Return an operation that has failed with this error."""
    operation: Operation[Any] = Operation()
    operation.errback(error)
    return operation


def start_operation(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """
    Start a coroutine at once, whether or not the caller awaits its Deferred.

    :returns: fires with the result of the coroutine. A `SocketError` or ``CancelledError`` has no
        frames. Cancelling the Deferred cancels the coroutine.
    """
    started: Any = ensureDeferred(work).addErrback(_without_frames)
    # Twisted creates the Deferred, and the caller cannot choose its class. A second Deferred
    # chained to it would behave differently when cancelled.
    started.__class__ = Operation
    operation: Operation[T] = started
    return operation


def run_coroutine(coroutine: Coroutine[Deferred[Any], Any, T]) -> Deferred[T] | None:
    """
    Run a coroutine until it waits or ends, in a copy of the current context.

    ``Deferred.fromCoroutine`` makes a Deferred even if the coroutine never waits. That takes
    several times as long as the coroutine itself.

    :returns: None if the coroutine has ended. Otherwise a Deferred that fires with the result of
        the coroutine; cancelling it cancels the coroutine.
    :raises Exception: any error that the coroutine raises before it waits. Another
        ``BaseException``, such as the cancellation of a task of asyncio, fails the Deferred.
    """
    context = copy_context()
    try:
        # ``coroutine.send`` costs twice as much: it raises StopIteration when the coroutine ends.
        waits_for: Any = context.run(next, coroutine.__await__(), _ENDED)
    except Exception:
        raise
    except BaseException:  # noqa: BLE001 - ends the coroutine, and not the reactor's event
        failed: Deferred[T] = Deferred()
        failed.errback(Failure())
        return failed
    if waits_for is _ENDED:
        return None
    return Deferred.fromCoroutine(_continue(coroutine, waits_for, context))


def _continue(
    coroutine: Coroutine[Deferred[Any], Any, T], waits_for: Deferred[Any], context: Context
) -> Generator[Deferred[Any], Any, T]:
    """
    Continue a coroutine that waits for a Deferred.

    :param context: of its first step. Twisted runs this generator in a copy, in which the tokens of
        variables that were set in the first step are invalid.
    """
    error: BaseException | None
    while True:
        error = value = None
        try:
            value = yield waits_for
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        except BaseException as caught:  # noqa: BLE001 - the coroutine gets it
            error = caught
        try:
            if error is None:
                waits_for = context.run(coroutine.send, value)
            else:
                waits_for = context.run(coroutine.throw, error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            del error, value  # A traceback holds this frame.


def _without_frames(failure: Failure) -> Failure:
    if failure.check(SocketError, CancelledError):
        forget_frames(failure)
    return failure


def _discard(*_result: object) -> None:
    """Take the result of an operation whose coroutine was closed."""


def _ignore(_failure: Failure) -> None:
    """Consume a failure whose error was raised."""
