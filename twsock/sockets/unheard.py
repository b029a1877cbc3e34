"""
Failures that nobody listens to: a failed Deferred → one line of its owner's, not a traceback.

Used by the output streams, whose writes need not be awaited.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from twsock.errors import SocketError

__all__ = ["let_go_unheard"]


def let_go_unheard(deferred: Deferred[Any], error: SocketError) -> bool:
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
