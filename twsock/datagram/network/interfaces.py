"""
Lookup of interfaces and local addresses, and a watch for changes: text → **interface** → multicast.

Used to join groups, to send broadcasts, for interfaces in endpoint strings, and for the source
addresses of answers. Names and indexes come from POSIX calls. `twsock.datagram.network.netlink`
lists addresses, on Linux only; other systems need the name of the interface. Interfaces are not
cached, because an interface may get another index at any time. `LinkWatch` reports such changes.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
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
from twsock.ip.addresses import IPAddress, parse_ip_address
from twsock.log import TextLogger

__all__ = [
    "KERNEL_CHOICE",
    "Interface",
    "LinkWatch",
    "LocalAddresses",
    "broadcast_interfaces",
    "find_interface",
    "index_of",
    "local_addresses",
]

#: Seconds for which a list is used. A new address is unknown for as long, and a removed one still
#: counts as local.
_MAX_AGE: Final = 1.0

#: Most interfaces or addresses in one error message.
_MAX_NAMED: Final = 8
#: Most characters of the argument in an error message: longer than any name (15) or address with
#: zone (61).
_MAX_SHOWN: Final = 64
#: The kernel numbers interfaces with a signed 32-bit integer, from 1.
_INDEXES: Final = range(1, 2**31)
#: Most messages read in one wake-up, so that many changes do not block other descriptors.
_MAX_READS: Final = 256


@dataclass(frozen=True, slots=True)
class Interface:
    """
    A network interface at the time of its lookup.

    :ivar name: such as ``lo`` or ``eth0``; empty for `KERNEL_CHOICE`.
    :ivar index: 1 or more; 0 for `KERNEL_CHOICE`. A new interface of the same name has another
        index.
    """

    name: str
    index: int


#: The kernel chooses the interface by its routes, at each use.
KERNEL_CHOICE: Final = Interface("", 0)


def find_interface(text: str | int, *, netlink: int | None = NETLINK) -> Interface:
    """
    Look up an interface by name, index or address.

    :param text: a name (``lo``), an index (1 or ``1``; a name takes precedence), or an address of
        the interface (``127.0.0.1``, ``::1``, ``fe80::1%eth0``).
    :param netlink: the address family of netlink; None behaves as a system without netlink.
    :raises SocketError: with status `SocketErrorStatus.UNREACHABLE_HOST` when no interface matches,
        or several have the address; the message names the existing ones.
    :raises OperationNotSupported: for an address, on a system that does not list addresses.
    """
    if not isinstance(text, str):
        found = _by_index(checked_integer(text, "an index of an interface"))
    else:
        found = _by_name(text) or _by_index(_number(text))
        address = None if found else parse_ip_address(text)
        if address is not None:
            return _by_address(text, address, netlink)
    if found is None:
        raise _unknown(f"there is no interface {_shown(text)}", _names(), "ip link")
    return found


def index_of(name: str) -> int:
    """Return the current index of an interface name; 0 if no interface has it."""
    try:
        return socket.if_nametoindex(name)
    except (OSError, ValueError):  # ValueError: a name cannot contain such characters.
        return 0


def local_addresses(
    family: int | None = None, *, netlink: int | None = NETLINK
) -> list[LocalAddress]:
    """
    List the addresses of this machine.

    :param family: ``AF_INET`` or ``AF_INET6``; None for both.
    :param netlink: the address family of netlink; None behaves as a system without netlink.
    :raises OperationNotSupported: on a system that does not list addresses.
    """
    found = dump_addresses(netlink=netlink)
    return [one for one in found if family in (None, one.family)]


def broadcast_interfaces(*, netlink: int | None = NETLINK) -> list[Interface]:
    """
    List the interfaces that can send a broadcast: up, capable of broadcast, not loopback.

    :param netlink: the address family of netlink; None behaves as a system without netlink.
    :returns: empty if there is none, or if the system does not list interfaces. Then a broadcast is
        sent without an interface, and the kernel chooses one.
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


def _by_name(name: str) -> Interface | None:
    index = index_of(name)
    # Looked up by index again, because the kernel also accepts alternative names.
    return _by_index(index) if index else None


def _by_index(index: int) -> Interface | None:
    if index not in _INDEXES:
        return None
    try:
        return Interface(socket.if_indextoname(index), index)
    except OSError:
        return None


def _number(text: str) -> int:
    """Parse an index; return 0 (no interface) if the text is not a number."""
    # Ten digits are enough; for thousands of digits `int` raises ValueError.
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else 0


