"""
What a socket has joined: group and interface → **membership** → whether a datagram is for us.

Owned by the datagram port, one for its socket; the calls are those of
`twsock.datagram.network.membership_calls`. Holds one small value for each membership, of
which the kernel allows so many, and nothing else.

What becomes of a membership when its interface changes: it survives that the interface goes down
and up. When the interface is deleted the kernel drops it, and a new interface of the same name is
another one, with another index; so after a change of interfaces `Memberships.refresh` joins again.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from twsock.datagram.network.interfaces import KERNEL_CHOICE, Interface, find_interface, index_of
from twsock.datagram.network.membership_calls import check_addresses, join, leave
from twsock.datagram.network.packet_info import is_multicast
from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus
from twsock.ip.zones import split_zone

__all__ = ["Membership", "MembershipChange", "Memberships", "find_group"]


@dataclass(frozen=True, slots=True)
class Membership:
    """
    What one socket has joined.

    :ivar group: as ``inet_ntop`` writes it.
    :ivar interface: where it is heard.
    :ivar source: whom alone it is heard from, as ``inet_ntop`` writes it; None for everybody.
    """

    group: str
    interface: Interface
    source: str | None = None


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """
    What a change of interfaces did to a membership.

    :ivar membership: the one concerned; with its new interface where it is heard again.
    :ivar error: why it is heard no more; None when it is heard again.
    """

    membership: Membership
    error: SocketError | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the group is not heard until another change restores it."""
        return self.error is not None


def find_group(group: str, interface: str | int | Interface | None) -> tuple[str, Interface | None]:
    """
    Find the interface that is meant, by itself or as the zone of a group (``ff15::9%eth1``).

    :param interface: name, index or address of an interface; None for that of the zone.
    :returns: the group without its zone, and the interface; None if neither names one.
    :raises SocketError: with status ``UNREACHABLE_HOST``, when there is no such interface.
    :raises ValueError: when the zone and ``interface`` name different interfaces.
    """
    literal, zone = split_zone(group)
    given = find_interface(interface) if isinstance(interface, (str, int)) else interface
    is_zoned = zone and ":" in literal and is_multicast(literal)
    named = find_interface(zone) if is_zoned else None
    if named is None:
        return group, given
    if given is not None and given != named:
        raise ValueError(f"{group} is to be on {given.name}, and its zone names {named.name}")
    return literal, named


_Key = tuple[str, str, "str | None"]
#: From whom a group is heard; None for everybody.
_Sources = frozenset[str] | None
_NOBODY: Final[_Sources] = frozenset()


