"""
What ``detach()`` returns: socket or protocol → **detached value** → ``from_socket``.

A value holds sockets, and the bytes that their owner held outside of the kernel. Whoever gets the
value owns the sockets: nothing else closes them.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from twsock.handover.datagram_state import DatagramState

__all__ = [
    "Detached",
    "DetachedConnection",
    "DetachedDatagramPort",
    "DetachedDatagramSocket",
    "DetachedListener",
]


@dataclass(frozen=True, slots=True)
class DetachedConnection:
    """
    A connection that was taken out of its reactor; ``detach()`` returns it.

    Both directions are open. To continue the connection, in this process or in another one, pass
    all three to ``from_socket``.

    :ivar socket: connected and non-blocking. The kernel may hold further received bytes.
    :ivar unread: bytes that were received and not read, such as the beginning of a message. The
        bytes that the kernel holds follow them.
    :ivar unsent: bytes that were written and that the kernel had not taken. They are sent before
        any further byte.
    """

    socket: socket.socket
    # Not in the text of the value: payloads are never logged.
    unread: bytes = field(default=b"", repr=False)
    unsent: bytes = field(default=b"", repr=False)

    def close(self) -> None:
        """Close the socket: no process continues the connection. Closing twice is harmless."""
        self.socket.close()


@dataclass(frozen=True, slots=True)
class DetachedListener:
    """
    The listening sockets of a listener that was taken out of its reactor.

    The sockets still listen: the kernel queues connections, which the next owner accepts.

    :ivar sockets: listening and non-blocking, 1 to 7; one for each address, or one for all.
    """

    sockets: tuple[socket.socket, ...]

    def close(self) -> None:
        """
        Close the sockets. Closing twice is harmless.

        If no other process has them, the kernel refuses further connections, and resets those that
        it had queued.
        """
        for one in self.sockets:
            one.close()


@dataclass(frozen=True, slots=True)
class DetachedDatagramPort:
    """
    A UDP socket that was taken out of its reactor.

    The kernel still receives datagrams, as many as the receive buffer takes.

    :ivar socket: bound and non-blocking, and connected if it was.
    :ivar state: options, groups, and the datagrams that are not in the kernel.
    """

    socket: socket.socket
    state: DatagramState = field(default_factory=DatagramState)

    def close(self) -> None:
        """Close the socket: no process continues it. Closing twice is harmless."""
        self.socket.close()


@dataclass(frozen=True, slots=True)
class DetachedDatagramSocket:
    """
    A `twsock.DatagramSocket` that was taken out of its reactor.

    :ivar ports: one for each address family that the socket is bound in: one or two.
    :ivar adapter: index of the interface that the socket is bound to; 0 for none.
    """

    ports: tuple[DetachedDatagramPort, ...]
    adapter: int = 0

    def close(self) -> None:
        """Close the sockets: no process continues them. Closing twice is harmless."""
        for port in self.ports:
            port.close()


#: Whatever ``detach()`` returns.
Detached = DetachedConnection | DetachedListener | DetachedDatagramPort | DetachedDatagramSocket
