"""
Endpoint strings of stream services: text → words → **endpoint**.

Stands between the options of a service and Twisted's endpoints. It parses the arguments of
Twisted's own kinds, to report each mistake clearly and to set our defaults for backlog and mode.
It makes ``unix:``, ``systemd:`` and ``haproxy:`` endpoints itself. A plugin parses the kinds that
it adds.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from twsock.datagram.endpoint_string import EndpointString, parse_endpoint_string
from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.address_errors import EndpointError
from twsock.services.systemd import systemd_endpoint
from twsock.stream.listening.proxy_endpoint import LOOPBACK, Network, ProxyEndpoint
from twsock.stream.listening.unix_endpoint import UnixEndpoint
from twsock.stream.listening.unix_socket import DEFAULT_SOCKET_MODE

__all__ = [
    "DEFAULT_BACKLOG",
    "StreamEndpointSettings",
    "inner_endpoint",
    "named_arguments",
    "parse_server_endpoint",
    "parse_server_endpoints",
]

#: Connections that the kernel queues until they are accepted; it lowers this to
#: ``net.core.somaxconn``. With Twisted's 50, half of 400 peers that connect at once have to send
#: their SYN again, one second later.
DEFAULT_BACKLOG: Final = 1024

#: The arguments of Twisted's kinds, in their order as positional arguments.
_ARGUMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "ssl": (
        "port",
        "privateKey",
        "certKey",
        "sslmethod",
        "interface",
        "backlog",
        "extraCertChain",
        "dhParameters",
    ),
    "tls": ("path", "port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}

#: The argument of each kind that has no default.
_NEEDED: Final = {
    "tcp": "port",
    "tcp6": "port",
    "ssl": "port",
    "tls": "path",
    "unix": "address",
    "systemd": "domain",
}

#: The right service for endpoint kinds that this one does not take, for the error message.
_SERVICES: Final = {"udp": "twsock-datagram", "multicast": "twsock-multicast"}

_MAX_PORT: Final = 65_535

_PROXIED: Final = "haproxy"


@dataclass(frozen=True, slots=True)
class StreamEndpointSettings:
    """
    Defaults for what the string of an endpoint leaves out.

    :ivar backlog: connections that the kernel queues until they are accepted; 1 or more.
    :ivar socket_mode: permissions of the path of a UNIX socket.
    :ivar socket_owner: its numeric user and group, -1 to leave one unchanged; None leaves both.
    :ivar proxy_from: networks whose PROXY headers are accepted. Those of UNIX sockets always are.
    """

    backlog: int = DEFAULT_BACKLOG
    socket_mode: int = DEFAULT_SOCKET_MODE
    socket_owner: tuple[int, int] | None = None
    proxy_from: tuple[Network, ...] = LOOPBACK


def parse_server_endpoint(
    reactor: Any, description: str, settings: StreamEndpointSettings | None = None
) -> IStreamServerEndpoint:
    """
    Make a stream endpoint from its string; arguments in the string override the settings.

    :param settings: None for the defaults.
    :raises EndpointError: when the string names no endpoint; the text is a line for the user. It is
        a ``ValueError``.
    """
    try:
        return _parse(reactor, description, settings or StreamEndpointSettings())
    # Each parser raises errors of its own: an OSError for a missing file, a RuntimeError for a
    # string that ends too soon, an error of OpenSSL for a bad certificate.
    except Exception as error:
        raise _describe(description, error) from error


def parse_server_endpoints(
    reactor: Any, descriptions: Iterable[str], settings: StreamEndpointSettings | None
) -> list[tuple[str, IStreamServerEndpoint]]:
    """
    Make the endpoints of a service: pairs of a string and its endpoint.

    :raises EndpointError: see `parse_server_endpoint`.
    """
    return [(each, parse_server_endpoint(reactor, each, settings)) for each in descriptions]


def inner_endpoint(description: str) -> str:
    """
    Return the endpoint string without ``haproxy:`` in front.
    """
    kind, _, rest = description.partition(":")
    return inner_endpoint(rest) if kind.lower() == _PROXIED else description


def named_arguments(words: EndpointString) -> dict[str, str]:
    """
    Return the arguments of an endpoint string by their names, as far as they have names.

    :raises EndpointError: when an argument is missing or unknown.
    """
    if words.kind in _ARGUMENTS:
        return _named(words)
    port = {"port": words.arguments[0]} if words.arguments else {}
    return {**port, **words.keywords}


def _parse(
    reactor: Any, description: str, settings: StreamEndpointSettings
) -> IStreamServerEndpoint:
    words = parse_endpoint_string(description)
    if words.kind == _PROXIED:
        inner = _parse(reactor, inner_endpoint(description), settings)
        return ProxyEndpoint(reactor, inner, trusted=settings.proxy_from)
    if words.kind not in _ARGUMENTS:
        return _by_twisted(reactor, description)
    given = _named(words)
    if words.kind == "systemd":
        return systemd_endpoint(
            reactor, given["domain"], index=given.get("index"), name=given.get("name")
        )
    if words.kind == "unix":
        return _unix_endpoint(reactor, given, settings)
    given.setdefault("backlog", str(settings.backlog))
    _number(given, "backlog", 1, 2**31 - 1)
    if "port" in given:
        _port(given["port"])
    if words.kind == "tls" and not Path(given["path"]).is_dir():
        # Twisted would listen, and then refuse every handshake.
        raise FileNotFoundError(errno.ENOENT, "there is no folder of certificates", given["path"])
    return _by_twisted(reactor, str(EndpointString(words.kind, (), given)))


def _by_twisted(reactor: Any, description: str) -> IStreamServerEndpoint:
    endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    return endpoint


def _unix_endpoint(
    reactor: Any, given: Mapping[str, str], settings: StreamEndpointSettings
) -> IStreamServerEndpoint:
    # Twisted's lockfile= is accepted and ignored: we probe the path instead of locking it.
    return UnixEndpoint(
        reactor,
        given["address"],
        backlog=_number(given, "backlog", 1, 2**31 - 1) or settings.backlog,
        mode=settings.socket_mode if "mode" not in given else _mode(given["mode"]),
        owner=settings.socket_owner,
    )


def _named(words: EndpointString) -> dict[str, str]:
    """Return the arguments by name."""
    names = _ARGUMENTS[words.kind]
    if len(words.arguments) > len(names):
        raise _invalid(f"it has too many arguments; it takes {', '.join(names)}")
    given = dict(zip(names, words.arguments, strict=False))
    for name, value in words.keywords.items():
        if name not in names:
            raise _invalid(f"there is no {name}= for {words.kind}, which takes {', '.join(names)}")
        if name in given:
            raise _invalid(f"{name} is given twice")
        given[name] = value
    needed = _NEEDED[words.kind]
    if not given.get(needed):
        raise _invalid(f"the {'path' if needed == 'address' else needed} is missing")
    return given


def _port(text: str) -> None:
    if not _is_number(text, 0, _MAX_PORT):
        raise EndpointError(
            f"a port is a number from 0 to {_MAX_PORT}, not {text!r}",
            status=SocketErrorStatus.CLASS_TYPE_NOT_FOUND,
        )


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise _invalid(f"a mode is an octal number from 0 to 777, not {text!r}")
    return mode


def _number(given: Mapping[str, str], name: str, minimum: int, maximum: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not _is_number(text, minimum, maximum):
        raise _invalid(f"{name} is a number from {minimum} to {maximum}, not {text!r}")
    return int(text)


def _is_number(text: str, minimum: int, maximum: int) -> bool:
    # At most ten digits: `int` raises its own error for thousands of them.
    is_decimal = text.isascii() and text.isdecimal() and len(text) <= 10
    return is_decimal and minimum <= int(text) <= maximum


def _invalid(message: str) -> EndpointError:
    return EndpointError(message, status=SocketErrorStatus.UNKNOWN, hresult=0x8007_0057)


def _describe(description: str, error: Exception) -> EndpointError:
    """Return an error with the line for the user and a status."""
    kind = inner_endpoint(description).partition(":")[0].lower()
    service = _SERVICES.get(kind)
    advice = (
        f"run {service} for it"
        if service
        else "give one such as tcp:1337:interface=127.0.0.1 or unix:/run/echo.sock"
    )
    # The text of a TypeError is about Python's arguments, not about the user's.
    problem = "an argument is missing or unknown" if type(error) is TypeError else str(error)
    status = SocketError.get_status(error)
    if isinstance(error, OSError) and error.strerror:
        problem = ": ".join([error.strerror, *([str(error.filename)] if error.filename else [])])
    if status is SocketErrorStatus.UNKNOWN and isinstance(error, OSError):
        # The only files that these kinds read are certificates.
        status = SocketErrorStatus.CERTIFICATE_IS_INVALID
    elif "Unknown endpoint type" in str(error):
        status = SocketErrorStatus.SOCKET_TYPE_NOT_SUPPORTED
    line = " ".join(f"cannot use the endpoint {description!r}: {problem}; {advice}".split())
    return EndpointError(line, status=status)
