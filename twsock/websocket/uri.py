"""
WebSocket URIs, and the hosts in URIs and header fields: text → **host, port, target**.

Used by both sides of the handshake, and by the code that connects. The source of URIs is
:rfc:`6455` section 3 and :rfc:`3986`; the hosts in a client's URI are those of `twsock.names`.
Nothing is looked up or held.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from twsock.names import HostName, HostNameType

__all__ = ["WebSocketUri", "canonical_host", "is_loopback_host", "split_authority"]

_MAX_PORT: Final = 65_535
_PORTS: Final = {"ws": 80, "wss": 443}

_URI: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.DOTALL,
)
#: Characters of a path or query: RFC 3986 sections 3.3 and 3.4.
_TARGET: Final = re.compile(r"(?:[!$&-;=?-Z_a-z~]|%[0-9A-Fa-f]{2})*")
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")

_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:@\[\]]*)(?::(?P<port>[0-9]{0,5}))?")
#: As :rfc:`3986` section 3.2.2, without the characters that no resolver accepts.
_REGISTERED_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
#: The zone of an address in a URI follows "%25" (RFC 6874 section 2).
_ZONE_MARK: Final = "%25"


@dataclass(frozen=True, slots=True)
class WebSocketUri:
    """
    The URI of a WebSocket, split.

    :ivar is_secure: whether the scheme is ``wss``.
    :ivar host: the name or address to connect to; under TLS the certificate has to be for it.
    :ivar port: 80 for ``ws`` and 443 for ``wss`` if the URI has none.
    :ivar target: path and query, percent-encoded: the "resource name" of :rfc:`6455` section 3.
    """

    is_secure: bool
    host: HostName
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> WebSocketUri:
        """
        Split a URI.

        :param text: an absolute URI with the scheme ``ws`` or ``wss``. Characters outside ASCII are
            encoded: in path and query as UTF-8 with percent signs, in the host by IDNA.
        :raises ValueError: when the URI is malformed, or has another scheme, a fragment or a user
            name.
        :raises TypeError: when ``text`` is no ``str``.
        """
        if not isinstance(text, str):
            raise TypeError(f"a URI is a str, not {text.__class__.__name__}")
        found = _URI.fullmatch(text)
        if not found:
            raise ValueError("the URI is not absolute: it begins with ws:// or wss://")
        scheme = found["scheme"].lower()
        if scheme not in _PORTS:
            raise ValueError(f"the scheme of a WebSocket URI is ws or wss, not {scheme}")
        if found["fragment"] is not None:
            raise ValueError("a WebSocket URI has no fragment (#)")
        host, port = _split_for_client(found["authority"])
        target = (found["path"] or "/") + (found["query"] or "")
        return cls(scheme == "wss", host, port or _PORTS[scheme], _encode_target(target))

    @property
    def authority(self) -> str:
        """The value of the field ``Host``: without a zone, and without the port of the scheme."""
        name = self.host.canonical_name
        if self.host.type is HostNameType.IPV6:
            name = f"[{name.partition('%')[0]}]"
        if self.port == _PORTS["wss" if self.is_secure else "ws"]:
            return name
        return f"{name}:{self.port}"


def split_authority(text: str) -> tuple[str, int | None]:
    """
    Split a host with an optional port, as in ``Host``, in ``Origin`` and in URIs.

    :returns: the host, with the brackets of an IPv6 address; the port, or None.
    :raises ValueError: when the text is malformed; also when it has a user name.
    """
    found = _AUTHORITY.fullmatch(text)
    if not found or not found["host"]:
        raise ValueError("it is not of the form HOST or HOST:PORT")
    if not found["port"]:
        return found["host"], None
    port = int(found["port"])
    if not 0 < port <= _MAX_PORT:
        raise ValueError(f"a port is 1 to {_MAX_PORT}, not {port}")
    return found["host"], port


def canonical_host(text: str) -> str:
    """
    Return a host of a header field in the form to compare: lower case, addresses in one spelling.

    Names are not limited to those that `HostName` accepts: they are compared, and never looked up.

    :param text: a name, an IPv4 address, or an IPv6 address in brackets.
    :returns: an IPv6 address without its brackets.
    :raises ValueError: when the text is malformed; also when it has a zone.
    """
    if text.startswith("["):
        literal = text[1:-1]
        if "%" in literal or not text.endswith("]"):
            raise ValueError("the brackets hold no IPv6 address")
        return HostName(str(ipaddress.IPv6Address(literal))).canonical_name
    if not _REGISTERED_NAME.fullmatch(text):
        raise ValueError("it is no host")
    return text.lower().removesuffix(".")


def is_loopback_host(host: str) -> bool:
    """
    Return whether a host can only be this machine: ``localhost``, or a loopback address.

    :param host: as `canonical_host` returns it.
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback if mapped is None else bool(mapped.is_loopback)


def _split_for_client(authority: str) -> tuple[HostName, int | None]:
    if "@" in authority:
        raise ValueError("a WebSocket URI has no user name; credentials are set separately")
    if not authority:
        raise ValueError("the URI has no host")
    try:
        text, port = split_authority(authority)
    except ValueError as error:
        raise ValueError(f"{authority[:100]!r} is not the host of a URI: {error}") from None
    if not text.startswith("["):
        return HostName(text), port
    literal, mark, zone = text[1:-1].partition(_ZONE_MARK)
    host = HostName(f"{literal}%{zone}" if mark else literal)
    if host.type is not HostNameType.IPV6 or (not mark and "%" in literal):
        raise ValueError(f"{text[:100]!r} is no IPv6 address in brackets")
    return host, port


def _encode_target(target: str) -> str:
    try:
        encoded = _NOT_ASCII.sub(_percent_encode, target)
    except UnicodeEncodeError:
        raise ValueError("the URI has half of a surrogate pair") from None
    if not _TARGET.fullmatch(encoded):
        raise ValueError("the URI has characters that have to be percent-encoded")
    return encoded


def _percent_encode(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8"))
