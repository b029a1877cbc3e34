"""
Netlink client that lists interfaces and addresses: kernel → netlink messages → **values**.

Used by `twsock.datagram.network.interfaces`. A dump is one request and the messages of its answer,
at most 16 MiB, on a socket of its own. Format: netlink(7) and rtnetlink(7); all numbers in the
machine's byte order. On other systems than Linux the functions raise `OperationNotSupported`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from twsock.errors import OperationNotSupported, RemoteProtocolError, SocketError

__all__ = [
    "NETLINK",
    "Answer",
    "Link",
    "LocalAddress",
    "dump_addresses",
    "dump_links",
    "open_link_socket",
    "parse_address",
    "parse_link",
]

#: The address family of netlink; None if the system or this Python does not have it.
NETLINK: Final[int | None] = getattr(socket, "AF_NETLINK", None)

# <linux/netlink.h>
_ROUTE: Final = 0  # NETLINK_ROUTE
_ERROR: Final = 2  # NLMSG_ERROR
_DONE: Final = 3  # NLMSG_DONE
_REQUEST_DUMP: Final = 0x1 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_INTERRUPTED: Final = 0x10  # NLM_F_DUMP_INTR

# <linux/rtnetlink.h>
_NEW_LINK: Final = 16  # RTM_NEWLINK
_GET_LINK: Final = 18  # RTM_GETLINK
_NEW_ADDRESS: Final = 20  # RTM_NEWADDR
_GET_ADDRESS: Final = 22  # RTM_GETADDR
_LINK_GROUP: Final = 1  # RTMGRP_LINK

# <linux/if_addr.h>, <linux/if_link.h>
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFLA_NAME: Final = 3

# <linux/if.h>: IFF_UP, IFF_BROADCAST, IFF_LOOPBACK
_UP, _BROADCAST, _LOOPBACK = 0x1, 0x2, 0x8

#: ``struct nlmsghdr``: length with the header, type, flags, sequence number, port.
_HEADER: Final = struct.Struct("=IHHII")
#: ``struct rtattr``: length with the header, type.
_ATTRIBUTE: Final = struct.Struct("=HH")
#: ``struct ifaddrmsg``: family, prefix length, flags, scope, index.
_ADDRESS: Final = struct.Struct("=BBBBI")
#: ``struct ifinfomsg``: family, padding, type, index, flags, mask of what changed.
_LINK: Final = struct.Struct("=BxHiII")
_NUMBER: Final = struct.Struct("=i")

#: Bytes of a receive: longer than one part of a dump, which is 32 KiB since Linux 4.
_PART: Final = 65_536
#: Most bytes of a dump. A link takes about 1.5 KiB, so this is enough for 10,000 links.
_MAX_DUMP: Final = 16 * 1024 * 1024
#: Seconds to wait for an answer; the kernel normally answers at once.
_TIMEOUT: Final = 5.0
#: Most dumps for one call, if something changes during a dump.
_MAX_TRIES: Final = 4

# Errors of a system with netlink that does not allow it for this process: a sandbox, or a systemd
# unit with RestrictAddressFamilies.
_REFUSALS: Final = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPERM, errno.EACCES)


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """
    An address of this machine.

    :ivar family: ``AF_INET`` or ``AF_INET6``.
    :ivar address: as ``inet_ntop`` writes it, without a zone.
    :ivar interface: the index of the interface that has it.
    """

    family: int
    address: str
    interface: int


@dataclass(frozen=True, slots=True)
class Link:
    """An interface as netlink reports it."""

    index: int
    name: str
    is_up: bool
    is_loopback: bool
    can_broadcast: bool


class Answer:
    """
    Collects the messages of one dump.

    :param kind: the message type to collect; other types are ignored.
    :ivar bodies: the collected messages, without headers.
    :ivar is_complete: whether the kernel has sent the end of the dump.
    :ivar was_interrupted: whether something changed during the dump; an entry may be missing.
    """

    def __init__(self, kind: int) -> None:
        self.bodies: list[bytes] = []
        self.is_complete = False
        self.was_interrupted = False
        self._kind = kind
        self._size = 0

    def feed(self, data: bytes) -> None:
        """
        Parse the bytes of one receive.

        :raises SocketError: when the kernel answers with an error, which is the cause.
        :raises RemoteProtocolError: when the bytes are not messages, or exceed 16 MiB in total.
        """
        self._size += len(data)
        if self._size > _MAX_DUMP:
            raise RemoteProtocolError(f"the kernel's list is longer than {_MAX_DUMP} bytes")
        for kind, flags, body in _messages(data):
            self.was_interrupted |= bool(flags & _INTERRUPTED)
            if kind in (_ERROR, _DONE):
                _check_number(body)
                # An error of 0 is an acknowledgement.
                self.is_complete |= kind == _DONE
            elif kind == self._kind:
                self.bodies.append(body)


def _check_number(body: bytes) -> None:
    """Raise the error of a message: 0, or the negative ``errno``. Old kernels may omit it."""
    number = -_NUMBER.unpack_from(body)[0] if len(body) >= _NUMBER.size else 0
    if number > 0:
        raise SocketError.from_exception(OSError(number, os.strerror(number)))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split messages; yield type, flags and body of each."""
    start = 0
    while start < len(data):
        if len(data) - start < _HEADER.size:
            raise RemoteProtocolError(f"a netlink message is cut off at {len(data) - start} bytes")
        length, kind, flags, _sequence, _port = _HEADER.unpack_from(data, start)
        _check_length("message", length, _HEADER.size, len(data) - start)
        yield kind, flags, data[start + _HEADER.size : start + length]
        start += _aligned(length)


