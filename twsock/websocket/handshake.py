"""
The opening handshake on a server: parsed request → **judgement** → response.

`twsock.websocket.accepting` asks `RequestRules.judge` about each request that
`twsock.websocket.http` has parsed. The rules are those of :rfc:`6455` section 4. They hold for
requests of any parser, such as that of ``twisted.web``. No I/O, no clock; nothing is held after the
handshake.

The checks, in this order; the first that fails decides the response:

===================================  ===========================================================
``Host``                             400 if it is missing, double or malformed, or contradicts
                                     the target; 421 if this server does not have that name
``Origin``                           403 unless absent, of the same host with any port, or listed
method, version of HTTP, target      405 for another method than GET, 505 for HTTP/1.0, 400 for
                                     a target that is no path and no URI
body                                 400 if there is one
``Upgrade``, ``Connection``          426 if the request is not for a WebSocket
``Sec-WebSocket-Version``            426 with the version 13, for any other version
``Sec-WebSocket-Key``                400 unless it is one key of 16 bytes
path                                 404 if the rules have another path
``Sec-WebSocket-Protocol``           400 with the subprotocols of the server if none is offered
``Sec-WebSocket-Extensions``         400 if it is malformed
===================================  ===========================================================

Why ``Host`` is first: in an attack by DNS rebinding, the name of the attacker's page points to
127.0.0.1. The browser then takes the server on this machine for the host of the page, so that
``Origin`` and ``Host`` agree. Only the name in ``Host`` shows that another machine is meant.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from twsock.errors import RemoteProtocolError
from twsock.names import HostName
from twsock.websocket.deflate import DeflateAgreement, DeflateSettings
from twsock.websocket.header_fields import (
    check_header,
    check_subprotocols,
    format_extension,
    parse_extensions,
)
from twsock.websocket.http_message import Headers, Request, Response
from twsock.websocket.uri import canonical_host, is_loopback_host, split_authority

__all__ = [
    "ALPN_PROTOCOLS",
    "ANY_ORIGIN",
    "NONCE_SIZE",
    "SUPPORTED_VERSION",
    "Acceptance",
    "Refusal",
    "RequestRules",
    "accept_key",
    "refuse",
]

#: The protocols of a WebSocket for ALPN (RFC 7301): it begins with HTTP/1.1. Twisted's endpoints of
#: TLS refuse every client that offers protocols, as browsers do, if the factory names none.
ALPN_PROTOCOLS: Final = (b"http/1.1",)
#: The version of the protocol (:rfc:`6455` section 4.1, item 9).
SUPPORTED_VERSION: Final = "13"
#: In ``origins``: requests of all origins are accepted.
ANY_ORIGIN: Final = "*"

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
#: The size of the random number in a ``Sec-WebSocket-Key``, in bytes (section 4.1, item 7).
NONCE_SIZE: Final = 16

_UPGRADE: Final = ("Upgrade", "websocket")
#: Fields of a response 426: what the request lacks (section 4.4, and RFC 9110 section 15.5.22).
_REQUIRED: Final = (_UPGRADE, ("Sec-WebSocket-Version", SUPPORTED_VERSION))

_TARGET: Final = re.compile(r"/[!-~]*")
#: RFC 6454 section 6.2 has no slash at the end, but clients of golang.org/x/net/websocket send it.
_ORIGIN: Final = re.compile(r"(https?)://([^/]*)/?", re.IGNORECASE)
#: An origin of any scheme, such as that of a browser extension (:rfc:`6454`, section 6.2).
_ANY_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@*\\\s]+", re.IGNORECASE)
_ORIGIN_PORTS: Final = {"http": 80, "https": 443}
_HTTP_1: Final = re.compile(r"1\.[1-9]")

#: Fields that each refusal has itself, besides those that `check_header` refuses.
_FIELDS_OF_REFUSALS: Final = frozenset({"content-type", "x-content-type-options"})

#: How many characters of a request a reason repeats at most.
_MAX_QUOTE: Final = 100


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    The judgement that a request is not accepted.

    :ivar response: what the client receives; the connection is closed after it.
    :ivar reason: one line, for the log and for the body of the response.
    """

    response: Response
    reason: str


