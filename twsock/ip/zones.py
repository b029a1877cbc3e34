"""
IPv6 zones: the scope id of the kernel ↔ the text after ``%`` (:rfc:`4007` section 11).

Used for every conversion between addresses and text, so that each zone has one spelling. The
spelling is the name of the interface, or its index if the name contains characters that a zone
cannot have.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from typing import Final

from twsock.errors import SocketError, SocketErrorStatus

__all__ = ["describe_missing_zone", "needs_zone", "split_zone", "with_zone", "zone_index"]

#: Characters allowed after ``%``: :rfc:`6874` section 2, "unreserved". Linux allows more in names.
_ZONE: Final = re.compile(r"[0-9A-Za-z._~-]+")

#: Scopes of groups of one machine and of one link (:rfc:`4291` section 2.7). For these, as for
#: link-local addresses, the kernel needs an interface. For other groups a zone is optional.
_NARROW_SCOPES: Final = frozenset({1, 2})


def with_zone(host: str, scope: int) -> str:
    """
    Return an address with its zone appended.

    :param host: as ``inet_ntop`` returns it; a host that has a zone is returned unchanged.
    :param scope: the index of an interface; 0 if the address has no zone.
    """
    if not scope or "%" in host:
        return host
    try:
        name = socket.if_indextoname(scope)
    except (OSError, OverflowError):
        name = ""  # The interface was removed meanwhile.
    # A name of digits only would be parsed as an index.
    is_usable = _ZONE.fullmatch(name) and not name.isdecimal()
    return f"{host}%{name if is_usable else scope}"


def zone_index(host: str, zone: str) -> int:
    """
    Return the index of the interface that a zone names.

    :param host: the address of the zone, for the message.
    :param zone: name or index of an interface. An index is not checked.
    :raises SocketError: with status ``UNREACHABLE_HOST``, when no interface has this name.
    """
    # Python would use the low 32 bits of a larger number, the index of another interface.
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
    """Split an address at ``%`` into literal and zone; the zone is empty if there is none."""
    literal, _, zone = address.partition("%")
    return literal, zone


def needs_zone(literal: str) -> bool:
    """
    Return whether an address needs an interface: a link-local address, or a group of narrow scope.

    :param literal: numeric, without a zone.
    :returns: False also for a text that is not an IPv6 address.
    """
    if literal[:1] not in ("f", "F"):
        return False  # Fast path: called for each datagram.
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
    Explain EINVAL for a link-local address without an interface.

    :param error: the kernel's error for a call with this address.
    :param status: the status of the returned error.
    :returns: None if a missing zone is not the reason.
    """
    if error.errno != errno.EINVAL or "%" in host or not needs_zone(host):
        return None
    explained = SocketError(
        f"{host} is valid on one link only: name its interface, as in {host}%eth0", status=status
    )
    explained.__cause__ = error
    return explained