def _attributes(data: bytes) -> dict[int, bytes]:
    """Split attributes; return the value of each by its type."""
    found: dict[int, bytes] = {}
    start = 0
    while len(data) - start >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        _check_length("attribute", length, _ATTRIBUTE.size, len(data) - start)
        found[kind] = data[start + _ATTRIBUTE.size : start + length]
        start += _aligned(length)
    return found


def _check_length(what: str, length: int, least: int, most: int) -> None:
    if not least <= length <= most:
        raise RemoteProtocolError(
            f"a netlink {what} announces {length} bytes, allowed are {least} to {most}"
        )


def _aligned(length: int) -> int:
    return (length + 3) & ~3  # NLMSG_ALIGNTO and RTA_ALIGNTO are 4


def parse_address(body: bytes) -> LocalAddress | None:
    """
    Parse a message of type ``RTM_NEWADDR``.

    :param body: the message without its header.
    :returns: None if it is not an IPv4 or IPv6 address.
    :raises RemoteProtocolError: when the message is too short.
    """
    if len(body) < _ADDRESS.size:
        raise RemoteProtocolError(f"a netlink address is cut off at {len(body)} bytes")
    family, _prefix, _flags, _scope, index = _ADDRESS.unpack_from(body)
    sizes: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
    attributes = _attributes(body[_ADDRESS.size :])
    # On a point-to-point link IFA_ADDRESS is the peer's address. IFA_LOCAL, if present, is local.
    raw = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))
    if len(raw) != sizes.get(family):
        return None
    return LocalAddress(family, socket.inet_ntop(family, raw), index)


def parse_link(body: bytes) -> Link:
    """
    Parse a message of type ``RTM_NEWLINK``.

    :param body: the message without its header.
    :raises RemoteProtocolError: when the message is too short.
    """
    if len(body) < _LINK.size:
        raise RemoteProtocolError(f"a netlink link is cut off at {len(body)} bytes")
    _family, _type, index, flags, _changed = _LINK.unpack_from(body)
    name = _attributes(body[_LINK.size :]).get(_IFLA_NAME, b"")
    return Link(
        index,
        os.fsdecode(name.rstrip(b"\0")),
        is_up=bool(flags & _UP),
        is_loopback=bool(flags & _LOOPBACK),
        can_broadcast=bool(flags & _BROADCAST),
    )


def dump_addresses(*, netlink: int | None = NETLINK) -> list[LocalAddress]:
    """
    List every IPv4 and IPv6 address of this machine (of this network namespace).

    :param netlink: the address family of netlink; None behaves as a system without netlink.
    :raises OperationNotSupported: when the system has no netlink, or this process may not use it.
    :raises SocketError: when the kernel does not answer.
    """
    bodies = _dump(_GET_ADDRESS, _NEW_ADDRESS, netlink)
    return [found for found in map(parse_address, bodies) if found is not None]


def dump_links(*, netlink: int | None = NETLINK) -> list[Link]:
    """
    List every interface of this machine (of this network namespace), up or down.

    :param netlink: the address family of netlink; None behaves as a system without netlink.
    :raises OperationNotSupported: when the system has no netlink, or this process may not use it.
    :raises SocketError: when the kernel does not answer.
    """
    return [parse_link(body) for body in _dump(_GET_LINK, _NEW_LINK, netlink)]


def open_link_socket(*, netlink: int | None = NETLINK) -> socket.socket | None:
    """
    Open a socket that receives a message when a link is added, removed or changed.

    :param netlink: the address family of netlink; None behaves as a system without netlink.
    :returns: a non-blocking socket; None if the system has no netlink, or this process may not use
        it.
    :raises SocketError: when it cannot be opened for another reason, such as too many descriptors.
    """
    try:
        opened = _open(netlink)
    except OperationNotSupported:
        return None
    try:
        opened.bind((0, _LINK_GROUP))
        opened.setblocking(False)
    except OSError as error:
        opened.close()
        if error.errno in _REFUSALS:
            return None
        raise SocketError.from_exception(error) from error
    return opened


def _open(netlink: int | None) -> socket.socket:
    if netlink is None:
        raise OperationNotSupported("this system has no netlink")
    try:
        return socket.socket(netlink, socket.SOCK_RAW, _ROUTE)
    except OSError as error:
        if error.errno in _REFUSALS:
            raise OperationNotSupported("this process may not use netlink") from error
        raise SocketError.from_exception(error) from error


def _dump(request: int, kind: int, netlink: int | None) -> list[bytes]:
    """
    Run a dump; repeat it while something changes during the dump.

    After the last try an incomplete list is returned.
    """
    answer = Answer(kind)
    for _ in range(_MAX_TRIES):
        answer = Answer(kind)
        with _open(netlink) as asking:
            try:
                _ask(asking, request, answer)
            except OSError as error:
                raise SocketError.from_exception(error) from error
        if not answer.was_interrupted:
            break
    return answer.bodies


def _ask(asking: socket.socket, request: int, answer: Answer) -> None:
    asking.settimeout(_TIMEOUT)
    # A `struct ifinfomsg` with family 0 (all) follows the header. A kernel with strict checks
    # requires the whole structure for links, and accepts it for addresses.
    asking.send(_HEADER.pack(_HEADER.size + _LINK.size, request, _REQUEST_DUMP, 1, 0) + _NO_LINK)
    while not answer.is_complete:
        data, _ancillary, flags, _sender = asking.recvmsg(_PART)
        if flags & socket.MSG_TRUNC:
            raise RemoteProtocolError(f"a part of the kernel's list is longer than {_PART} bytes")
        answer.feed(data)


_NO_LINK: Final = bytes(_LINK.size)
