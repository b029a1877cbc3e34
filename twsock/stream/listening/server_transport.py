"""
A transport of accepted connections that takes less memory: port of Twisted → **transport**.

The TCP ports that a `twsock.protocols.StreamServerFactory` or a `twsock.StreamSocketListener` opens
use this transport. Twisted's own transport makes two texts of some 80 bytes for each connection:
its name, and the prefix of its log messages. Most connections need no name. Other reactors than
that of `twsock.reactor` need the prefix for each event.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import unix
from twisted.internet.tcp import Server

__all__ = [
    "QuietServerTransport",
    "ServerTransport",
    "connect_socket",
    "make_small_transports",
]


class ServerTransport(Server):
    """Twisted's transport of an accepted TCP connection; its name is made when it is needed."""

    # Assigned by Twisted.

    @property
    def repstr(self) -> str:
        """The name of the connection; an assigned one is dropped."""
        protocol = getattr(self, "protocol", None)
        if protocol is None:  # Twisted deletes the attribute when the connection is lost.
            return f"<lost connection #{self.sessionno}>"
        return f"<{type(protocol).__name__} #{self.sessionno} on {self.getHost().port}>"

    @repstr.setter
    def repstr(self, _text: str) -> None: ...


class QuietServerTransport(ServerTransport):
    """Makes the log prefix, too, only when it is needed; for a reactor that sets no log context."""

    # Assigned by Twisted.

    @property
    def logstr(self) -> str:
        """The prefix of log messages; an assigned one is dropped."""
        protocol = getattr(self, "protocol", None)
        # Twisted deletes the attribute when the connection is lost.
        application = "lost connection" if protocol is None else self._getLogPrefix(protocol)
        return f"{application},{self.sessionno},{self.hostname}"

    @logstr.setter
    def logstr(self, _text: str) -> None: ...


def make_small_transports(port: Any) -> None:
    """Make a port use these transports, unless it has a transport class other than Twisted's."""
    if getattr(port, "transport", None) is Server:
        sets_context = getattr(port.reactor, "sets_log_context", True)
        port.transport = ServerTransport if sets_context else QuietServerTransport


def connect_socket(reactor: Any, connection: socket.socket, protocol: Any) -> None:
    """
    Connect a protocol to a connected socket, which belongs to the transport from now on.

    ``adoptStreamConnection`` would use a copy, and so fail in a process that has no descriptor
    left.

    :param connection: TCP or UNIX.
    :raises OSError: when it is not connected. It is then unchanged.
    """
    peer = connection.getpeername()
    transport: Any
    if connection.family == socket.AF_UNIX:
        transport = unix.Server(connection, protocol, peer, None, 0, reactor)
        transport.repstr = f"<{type(protocol).__name__} on {connection.getsockname()!r}>"
    else:
        kind = ServerTransport
        if not getattr(reactor, "sets_log_context", True):
            kind = QuietServerTransport
        transport = kind(connection, protocol, peer, None, peer[1], reactor)  # type: ignore[arg-type]
    protocol.makeConnection(transport)
