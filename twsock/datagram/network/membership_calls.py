"""
Joining and leaving groups: group and interface → **call** → what the kernel lets through.

Done for `twsock.datagram.network.membership` on a plain socket, without anything kept here. A
membership belongs to one socket, one group and one interface, and ends with the socket. The calls
by index, the same for IPv4 and IPv6, are those of :rfc:`3678` section 5 with Linux's numbers;
other systems get the older ones, which know no sources.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from pathlib import Path
from typing import Final

from twsock.errors import (
    LocalProtocolError,
    OperationNotSupported,
    SocketError,
    SocketErrorStatus,
)

__all__ = ["check_addresses", "check_group", "join", "leave", "membership_option"]

#: By whether it joins, and whether for one source: ``MCAST_JOIN_GROUP`` and so on of <linux/in.h>,
#: which Python does not name.
_OPTIONS: Final = {(True, False): 42, (False, False): 45, (True, True): 46, (False, True): 47}
#: What precedes the addresses in ``struct group_req`` and ``struct group_source_req``: the index,
#: and padding, since a ``struct sockaddr_storage`` is aligned as a long is.
_INDEX: Final = struct.Struct("@I0L")
#: ``struct sockaddr_in`` and ``struct sockaddr_in6``; port, flow and scope stay 0.
_SOCKADDRS: Final[dict[int, struct.Struct]] = {
    socket.AF_INET: struct.Struct("=H2x4s"),
    socket.AF_INET6: struct.Struct("=H6x16s4x"),
}
_STORAGE: Final = 128  # sizeof(struct sockaddr_storage) in Linux's <linux/socket.h>

#: ``struct ip_mreqn`` (group, no address, index) and ``struct ipv6_mreq`` (group, index).
_OLDER_REQUESTS: Final[dict[int, struct.Struct]] = {
    socket.AF_INET: struct.Struct("=4s4xi"),
    socket.AF_INET6: struct.Struct("=16sI"),
}
_OLDER_OPTIONS: Final[dict[tuple[int, bool], int]] = {
    (socket.AF_INET, True): socket.IP_ADD_MEMBERSHIP,
    (socket.AF_INET, False): socket.IP_DROP_MEMBERSHIP,
    (socket.AF_INET6, True): socket.IPV6_JOIN_GROUP,
    (socket.AF_INET6, False): socket.IPV6_LEAVE_GROUP,
}
_LEVELS: Final[dict[int, int]] = {
    socket.AF_INET: socket.IPPROTO_IP,
    socket.AF_INET6: socket.IPPROTO_IPV6,
}

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: How much of what was given an error repeats; no address is longer.
_MOST_SHOWN: Final = 64

#: Where Linux shows its settings.
_LIMITS: Final = Path("/proc/sys/net")


def check_group(address: str) -> int:
    """
    Make sure that an address is that of a group.

    :param address: numeric, without brackets, port, or zone: the interface is given apart.
    :returns: its family, ``AF_INET`` or ``AF_INET6``.
    :raises SocketError: with status `SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED` when it is
        none.
    """
    group = _parsed(address)
    family = _family_of(group)
    if group is None or family is None or not group.is_multicast or "%" in address:
        raise _unsupported(
            f"{_shown(address)} is not the address of a group: those are "
            "224.0.0.0 to 239.255.255.255, and in IPv6 all that begin with ff"
        )
    return family


def check_addresses(
    member: socket.socket, group: str, source: str | None
) -> tuple[str, str | None]:
    """
    Make sure that a group, and the source if there is one, are of the family of a socket.

    :returns: both as ``inet_ntop`` writes them, so that they can be compared.
    :raises SocketError: with status `SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED`.
    """
    family = check_group(group)
    if family != member.family:
        raise _unsupported(f"{group} is not of the family of the socket, {_name(member.family)}")
    if source is None:
        return _canonical(family, group), None
    if _family_of(_parsed(source)) != family:
        raise _unsupported(
            f"the source {_shown(source)} is not an address of the family of the group {group}, "
            f"{_name(family)}"
        )
    return _canonical(family, group), _canonical(family, source)


def join(
    joining: socket.socket, group: str, interface_index: int, source: str | None = None
) -> bool:
    """
    Let the datagrams for a group reach a socket.

    Joining twice is harmless, and one `leave` undoes it. A group that was joined for all sources
    isn't to be joined for one, nor the other way round: the kernel would change the one into the
    other, or do nothing, without a word. `twsock.datagram.network.membership` keeps them apart.

    :param joining: of the family of the group, bound or not.
    :param interface_index: where the group is to be heard; 0 leaves it to the kernel, which goes by
        its route to the group.
    :param source: only what this address sends; None for whoever sends. Only on Linux.
    :returns: whether it was not joined before.
    :raises SocketError: with status `SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED` when the group
        is none, or its family or that of the source is not the socket's; with
        `SocketErrorStatus.UNREACHABLE_HOST` when there is no such interface, or no route; without
        a status of its own when the kernel's limits are reached, which the line then names.
    :raises OperationNotSupported: for a source, where the system is not Linux.
    """
    check_addresses(joining, group, source)
    family = joining.family
    option = membership_option(family, group, interface_index, source, is_join=True)
    try:
        joining.setsockopt(*option)
    except OSError as error:
        # Joined before: the one is said of groups, the other of their sources.
        if error.errno == (errno.EADDRINUSE if source is None else errno.EADDRNOTAVAIL):
            return False
        if error.errno == errno.ENODEV:
            raise _no_interface(error, group, interface_index) from error
        if error.errno in (errno.ENOBUFS, errno.ENOMEM):
            raise _failed(error, f"{group} was not joined, {_limit(family, source)}") from error
        raise _failed(error, f"{group} was not joined") from error
    return True


def leave(
    leaving: socket.socket, group: str, interface_index: int, source: str | None = None
) -> None:
    """
    Let the datagrams for a group reach a socket no more; those that wait in it already stay.

    :param interface_index: as at `join`. With 0 the kernel goes by its route as it is now.
    :param source: as at `join`; None also leaves a group that was joined for some sources.
    :raises SocketError: as `join` does.
    :raises LocalProtocolError: when it was not joined, so that nothing has changed.
    """
    check_addresses(leaving, group, source)
    option = membership_option(leaving.family, group, interface_index, source, is_join=False)
    try:
        leaving.setsockopt(*option)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise _no_interface(error, group, interface_index) from error
        # The latter where a source is to leave a group of which no source was joined.
        if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
            who = group if source is None else f"{group} from {source}"
            where = f" on interface {interface_index}" if interface_index else ""
            raise LocalProtocolError(f"{who} was not joined{where}") from error
        raise _failed(error, f"{group} was not left") from error


def membership_option(
    family: int,
    group: str,
    interface_index: int,
    source: str | None,
    *,
    is_join: bool,
    is_linux: bool = sys.platform == "linux",
) -> tuple[int, int, bytes]:
    """
    Write down how a kernel is asked for a change.

    :param family: of all addresses, which are numeric.
    :param source: None for all; a zone is left out.
    :param is_linux: whether there are the calls of :rfc:`3678` with Linux's numbers.
    :returns: the three arguments of ``setsockopt``.
    :raises OperationNotSupported: for a source, without those calls.
    """
    if is_linux:
        addresses = [group] if source is None else [group, source]
        request = _INDEX.pack(interface_index) + b"".join(_storage(family, a) for a in addresses)
        return _LEVELS[family], _OPTIONS[is_join, source is not None], request
    if source is not None:
        raise OperationNotSupported("this system joins groups for all sources only")
    request = _OLDER_REQUESTS[family].pack(_packed(family, group), interface_index)
    return _LEVELS[family], _OLDER_OPTIONS[family, is_join], request


def _no_interface(error: OSError, group: str, interface_index: int) -> SocketError:
    reason = (
        f"there is no interface {interface_index} for it"
        if interface_index
        else "no route leads there, so the interface is to be named"
    )
    found = SocketError(f"{group}: {reason}", status=SocketErrorStatus.UNREACHABLE_HOST)
    found.__cause__ = error
    return found


def _failed(error: OSError, claim: str) -> SocketError:
    return SocketError.from_exception(error, f"{claim}: {error.strerror or error}")


def _limit(family: int, source: str | None) -> str:
    """Name what the kernel's administrator may set, and to what it is set."""
    if family == socket.AF_INET:
        names = ["ipv4.igmp_max_memberships", *(["ipv4.igmp_max_msf"] if source else [])]
    else:
        # IPv6 has no limit for groups but the memory for the options of a socket.
        names = ["core.optmem_max", *(["ipv6.mld_max_msf"] if source else [])]
    return "the kernel's limit is " + " or ".join(f"net.{name}{_setting(name)}" for name in names)


def _setting(name: str) -> str:
    try:
        return f" = {int((_LIMITS / name.replace('.', '/')).read_text())}"
    except (OSError, ValueError):
        return ""


def _unsupported(message: str) -> SocketError:
    return SocketError(message, status=SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)


def _storage(family: int, address: str) -> bytes:
    """Write an address as a ``struct sockaddr_storage``."""
    return _SOCKADDRS[family].pack(family, _packed(family, address)).ljust(_STORAGE, b"\0")


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0])


def _canonical(family: int, address: str) -> str:
    return socket.inet_ntop(family, _packed(family, address))


def _parsed(address: str) -> _Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _family_of(address: _Address | None) -> int | None:
    if address is None:
        return None
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _name(family: int) -> str:
    return "IPv4" if family == socket.AF_INET else "IPv6"


def _shown(address: str) -> str:
    # What was given may be of any length, the line may not.
    shown = repr(address)
    return shown if len(shown) <= _MOST_SHOWN + 2 else f"{shown[:_MOST_SHOWN]}…"
