"""
Ports on sockets that listen already: socket of Python → **adopted port** → accept gate.

Used by ``bind_socket`` and ``detach`` of listeners. An adopted port never calls shutdown(2), which
would end the socket for its other owners too, and never changes or removes the path of a UNIX
socket. It holds nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet import tcp
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.posixbase import PosixReactorBase

from twsock._twisted import leave_listening
from twsock.errors import LocalProtocolError, SocketError
from twsock.stream.listening.unix_endpoint import UnixPort

__all__ = ["check_listening", "copy_listening", "leave_ports", "listen_on"]

_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)


def check_listening(listening: socket.socket) -> None:
    """
    Check that a socket is a listening stream socket.

    :raises ValueError: when it is not.
    """
    is_stream = listening.type == socket.SOCK_STREAM and listening.family in _FAMILIES
    if not is_stream or not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise ValueError(f"a listening stream socket is needed, not {listening!r}")


def listen_on(
    reactor: Any, listening: socket.socket, factory: IProtocolFactory, backlog: int
) -> IListeningPort:
    """
    Accept connections of a listening socket; the port uses a copy of it.

    :param backlog: connections that the kernel queues until they are accepted, from now on.
    :raises OSError: when no descriptor is free.
    """
    listening.setblocking(False)
    if listening.family == socket.AF_UNIX and isinstance(reactor, PosixReactorBase):
        listening.listen(backlog)
        # A port of Twisted would set the mode of the path, which may belong to another user.
        port = UnixPort(reactor, listening.dup(), factory)
        port.startListening()
        return port
    adopted: Any = reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
    if hasattr(adopted, "socket"):
        # Twisted has set its default, 50.
        adopted.socket.listen(backlog)
    return adopted  # type: ignore[no-any-return]


def copy_listening(ports: Iterable[Any]) -> tuple[socket.socket, ...]:
    """
    Return copies of the sockets of ports, for `leave_ports`; the ports do not change.

    :raises LocalProtocolError: when a port is not one of the reactor's, such as one in memory.
    :raises SocketError: when no descriptor is free.
    """
    copies: list[socket.socket] = []
    try:
        for port in ports:
            if not isinstance(port, tcp.Port):
                raise LocalProtocolError("cannot detach: a port is not a socket of the reactor")
            copies.append(port.socket.dup())
    except BaseException as error:
        for copy in copies:
            copy.close()
        if isinstance(error, OSError):
            raise SocketError.from_exception(error) from error
        raise
    return tuple(copies)


def leave_ports(ports: Iterable[Any]) -> None:
    """Close ports whose sockets have another owner: nothing is shut down, accepted or removed."""
    for port in ports:
        leave_listening(port)
