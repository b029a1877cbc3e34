"""
System calls that join and leave multicast groups: group and interface → **setsockopt** → kernel.

`twsock.datagram.network.membership` calls these functions on a plain socket. They keep no state. A
membership belongs to one socket, one group and one interface, and ends with the socket. The options
are those of :rfc:`3678` section 5, by interface index, for IPv4 and IPv6, with Linux's numbers.
Other systems get the older options, which do not support sources.
"""

from __future__ import annotations

import errno
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
from twsock.ip.addresses import IPAddress, parse_ip_address

__all__ = ["check_addresses", "check_group", "join", "leave", "membership_option"]

#: By (joins, has a source): ``MCAST_JOIN_GROUP`` and others of <linux/in.h>, which Python does not
#: define.
_OPTIONS: Final = {(True, False): 42, (False, False): 45, (True, True): 46, (False, True): 47}
#: The beginning of ``struct group_req`` and ``struct group_source_req``: the index, and padding,
#: because a ``struct sockaddr_storage`` has the alignment of a long.
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

#: Most characters of an argument in an error message; no address is longer.
_MAX_SHOWN: Final = 64

#: Linux's settings of the network.
_LIMITS: Final = Path("/proc/sys/net")


def check_group(address: str) -> int:
    """
    Check that an address is a multicast address.

    :param address: numeric, without brackets, port or zone.
    :returns: its family, ``AF_INET`` or ``AF_INET6``.
    :raises SocketError: with status `SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED` when it is
        not.
    """
    group = parse_ip_address(address)
    family = _family_of(group)
    if group is None or family is None or not group.is_multicast or "%" in address:
        raise _unsupported(
            f"{_shown(address)} is not a multicast address: those are "
            "224.0.0.0 to 239.255.255.255, and in IPv6 all that begin with ff"
        )
    return family


def check_addresses(
    member: socket.socket, group: str, source: str | None
) -> tuple[str, str | None]:
    """
    Check that a group, and its source if there is one, have the family of a socket.

    :returns: both in the canonical spelling of ``inet_ntop``.
    :raises SocketError: with status `SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED`.
    """
    family = check_group(group)
    if family != member.family:
        raise _unsupported(
            f"{group} does not have the family of the socket, {_name(member.family)}"
        )
    if source is None:
        return _canonical(family, group), None
    if _family_of(parse_ip_address(source)) != family:
        raise _unsupported(
            f"the source {_shown(source)} does not have the family of the group {group}, "
            f"{_name(family)}"
        )
    return _canonical(family, group), _canonical(family, source)


def join(
    joining: socket.socket, group: str, interface_index: int, source: str | None = None
) -> bool:
    """
    Join a group on a socket.

    Joining twice is harmless, and one `leave` undoes both. Do not join a group for all sources and
    for one source on the same socket. The kernel would replace one membership by the other, or do
    nothing, without an error. `twsock.datagram.network.membership` refuses this mixture.

    :param joining: a socket of the family of the group, bound or not.
    :param interface_index: the interface to join on; with 0 the kernel chooses, by its route to the
        group.
    :param source: receive only from this sender; None for all senders. Only on Linux.
    :returns: False if the group was joined before.
    :raises SocketError: with status `SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED` when the
        address is not a group, or the family of group or source is not the socket's; with
        `SocketErrorStatus.UNREACHABLE_HOST` when there is no such interface or no route. When a
        limit of the kernel is reached, the message names it, and the status is ``UNKNOWN``.
    :raises OperationNotSupported: for a source, on other systems than Linux.
    """
    check_addresses(joining, group, source)
    family = joining.family
    option = membership_option(family, group, interface_index, source, is_join=True)
    try:
        joining.setsockopt(*option)
    except OSError as error:
        # Joined before. Linux returns the first error for groups, the second for sources.
        if error.errno == (errno.EADDRINUSE if source is None else errno.EADDRNOTAVAIL):
            return False
        if error.errno == errno.ENODEV:
            raise _no_interface(error, group, interface_index) from error
        if error.errno in (errno.ENOBUFS, errno.ENOMEM):
            raise _failed(error, f"cannot join {group}, {_limit(family, source)}") from error
        raise _failed(error, f"cannot join {group}") from error
    return True


def leave(
    leaving: socket.socket, group: str, interface_index: int, source: str | None = None
) -> None:
    """
    Leave a group on a socket. Datagrams that wait in the socket already can still be read.

    :param interface_index: as for `join`. With 0 the kernel uses its current route to the group.
    :param source: as for `join`; None also leaves a group that was joined for some sources.
    :raises SocketError: the errors of `join`.
    :raises LocalProtocolError: when the group was not joined; nothing changes.
    """
    check_addresses(leaving, group, source)
    option = membership_option(leaving.family, group, interface_index, source, is_join=False)
    try:
        leaving.setsockopt(*option)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise _no_interface(error, group, interface_index) from error
        # EINVAL: the call leaves a source of a group that was not joined for sources.
        if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
            who = group if source is None else f"{group} from {source}"
            where = f" on interface {interface_index}" if interface_index else ""
            raise LocalProtocolError(f"{who} was not joined{where}") from error
        raise _failed(error, f"cannot leave {group}") from error


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
    Return the socket option that joins or leaves a group.

    :param family: the family of all addresses, which are numeric.
    :param source: None for all sources; a zone is dropped.
    :param is_linux: whether the system has the options of :rfc:`3678` with Linux's numbers.
    :returns: the three arguments of ``setsockopt``.
    :raises OperationNotSupported: for a source, if the system does not have these options.
    """
    if is_linux:
        addresses = [group] if source is None else [group, source]
        request = _INDEX.pack(interface_index) + b"".join(_storage(family, a) for a in addresses)
        return _LEVELS[family], _OPTIONS[is_join, source is not None], request
    if source is not None:
        raise OperationNotSupported("this system can join groups for all sources only")
    request = _OLDER_REQUESTS[family].pack(_packed(family, group), interface_index)
    return _LEVELS[family], _OLDER_OPTIONS[family, is_join], request


def _no_interface(error: OSError, group: str, interface_index: int) -> SocketError:
    reason = (
        f"there is no interface {interface_index}"
        if interface_index
        else "no route leads there, so name an interface"
    )
    found = SocketError(f"{group}: {reason}", status=SocketErrorStatus.UNREACHABLE_HOST)
    found.__cause__ = error
    return found


def _failed(error: OSError, claim: str) -> SocketError:
    return SocketError.from_exception(error, f"{claim}: {error.strerror or error}")


def _limit(family: int, source: str | None) -> str:
    """Return the names and values of the settings that limit memberships."""
    if family == socket.AF_INET:
        names = ["ipv4.igmp_max_memberships", *(["ipv4.igmp_max_msf"] if source else [])]
    else:
        # For IPv6 the number of groups is limited only by the memory for socket options.
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
    """Return an address as a ``struct sockaddr_storage``."""
    return _SOCKADDRS[family].pack(family, _packed(family, address)).ljust(_STORAGE, b"\0")


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0])


def _canonical(family: int, address: str) -> str:
    return socket.inet_ntop(family, _packed(family, address))


def _family_of(address: IPAddress | None) -> int | None:
    if address is None:
        return None
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _name(family: int) -> str:
    return "IPv4" if family == socket.AF_INET else "IPv6"


def _shown(address: str) -> str:
    # The argument may have any length; the message must stay short.
    shown = repr(address)
    return shown if len(shown) <= _MAX_SHOWN + 2 else f"{shown[:_MAX_SHOWN]}…"
