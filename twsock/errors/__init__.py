"""
Errors as values: the exceptions of twsock, and the statuses that say what happened.

Imports the standard library only, so that every module of twsock can use it.
"""

from twsock.errors.socket_error import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    ProtocolError,
    RemoteProtocolError,
    SocketError,
)
from twsock.errors.statuses import SocketErrorStatus, WebErrorStatus
from twsock.errors.web_socket_error import WebSocketError

__all__ = [
    "BrokenError",
    "BusyError",
    "ClosedError",
    "LocalProtocolError",
    "OperationNotSupported",
    "ProtocolError",
    "RemoteProtocolError",
    "SocketError",
    "SocketErrorStatus",
    "WebErrorStatus",
    "WebSocketError",
]
