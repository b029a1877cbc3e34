"""
Awaitable WebSockets of clients: application → **WebSocket** → connection → transport.

`WebSocketClient` is the base class of `twsock.MessageWebSocket` and `twsock.StreamWebSocket`, which
differ in how they receive messages. It runs the steps of a connect, and passes calls on to the
`twsock.sockets.websocket.connection.ClientProtocol` of the last connect. Holds the options, the
information, the header fields of the request, and that protocol.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from twsock.errors import LocalProtocolError, SocketError
from twsock.names import EndpointPair
from twsock.operation import fail
from twsock.sockets.event import Event
from twsock.sockets.stream.connecting import connect_through, connect_to_service
from twsock.sockets.stream.control import StreamSocketControl
from twsock.sockets.stream.securing import ClientRole
from twsock.sockets.waiting import check_timeout
from twsock.sockets.websocket.connecting import ClientProtocol
from twsock.sockets.websocket.control import WebSocketControl
from twsock.sockets.websocket.information import WebSocketInformation
from twsock.sockets.websocket.opening import Opening
from twsock.sockets.websocket.tunnel import Proxy, Tunnel
from twsock.sockets.websocket.validation import (
    WebSocketServerCustomValidationRequestedEventArgs,
    validate,
)
from twsock.sockets.websocket.web_socket import AwaitableWebSocket
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT
from twsock.tls.levels import SocketProtectionLevel
from twsock.websocket.client_handshake import (
    Agreement,
    ClientHandshake,
    check_request_header,
)
from twsock.websocket.handshake import NONCE_SIZE
from twsock.websocket.uri import WebSocketUri

__all__ = ["ADDRESS_TIMEOUT", "MAX_ADDRESSES", "RESPONSE_TIMEOUT", "WebSocketClient"]

#: How many addresses of a host are tried, as in WinRT.
MAX_ADDRESSES: Final = 5
#: Seconds for each of them, as in WinRT.
ADDRESS_TIMEOUT: Final = 60.0

#: Seconds from a request until the server, or the proxy, has to have answered.
RESPONSE_TIMEOUT: Final = 10.0

_ValidationHandler = Callable[[Any, WebSocketServerCustomValidationRequestedEventArgs], Any]


class WebSocketClient(AwaitableWebSocket):
    """
    The common base class of both kinds of WebSocket clients.

    ``async with MessageWebSocket(reactor) as websocket:`` closes the WebSocket at the end of the
    block with the code 1000, or aborts it when the block raises an error. A `SocketError` does
    not abort a WebSocket that is no longer open, since an abort could destroy its last frames. Then
    the end of the block waits for the end of the connection.

    :param reactor: runs lookups, connections and timeouts.
    :param close_timeout: seconds from the first close frame to the end of the connection; 0 or
        more. No traffic extends this time.
    :raises ValueError: when ``close_timeout`` is negative.

    :ivar control: the options, to be set before the WebSocket is connected.
    :ivar information: addresses, subprotocol, TLS facts and statistics.
    :ivar output_stream: the sending side. Each write is one message.
    :ivar closed: an event whose handlers are called with the WebSocket and a
        `WebSocketClosedEventArgs`: once, when the close frame of the server arrives, or when
        `close` is called. They are not called when the connection is lost without a close frame.
    :ivar server_custom_validation_requested: an event whose handlers are called with the WebSocket
        and a `WebSocketServerCustomValidationRequestedEventArgs`. They are called during a connect
        over TLS, after TLS has accepted the certificate of the server and before the request is
        sent. Only the ``timeout`` of the connect limits their time.
    """

    # Made by the subclasses.
    control: WebSocketControl
    information: WebSocketInformation
    _connection: ClientProtocol | None

    def __init__(self, reactor: Any, *, close_timeout: float = DEFAULT_CLOSE_TIMEOUT) -> None:
        super().__init__(reactor, close_timeout)
        # Names in lower case → names and values.
        self._headers: dict[str, tuple[str, str]] = {}
        self.information = WebSocketInformation()
        self.server_custom_validation_requested: Event[_ValidationHandler] = Event(
            "server_custom_validation_requested", self._state.is_in_use
        )

    # Implemented by the subclasses.

    def _make_streams(self) -> None:
        """Make the output stream and the receiver, for the first or the next connect."""
        raise NotImplementedError

    def _opening(self, handshake: ClientHandshake) -> Opening:
        """Return what the opening handshake needs."""
        raise NotImplementedError

    # Connecting.

    def set_request_header(self, name: str, value: str) -> None:
        """
        Add a header field to the request, or replace the one that was set before.

        :param value: Latin-1 text, without control characters.
        :raises ValueError: when name or value is malformed, or the handshake writes the field
            itself, such as ``Sec-WebSocket-Extensions``.
        :raises LocalProtocolError: once `connect` was called.
        :raises TypeError: when name or value is no ``str``.
        """
        if self._state.is_in_use():
            raise LocalProtocolError("a header is set before the WebSocket is connected")
        check_request_header(name, value)
        self._headers[name.lower()] = name, value

    def connect(self, uri: str, *, timeout: float | None = None) -> Deferred[None]:
        """
        Connect to a server.

        Up to five addresses of the host are tried, in the order of `twsock.StreamSocket`; IPv6 and
        IPv4 take turns. Each may take 60 s, and the attempts overlap, unless
        ``control.serialize_connection_attempts`` is set. A TLS handshake may take 10 s. A proxy
        has 10 s to answer its request, and the server has 10 s. Redirections are not followed.

        :param uri: an absolute URI with the scheme ``ws`` or ``wss``, without a fragment.
        :param timeout: seconds for the whole connect, which then fails with status
            ``CONNECTION_TIMED_OUT``; 0 or more. None for no limit.
        :returns: fires when the server has accepted the WebSocket. It fails with `ConnectError` if
            no address answers, with the `SocketError` of the lookup or of TLS, and with
            `HandshakeError` if the server refuses; then ``WebSocketError.get_status`` returns the
            HTTP status. After a failure or a cancel, the WebSocket can be connected again, and the
            facts of the certificate stay in ``information``. It fails with `LocalProtocolError` if
            the WebSocket is connected, or a credential would be sent without TLS, with `BusyError`
            during another connect, and with `ClosedError` after `close`.
        :raises ValueError: at once, for a malformed URI or subprotocol, or a negative timeout.
        """
        return self._start(uri, None, timeout)

    def connect_endpoint(
        self, endpoint: IStreamClientEndpoint, uri: str, *, timeout: float | None = None
    ) -> Deferred[None]:
        """
        Connect through any stream endpoint of Twisted, such as a UNIX socket. Not in WinRT.

        :param uri: as for `connect`; it gives the path and the name of the server. With ``wss``
            the TLS handshake runs on the connection that the endpoint makes.
        :param timeout: as for `connect`.
        :returns: as `connect`. An error of the endpoint is reported as a `SocketError`. It also
            fails with `LocalProtocolError` if ``control.proxy`` is set: the endpoint decides how to
            connect.
        """
        return self._start(uri, endpoint, timeout)

    def _start(
        self, uri: str, endpoint: IStreamClientEndpoint | None, timeout: float | None
    ) -> Deferred[None]:
        check_timeout(timeout)
        parsed = WebSocketUri.parse(uri)
        handshake = self._prepare(parsed)
        try:
            self._check_proxy(endpoint)
            self._check_credentials(parsed)
            role = self._role(parsed)
        except SocketError as error:
            return fail(error.copy())
        work = self._connect(parsed, handshake, role, endpoint)
        return self._state.connect(work, self._start_again, self._reactor, timeout)

    def _prepare(self, uri: WebSocketUri) -> ClientHandshake:
        headers = list(self._headers.values())
        credential = self.control.server_credential
        if credential is not None and "authorization" not in self._headers:
            headers.append(("Authorization", credential.as_basic()))
        return ClientHandshake(
            uri,
            key=os.urandom(NONCE_SIZE),
            subprotocols=self.control.supported_protocols,
            headers=headers,
            compression=self.control.compression,
        )

    def _check_proxy(self, endpoint: IStreamClientEndpoint | None) -> None:
        """
        Check that an endpoint does not bypass the proxy.

        :raises LocalProtocolError: when both are set.
        """
        if endpoint is not None and self.control.proxy is not None:
            raise LocalProtocolError(
                "connect_endpoint uses no proxy: set control.proxy to None, or call connect"
            )

    def _check_credentials(self, uri: WebSocketUri) -> None:
        """
        Check that no credential is sent without TLS, unless the application permits it.

        :raises LocalProtocolError: when a credential would be sent without TLS.
        """
        control = self.control
        if control.sends_credentials_unencrypted:
            return
        for name, is_sent in (
            ("server_credential", control.server_credential is not None and not uri.is_secure),
            ("proxy_credential", control.proxy_credential and self._has_plain_proxy),
        ):
            if is_sent:
                raise LocalProtocolError(
                    f"{name} would be sent without TLS: set control.sends_credentials_unencrypted"
                )

    @property
    def _has_plain_proxy(self) -> bool:
        proxy = self.control.proxy
        return proxy is not None and not Proxy.parse(proxy).is_secure

    def _role(self, uri: WebSocketUri) -> ClientRole | None:
        """
        Return the role of this end in the TLS handshake; None without TLS.

        :raises OperationNotSupported: when this machine does not support the level, or the lowest
            level is above it.
        """
        if not uri.is_secure:
            return None
        control = self.control
        return ClientRole(control, control.max_protection_level, control.server_name or uri.host)

    def _proxy_role(self, proxy: Proxy) -> ClientRole:
        """Return the role of this end in the TLS handshake with the proxy."""
        control = self.control
        # The other options, such as the certificate of the client, are for the server.
        options = StreamSocketControl(lambda: False)
        options.trust_roots = control.proxy_trust_roots
        options.min_protection_level = control.min_protection_level
        options.resumes_sessions = control.resumes_sessions
        return ClientRole(options, SocketProtectionLevel.SSL, proxy.host)

    async def _connect(
        self,
        uri: WebSocketUri,
        handshake: ClientHandshake,
        role: ClientRole | None,
        endpoint: IStreamClientEndpoint | None,
    ) -> None:
        self.information.asked_for(uri.host, str(uri.port))
        proxy = None
        if endpoint is None:
            proxy = None if self.control.proxy is None else Proxy.parse(self.control.proxy)
            await self._connect_tcp(proxy or uri)
        else:
            await connect_through(endpoint, self._build_protocol)
        connection = self._connection
        assert connection is not None
        if proxy is not None:
            if proxy.is_secure:
                await connection.secure_proxy(self._proxy_role(proxy))
            credential = self.control.proxy_credential
            await connection.open_tunnel(Tunnel(uri, credential, RESPONSE_TIMEOUT))
        if role is not None:
            self._state.has_begun_tls = True
            await role.begin(connection, self.information, DEFAULT_HANDSHAKE_TIMEOUT)
            await validate(self.server_custom_validation_requested, self, self.information)
        await connection.shake_hands(self._opening(handshake))

    async def _connect_tcp(self, remote: WebSocketUri | Proxy) -> None:
        pair = EndpointPair(None, "", remote.host, str(remote.port))
        # Without a resolver: a URI always has a port, so no SRV record is looked up.
        await connect_to_service(
            self._reactor,
            pair,
            None,
            None,
            self.control,
            self._build_protocol,
            max_addresses=MAX_ADDRESSES,
            attempt_timeout=ADDRESS_TIMEOUT,
        )

    def _build_protocol(self) -> ClientProtocol:
        return ClientProtocol(
            self._reactor, self._receiver, self.output_stream, self, self._close_timeout
        )

    def _start_again(self) -> None:
        """Restore the state before a failed connect, with new streams."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.forget_socket()  # Twisted may report its loss after the next connect.
            connection.abort()
            self._make_streams()

    # Called by the connection.

    def connection_made(self, connection: ClientProtocol) -> None:
        """Record the connection and its addresses; set the options of its socket."""
        self._connection = connection
        self.information.connected(connection.transport)
        self.control.apply(connection.transport)

    def handshake_done(self, agreement: Agreement) -> None:
        """Record what the server has agreed to."""
        self._state.connected()
        self.information.agreed(agreement)
