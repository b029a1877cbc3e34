"""
Tunnels through HTTP proxies: proxy and server → **CONNECT** → response.

A WebSocket passes a proxy in a tunnel, with and without TLS (:rfc:`6455` section 4.1, and
:rfc:`9110` section 9.3.6). The request to the proxy has the name of the server and the credential
for the proxy. The request of the WebSocket follows in the tunnel. Nothing is held.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from twsock.errors import RemoteProtocolError, SocketErrorStatus
from twsock.names import HostName, HostNameType
from twsock.sockets.websocket.credential import PasswordCredential
from twsock.websocket.client_handshake import refused
from twsock.websocket.http import ClientHttp
from twsock.websocket.http_message import Request
from twsock.websocket.uri import WebSocketUri, split_authority

__all__ = ["Proxy", "Tunnel"]

_PROXY: Final = re.compile(r"(https?)://([^/?#]*)/?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Proxy:
    """
    An HTTP proxy.

    :ivar host: the name or address of the proxy.
    :ivar port: the port of the proxy.
    :ivar is_secure: whether the connection to the proxy uses TLS.
    """

    host: HostName
    port: int
    is_secure: bool = False

    @classmethod
    def parse(cls, text: str) -> Proxy:
        """
        Read the URI of a proxy, such as ``http://proxy.example:8080`` or ``https://…``.

        :raises ValueError: when the URI is malformed, has another scheme, no port, or a user name.
        :raises TypeError: when ``text`` is no ``str``.
        """
        if not isinstance(text, str):
            raise TypeError(f"a proxy is a str, not {type(text).__name__}")
        found = _PROXY.fullmatch(text)
        if not found:
            raise ValueError("a proxy is given as http://host:port or https://host:port")
        scheme, authority = found[1].lower(), found[2]
        if "@" in authority:
            raise ValueError("the URI of a proxy has no user name: set proxy_credential")
        host, port = split_authority(authority)
        if port is None:
            raise ValueError(f"a proxy is given with its port: {scheme}://host:port")
        return cls(HostName(host.strip("[]")), port, scheme == "https")


class Tunnel:
    """
    One tunnel to a server.

    :param uri: the URI of the server.
    :param credential: the credential for the proxy; None for none.
    :param timeout: seconds within which the proxy has to answer.

    :ivar request: the request to the proxy.
    """

    def __init__(
        self, uri: WebSocketUri, credential: PasswordCredential | None, timeout: float
    ) -> None:
        self.timeout = timeout
        name = uri.host.canonical_name
        if uri.host.type is HostNameType.IPV6:
            name = f"[{name.partition('%')[0]}]"
        authority = f"{name}:{uri.port}"
        headers = [("Host", authority)]
        if credential is not None:
            headers.append(("Proxy-Authorization", credential.as_basic()))
        self.request = Request("CONNECT", authority, tuple(headers))

    def read_response(self, http: ClientHttp, data: bytes) -> bool:
        """
        Read the response of the proxy.

        :param data: bytes that were received.
        :returns: whether the tunnel is open; False if more bytes are needed.
        :raises RemoteProtocolError: when the proxy refuses, or breaks a rule.
        """
        try:
            response = http.feed(data)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(
                f"proxy: {error}", status=SocketErrorStatus.HTTP_INVALID_SERVER_RESPONSE
            ) from None
        if response is None:
            return False
        if not 200 <= response.status < 300:
            raise refused(response, is_from_proxy=True)
        if http.leftover:
            # A server sends nothing before its client does. The next step would take these bytes
            # for the server's TLS handshake.
            raise RemoteProtocolError("bytes arrived after the response of the proxy")
        return True
