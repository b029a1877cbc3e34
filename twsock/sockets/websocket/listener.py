"""
The listener for awaitable WebSockets: port → **listener** → handlers, or `accept`.

The base class binds ports and holds the open connections, as for a `twsock.StreamSocketListener`. A
WebSocket reaches the application when its request was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolNegotiationFactory
from typing_extensions import override
from zope.interface import implementer

from twsock._integers import checked_integer
from twsock.errors import ClosedError
from twsock.sockets.stream.handlers import RunningHandlers
from twsock.sockets.stream.listening import AcceptingFactory, SocketListener
from twsock.sockets.websocket.accepting import ServerConnections, ServerProtocol
from twsock.sockets.websocket.message import MessageWebSocketReceiveMode
from twsock.sockets.websocket.server import (
    ServerMessageWebSocket,
    ServerStreamWebSocket,
    ServerWebSocket,
)
from twsock.stream.connection_protocol import LEAST_MAX_UNSENT
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.listening.buffer_limit import DEFAULT_MAX_BUFFERED
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT
from twsock.tls.server import ServerOptions
from twsock.websocket.close_frame import CloseCode
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.handshake import ALPN_PROTOCOLS, RequestRules
from twsock.websocket.http_message import Request
from twsock.websocket.judging import Judgement
from twsock.websocket.keepalive import DEFAULT_PING_INTERVAL, DEFAULT_PING_TIMEOUT
from twsock.websocket.messages import DEFAULT_MAX_FRAGMENTS
from twsock.websocket.ping_schedule import PingSchedule
from twsock.websocket.settings import DEFAULT_WEBSOCKET_TIMEOUT, WebSocketSettings

__all__ = ["WebSocketListener", "WebSocketListenerConnectionReceivedEventArgs"]

#: Default of ``max_message_size``, in bytes.
_DEFAULT_MAX_MESSAGE_SIZE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class WebSocketListenerConnectionReceivedEventArgs:
    """
    Argument of a handler of ``connection_received``.

    :ivar socket: the new WebSocket: a `twsock.ServerMessageWebSocket`, or a
        `twsock.ServerStreamWebSocket` of a listener with ``is_stream``.
    """

    socket: Any


_Handler = Callable[
    ["WebSocketListener", WebSocketListenerConnectionReceivedEventArgs],
    Coroutine[Deferred[Any], Any, Any] | Deferred[Any] | None,
]


class _Handlers(RunningHandlers[ServerWebSocket]):
    """Closes a WebSocket whose handler has failed with the code 1011."""

    # An abort could destroy the close frame.
    _in_order = (ClosedError,)

    @override
    def _end_broken(self, socket: ServerWebSocket) -> None:
        if socket.is_open:
            socket.abort()
        else:
            socket.close()  # It is ending, and its client may still read what was sent.

    @override
    def _end_failed(self, socket: ServerWebSocket) -> None:
        socket.close(CloseCode.INTERNAL_ERROR)


@implementer(IProtocolNegotiationFactory)
class _AcceptingFactory(AcceptingFactory):
    """Names HTTP/1.1 to a TLS endpoint, for clients that offer protocols (ALPN)."""

    def acceptableProtocols(self) -> list[bytes]:
        """Return the names for ALPN."""
        return list(ALPN_PROTOCOLS)


class WebSocketListener(SocketListener[Any]):
    """
    Accepts WebSockets. Not in WinRT, which has no server of WebSockets.

    ::

        listener = WebSocketListener(reactor)


        @listener.connection_received.add
        async def serve(listener, args):
            async with args.socket as websocket:
                async for message in websocket:
                    await websocket.send(message)


        await listener.bind_endpoint("127.0.0.1", 1338)

    Handlers, ``accept`` and the end are those of `twsock.StreamSocketListener`. A WebSocket reaches
    the application only after its request was accepted. The error of a handler is logged, and
    closes its WebSocket with the code 1011. `close_all` closes each WebSocket with the code 1001,
    when its handler waits for a message and none has arrived.

    :param hosts: names and addresses of this server; see `twsock.protocols.WebSocketFactory`, also
        for ``origins``, ``subprotocols``, ``path``, ``compression``, the times and the limits.
    :param judge: called with each request that the rules have accepted; returns what
        `twsock.protocols.WebSocketProtocol.accept` returns. None to accept all of them.
    :param max_message_size: largest message accepted, in bytes; 0 or more. It also limits each
        message of a WebSocket of a byte stream.
    :param max_unsent: how many bytes each WebSocket may queue; further messages fail with
        `BusyError`. 1 or more.
    :param is_stream: whether to make WebSockets of byte streams.
    :param receive_mode: with ``PARTIAL_MESSAGE``, handlers of ``message_received`` get pieces of
        messages as they arrive, and ``receive`` fails. A byte stream gets pieces in both modes.
    :param request_timeout: seconds until the request is answered, from the start of the connection
        or the end of its TLS handshake; then the connection is aborted. Above 0.
    :raises ValueError: when a number is out of bounds, or a name is malformed.
    :raises TypeError: when an argument has the wrong type.

    The other parameters and attributes are those of `twsock.StreamSocketListener`.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        subprotocols: Sequence[str] = (),
        path: str | None = None,
        judge: Callable[[Request], Judgement] | None = None,
        compression: DeflateSettings | None = None,
        max_message_size: int = _DEFAULT_MAX_MESSAGE_SIZE,
        max_fragments: int = DEFAULT_MAX_FRAGMENTS,
        max_fragment_size: int | None = None,
        ping_interval: float | None = DEFAULT_PING_INTERVAL,
        ping_timeout: float | None = DEFAULT_PING_TIMEOUT,
        request_timeout: float = DEFAULT_WEBSOCKET_TIMEOUT,
        max_unsent: int = LEAST_MAX_UNSENT,
        is_stream: bool = False,
        receive_mode: MessageWebSocketReceiveMode = MessageWebSocketReceiveMode.FULL_MESSAGE,
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        max_buffered: int = DEFAULT_MAX_BUFFERED,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        tls: ServerOptions | None = None,
        handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
    ) -> None:
        if checked_integer(max_message_size, "max_message_size") < 0:
            raise ValueError(f"max_message_size is 0 bytes or more, not {max_message_size}")
        if checked_integer(max_unsent, "max_unsent") < 1:
            raise ValueError(f"max_unsent is 1 byte or more, not {max_unsent}")
        rules = RequestRules(
            hosts=hosts,
            origins=origins,
            subprotocols=subprotocols,
            compression=compression,
            path=path,
        )
        settings = WebSocketSettings(
            rules, request_timeout, ping_interval, ping_timeout, max_fragments, max_fragment_size
        )
        super().__init__(
            reactor,
            max_connections=max_connections,
            max_connections_per_address=max_connections_per_address,
            max_buffered=max_buffered,
            close_timeout=close_timeout,
            tls=tls,
            handshake_timeout=handshake_timeout,
        )
        self._max_unsent = max_unsent
        self._make = ServerStreamWebSocket if is_stream else ServerMessageWebSocket
        self._shared = ServerConnections(
            settings,
            judge or _accept_all,
            max_message_size,
            is_stream or _delivers_pieces(receive_mode),
            None if ping_interval is None else PingSchedule(reactor, ping_interval),
            self._connections.buffer_limit,
        )

    # Overrides of `SocketListener`.

    @override
    def build_protocol(self, host: str | None) -> ServerProtocol:
        is_counted = self._connections.address_limit is not None
        made = self._make(
            self._reactor,
            self._close_timeout,
            partial(self._observe, host if is_counted else None),
            self._deliver,
        )
        return made.build_protocol(self._shared, self._max_unsent)

    @override
    def _make_factory(self) -> AcceptingFactory:
        return _AcceptingFactory(self)

    @override
    def _make_handlers(self, reactor: Any) -> RunningHandlers[Any]:
        return _Handlers(reactor)

    @override
    def _make_args(self, accepted: Any) -> WebSocketListenerConnectionReceivedEventArgs:
        return WebSocketListenerConnectionReceivedEventArgs(accepted)

    def _observe(self, host: str | None, made: ServerWebSocket, is_connected: bool) -> None:
        if not is_connected:
            self._lost(made)
            return
        self._joined(made, host)
        made.apply(self.control)
        made.count_in(self.counters)
        if self._tls is None:
            made.start_handshake()
        else:
            self._secure(made, self._tls, made.start_handshake)


def _delivers_pieces(receive_mode: MessageWebSocketReceiveMode) -> bool:
    """
    Return whether the mode is that of pieces.

    :raises ValueError: when it is no mode.
    """
    mode = MessageWebSocketReceiveMode(receive_mode)
    return mode is MessageWebSocketReceiveMode.PARTIAL_MESSAGE


def _accept_all(_request: Request) -> None:
    """Accept each request that the rules have accepted."""