def refuse(status: int, reason: str, headers: Iterable[tuple[str, str]] = ()) -> Refusal:
    """
    Refuse a request.

    :param status: a status of Python's ``http.HTTPStatus``, 300 to 599.
    :param reason: one line that says what is wrong; it is logged, and sent as the body.
    :param headers: further fields, such as ``WWW-Authenticate`` or ``Location``.
    :raises ValueError: when it is another status, a field is malformed, or the refusal or the
        handshake writes the field itself.
    """
    given = tuple(headers)
    if HTTPStatus(status) < HTTPStatus.MULTIPLE_CHOICES:
        raise ValueError(f"a refusal has a status of 300 to 599, not {status}")
    for name, value in given:
        check_header(name, value)
        if name.lower() in _FIELDS_OF_REFUSALS:
            raise ValueError(f"the header {name} is set by the refusal itself")
    return _refuse(status, reason, given)


def _refuse(status: int, reason: str, headers: Headers = ()) -> Refusal:
    """Refuse a request with fields that need no check."""
    body = f"{reason}\n".encode()
    # The field Upgrade needs its name in Connection (RFC 9110 section 7.8).
    has_upgrade = any(name == "Upgrade" for name, _ in headers)
    added = (
        ("Connection", "Upgrade, close" if has_upgrade else "close"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        # The reason may repeat a part of the request.
        ("X-Content-Type-Options", "nosniff"),
    )
    return Refusal(Response(status, (*headers, *added), body), reason)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """
    The judgement that a request is accepted. ``dataclasses.replace`` makes a changed copy.

    :ivar request: the request.
    :ivar subprotocol: the chosen subprotocol, which the client offers; None for none.
    :ivar compression: how both ends compress messages; None if they do not.
    :ivar headers: further fields of the response.
    :raises ValueError: when the client does not offer the subprotocol, a field is malformed, or the
        handshake writes the field itself.
    """

    request: Request
    subprotocol: str | None = None
    compression: DeflateAgreement | None = None
    headers: Headers = ()

    def __post_init__(self) -> None:
        # RFC 6455 section 4.2.2, item 5: the value has to be one of the client's.
        if self.subprotocol is not None and self.subprotocol not in self.request.subprotocols:
            raise ValueError(f"the client does not offer the subprotocol {self.subprotocol!r}")
        for name, value in self.headers:
            check_header(name, value)

    @property
    def response(self) -> Response:
        """The response that opens the WebSocket (:rfc:`6455` section 4.2.2, item 5)."""
        key = self.request.header("Sec-WebSocket-Key") or ""
        headers = [
            _UPGRADE,
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key(key)),
        ]
        if self.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", self.subprotocol))
        if self.compression is not None:
            answer = format_extension(self.compression.answer)
            headers.append(("Sec-WebSocket-Extensions", answer))
        return Response(HTTPStatus.SWITCHING_PROTOCOLS, (*headers, *self.headers))


def accept_key(key: str) -> str:
    """Return the value of ``Sec-WebSocket-Accept`` that answers a key (section 4.2.2, item 5.4)."""
    # The digest only shows that the server knows WebSockets; it protects nothing (section 10.8).
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


class _RefusedError(Exception):
    """Ends a judgement."""

    def __init__(self, status: int, reason: str, headers: Headers = ()) -> None:
        super().__init__(reason)
        self.refusal = _refuse(status, reason, headers)


