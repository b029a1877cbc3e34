"""
The ENDPOINT argument of datagrams: text → **whom to send to** → `twsock.cli.datagram_echo`.

``udp:`` and ``multicast:`` are read here and all others in `twsock.cli.endpoint`. Names are not
looked up yet.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from twsock.cli.failure import UsageError
from twsock.datagram.endpoint_string import EndpointString, parse_endpoint_string
from twsock.datagram.network.interfaces import Interface, find_interface
from twsock.datagram.network.membership import find_group
from twsock.datagram.network.membership_calls import check_group
from twsock.errors import SocketError

__all__ = ["GroupTarget", "PeerTarget", "is_datagram_endpoint", "parse_target"]

_EXAMPLES: Final = {
    "udp": "udp:127.0.0.1:1337",
    "multicast": "multicast:224.3.0.5:22113",
}

#: Which fields each kind has: those without a name have these, in this order.
_FIELDS: Final = {
    "udp": ("host", "port"),
    "multicast": ("group", "port", "interface", "ttl"),
}
_REQUIRED: Final = 2


@dataclass(frozen=True, slots=True)
class PeerTarget:
    """
    One peer.

    :ivar host: a name or an address.
    """

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class GroupTarget:
    """
    All who listen to a group.

    :ivar group: its address.
    :ivar interface: by which it is reached.
    :ivar ttl: how many hops away they may be, as `DatagramOptions` counts them.
    """

    group: str
    port: int
    interface: Interface
    ttl: int


def is_datagram_endpoint(description: str) -> bool:
    """Tell whether `parse_target` is to read it."""
    return description.partition(":")[0].lower() in _FIELDS


def parse_target(description: str) -> PeerTarget | GroupTarget:
    """
    Read ``udp:HOST:PORT`` or ``multicast:GROUP:PORT[:interface=…][:ttl=N]``.

    :raises UsageError: when it is neither, GROUP is no group, or there is no such interface.
    """
    try:
        parsed = parse_endpoint_string(description)
        fields = _name_fields(parsed)
        port = _read_number("port", fields["port"], 1, 65_535)
        if parsed.kind == "udp":
            return _find_peer(fields["host"], port)
        return _find_group(fields, port)
    except (ValueError, SocketError) as error:
        kind = description.partition(":")[0].lower()
        raise UsageError(
            f"cannot use the endpoint {description!r}: {error}; give one such as {_EXAMPLES[kind]}"
        ) from error


def _find_peer(host: str, port: int) -> PeerTarget:
    if not host:
        raise ValueError("the host is missing")
    if _is_group(host):
        raise ValueError(f"{host} is a group: multicast:{_in_brackets(host)}:{port}")
    return PeerTarget(host, port)


def _find_group(fields: dict[str, str], port: int) -> GroupTarget:
    group, interface = find_group(fields["group"], fields.get("interface"))
    check_group(group)
    # What is tried out stays on this machine, unless it is told where else to go.
    interface = interface or find_interface("lo")
    return GroupTarget(group, port, interface, _read_number("ttl", fields.get("ttl", "1"), 0, 255))


def _name_fields(parsed: EndpointString) -> dict[str, str]:
    names = _FIELDS[parsed.kind]
    if len(parsed.arguments) > len(names):
        raise ValueError(f"there is no place for {parsed.arguments[len(names)]!r}")
    fields = dict(zip(names, parsed.arguments, strict=False))
    for name, value in parsed.keywords.items():
        if name not in names:
            raise ValueError(f"there is no {name!r} in it")
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


def _in_brackets(host: str) -> str:
    return f"[{host}]" if ":" in host else host
