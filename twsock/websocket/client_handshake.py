"""
The opening handshake on a client: URI → **request**; response → **judgement**.

Made by the sockets that connect; `twsock.websocket.http` writes the request and parses the
response. The checks are those of :rfc:`6455` section 4.1. No I/O, no clock: the key is an argument.
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

__all__ = ["Agreement", "ClientHandshake", "HandshakeError", "check_request_header"]

#: HRESULTs of statuses of HTTP: the facility of HTTP, with the failure bit, before the status.
_HTTP: Final = 0x8019_0000
#: HRESULTs of members that are no status of HTTP.
_HRESULTS: Final = {
    WebErrorStatus.ERROR_HTTP_INVALID_SERVER_RESPONSE: WIN32 | 12152,
    WebErrorStatus.UNEXPECTED_STATUS_CODE: _HTTP | 1,
    WebErrorStatus.UNEXPECTED_REDIRECTION: _HTTP | 3,
    WebErrorStatus.UNEXPECTED_CLIENT_ERROR: _HTTP | 4,
    WebErrorStatus.UNEXPECTED_SERVER_ERROR: _HTTP | 5,
}
#: Members for the statuses without one of their own, by the first digit.
_CLASSES: Final = {
    3: WebErrorStatus.UNEXPECTED_REDIRECTION,
    4: WebErrorStatus.UNEXPECTED_CLIENT_ERROR,
    5: WebErrorStatus.UNEXPECTED_SERVER_ERROR,
}


class HandshakeError(RemoteProtocolError):
    """
    The server did not accept the WebSocket, or its answer breaks a rule.

    :ivar response: what it answered; its body is not read.
    :ivar web_status: the reason: the HTTP status where there is a member for it, or
        ``ERROR_HTTP_INVALID_SERVER_RESPONSE``.
    """

    def __init__(self, message: str, response: Response, web_status: WebErrorStatus) -> None:
        super().__init__(message, hresult=_HRESULTS.get(web_status, _HTTP | web_status))
        self.response = response
        self.web_status = web_status


@dataclass(frozen=True, slots=True)
class Agreement:
    """
    What the server has agreed to.

    :ivar response: the response of the server, for its further header fields.
    :ivar subprotocol: the one that it chose; None for none.
    :ivar compression: how both ends compress messages; None if they do not.
    """

    response: Response
    subprotocol: str | None = None
    compression: DeflateAgreement | None = None


def check_request_header(name: str, value: str) -> None:
    """
    Check a header field that an application adds to the request.

    :param value: Latin-1 text; of ``Host`` a host with an optional port.
    :raises ValueError: when it is malformed, is a field that the handshake writes itself, or
        belongs to proxies. ``Sec-WebSocket-Extensions`` cannot be set.
    :raises TypeError: when one of them is no ``str``.
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

    :param uri: what to connect to.
    :param key: 16 random bytes, new for each attempt.
    :param subprotocols: those that the client can speak, the preferred one first.
    :param headers: further fields. ``Host`` replaces the one of the URI.
    :param compression: what to offer; None for no compression.
    :raises ValueError: when one of them is malformed, or a field must not be set.
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

        :raises HandshakeError: when the server refuses or redirects, which is not followed, or when
            the response does not answer this request.
        """
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            raise _refused(response)
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
        # Item 6. A server that chooses none is accepted: the application finds out that it is None.
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


def _refused(response: Response) -> HandshakeError:
    """Return the error for a status other than 101."""
    status = response.status
    try:
        web_status = WebErrorStatus(status)
    except ValueError:
        web_status = _CLASSES.get(status // 100, WebErrorStatus.UNEXPECTED_STATUS_CODE)
    message = f"the server answered with the status {status}, not 101"
    version = response.header("Sec-WebSocket-Version")
    if status == HTTPStatus.UPGRADE_REQUIRED and version is not None:
        message += f"; its versions of WebSockets are {version[:100]!a}"
    return HandshakeError(message, response, web_status)
