"""
The opening handshake on a client: URI → **request**; response → **judgement**.

The code that connects makes a `ClientHandshake`, sends its request with a
`twsock.websocket.http.ClientHttp`, and passes the parsed response to `ClientHandshake.judge`. The
checks are those of :rfc:`6455` section 4.1. No I/O, no clock; the random key is an argument.
Nothing is held after the handshake.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from twsock.errors import RemoteProtocolError, WebErrorStatus
from twsock.errors.statuses import WIN32
from twsock.websocket.deflate import EXTENSION, DeflateAgreement, DeflateSettings
from twsock.websocket.handshake import NONCE_SIZE, SUPPORTED_VERSION, accept_key
from twsock.websocket.header_fields import (
    check_header,
    check_subprotocols,
    format_extension,
    parse_extensions,
)
from twsock.websocket.http_message import Headers, Request, Response
from twsock.websocket.uri import WebSocketUri, canonical_host, split_authority

__all__ = ["Agreement", "ClientHandshake", "HandshakeError", "check_request_header", "refused"]

#: Added to a status of HTTP, this is the HRESULT: the failure bit and the facility of HTTP.
_HTTP: Final = 0x8019_0000
#: HRESULTs of members that are no status of HTTP.
_HRESULTS: Final = {
    WebErrorStatus.ERROR_HTTP_INVALID_SERVER_RESPONSE: WIN32 | 12152,
    WebErrorStatus.UNEXPECTED_STATUS_CODE: _HTTP | 1,
    WebErrorStatus.UNEXPECTED_REDIRECTION: _HTTP | 3,
    WebErrorStatus.UNEXPECTED_CLIENT_ERROR: _HTTP | 4,
    WebErrorStatus.UNEXPECTED_SERVER_ERROR: _HTTP | 5,
}
#: The first digit of a status that has no member of its own → the member for it.
_CLASSES: Final = {
    3: WebErrorStatus.UNEXPECTED_REDIRECTION,
    4: WebErrorStatus.UNEXPECTED_CLIENT_ERROR,
    5: WebErrorStatus.UNEXPECTED_SERVER_ERROR,
}


class HandshakeError(RemoteProtocolError):
    """
    The server did not accept the WebSocket, or its response breaks a rule; or the proxy refused.

    :ivar response: the response, without a body.
    :ivar is_from_proxy: whether the proxy sent the response, and not the server.
    :ivar web_status: the member for the HTTP status of a refusal;
        ``ERROR_HTTP_INVALID_SERVER_RESPONSE`` if a response 101 breaks a rule.
    """

    def __init__(
        self,
        message: str,
        response: Response,
        web_status: WebErrorStatus,
        *,
        is_from_proxy: bool = False,
    ) -> None:
        super().__init__(message, hresult=_HRESULTS.get(web_status, _HTTP | web_status))
        self.response = response
        self.is_from_proxy = is_from_proxy
        self.web_status = web_status


@dataclass(frozen=True, slots=True)
class Agreement:
    """
    What the server has agreed to.

    :ivar response: the response of the server, for its further header fields.
    :ivar subprotocol: the subprotocol that the server chose; None for none.
    :ivar compression: how both ends compress messages; None if they do not.
    """

    response: Response
    subprotocol: str | None = None
    compression: DeflateAgreement | None = None


def check_request_header(name: str, value: str) -> None:
    """
    Check a header field that an application adds to the request.

    :param value: Latin-1 text; for ``Host`` a host with an optional port.
    :raises ValueError: when name or value is malformed, the handshake writes the field itself (such
        as ``Sec-WebSocket-Extensions``), or the name is ``Proxy-Authorization``.
    :raises TypeError: when name or value is no ``str``.
    """
    check_header(name, value)
    lower = name.lower()
    if lower == "proxy-authorization":
        raise ValueError("the header Proxy-Authorization would go to the server")
    if lower == "host":
        canonical_host(split_authority(value)[0])


class ClientHandshake:
    """
    The handshake of one attempt to connect.

    :param uri: the URI of the WebSocket.
    :param key: 16 random bytes, new for each attempt.
    :param subprotocols: those that the client offers, the preferred one first.
    :param headers: further fields; see `check_request_header`. A ``Host`` replaces that of the URI.
    :param compression: the compression to offer; None for no compression.
    :raises ValueError: when an argument is malformed, or a field must not be set.
    :raises TypeError: when the subprotocols are one ``str``, or a field is no ``str``.
    """

    def __init__(
        self,
        uri: WebSocketUri,
        *,
        key: bytes,
        subprotocols: Sequence[str] = (),
        headers: Iterable[tuple[str, str]] = (),
        compression: DeflateSettings | None = None,
    ) -> None:
        if len(key) != NONCE_SIZE:
            raise ValueError(f"a key has {NONCE_SIZE} bytes, not {len(key)}")
        self._key = base64.b64encode(key).decode("ascii")
        self._subprotocols = check_subprotocols(subprotocols)
        self._compression = compression
        #: The request to send.
        self.request = Request("GET", uri.target, self._headers(uri, tuple(headers)))

    def _headers(self, uri: WebSocketUri, added: Headers) -> Headers:
        """Return the fields of the request (section 4.1, items 4 to 12)."""
        for name, value in added:
            check_request_header(name, value)
        hosts = [value for name, value in added if name.lower() == "host"]
        if len(hosts) > 1:
            raise ValueError("the header Host is set twice")
        headers = [
            ("Host", hosts[0] if hosts else uri.authority),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self._key),
            ("Sec-WebSocket-Version", SUPPORTED_VERSION),
        ]
        if self._subprotocols:
            headers.append(("Sec-WebSocket-Protocol", ", ".join(self._subprotocols)))
        if self._compression is not None:
            offer = format_extension(self._compression.offer())
            headers.append(("Sec-WebSocket-Extensions", offer))
        return (*headers, *(field for field in added if field[0].lower() != "host"))

    def judge(self, response: Response) -> Agreement:
        """
        Judge the response of the server.

        :raises HandshakeError: when the server refuses or redirects, or when the response does not
            answer this request. Redirections are not followed.
        """
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise refused(response)
        try:
            self._check(response)
            subprotocol = self._check_subprotocol(response)
            compression = self._check_extensions(response)
        except RemoteProtocolError as error:
            raise HandshakeError(
                f"the server opens the WebSocket wrongly: {error}",
                response,
                WebErrorStatus.ERROR_HTTP_INVALID_SERVER_RESPONSE,
            ) from None
        return Agreement(response, subprotocol, compression)

    def _check(self, response: Response) -> None:
        """Check what each response has (section 4.1, second list, items 2 to 4)."""
        if response.http_version != "1.1":
            raise RemoteProtocolError(f"its version of HTTP is {response.http_version}")
        upgrade = response.only("Upgrade")
        if upgrade is None or upgrade.lower() != "websocket":
            raise RemoteProtocolError("the header Upgrade is not 'websocket'")
        if not response.has_token("Connection", "upgrade"):
            raise RemoteProtocolError("the header Connection does not have 'upgrade'")
        if response.only("Sec-WebSocket-Accept") != accept_key(self._key):
            raise RemoteProtocolError("the Sec-WebSocket-Accept does not answer the key")

    def _check_subprotocol(self, response: Response) -> str | None:
        # Item 6. A server that chooses none is accepted: `Agreement.subprotocol` is then None.
        subprotocol = response.only("Sec-WebSocket-Protocol")
        if subprotocol is not None and subprotocol not in self._subprotocols:
            raise RemoteProtocolError("its subprotocol was not offered")
        return subprotocol

    def _check_extensions(self, response: Response) -> DeflateAgreement | None:
        # Item 5, and section 9.1.
        extensions = parse_extensions(response.values("Sec-WebSocket-Extensions"))
        if not extensions:
            return None
        if self._compression is None or len(extensions) > 1 or extensions[0][0] != EXTENSION:
            raise RemoteProtocolError("its extensions were not offered")
        return self._compression.judge(extensions[0])


def refused(response: Response, *, is_from_proxy: bool = False) -> HandshakeError:
    """
    Return the error for a response that refuses.

    :param is_from_proxy: whether the proxy sent the response, and not the server.
    """
    status = response.status
    try:
        web_status = WebErrorStatus(status)
    except ValueError:
        web_status = _CLASSES.get(status // 100, WebErrorStatus.UNEXPECTED_STATUS_CODE)
    message = f"the {'proxy' if is_from_proxy else 'server'} answered with the status {status}"
    version = response.header("Sec-WebSocket-Version")
    if status == HTTPStatus.UPGRADE_REQUIRED and version is not None:
        message += f"; its versions of WebSockets are {version[:100]!a}"
    return HandshakeError(message, response, web_status, is_from_proxy=is_from_proxy)
