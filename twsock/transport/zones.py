"""
Zones of IPv6 addresses: a scope id of the kernel ↔ the text behind ``%`` (:rfc:`4007` section 11).

Used wherever an address becomes text or a text an address, so that one zone has one spelling: the
name of the interface, where it has one that can stand there, otherwise its number.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from typing import Final

from twsock.errors import SocketError, SocketErrorStatus

__all__ = ["describe_missing_zone", "needs_zone", "split_zone", "with_zone", "zone_index"]

#: What may stand behind ``%``: :rfc:`6874` section 2, "unreserved". Linux allows other names too.
_ZONE: Final = re.compile(r"[0-9A-Za-z._~-]+")

#: Groups of one machine and of one link (:rfc:`4291` section 2.7), for which, as for link-local
#: addresses, the kernel needs an interface. A zone of any other group is a choice.
_NARROW_SCOPES: Final = frozenset({1, 2})


def with_zone(host: str, scope: int) -> str:
    """
    Write an address with its zone.

    :param host: as ``inet_ntop`` writes it; one that has a zone is returned as it is.
    :param scope: the index of an interface; 0 for an address without a zone.
    """
    if not scope or "%" in host:
        return host
    try:
        name = socket.if_indextoname(scope)
    except (OSError, OverflowError):
        name = ""  # Gone meanwhile.
    # A name of digits would be read as a number again.
    is_usable = _ZONE.fullmatch(name) and not name.isdecimal()
    return f"{host}%{name if is_usable else scope}"


def zone_index(host: str, zone: str) -> int:
    """
    Find the interface that a zone names.

    :param host: of which it is the zone, for the message.
    :param zone: a name or a number.
    :raises SocketError: with status ``UNREACHABLE_HOST``, when there is no such interface.
    """
    # With more digits Python would take the last 32 bits for another interface.
    if zone.isdecimal() and len(zone) < 10:
        return int(zone)
    try:
        return socket.if_nametoindex(zone)
    except (OSError, ValueError) as error:
        raise SocketError(
            f"there is no interface {zone!r}, which {host} names",
            status=SocketErrorStatus.UNREACHABLE_HOST,
        ) from error


def split_zone(address: str) -> tuple[str, str]:
    """Split an address at ``%``; the zone is empty where there is none."""
    literal, _, zone = address.partition("%")
    return literal, zone


def needs_zone(literal: str) -> bool:
    """
    Return whether an address says nothing without an interface: one of a link, or a group of one.

    :param literal: numeric, without a zone.
    """
    if literal[:1] not in ("f", "F"):
        return False  # Of each datagram that is looked at, nearly all end here.
    try:
        address = ipaddress.IPv6Address(literal)
    except ValueError:
        return False
    if address.is_multicast:
        return address.packed[1] & 0x0F in _NARROW_SCOPES
    return address.is_link_local


def describe_missing_zone(
    host: str, error: OSError, status: SocketErrorStatus
) -> SocketError | None:
    """
    Explain what Linux calls an invalid argument: a link-local address without an interface.

    :param error: what the kernel answered to a call with this address.
    :param status: of the explanation.
    :returns: None where that is not the reason.
    """
    if error.errno != errno.EINVAL or "%" in host or not needs_zone(host):
        return None
    explained = SocketError(
        f"{host} is an address of one link: name its interface, as in {host}%eth0", status=status
    )
    explained.__cause__ = error
    return explained