class RequestRules:
    """
    The rules of one server: which requests it accepts, and what it agrees to.

    :param hosts: names and addresses of this server, without ports. A request that arrives on a
        loopback address has to be for one of these, for ``localhost`` or for a loopback address. A
        request that arrives on another address has to be for one of these; if there are none, it
        may be for any name.
    :param origins: origins whose pages may connect, such as ``https://example.com`` or ``null``,
        besides those of the same host with any port; `ANY_ORIGIN` for all. A request without an
        origin is accepted: it does not come from a browser.
    :param subprotocols: those that the server has, the preferred one first. If there are any, a
        request that offers none of them is refused.
    :param compression: how to compress messages, if the client offers it; None for no compression.
    :param path: the only path that is accepted, percent-encoded; None for any path.
    :raises ValueError: when a host, an origin, a subprotocol or the path is malformed.
    :raises TypeError: when a list is one ``str``.
    """

    def __init__(
        self,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        subprotocols: Sequence[str] = (),
        compression: DeflateSettings | None = None,
        path: str | None = None,
    ) -> None:
        for name, value in (("hosts", hosts), ("origins", origins)):
            if isinstance(value, str):
                raise TypeError(f"{name} is a list of str, not one str")
        self._hosts = frozenset(map(_own_host, hosts))
        self._accepts_any_origin = ANY_ORIGIN in origins
        self._origins = frozenset(map(_known_origin, origins))
        self.subprotocols = check_subprotocols(subprotocols)
        if path is not None and (not _TARGET.fullmatch(path) or "?" in path or "#" in path):
            raise ValueError(f"{path!r} is no path: it begins with / and is percent-encoded")
        self.compression = compression
        self.path = path

    def judge(self, request: Request, *, is_loopback: bool) -> Acceptance | Refusal:
        """
        Judge a request.

        :param is_loopback: whether the request arrived on a loopback address of this machine.
        """
        try:
            self._check_host(request, is_loopback)
            self._check_origin(request)
            for check in _CHECKS:
                check(request)
            self._check_path(request)
            subprotocol = self._choose_subprotocol(request)
            compression = self._choose_compression(request)
        except _RefusedError as error:
            return error.refusal
        except RemoteProtocolError as error:
            return refuse(HTTPStatus.BAD_REQUEST, str(error))
        return Acceptance(request, subprotocol, compression)

    def judge_host(self, request: Request, *, is_loopback: bool) -> Refusal | None:
        """
        Judge only the ``Host`` of a request, as for a page beside the WebSockets.

        :param is_loopback: whether the request arrived on a loopback address of this machine.
        :returns: the refusal; None if this server has the name.
        """
        try:
            self._check_host(request, is_loopback)
        except _RefusedError as error:
            return error.refusal
        except RemoteProtocolError as error:
            return refuse(HTTPStatus.BAD_REQUEST, str(error))
        return None

    def _check_host(self, request: Request, is_loopback: bool) -> None:
        host = _host_of(request)
        if host in self._hosts or (is_loopback and is_loopback_host(host)):
            return
        if is_loopback or self._hosts:
            raise _RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST, f"this server is not {_quote(host)} (Host)"
            )

    def _check_origin(self, request: Request) -> None:
        # RFC 6455 section 10.2, and RFC 6454.
        origin = request.only("Origin")
        if origin is None or self._accepts_any_origin:
            return
        canonical = _canonical_origin(origin)
        if canonical in self._origins or _host_of_origin(origin) == _host_of(request):
            return
        raise _RefusedError(
            HTTPStatus.FORBIDDEN, f"pages of {_quote(origin)} may not connect (Origin)"
        )

    def _check_path(self, request: Request) -> None:
        if self.path is not None and request.path != self.path:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no WebSocket at this path")

    def _choose_subprotocol(self, request: Request) -> str | None:
        # Section 4.2.2, item 4. The order of the server decides, as in the package ``websockets``.
        # A browser fails a connection if it offers subprotocols and the server chooses none. So the
        # request is refused, with the names that the server has.
        offered = request.subprotocols
        if not self.subprotocols:
            return None
        for subprotocol in self.subprotocols:
            if subprotocol in offered:
                return subprotocol
        known = ", ".join(self.subprotocols)
        raise _RefusedError(
            HTTPStatus.BAD_REQUEST,
            f"the request has to offer a subprotocol of this server: {known}",
            (("Sec-WebSocket-Protocol", known),),
        )

    def _choose_compression(self, request: Request) -> DeflateAgreement | None:
        # Section 9.1: a malformed field fails the handshake, even if no extension is wanted.
        offers = parse_extensions(request.values("Sec-WebSocket-Extensions"))
        return None if self.compression is None else self.compression.accept(offers)


def _check_method(request: Request) -> None:
    # Section 4.2.1, item 1; the method is case-sensitive (RFC 9110 section 9.1).
    if request.method != "GET":
        raise _RefusedError(
            HTTPStatus.METHOD_NOT_ALLOWED,
            f"the method is {_quote(request.method)}, not GET",
            (("Allow", "GET"),),  # RFC 9110 section 15.5.6.
        )
    if not _HTTP_1.fullmatch(request.http_version):
        raise _RefusedError(
            HTTPStatus.HTTP_VERSION_NOT_SUPPORTED,
            f"a WebSocket needs HTTP/1.1, the request has {_quote(request.http_version)}",
        )


def _check_target(request: Request) -> None:
    # RFC 6455 section 3: no fragment. The other forms of a target are for proxies and OPTIONS.
    if not _TARGET.fullmatch(request.resource) or "#" in request.target:
        raise RemoteProtocolError("the target is neither a path nor a URI of HTTP")


