"""
Awaitable WebSockets of servers: listener → **WebSocket** → connection → transport.

A `twsock.WebSocketListener` makes a WebSocket for each accepted connection, and passes it to the
application when the request was accepted. Holds the facts of the connection and its streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from twsock.errors import SocketError
from twsock.sockets.event import Event
from twsock.sockets.stream.control import StreamSocketListenerControl
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.sockets.stream.input import InputStream
from twsock.sockets.stream.securing import ServerRole
from twsock.sockets.websocket.accepting import ServerConnections, ServerProtocol
from twsock.sockets.websocket.message import (
    MessageWebSocketMessageReceivedEventArgs,
    SocketMessageType,
)
from twsock.sockets.websocket.message_calls import MessageCalls, choose_by
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.receiving import WebSocketMessageReceiver
from twsock.sockets.websocket.stream_receiving import WebSocketStreamReceiver, choose_binary
from twsock.sockets.websocket.web_socket import AwaitableWebSocket
from twsock.stream.counters import Counters
from twsock.tls.server import ServerTls
from twsock.websocket.handshake import Acceptance
from twsock.websocket.http_message import Request

__all__ = [
    "ServerMessageWebSocket",
    "ServerMessageWebSocketControl",
    "ServerStreamWebSocket",
    "ServerWebSocket",
    "ServerWebSocketInformation",
]


class ServerWebSocketInformation(StreamSocketInformation):
    """Facts of one WebSocket of a server: those of a `twsock.StreamSocket`, and its request."""

    __slots__ = ("_is_compressed", "_protocol", "_request")

    def __init__(self) -> None:
        super().__init__()
        self._protocol: str | None = None
        self._is_compressed = False
        # One string: a `Request` has some 50 objects, which take several times as much memory.
        self._request: str | None = None

    @property
    def protocol(self) -> str | None:
        """The subprotocol that was agreed; None without one."""
        return self._protocol

    @property
    def is_compressed(self) -> bool:
        """Whether both ends agreed to compress messages (:rfc:`7692`)."""
        return self._is_compressed

    @property
    def request(self) -> Request | None:
        """The request of the client, for its target and header fields; each access makes a copy."""
        return None if self._request is None else Request.from_json(self._request)

    # Called by the socket.

    def agreed(self, acceptance: Acceptance) -> None:
        """Record a finished handshake."""
        self._protocol = acceptance.subprotocol
        self._is_compressed = acceptance.compression is not None
        self._request = acceptance.request.to_json()


class ServerMessageWebSocketControl:
    """
    Options of one `twsock.ServerMessageWebSocket`; the listener has all others.

    :ivar message_type: the type of messages written to ``output_stream``; default ``BINARY``.
    """

    __slots__ = ("message_type",)

    def __init__(self) -> None:
        self.message_type = SocketMessageType.BINARY


class ServerWebSocket(AwaitableWebSocket):
    """
    The common base class of both kinds of WebSockets of a server.

    A `twsock.WebSocketListener` makes them. The attributes are those of the WebSockets of clients,
    as far as they concern a WebSocket that is connected.

    :ivar information: addresses, subprotocol, request, TLS facts and statistics.
    """

    information: ServerWebSocketInformation
    _connection: ServerProtocol | None

    def __init__(
        self,
        reactor: Any,
        close_timeout: float,
        observer: Callable[[Any, bool], None],
        accepted: Callable[[Any], None],
    ) -> None:
        super().__init__(reactor, close_timeout)
        self.information = ServerWebSocketInformation()
        self._observer: Callable[[Any, bool], None] | None = observer
        self._accepted: Callable[[Any], None] | None = accepted
        self._make_sides(reactor)

    def _make_sides(self, reactor: Any) -> None:
        """Make the receiver and the output."""
        raise NotImplementedError

    @property
    def was_lost(self) -> bool:
        """Whether the connection was reset, aborted, or ended without a close frame."""
        return self._state.was_lost

    # Called by the listener.

    def build_protocol(self, shared: ServerConnections, max_unsent: int) -> ServerProtocol:
        """Return the protocol of the connection."""
        self.output_stream.max_unsent = max_unsent
        return ServerProtocol(
            self._reactor,
            self._receiver,
            self.output_stream,
            self,
            self._close_timeout,
            shared,
        )

    def apply(self, control: StreamSocketListenerControl) -> None:
        """Set the options of the listener on this connection."""
        if self._connection is not None:
            control.apply(self._connection.transport)

    def count_in(self, counters: Counters) -> None:
        """Count this connection with the others of its listener."""
        if self._connection is not None:
            self._connection.stream.counters = counters

    def start_handshake(self) -> None:
        """Wait for the request."""
        if self._connection is not None:
            self._connection.start_handshake()

    def secure_as_server(self, tls: ServerTls, timeout: float) -> Deferred[None]:
        """Start a TLS handshake; see `twsock.StreamSocket.secure_as_server`."""
        assert self._connection is not None
        self._state.has_begun_tls = True
        return ServerRole(tls).begin(self._connection, self.information, timeout)

    def drain(self) -> None:
        """Close when the application has received all messages that have arrived."""
        if self._connection is not None:
            self._connection.drain()

    # Called by the connection.

    def connection_made(self, connection: ServerProtocol) -> None:
        """Record the connection and its addresses."""
        self._connection = connection
        self._state.connected()
        self.information.connected(connection.transport)
        if self._observer is not None:
            self._observer(self, True)

    def handshake_done(self, acceptance: Acceptance) -> None:
        """Pass this WebSocket to the application: the request was accepted."""
        self.information.agreed(acceptance)
        accepted, self._accepted = self._accepted, None
        if accepted is not None:
            accepted(self)

    @override
    def connection_lost(self, error: SocketError | None) -> None:
        super().connection_lost(error)
        observer, self._observer, self._accepted = self._observer, None, None
        if observer is not None:
            observer(self, False)


class ServerMessageWebSocket(MessageCalls, ServerWebSocket):
    """
    A WebSocket of messages, on a server. A `twsock.WebSocketListener` makes it.

    ::

        async def serve(listener, args):
            async with args.socket as websocket:
                async for message in websocket:
                    await websocket.send(message)

    Messages are received as with `twsock.MessageWebSocket`.

    :ivar control: the type of written messages.
    :ivar message_received: an event as that of `twsock.MessageWebSocket`. Its handlers are added
        before the handler of ``connection_received`` awaits anything.
    """

    _receiver: WebSocketMessageReceiver

    @override
    def _make_sides(self, reactor: Any) -> None:
        self.control = ServerMessageWebSocketControl()
        self.message_received: Event[
            Callable[[Any, MessageWebSocketMessageReceivedEventArgs], Any]
        ] = Event("message_received")
        self._receiver = WebSocketMessageReceiver(reactor, self.message_received)
        self.output_stream = WebSocketOutputStream(reactor, choose_by(self.control))

    @override
    def build_protocol(self, shared: ServerConnections, max_unsent: int) -> ServerProtocol:
        self._is_partial = shared.is_partial
        return super().build_protocol(shared, max_unsent)

    @override
    def drain(self) -> None:
        self._receiver.end_when_drained()
        super().drain()


class ServerStreamWebSocket(ServerWebSocket):
    """
    A WebSocket of a byte stream, on a server; see `twsock.StreamWebSocket`.

    A `twsock.WebSocketListener` with ``is_stream`` makes it. When the listener ends, a read that
    waits gets the end of the stream.
    """

    _receiver: WebSocketStreamReceiver

    @override
    def _make_sides(self, reactor: Any) -> None:
        self._receiver = WebSocketStreamReceiver(reactor)
        self.output_stream = WebSocketOutputStream(reactor, choose_binary)

    @property
    def input_stream(self) -> InputStream:
        """The receiving side. After it was closed, bytes of the client are dropped."""
        return self._receiver.input_stream

    @override
    def drain(self) -> None:
        self.input_stream.end_when_drained()
        super().drain()
