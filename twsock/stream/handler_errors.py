"""
Errors of handlers: handler → **handler errors** → log, and the end of the connection.

Called by `twsock.stream.connection_protocol`. Each error is one log event: a warning if the peer
caused it, a traceback if the application did. Nothing is held.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from twsock.errors import BrokenError, RemoteProtocolError, SocketError
from twsock.log import TextLogger, forget_frames
from twsock.stream.connection import Connection

__all__ = ["end_with_failure"]

_log: Final = TextLogger()


def end_with_failure(
    failure: Failure, stream: Connection, peer: str, *, is_cancelled: bool
) -> None:
    """
    Log an error once, at the level of its cause, and abort its connection if it is open.

    :param is_cancelled: whether the handler was cancelled, since the connection was lost.
    """
    # Its frames refer to the protocol and to the handled message.
    forget_frames(failure)
    if not stream.is_open:
        _log_after_the_end(failure, peer, is_cancelled)
        return
    error = failure.value
    if isinstance(error, RemoteProtocolError):
        stream.counters.violations += 1
        _log.warn("{peer} aborted: {error}", peer=peer, error=error)
        stream.send()  # The answers to the messages before the violation.
        stream.abort(error)
    else:
        stream.counters.handler_errors += 1
        _log.failure("handler failed: {peer} aborted", failure, peer=peer)
        stream.abort(BrokenError("the handler of this connection failed"))


def _log_after_the_end(failure: Failure, peer: str, is_cancelled: bool) -> None:
    error = failure.value
    if failure.check(CancelledError, SocketError):
        _log.debug("{peer} disconnected while its handler ran: {error}", peer=peer, error=error)
    elif is_cancelled:
        _log.warn(
            "{peer} disconnected while its handler ran; the handler raised {error}",
            peer=peer,
            error=repr(error),
        )
    else:
        _log.failure("handler failed after {peer} had disconnected", failure, peer=peer)