def _by_address(text: str, address: IPAddress, netlink: int | None) -> Interface:
    zone = getattr(address, "scope_id", None)
    within = find_interface(zone) if zone else None
    try:
        known = local_addresses(netlink=netlink)
    except OperationNotSupported as error:
        raise OperationNotSupported(
            f"cannot look up the interface of {_shown(text)} ({error}): use its name"
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
            f"more than one interface has the address {_shown(text)}: use one of {names}",
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
        return []  # In a sandbox; the message then names no interfaces.


def _unknown(claim: str, there_are: Iterable[str], command: str) -> SocketError:
    names = _joined(there_are)
    has = f": this machine has {names} (see `{command}`)" if names else f" (see `{command}`)"
    return SocketError(claim + has, status=SocketErrorStatus.UNREACHABLE_HOST)


def _joined(texts: Iterable[str]) -> str:
    every = list(texts)
    left_out = len(every) - _MAX_NAMED
    return ", ".join(every[:_MAX_NAMED]) + (f" and {left_out} more" if left_out > 0 else "")


def _shown(text: str | int) -> str:
    # The argument may have any length; the message must stay short.
    shown = repr(text)
    return shown if len(shown) <= _MAX_SHOWN + 2 else f"{shown[:_MAX_SHOWN]}…"


@implementer(IReadDescriptor)
class LinkWatch:
    """
    Reports that an interface was added or removed, or went up or down; it does not report which.

    Without netlink it reports nothing. It holds one socket until `stop`, or until the reactor ends.

    :param changed: called from the reactor, once for all changes found together. It is also called
        if the kernel dropped messages for lack of room. It may call `stop`. An exception that it
        raises is logged, and the watch continues.
    :param connect: returns the non-blocking socket to read, or None.
    :raises SocketError: when the socket cannot be opened, for example for lack of descriptors.
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
        """Whether it reports changes: the system has netlink, and the watch was not stopped."""
        return self._socket is not None

    def stop(self) -> None:
        """Stop reporting. Stopping twice is harmless."""
        stopped = self._socket
        if stopped is not None:
            # Before the close: the reactor finds a reader by its descriptor.
            self._reactor.removeReader(self)
            self._socket = None
            stopped.close()

    def _report(self) -> None:
        try:
            self._changed()
        except Exception:  # noqa: BLE001 - logged; the reactor would end the watch
            self._log.failure("unhandled error after a change of interfaces")

    # Called by Twisted.

    def doRead(self) -> None:
        """Read the waiting messages, and report once."""
        has_changed = False
        for _ in range(_MAX_READS):
            if self._socket is None:
                break
            try:
                # The content is ignored: `changed` looks up the current state.
                self._socket.recv(1)
            except BlockingIOError:
                break
            except OSError as error:
                # ENOBUFS: the kernel dropped messages, so there were changes.
                if error.errno != errno.ENOBUFS:
                    self._log.error("interfaces are no longer watched: {error}", error=error)
                    self.stop()
            has_changed = True
        if has_changed:
            self._report()

    def fileno(self) -> int:
        """Return the descriptor; -1 after `stop`."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """Return the name of this watch for the log."""
        return "twsock.datagram.network.interfaces.LinkWatch"

    def connectionLost(self, reason: Any) -> None:
        """Stop: the reactor ends, or the socket failed."""
        self.stop()


class LocalAddresses:
    """
    Cached list of the addresses of this machine, at most one second old.

    The kernel is asked at most once a second, so forged datagrams cannot keep it busy.

    :param now: seconds, on a clock that never goes back.
    :param list_addresses: returns the list. It raises `SocketError` if the system does not report
        addresses.
    """

    def __init__(
        self,
        now: Callable[[], float],
        list_addresses: Callable[[], Sequence[LocalAddress]] = local_addresses,
    ) -> None:
        self._now = now
        self._list_addresses = list_addresses
        self._known: Sequence[LocalAddress] | None = None
        self._literals: frozenset[str] = frozenset()
        self._asked_at: float | None = None

    def current(self) -> Sequence[LocalAddress] | None:
        """Return the list; None if the system does not report it."""
        now = self._now()
        if self._asked_at is None or now - self._asked_at >= _MAX_AGE:
            self._asked_at = now
            try:
                self._known = self._list_addresses()
            except SocketError:
                self._known = None
            self._literals = frozenset(one.address for one in self._known or ())
        return self._known

    def __contains__(self, host: object) -> bool:
        """Return whether a numeric address is local; True if the system does not report them."""
        literal = str(host).partition("%")[0]
        if ipaddress.ip_address(literal).is_loopback:
            return True
        return self.current() is None or literal in self._literals