def _check_body(request: Request) -> None:
    # RFC 6455 section 4.1: the frames follow the header at once.
    lengths = request.tokens("Content-Length")
    if request.values("Transfer-Encoding") or any(length.strip("0") for length in lengths):
        raise RemoteProtocolError("the request has a body")


def _check_upgrade(request: Request) -> None:
    # Section 4.2.1, items 3 and 4.
    for name, token in (("Upgrade", "websocket"), ("Connection", "upgrade")):
        if not request.has_token(name, token):
            raise _RefusedError(
                HTTPStatus.UPGRADE_REQUIRED,
                f"this address is for WebSockets: the header {name} does not have {token!r}",
                _REQUIRED,
            )


def _check_version(request: Request) -> None:
    # Section 4.2.1, item 6, and section 4.2.2, item 4.
    version = request.only("Sec-WebSocket-Version")
    if version != SUPPORTED_VERSION:
        raise _RefusedError(
            HTTPStatus.UPGRADE_REQUIRED,
            f"the version of WebSockets is {SUPPORTED_VERSION} (Sec-WebSocket-Version)",
            _REQUIRED,
        )


def _check_key(request: Request) -> None:
    # Section 4.2.1, item 5.
    key = request.only("Sec-WebSocket-Key")
    if key is None:
        raise RemoteProtocolError("the request has no Sec-WebSocket-Key")
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):  # ValueError: not ASCII.
        size = 0
    if size != NONCE_SIZE:
        raise RemoteProtocolError(f"the Sec-WebSocket-Key is not {NONCE_SIZE} bytes in base64")


_CHECKS: Final[Sequence[Callable[[Request], None]]] = (
    _check_method,
    _check_target,
    _check_body,
    _check_upgrade,
    _check_version,
    _check_key,
)


def _host_of(request: Request) -> str:
    """Return the host that a request is for, in canonical form."""
    field = request.only("Host")
    if field is None:
        raise RemoteProtocolError("the request has no Host")  # RFC 9112 section 3.2
    host = _canonical(field, "Host")
    authority = request.target_authority
    # By RFC 9112 section 3.2.2 the target decides. Clients send no contradiction; attackers do,
    # since a proxy and a server may resolve it in different ways (RFC 9110 section 7.2).
    if authority is not None and _canonical(authority, "target") != host:
        raise RemoteProtocolError("the target and the Host are different hosts")
    return host


def _canonical(authority: str, place: str) -> str:
    try:
        return canonical_host(split_authority(authority)[0])
    except ValueError:
        raise RemoteProtocolError(f"the {place} is malformed: {_quote(authority)}") from None


def _own_host(text: str) -> str:
    """Return a name of this server in canonical form."""
    if not text.isascii():
        return HostName(text).canonical_name
    is_bare_ipv6 = ":" in text and not text.startswith("[")
    try:
        return canonical_host(f"[{text}]" if is_bare_ipv6 else text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no host: give a name or an address, without a port"
        ) from None


def _host_of_origin(origin: str) -> str | None:
    found = _ORIGIN.fullmatch(origin)
    if not found:
        return None
    try:
        return canonical_host(split_authority(found[2])[0])
    except ValueError:
        return None


def _known_origin(text: str) -> str:
    """
    Return an origin of a setting in the form to compare.

    :raises ValueError: when no page can have this origin, so that it would never match.
    """
    is_web = _ORIGIN.fullmatch(text) is not None
    if text not in (ANY_ORIGIN, "null") and (
        not _ANY_SCHEME.fullmatch(text) or (is_web and _host_of_origin(text) is None)
    ):
        raise ValueError(
            f"{text!r} is no origin: give one such as https://example.com or"
            " http://localhost:8080, without a path; or * for all"
        )
    return _canonical_origin(text)


def _canonical_origin(origin: str) -> str:
    """Return an origin in the form to compare; an origin without a host in lower case."""
    found = _ORIGIN.fullmatch(origin)
    host = _host_of_origin(origin)
    if not found or host is None:
        return origin.lower()
    scheme = found[1].lower()
    port = split_authority(found[2])[1] or _ORIGIN_PORTS[scheme]
    return f"{scheme}://{host}:{port}"


def _quote(text: str) -> str:
    """Return a part of a request for a reason: short, and in ASCII."""
    return ascii(text if len(text) <= _MAX_QUOTE else f"{text[:_MAX_QUOTE]}...")
