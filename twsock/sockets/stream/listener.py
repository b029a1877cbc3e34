"""
The listener for stream sockets: port → accept gate → **listener** → handlers, or `accept`.

Applications make a listener. Its base class, `twsock.sockets.stream.listening.SocketListener`,
binds ports, and holds the accepted sockets until their connections are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from twsock.sockets.event import Event
from twsock.sockets.stream.connection import SocketProtocol
from twsock.sockets.stream.handlers import (
    RunningHandlers,
    StreamSocketListenerConnectionReceivedEventArgs,
)
from twsock.sockets.stream.listening import SocketListener
from twsock.sockets.stream.socket import StreamSocket

__all__ = ["StreamSocketListener"]


# Called for each connection. A handler ends when the Deferred that it returned fires.
_Handler = Callable[
    ["StreamSocketListener", StreamSocketListenerConnectionReceivedEventArgs],
    Coroutine[Deferred[Any], Any, Any] | Deferred[Any] | None,
]


class StreamSocketListener(SocketListener[StreamSocket]):
    """
    Accepts connections; ``Windows.Networking.Sockets.StreamSocketListener``.

    The application adds handlers to ``connection_received`` before it binds the listener.
    Otherwise it takes the sockets one by one: ``async for socket in listener``, or `accept`.

    The error of a handler is logged once, and its socket is aborted. If the error is that the peer
    disconnected, it is logged in one line. The listener does not close the socket when the handler
    returns: the handler closes it, or passes it to other code.

    The listener cancels the coroutine or Deferred of a handler when the connection is reset or
    aborted, by either side; its error is then not logged as a failure. A handler is not cancelled
    when the peer has only ended its output, as the peer can still read an answer. Nor is it
    cancelled when both ends have ended their output.

    :param reactor: runs the listener, and opens its ports (``IReactorTCP``).
    :param max_connections: how many connections may be open at once. At the limit the listener
        accepts none until one ends. None for no limit.
    :param max_connections_per_address: how many connections one IPv4 address, or one IPv6 network
        of 64 bits, may have open; further ones are closed, with one log event a minute. None for no
        limit. UNIX sockets are not counted.
    :param max_buffered: limit, in bytes, for all accepted connections together: bytes received and
        not read, and bytes written and not yet with the kernel. Above it the connection that holds
        most is aborted, with one log event.
    :param close_timeout: seconds that closing an accepted socket waits for its peer.
    :param tls: certificates, and which clients are accepted: TLS from the first byte. A connection
        reaches a handler or `accept` after its handshake, when its client is verified. None for
        plain connections; WinRT has no others.
    :param handshake_timeout: seconds that a handshake may take before its connection is aborted.
    :raises ValueError: when a number is out of bounds.
    :raises OperationNotSupported: for a level that this machine's OpenSSL does not support.

    :ivar control: options of accepted sockets.
    :ivar information: addresses of the listener.
    :ivar connection_received: handlers, called with the listener and
        `StreamSocketListenerConnectionReceivedEventArgs`.
    """

    connection_received: Event[_Handler]

    # Overrides of `SocketListener`.

    @override
    def build_protocol(self, host: str | None) -> SocketProtocol:
        return self.make_socket(host).build_protocol()

    @override
    def _make_handlers(self, reactor: Any) -> RunningHandlers[StreamSocket]:
        return RunningHandlers(reactor)

    @override
    def _make_args(self, accepted: StreamSocket) -> StreamSocketListenerConnectionReceivedEventArgs:
        return StreamSocketListenerConnectionReceivedEventArgs(accepted)

    def make_socket(self, host: str | None = None) -> StreamSocket:
        """
        Make the socket of an accepted connection.

        :param host: the address of its peer; None if it has none, as with a UNIX socket.
        """
        accepted = StreamSocket(self._reactor, close_timeout=self._close_timeout)
        is_counted = self._connections.address_limit is not None
        accepted.observe(
            self.control,
            partial(self._observe_from, host) if is_counted else self._observe,
            is_plain=self._tls is None,
            buffer_limit=self._connections.buffer_limit,
        )
        return accepted

    def _observe_from(self, host: str | None, accepted: StreamSocket, is_connected: bool) -> None:
        self._observe(accepted, is_connected, host)

    def _observe(self, accepted: StreamSocket, is_connected: bool, host: str | None = None) -> None:
        if not is_connected:
            self._lost(accepted)
            return
        self._joined(accepted, host)
        accepted.count_in(self.counters)
        if self._tls is None:
            self._deliver(accepted)
        else:
            self._secure(accepted, self._tls, partial(self._deliver, accepted))
