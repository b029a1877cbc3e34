"""
Stream connections: their output, their end, their upgrade to TLS, and the protocol classes.

`twsock.protocols` exports the protocol classes. They work on any stream transport of Twisted. On a
plain socket, bytes are passed to the kernel at once.
"""

from typing import TYPE_CHECKING

from twsock._lazy import import_when_used

if TYPE_CHECKING:
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

# Type checkers do not see this: they would take it for a promise that every name exists.
if not TYPE_CHECKING:
    __getattr__, __dir__ = import_when_used(
        __name__,
        (
            *("ending", "connection"),
            *("listening.accept_gate", "listening.proxy_endpoint", "listening.unix_endpoint"),
        ),
    )