class Memberships:
    """
    What one socket has joined, and joins again when interfaces change.

    Only what is joined through here counts. How many there may be is the kernel's to say (by
    default 20 groups of IPv4 a socket), and so is the failure of one more.

    A membership follows the name of its interface. A new interface with the index of an old one,
    which happens only where somebody asks for it, is not noticed between two calls of `refresh`.
    """

    def __init__(self, member: socket.socket) -> None:
        self._socket = member
        self._held: dict[_Key, Membership] = {}
        self._lost: set[_Key] = set()
        # By group and index: what `accepts` reads for each datagram.
        self._accepted: dict[str, dict[int, _Sources]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Membership]:
        """Give each, in the order joined; those that are lost for the moment among them."""
        return iter(list(self._held.values()))

    def __contains__(self, group: object) -> bool:
        """Tell whether a group, in any spelling, was joined anywhere."""
        if not isinstance(group, str):
            return False
        try:
            name, _ = check_addresses(self._socket, group, None)
        except SocketError:
            return False
        return any(held.group == name for held in self._held.values())

    def accepts(self, destination: str, interface_index: int, source: str) -> bool:
        """
        Decide whether a datagram is for a group that was joined.

        :param destination: the address it was sent to, as ``inet_ntop`` writes it.
        :param interface_index: by which it came; 0 when that is not known.
        :param source: the address it came from; a zone is passed over.
        """
        joined = self._accepted.get(destination)
        if joined is None:
            return False
        if interface_index == 0:
            return any(_is_among(source, sources) for sources in joined.values())
        sources = joined.get(interface_index, joined.get(0, _NOBODY))
        return sources is None or _is_among(source, sources)

    def join(
        self, group: str, interface: Interface | None = None, source: str | None = None
    ) -> None:
        """
        Join a group on one interface. Joining twice is harmless.

        :param interface: None for the kernel's choice, which goes by its route to the group.
        :param source: only what this address sends; None for whoever sends.
        :raises LocalProtocolError: when it was joined there for all sources and is now to be joined
            for one, or the other way round. What was joined stays.
        :raises SocketError: as the function `join` does.
        """
        wanted = self._named(group, interface or KERNEL_CHOICE, source)
        self._refuse_mixture(wanted)
        key = _key(wanted)
        held = self._held.get(key)
        if held == wanted and key not in self._lost:
            return
        if held is not None:
            # The interface is a new one, and nobody has called `refresh` since.
            self._lose(key, held)
        join(self._socket, wanted.group, wanted.interface.index, wanted.source)
        self._hold(key, wanted)
        self._sort()

    def leave(
        self, group: str, interface: Interface | None = None, source: str | None = None
    ) -> None:
        """
        Leave a group.

        :param interface: None for every interface on which it was joined.
        :param source: None for all that was joined.
        :raises LocalProtocolError: when there is no such membership.
        :raises SocketError: when the group is none.
        """
        wanted = self._named(group, interface or KERNEL_CHOICE, source)
        leaving = [
            (key, held)
            for key, held in self._held.items()
            if held.group == wanted.group
            and (interface is None or held.interface.name == interface.name)
            and (source is None or held.source == wanted.source)
        ]
        if not leaving:
            where = f" on {interface.name or interface.index}" if interface else ""
            who = group if source is None else f"{group} from {source}"
            raise LocalProtocolError(f"{who} was not joined{where}")
        for key, held in leaving:
            self._lose(key, held)
            del self._held[key]
            self._lost.discard(key)
        self._sort()

    def refresh(self) -> list[MembershipChange]:
        """
        Look at the interfaces again, after they have changed, and join again where that is needed.

        :returns: the memberships that are heard no more, each told once, and those that were joined
            again. One whose interface only went down and up is neither.
        """
        found = [self._refreshed(key, held) for key, held in list(self._held.items())]
        changes = [change for change in found if change is not None]
        if changes:
            self._sort()
        return changes

    def _named(self, group: str, interface: Interface, source: str | None) -> Membership:
        """Write every address in the one way in which they are compared."""
        named, named_source = check_addresses(self._socket, group, source)
        return Membership(named, interface, named_source)

    def _refuse_mixture(self, wanted: Membership) -> None:
        for held in self._held.values():
            names = {held.interface.name, wanted.interface.name}
            # The kernel's choice can be any of them.
            meet = len(names) == 1 or KERNEL_CHOICE.name in names
            if (
                meet
                and held.group == wanted.group
                and (held.source is None) != (wanted.source is None)
            ):
                how = "all sources" if held.source is None else "single sources"
                raise LocalProtocolError(f"{held.group} was joined for {how}; leave it first")

    def _hold(self, key: _Key, membership: Membership) -> None:
        self._held[key] = membership
        self._lost.discard(key)

    def _lose(self, key: _Key, held: Membership) -> None:
        """Leave in the kernel, unless that was done; also what is gone takes one of its places."""
        if key in self._lost and held.interface != KERNEL_CHOICE:
            return
        self._lost.add(key)
        try:
            leave(self._socket, held.group, held.interface.index, held.source)
        except LocalProtocolError:
            pass  # Gone with another source.
        except SocketError as error:
            if error.status is not SocketErrorStatus.UNREACHABLE_HOST:
                raise
            self._lose_all_sources(held)

    def _lose_all_sources(self, held: Membership) -> None:
        """Give a place back whose interface is gone: single sources can't be named any more."""
        try:
            leave(self._socket, held.group, held.interface.index)
        except SocketError as error:
            if error.status is not SocketErrorStatus.UNREACHABLE_HOST and not isinstance(
                error, LocalProtocolError
            ):
                raise

    def _refreshed(self, key: _Key, held: Membership) -> MembershipChange | None:
        was_lost = key in self._lost
        index = _index_now(held.interface, was_lost)
        is_moved = index != held.interface.index
        if not is_moved and not was_lost and held.interface != KERNEL_CHOICE:
            return None
        if is_moved:
            self._lose(key, held)
        try:
            if held.interface != KERNEL_CHOICE and not index:
                raise SocketError(
                    f"{held.group} is not heard: the interface {held.interface.name} is gone",
                    status=SocketErrorStatus.UNREACHABLE_HOST,
                )
            is_new = join(self._socket, held.group, index, held.source)
        except SocketError as error:
            self._lost.add(key)
            return None if was_lost else MembershipChange(held, error)
        heard = replace(held, interface=Interface(held.interface.name, index))
        self._hold(key, heard)
        return MembershipChange(heard) if is_new or was_lost else None

    def _sort(self) -> None:
        """Lay out what `accepts` reads."""
        accepted: dict[str, dict[int, _Sources]] = {}
        for key, held in self._held.items():
            # The kernel's choice may lack nothing but a route: then datagrams still arrive.
            if key not in self._lost or held.interface == KERNEL_CHOICE:
                joined = accepted.setdefault(held.group, {})
                sources = None if held.source is None else frozenset([held.source])
                index = held.interface.index
                joined[index] = _united(joined.get(index, _NOBODY), sources)
        for joined in accepted.values():
            anywhere = joined.get(0, _NOBODY)
            for index in joined:
                joined[index] = _united(joined[index], anywhere)
        self._accepted = accepted


def _key(membership: Membership) -> _Key:
    return membership.group, membership.interface.name, membership.source


def _united(one: _Sources, other: _Sources) -> _Sources:
    return None if one is None or other is None else one | other


def _is_among(source: str, sources: _Sources) -> bool:
    return sources is None or source.partition("%")[0] in sources


def _index_now(interface: Interface, was_lost: bool) -> int:
    """Find what has the name now; an interface that was only renamed is still the one."""
    index = index_of(interface.name) if interface.name else 0
    if index or was_lost or not interface.index or not _exists(interface.index):
        return index
    return interface.index


def _exists(index: int) -> bool:
    try:
        socket.if_indextoname(index)
    except OSError:
        return False
    return True
