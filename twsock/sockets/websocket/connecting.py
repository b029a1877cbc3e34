"""
The steps of a connect on one connection: TCP → proxy → TLS → **request and response**.

`ConnectingProtocol` is the base class of `twsock.sockets.websocket.connection.ClientProtocol`,
which handles the messages. The socket calls the steps: a request to a proxy opens a tunnel, TLS
begins, and the request of the WebSocket follows. Holds at most the head of one response, 16 KiB.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twsock.errors import BrokenError, RemoteProtocolError, SocketError, SocketErrorStatus
from twsock.operation import Operation
from twsock.sockets.websocket.tunnel import Tunnel
from twsock.stream.connection import Connection
from twsock.stream.switch import Switch
from twsock.websocket.client_handshake import Agreement
from twsock.websocket.http import ClientHttp
from twsock.websocket.http_message import Request

__all__ = ["ConnectingProtocol", "WebSocketEvents"]


class WebSocketEvents(typing.Protocol):
    """The socket above a connection: receives its events."""

    def connection_made(self, connection: Any) -> None:
        """Handle the connection: it is open, and no handshake has begun."""

    def handshake_done(self, agreement: Agreement) -> None:
        """Handle the end of the handshake: the server has accepted the WebSocket."""

    def connection_closed(self, code: int, reason: str) -> None:
        """Handle the first close frame, of either end."""

    def connection_lost(self, error: SocketError | None) -> None:
        """Handle the loss of the connection."""


@implementer(IHalfCloseableProtocol)
class ConnectingProtocol(Protocol):
    """
    A connection on which a WebSocket is opened.

    :param clock: measures the timeouts.
    :param events: receives the events.
    """

    close_timeout: float

    _stream: Connection | None = None
    _switch: Switch | None = None
    # Between a request and its response.
    _http: ClientHttp | None = None
    _read_response: Callable[[ClientHttp, bytes], bool] | None = None
    _answered: Deferred[None] | None = None

    def __init__(self, clock: IReactorTime, events: WebSocketEvents) -> None:
        self._clock = clock
        # None once no more events are reported.
        self._events: WebSocketEvents | None = events

    # Implemented by the protocol of messages.

    def abort(self, error: SocketError | None = None) -> Deferred[None]:
        """End the connection now; return the wait for the loss."""
        raise NotImplementedError

    # Facts.

    @property
    def stream(self) -> Connection:
        """The connection below; there is one between open and lost."""
        assert self._stream is not None
        return self._stream

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted, and its server was accepted."""
        return self._stream is not None and self._stream.is_secure

    def when_lost(self) -> Deferred[None]:
        """Wait until the connection is lost; fires at once if it is already."""
        return succeed(None) if self._stream is None else self._stream.when_lost()

    def forget_socket(self) -> None:
        """Report no more events: the connect failed, and the socket may be connected again."""
        self._events = None

    # Requests.

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

    # Called by Twisted.

    @override
    def connectionMade(self) -> None:
        self._stream = Connection(typing.cast(Any, self), self.transport, self._clock)
        if self._events is not None:
            self._events.connection_made(self)

    @override
    def dataReceived(self, data: bytes) -> None:
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

    def readConnectionLost(self) -> None:
        """Report the end of the server's output to the connection."""
        if self._stream is not None:
            self._stream.peer_ended()

    def writeConnectionLost(self) -> None:
        """Report to the connection that the kernel has FIN."""
        if self._stream is not None:
            self._stream.fin_sent()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._stream is not None:
            self._stream.lost(reason)

    # Called by the TLS handshake.

    def begin_upgrade(self, switch: Switch) -> None:
        """Report the loss of the connection to this handshake, too."""
        self._switch = switch

    def forget_switch(self) -> None:
        """Drop the handshake, which is done."""
        self._switch = None

    def suspend(self) -> None:
        """Do nothing: nothing is written before the handshake is done."""

    def take_buffered(self) -> bytes:
        """Return no bytes: nothing is received before the handshake."""
        return b""

    def continue_above(self, engine: Any) -> None:
        """Continue above a TLS engine whose handshake is done."""
        self.transport = engine
        self.stream.rebind(engine)

    def _lose_switch(self, error: SocketError | None) -> None:
        """Report the loss of the connection to a handshake that runs."""
        switch, self._switch = self._switch, None
        if switch is not None:
            switch.lost(error)
