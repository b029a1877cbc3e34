"""
Which interface is meant, and when they change: text → **interface** → multicast, broadcasts.

Asked when a group is joined, a broadcast is sent or an endpoint string names an interface. Names
and indexes are plain POSIX; what has which address is asked of
`twsock.datagram.network.netlink`, so of Linux only. Elsewhere an interface is given by its name.
Nothing is remembered: an interface may get another index at any time, which is what `LinkWatch` is
for.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from zope.interface import implementer

from twsock._integers import checked_integer
from twsock.datagram.network.netlink import (
    NETLINK,
    LocalAddress,
    dump_addresses,
    dump_links,
    open_link_socket,
)
from twsock.errors import OperationNotSupported, SocketError, SocketErrorStatus
from twsock.log import TextLogger

__all__ = [
    "KERNEL_CHOICE",
    "Interface",
    "LinkWatch",
    "broadcast_interfaces",
    "find_interface",
    "index_of",
    "local_addresses",
]

#: How many interfaces or addresses the line of an error names.
_MOST_NAMED: Final = 8
#: How much of what was given it repeats: longer than any name (15) or address with its zone (61).
_MOST_SHOWN: Final = 64
#: The kernel counts interfaces in a signed number of 32 bits, from 1.
_INDEXES: Final = range(1, 2**31)
#: How many messages one wake-up takes at most, so that a storm of changes leaves the others a turn.
_MAX_READS: Final = 256


@dataclass(frozen=True, slots=True)
class Interface:
    """
    A network interface, as it was when it was looked up.

    :ivar name: such as ``lo`` or ``eth0``; empty for `KERNEL_CHOICE`.
    :ivar index: 1 or more; another one when the interface went and a new one has its name; 0 for
        `KERNEL_CHOICE`.
    """

    name: str
    index: int


#: The interface that the routes lead to, chosen by the kernel whenever it is needed.
KERNEL_CHOICE: Final = Interface("", 0)


def find_interface(text: str | int, *, netlink: int | None = NETLINK) -> Interface:
    """
    Find the interface that is meant.

    :param text: a name (``lo``), an index (1 or ``1``; a name goes first), or an address that the
        interface has (``127.0.0.1``, ``::1``, ``fe80::1%eth0``).
    :param netlink: asked who has an address; None is as on a system without netlink.
    :raises SocketError: with status `SocketErrorStatus.UNREACHABLE_HOST` when there is no such
        interface, or when several have the address; the line names those that there are.
    :raises OperationNotSupported: for an address where nobody can be asked; give the name instead.
    """
    if not isinstance(text, str):
        found = _by_index(checked_integer(text, "an index of an interface"))
    else:
        found = _by_name(text) or _by_index(_number(text))
        address = None if found else _parsed(text)
        if address is not None:
            return _by_address(text, address, netlink)
    if found is None:
        raise _unknown(f"there is no interface {_shown(text)}", _names(), "ip link")
    return found


def index_of(name: str) -> int:
    """Give the index that a name has now; 0 when there is no such interface."""
    try:
        return socket.if_nametoindex(name)
    except (OSError, ValueError):  # ValueError: no system has a name with such characters
        return 0


def local_addresses(
    family: int | None = None, *, netlink: int | None = NETLINK
) -> list[LocalAddress]:
    """
    List the addresses of this machine.

    :param family: ``AF_INET`` or ``AF_INET6``; None for both.
    :param netlink: asked; None is as on a system without netlink.
    :raises OperationNotSupported: where nobody can be asked.
    """
    found = dump_addresses(netlink=netlink)
    return [one for one in found if family in (None, one.family)]


def broadcast_interfaces(*, netlink: int | None = NETLINK) -> list[Interface]:
    """
    List the interfaces on which a broadcast reaches anybody: up, with broadcasts, not loopback.

    :param netlink: asked; None is as on a system without netlink.
    :returns: empty where there is none, and where nobody can be asked: then a broadcast goes out
        without an interface, by the one that the kernel chooses.
    """
    try:
        links = dump_links(netlink=netlink)
    except OperationNotSupported:
        return []
    return [
        Interface(link.name, link.index)
        for link in links
        if link.is_up and link.can_broadcast and not link.is_loopback
    ]


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _by_name(name: str) -> Interface | None:
    index = index_of(name)
    # By its index again, since the kernel also takes alternative names.
    return _by_index(index) if index else None


def _by_index(index: int) -> Interface | None:
    if index not in _INDEXES:
        return None
    try:
        return Interface(socket.if_indextoname(index), index)
    except OSError:
        return None


def _number(text: str) -> int:
    """Read an index; 0, which is none, for what is no number."""
    # Ten digits are enough, and `int` refuses thousands of them with a ValueError.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else 0


def _parsed(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _by_address(text: str, address: _Address, netlink: int | None) -> Interface:
    zone = getattr(address, "scope_id", None)
    within = find_interface(zone) if zone else None
    try:
        known = local_addresses(netlink=netlink)
    except OperationNotSupported as error:
        raise OperationNotSupported(
            f"which interface has {_shown(text)} cannot be asked here ({error}): give its name"
        ) from error
    packed = address.packed
    indexes = sorted(
        {
            one.interface
            for one in known
            if socket.inet_pton(one.family, one.address) == packed
            and within in (None, _by_index(one.interface))
        }
    )
    found = [interface for interface in map(_by_index, indexes) if interface]
    if len(found) > 1:
        names = _joined(interface.name for interface in found)
        raise SocketError(
            f"more than one interface has the address {_shown(text)}: name one of {names}",
            status=SocketErrorStatus.UNREACHABLE_HOST,
        )
    if not found:
        has = (f"{one.address} on {_name(one.interface)}" for one in known)
        raise _unknown(f"no interface has the address {_shown(text)}", has, "ip address")
    return found[0]


def _name(index: int) -> str:
    found = _by_index(index)
    return found.name if found else str(index)


def _names() -> list[str]:
    try:
        return [name for _index, name in socket.if_nameindex()]
    except OSError:
        return []  # A sandbox; the line is shorter for it.


def _unknown(claim: str, there_are: Iterable[str], command: str) -> SocketError:
    names = _joined(there_are)
    has = f": this machine has {names} (see `{command}`)" if names else f" (see `{command}`)"
    return SocketError(claim + has, status=SocketErrorStatus.UNREACHABLE_HOST)


def _joined(texts: Iterable[str]) -> str:
    every = list(texts)
    left_out = len(every) - _MOST_NAMED
    return ", ".join(every[:_MOST_NAMED]) + (f" and {left_out} more" if left_out > 0 else "")


def _shown(text: str | int) -> str:
    # What was given may be of any length, the line may not.
    shown = repr(text)
    return shown if len(shown) <= _MOST_SHOWN + 2 else f"{shown[:_MOST_SHOWN]}…"


@implementer(IReadDescriptor)
class LinkWatch:
    """
    Tells when interfaces come, go, or go up or down; not which.

    Without netlink it never tells. It holds one socket, until `stop` or the end of the reactor.

    :param changed: called from the reactor, once for all changes that it finds together. Also where
        the kernel had more to tell than there was room for. It may call `stop`; what it raises is
        logged, and the watch goes on.
    :param connect: gives the socket to read, non-blocking, or None.
    :raises SocketError: when the socket cannot be opened, such as for too many files.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: IReactorFDSet,
        changed: Callable[[], None],
        *,
        connect: Callable[[], socket.socket | None] = open_link_socket,
    ) -> None:
        self._reactor = reactor
        self._changed = changed
        self._socket = connect()
        if self._socket is not None:
            reactor.addReader(self)

    @property
    def is_watching(self) -> bool:
        """Whether it will tell: there is netlink, and it was not stopped."""
        return self._socket is not None

    def stop(self) -> None:
        """Tell no more. Stopping twice is harmless."""
        stopped = self._socket
        if stopped is not None:
            # Before it is closed, as a reactor looks a reader up by its descriptor.
            self._reactor.removeReader(self)
            self._socket = None
            stopped.close()

    def _tell(self) -> None:
        try:
            self._changed()
        except Exception:  # noqa: BLE001 - logged; left to the reactor, it would end the watch
            self._log.failure("unhandled error after a change of interfaces")

    # Called by Twisted.

    def doRead(self) -> None:
        """Take what has arrived, and tell once."""
        has_changed = False
        for _ in range(_MAX_READS):
            if self._socket is None:
                break
            try:
                # The content is not read: what counts is the state when somebody looks.
                self._socket.recv(1)
            except BlockingIOError:
                break
            except OSError as error:
                # Without room the kernel drops messages, and what they told of is to be looked at.
                if error.errno != errno.ENOBUFS:
                    self._log.error("interfaces are no longer watched: {error}", error=error)
                    self.stop()
            has_changed = True
        if has_changed:
            self._tell()

    def fileno(self) -> int:
        """Give the descriptor to wait for; -1 when there is none any more."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """Name it in the log."""
        return "twsock.datagram.network.interfaces.LinkWatch"

    def connectionLost(self, reason: Any) -> None:
        """The reactor ends, or the socket has failed."""
        self.stop()
