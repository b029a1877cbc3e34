"""
The client's connection of a WebSocket: TCP → proxy → TLS → **request and response** → messages.

A socket makes one `ClientProtocol` for each attempt to connect, and calls the steps. With a proxy
these are TLS, if its URI is ``https``, and a request that opens a tunnel. The next steps are TLS
with the server, for ``wss``, and the request of the WebSocket. The base class in
`twsock.sockets.websocket.connection` handles the messages. Holds at most the head of one response,
16 KiB.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import (
    BrokenError,
    ClosedError,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.operation import Operation
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.sockets.stream.securing import ClientRole
from twsock.sockets.websocket.closed import lost_without_close
from twsock.sockets.websocket.connection import WebSocketConnection
from twsock.sockets.websocket.opening import Opening
from twsock.sockets.websocket.pongs import UnsolicitedPongs
from twsock.sockets.websocket.tunnel import Tunnel
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT
from twsock.websocket.client_handshake import Agreement
from twsock.websocket.closing import Role
from twsock.websocket.connection import WebSocket
from twsock.websocket.frames import Opcode
from twsock.websocket.http import ClientHttp
from twsock.websocket.http_message import Request
from twsock.websocket.messages import MessageEncoder

__all__ = ["ClientProtocol"]


class ClientProtocol(WebSocketConnection):
    """
    The connection of one client's WebSocket.

    The parameters are those of `WebSocketConnection`.
    """

    # Between a request and its response.
    _http: ClientHttp | None = None
    _read_response: Callable[[ClientHttp, bytes], bool] | None = None
    _answered: Deferred[None] | None = None

    # The transport that encrypts for the proxy; None without TLS to a proxy.
    _proxy_engine: Any = None

    _pongs: UnsolicitedPongs | None = None

    # The opening handshake.

    def shake_hands(self, opening: Opening) -> Deferred[None]:
        """
        Send the request, and wait for the response.

        :returns: fires when the server has accepted the WebSocket, before any message is delivered.
            If it fails, or is cancelled, the connection has been aborted.
        """

        def read(http: ClientHttp, data: bytes) -> bool:
            agreement = opening.read_response(http, data)
            if agreement is not None:
                self._open(opening, agreement, http.leftover)
            return agreement is not None

        if self._stream is not None and self._stream.is_open:
            self._web_socket = WebSocket(self, self._stream, Role.CLIENT, self.close_timeout)
            self._web_socket.start_handshake(opening.timeout)
        return self._ask(opening.handshake.request, read)

    def _open(self, opening: Opening, agreement: Agreement, leftover: bytes) -> None:
        """Prepare for messages: the server has accepted the WebSocket."""
        web_socket, events = self._web_socket, self._events
        assert web_socket is not None and events is not None
        encoder = opening.make_encoder(agreement)
        self._begin_messages(events, opening.make_decoder(agreement), encoder, leftover)
        control = opening.control
        web_socket.accept(encoder, control.ping_interval, control.ping_timeout)
        interval = control.actual_unsolicited_pong_interval
        if interval is not None:
            pong = partial(self._send_pong, encoder)
            self._pongs = UnsolicitedPongs(self._clock, interval, pong)
        events.handshake_done(agreement)

    def _send_pong(self, encoder: MessageEncoder) -> bool:
        """Send a pong that answers no ping; return whether the WebSocket is open."""
        stream = self._stream
        if stream is not None and self.is_open and not stream.is_full:
            self.send_control(encoder.encode(Opcode.PONG, b""))
        return self.is_open

    # The proxy.

    def secure_proxy(self, role: ClientRole) -> Deferred[None]:
        """
        Start TLS with the proxy, before `open_tunnel`.

        :returns: fires when the proxy was accepted. If it fails or is cancelled, the connection
            was aborted.
        """
        information = StreamSocketInformation()
        information.connected(self.transport)
        securing = role.begin(self, information, DEFAULT_HANDSHAKE_TIMEOUT)
        return securing.addCallbacks(self._proxy_secured, _name_proxy)

    def _proxy_secured(self, _secured: None) -> None:
        self._proxy_engine = self.transport

    @property
    @override
    def is_secure(self) -> bool:
        # TLS that ends at the proxy does not protect the messages between proxy and server.
        return super().is_secure and self.transport is not self._proxy_engine

    def open_tunnel(self, tunnel: Tunnel) -> Deferred[None]:
        """
        Ask a proxy to connect to the server.

        :returns: fires when the proxy has connected. If it fails or is cancelled, the connection
            was aborted.
        """
        if self._stream is not None:
            self._stream.start_deadline(tunnel.timeout, self._tunnel_timed_out)
        return self._ask(tunnel.request, tunnel.read_response).addCallback(self._tunnel_opened)

    def _tunnel_opened(self, _answered: None) -> None:
        self.stream.stop_deadline()

    def _tunnel_timed_out(self) -> None:
        status = SocketErrorStatus.CONNECTION_TIMED_OUT
        self._fail_connect(SocketError("the proxy did not answer in time", status=status))

    # Requests.

    def _ask(
        self, request: Request, read_response: Callable[[ClientHttp, bytes], bool]
    ) -> Deferred[None]:
        """
        Send a request.

        :param read_response: called with received bytes until it returns True, or raises a
            `RemoteProtocolError`.
        :returns: fires when ``read_response`` has returned True. If it fails or is cancelled, the
            connection was aborted.
        """
        answered: Deferred[None] = Operation(self._cancelled)
        self._answered = answered
        stream = self._stream
        if stream is None or not stream.is_open:
            self._fail_connect(BrokenError("the connection ended before the handshake"))
            return answered
        self._http = ClientHttp(request)
        self._read_response = read_response
        stream.write(self._http.request_bytes)
        stream.send()
        return answered

    def _cancelled(self, _answered: Deferred[None]) -> None:
        self._answered = None
        self.abort()

    def _fail_connect(self, error: SocketError) -> None:
        """Abort the connection: the connect has failed."""
        answered, self._answered = self._answered, None
        self._fail_request(error)
        self.abort(error)
        if answered is not None:
            answered.errback(error.copy())

    def _fail_request(self, error: SocketError) -> None:
        """End the wait for a response, if there is one."""
        self._http = self._read_response = None
        answered, self._answered = self._answered, None
        if answered is not None:
            answered.errback(error.copy())

    # Overrides of `WebSocketConnection`.

    @override
    def _handshake_received(self, data: bytes) -> None:
        http, read_response = self._http, self._read_response
        if http is None or read_response is None:
            if self._events is not None:
                self._fail_connect(RemoteProtocolError("bytes arrived before the request was sent"))
            return
        try:
            is_done = read_response(http, data)
        except RemoteProtocolError as error:
            self._fail_connect(error)
            return
        if is_done:
            self._http = self._read_response = None
            answered, self._answered = self._answered, None
            if answered is not None:
                answered.callback(None)

    @override
    def _handshake_ended(self) -> None:
        message = "the server ended the connection before it answered"
        self._fail_connect(lost_without_close(None, message))

    @override
    def _handshake_lost(self, error: SocketError) -> None:
        self._fail_request(error)

    @override
    def connection_ended(self, error: SocketError | None, reason: Failure) -> None:
        if self._pongs is not None:
            self._pongs.stop()
        super().connection_ended(error, reason)


def _name_proxy(failure: Failure) -> Failure:
    """Name the proxy in the error of a TLS handshake with the proxy."""
    error = failure.value
    if not isinstance(error, SocketError) or isinstance(error, ClosedError):
        return failure
    named = error.copy()
    named.args = (f"proxy: {error}",)
    return Failure(named)
