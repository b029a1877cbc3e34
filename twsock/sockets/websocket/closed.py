"""
The end of a WebSocket, with or without a close frame: connection → **closed** → handlers, calls.

The first close frame, of either end, has the reason why a WebSocket is closed. If the connection is
lost without a close frame, calls fail with `twsock.BrokenError`. Nothing is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from twsock.errors import BrokenError, ClosedError, SocketError
from twsock.errors.web_socket_error import CONNECTION_ABORTED
from twsock.websocket.close_frame import CloseCode

__all__ = ["WebSocketClosedError", "WebSocketClosedEventArgs", "lost_without_close"]

#: The codes of an end that is not due to an error.
_IN_ORDER: Final = frozenset(
    (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RECEIVED)
)


@dataclass(frozen=True, slots=True)
class WebSocketClosedEventArgs:
    """
    Argument of a handler of ``closed``.

    :ivar code: the code of the first close frame, of either end; 1005 if that frame had no code.
        A `twsock.websocket.CloseCode` if it has a name there, else a plain ``int``.
        3000 to 3999 are registered by libraries and applications, 4000 to 4999 are private.
    :ivar reason: the text of the same close frame. Do not trust it: the peer may have sent it.
    """

    code: int
    reason: str


class WebSocketClosedError(ClosedError):
    """
    The WebSocket was closed by a close frame, of this end or of the peer.

    :ivar code: as in `WebSocketClosedEventArgs`.
    :ivar reason: as in `WebSocketClosedEventArgs`.
    """

    def __init__(self, code: int, reason: str) -> None:
        said = f", reason {reason!a}" if reason else ""
        super().__init__(f"the WebSocket was closed: code {code:d}{said}")
        self.code = code
        self.reason = reason

    @property
    def is_in_order(self) -> bool:
        """Whether the code is that of a normal end: 1000, 1001, or no code (1005)."""
        return self.code in _IN_ORDER


def lost_without_close(error: SocketError | None, message: str) -> BrokenError:
    """
    Return the error of a connection that ended without a close frame, with the HRESULT of WinRT.

    :param error: the reason; None if the connection ended in order.
    """
    if error is None:
        return BrokenError(message, hresult=CONNECTION_ABORTED)
    made = BrokenError(f"{message}: {error}", status=error.status, hresult=CONNECTION_ABORTED)
    made.__cause__ = error
    return made
