"""
Streams: the transport of a connection, its protocol classes, its upgrade to TLS, and its end.

The protocol classes are importable from `twsock.protocols`. Works over any stream transport of
Twisted; where a plain socket carries it, bytes are sent to the kernel at once.
"""

from twsock.stream.connection import Connection
from twsock.stream.ending import ConnectionOwner
from twsock.stream.listening.accept_gate import AcceptGate
from twsock.stream.listening.proxy_endpoint import ProxyEndpoint
from twsock.stream.listening.unix_endpoint import UnixEndpoint

__all__ = [
    "AcceptGate",
    "Connection",
    "ConnectionOwner",
    "ProxyEndpoint",
    "UnixEndpoint",
]
