"""
twsock: the sockets of Windows.Networking.Sockets for Twisted.

The names most programs need are importable from here; protocols to embed are in `twsock.protocols`,
the wire formats by themselves in `twsock.wire`.
"""

from twsock.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    ProtocolError,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
    WebErrorStatus,
)
from twsock.names import EndpointPair, HostName, HostNameSortOptions, HostNameType

__all__ = [
    "BrokenError",
    "BusyError",
    "ClosedError",
    "EndpointPair",
    "HostName",
    "HostNameSortOptions",
    "HostNameType",
    "LocalProtocolError",
    "OperationNotSupported",
    "ProtocolError",
    "RemoteProtocolError",
    "SocketError",
    "SocketErrorStatus",
    "WebErrorStatus",
]
