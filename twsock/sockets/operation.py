"""
Operations that take their time: coroutine → **operation** → the caller's Deferred.

Used by the calls of sockets and listeners whose bodies are coroutines.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure

from twsock.errors import SocketError
from twsock.transport.log import forget_frames

__all__ = ["start_operation"]

T = TypeVar("T")


def start_operation(work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """
    Start a coroutine at once, whether its Deferred is awaited or not.

    :returns: a `SocketError` with which it fails has no frames. Those of Twisted's coroutines refer
        back to the error that went through them, and with them would stay the socket, and the
        frames of whoever awaits this, until the garbage collector finds them.
    """
    return ensureDeferred(work).addErrback(_without_frames)


def _without_frames(failure: Failure) -> Failure:
    if failure.check(SocketError):
        forget_frames(failure)
    return failure
