"""
What touches a socket: bytes to the kernel at once, back-pressure, a close that ends, a listener
that waits.

Stands between the protocols, which decide what to send, and Twisted's transports, which carry it.
Every class here works over any stream transport of Twisted; where there is a plain socket under it,
the bytes take the short way.
"""

from twsock.transport.accepting import AcceptGate
from twsock.transport.stream import StreamOwner, StreamTransport

__all__ = ["AcceptGate", "StreamOwner", "StreamTransport"]
