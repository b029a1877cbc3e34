"""
The listening ports of a stream socket listener: host and port number → **listening** → ports.

Called by `twsock.StreamSocketListener`. It opens every port with the reactor's ``listenTCP``, so a
reactor in memory records it. It keeps no state.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory

from twsock.errors import SocketError, SocketErrorStatus

__all__ = ["BACKLOG", "listen_on_address", "listen_on_all_addresses"]

#: Connections that the kernel queues until they are accepted; ``net.core.somaxconn`` limits it.
BACKLOG: Final = 1024

#: How many times to try for a port number that is free in both families, if each needs a socket.
_MAX_TRIES: Final = 16

#: Statuses of the error that a machine without IPv6 returns.
_NO_IPV6: Final = (
    SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED,
    SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
)


def listen_on_address(
    reactor: Any, address: str, number: int, factory: IProtocolFactory
) -> IListeningPort:
    """
    Listen on one numeric address.

    :param number: 0 lets the system choose.
    :raises CannotListenError: when the system refuses.
    """
    port: IListeningPort = reactor.listenTCP(number, factory, backlog=BACKLOG, interface=address)
    return port


async def listen_on_all_addresses(
    reactor: Any, number: int, factory: IProtocolFactory
) -> list[IListeningPort]:
    """
    Listen on all addresses of both families, as far as this machine has both.

    One socket serves both families. If the system separates them (``bindv6only`` on Linux, always
    on OpenBSD), there are two sockets with the same port number.

    :param number: 0 lets the system choose.
    :raises CannotListenError: when the system refuses; then no port is left open.
    """
    for tries_left in reversed(range(_MAX_TRIES)):
        try:
            first = listen_on_address(reactor, "::", number, factory)
        except (CannotListenError, OSError) as error:
            if SocketError.get_status(error) not in _NO_IPV6:
                raise
            return [listen_on_address(reactor, "0.0.0.0", number, factory)]
        if _serves_both_families(first):
            return [first]
        host: Any = first.getHost()
        try:
            return [first, listen_on_address(reactor, "0.0.0.0", host.port, factory)]
        except (CannotListenError, OSError) as error:
            await maybeDeferred(first.stopListening)
            is_taken = SocketError.get_status(error) is SocketErrorStatus.ADDRESS_ALREADY_IN_USE
            if number or not is_taken or not tries_left:
                raise
    raise AssertionError("the last try returns or raises")


def _serves_both_families(port: Any) -> bool:
    listening = getattr(port, "socket", None)
    # A port in memory has no socket; one is enough.
    return listening is None or not listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
