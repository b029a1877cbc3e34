"""
Hand-over: a live socket moves to another owner, with the bytes that are not in the kernel.

``detach()`` of a socket, listener, port or protocol returns a value of this package, and
``from_socket`` continues the socket. `twsock.handover.channel` moves the value to another process.
"""

from twsock.handover.datagram_state import (
    DatagramState,
    GroupMembership,
    UnreadDatagram,
    UnsentDatagram,
)
from twsock.handover.detached import (
    DetachedConnection,
    DetachedDatagramPort,
    DetachedDatagramSocket,
    DetachedListener,
)

__all__ = [
    "DatagramState",
    "DetachedConnection",
    "DetachedDatagramPort",
    "DetachedDatagramSocket",
    "DetachedListener",
    "GroupMembership",
    "UnreadDatagram",
    "UnsentDatagram",
]
