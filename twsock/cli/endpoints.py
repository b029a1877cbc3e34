"""
The ENDPOINT argument: text → **endpoint of Twisted**, or the destination of datagrams.

A string that would fail later without a message, or with a traceback of Twisted, is refused here.
Names are not looked up yet.
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.endpoints import HostnameEndpoint, clientFromString
from twisted.internet.interfaces import IStreamClientEndpoint

from twsock.cli.output import UsageError
from twsock.datagram.endpoint_string import EndpointString, parse_endpoint_string
from twsock.datagram.network.interfaces import Interface, find_interface
from twsock.datagram.network.membership import find_group
from twsock.datagram.network.membership_calls import check_group
from twsock.errors import SocketError
from twsock.names import HostName
from twsock.websocket.uri import WebSocketUri
from twsock.wire.datagrams import MAX_IPV4_DATAGRAM, MAX_IPV6_DATAGRAM

__all__ = [
    "GroupTarget",
    "PeerTarget",
    "check_size",
    "find_host",
    "name_address",
    "parse_endpoint",
    "parse_target",
    "parse_uri",
]

#: unix(7): ``sun_path`` has 108 bytes on Linux and 104 on the BSDs, of which one is a NUL.
_MAX_PATH: Final = 107 if sys.platform == "linux" else 103

#: The fields of each kind: those without a name have these, in this order.
_FIELDS: Final = {
    "tcp": ("host", "port"),
    "udp": ("host", "port"),
    "multicast": ("group", "port", "interface", "ttl"),
}
_REQUIRED: Final = 2

_EXAMPLES: Final = {"udp": "udp:127.0.0.1:1337", "multicast": "multicast:224.3.0.5:22113"}
_URI_EXAMPLES: Final = "ws://127.0.0.1:1338/"
_STREAM_EXAMPLES: Final = f"127.0.0.1:1337, unix:/run/echo.sock or {_URI_EXAMPLES}"


@dataclass(frozen=True, slots=True)
class PeerTarget:
    """
    One peer.

    :ivar host: a name or an address.
    """

    host: HostName
    port: int


@dataclass(frozen=True, slots=True)
class GroupTarget:
    """
    All members of a group.

    :ivar group: its address.
    :ivar interface: by which it is reached.
    :ivar ttl: how many hops away they may be, as `DatagramOptions` counts them.
    """

    group: str
    port: int
    interface: Interface
    ttl: int


def parse_endpoint(reactor: Any, description: str, timeout: float) -> IStreamClientEndpoint:
    """
    Make a client endpoint of Twisted from its string.

    ``tcp:HOST:PORT`` tries every address of HOST, IPv6 and IPv4, as `HostnameEndpoint` does;
    Twisted itself uses only the IPv4 ones for such a string.

    :param timeout: seconds for one attempt to connect over TCP.
    :raises UsageError: when the string names no endpoint.
    """
    try:
        parsed = parse_endpoint_string(description)
        if parsed.kind == "tcp" and parsed.keywords.keys() <= {"host", "port"}:
            host, port = _find_host_and_port(_name_fields(parsed))
            return HostnameEndpoint(reactor, host, port, timeout=timeout)
        if parsed.kind == "unix":
            _check_path(parsed.keywords.get("path", "".join(parsed.arguments[:1])))
        endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
        return endpoint
    except TypeError:
        # A parser of Twisted was called with too many words, or too few.
        raise _bad_endpoint(description, "an argument is missing, or not known") from None
    # Each endpoint type has its own parser with its own mistakes: a bad number, a missing file, a
    # certificate that OpenSSL cannot read; a plugin's may raise anything.
    except Exception as error:
        raise _bad_endpoint(description, str(error)) from error


def find_host(description: str) -> str | None:
    """
    Return the host in an endpoint string that `parse_endpoint` accepts; None if it has none.
    """
    parsed = parse_endpoint_string(description)
    if parsed.kind != "tcp":
        return None
    return parsed.keywords.get("host") or next(iter(parsed.arguments), None)


def parse_target(description: str) -> PeerTarget | GroupTarget:
    """
    Read ``udp:HOST:PORT`` or ``multicast:GROUP:PORT[:interface=…][:ttl=N]``.

    :raises UsageError: when it is neither, GROUP is no group, or there is no such interface.
    """
    try:
        parsed = parse_endpoint_string(description)
        fields = _name_fields(parsed)
        return _find_peer(fields) if parsed.kind == "udp" else _find_group(fields)
    except (ValueError, SocketError) as error:
        kind = description.partition(":")[0].lower()
        raise _bad_endpoint(description, str(error), _EXAMPLES[kind]) from error


def parse_uri(description: str) -> WebSocketUri:
    """
    Read ``ws://HOST[:PORT]/PATH`` or ``wss://HOST[:PORT]/PATH``.

    :raises UsageError: when it is another URI, or malformed.
    """
    try:
        return WebSocketUri.parse(description)
    except ValueError as error:
        raise _bad_endpoint(description, str(error), _URI_EXAMPLES) from error


def name_address(host: str, port: int) -> str:
    """Write an address as in an endpoint string."""
    return f"{_in_brackets(host)}:{port}"


def check_size(text: bytes, address: str) -> None:
    """
    Refuse a text that is too long for a datagram to an address.

    :raises UsageError: then.
    """
    version, largest = (
        ("IPv6", MAX_IPV6_DATAGRAM) if ":" in address else ("IPv4", MAX_IPV4_DATAGRAM)
    )
    if len(text) > largest:
        raise UsageError(
            f"a TEXT has {len(text)} bytes, a datagram over {version} has at most {largest}"
        )


def _in_brackets(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _bad_endpoint(description: str, reason: str, examples: str = _STREAM_EXAMPLES) -> UsageError:
    return UsageError(
        f"cannot use the endpoint {description!r}: {reason[:1].lower()}{reason[1:]}; "
        f"give one such as {examples}"
    )


def _check_path(path: str) -> None:
    size = len(path.encode(errors="surrogateescape"))
    # Twisted connects later, and a path that no address can hold ends there in a traceback.
    if not 1 <= size <= _MAX_PATH:
        raise ValueError(f"a path has 1 to {_MAX_PATH} bytes, not {size}")


def _find_host_and_port(fields: dict[str, str]) -> tuple[str, int]:
    if not fields["host"]:
        raise ValueError("the host is missing")
    return fields["host"], _read_number("port", fields["port"], 1, 65_535)


def _find_peer(fields: dict[str, str]) -> PeerTarget:
    host, port = _find_host_and_port(fields)
    if _is_group(host):
        raise ValueError(f"{host} is a group: use multicast:{_in_brackets(host)}:{port}")
    return PeerTarget(HostName(host), port)


def _find_group(fields: dict[str, str]) -> GroupTarget:
    port = _read_number("port", fields["port"], 1, 65_535)
    group, interface = find_group(fields["group"], fields.get("interface"))
    check_group(group)
    # Datagrams stay on this machine, unless the user names another interface.
    interface = interface or find_interface("lo")
    return GroupTarget(group, port, interface, _read_number("ttl", fields.get("ttl", "1"), 0, 255))


def _name_fields(parsed: EndpointString) -> dict[str, str]:
    names = _FIELDS[parsed.kind]
    if len(parsed.arguments) > len(names):
        raise ValueError(f"too many arguments: {parsed.arguments[len(names)]!r}")
    fields = dict(zip(names, parsed.arguments, strict=False))
    for name, value in parsed.keywords.items():
        if name not in names:
            raise ValueError(f"unknown argument {name!r}")
        if name in fields:
            raise ValueError(f"{name!r} is given twice")
        fields[name] = value
    for name in names[:_REQUIRED]:
        if name not in fields:
            raise ValueError(f"the {name} is missing")
    return fields


def _read_number(name: str, text: str, minimum: int, maximum: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and minimum <= int(text) <= maximum:
        return int(text)
    raise ValueError(f"the {name} is a number, {minimum} to {maximum}, not {text!r}")


def _is_group(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_multicast
    except ValueError:
        return False
