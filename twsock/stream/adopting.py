"""
Takes over a connected socket: socket of Python → **adopting** → protocol on a reactor.

Used by ``from_socket`` of `twsock.StreamSocket` and of the protocols. It holds nothing after a
call.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from typing_extensions import override

from twsock.errors import SocketError

__all__ = ["OneProtocol", "adopt_socket"]


def adopt_socket(
    reactor: Any, connection: socket.socket, build_protocol: Callable[[], Protocol]
) -> None:
    """
    Connect a protocol to a socket of Python.

    The reactor uses a copy of the descriptor, and the Python object is closed.

    :raises ValueError: when the socket is not a stream socket.
    :raises SocketError: when the socket is not connected. It stays open then.
    """
    if connection.type != socket.SOCK_STREAM:
        raise ValueError(f"a stream socket is needed, not {connection.type!r}")
    factory = OneProtocol(build_protocol)
    try:
        connection.getpeername()
        connection.setblocking(False)
        reactor.adoptStreamConnection(connection.fileno(), connection.family, factory)
    except OSError as error:
        raise SocketError.from_exception(error) from error
    finally:
        factory.end()
    connection.close()


class OneProtocol(Factory):
    """Builds the one protocol of a socket."""

    noisy = False

    def __init__(self, build_protocol: Callable[[], Protocol]) -> None:
        self._build_protocol: Callable[[], Protocol] | None = build_protocol

    def end(self) -> None:
        """
        Build no further protocol.

        An endpoint that cannot be cancelled may connect too late. Twisted's connectors also keep
        their factory until the garbage collector frees them.
        """
        self._build_protocol = None

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        build = self._build_protocol
        return None if build is None else build()
