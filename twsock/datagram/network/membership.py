"""
Multicast memberships of a socket: group and interface → **membership** → accept or drop a datagram.

Each datagram port has one `Memberships` for its socket, which calls
`twsock.datagram.network.membership_calls`. Memory: one entry for each membership; the kernel limits
their number.

A membership survives that its interface goes down and up. When the interface is removed, the kernel
drops the membership. A new interface of the same name has another index. `Memberships.refresh`
therefore joins again after interfaces have changed.
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
    One membership of a socket.

    :ivar group: as ``inet_ntop`` writes it.
    :ivar interface: the interface that the group was joined on.
    :ivar source: the only sender to receive from, as ``inet_ntop`` writes it; None for all.
    """

    group: str
    interface: Interface
    source: str | None = None


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """
    The loss or return of a membership after interfaces have changed.

    :ivar membership: the membership; after a return, with its new interface.
    :ivar error: the reason of the loss; None for a return.
    """

    membership: Membership
    error: SocketError | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the group is not received until another change restores the membership."""
        return self.error is not None


def find_group(
    group: str, interface: str | int | Interface | None, default: int = 0
) -> tuple[str, Interface | None]:
    """
    Look up the interface of a group, from an argument or from its zone (``ff15::9%eth1``).

    :param interface: name, index or address of an interface; None for that of the zone.
    :param default: index of the interface if neither names one; 0 for none.
    :returns: the group without its zone, and the interface; None for the choice of the kernel.
    :raises SocketError: with status ``UNREACHABLE_HOST``, when the interface does not exist.
    :raises ValueError: when the zone and ``interface`` name different interfaces.
    """
    literal, zone = split_zone(group)
    given = find_interface(interface) if isinstance(interface, (str, int)) else interface
    is_zoned = zone and ":" in literal and is_multicast(literal)
    named = find_interface(zone) if is_zoned else None
    if named is None:
        return group, find_interface(default) if given is None and default else given
    if given is not None and given != named:
        raise ValueError(f"the zone of {group} is {named.name}, but the interface is {given.name}")
    return literal, named


_Key = tuple[str, str, "str | None"]
#: The senders that a group is received from; None for all.
_Sources = frozenset[str] | None
_NO_SOURCES: Final[_Sources] = frozenset()


class Memberships:
    """
    The memberships of one socket; it joins again after interfaces have changed.

    It knows only memberships that were joined with it. The kernel limits their number (by default
    20 IPv4 groups for each socket), and refuses further ones.

    A membership follows the name of its interface. A new interface may have the index of an old one
    only if an administrator asks for it; between two calls of `refresh` that is not detected.
    """

    def __init__(self, member: socket.socket) -> None:
        self._socket = member
        self._held: dict[_Key, Membership] = {}
        self._lost: set[_Key] = set()
        # By group and interface index. `accepts` reads it for each datagram.
        self._accepted: dict[str, dict[int, _Sources]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Membership]:
        """Yield each membership in the order joined, including those that are lost now."""
        return iter(list(self._held.values()))

    def __contains__(self, group: object) -> bool:
        """Return whether a group, in any spelling, was joined on any interface."""
        if not isinstance(group, str):
            return False
        try:
            name, _ = check_addresses(self._socket, group, None)
        except SocketError:
            return False
        return any(held.group == name for held in self._held.values())

    def accepts(self, destination: str, interface_index: int, source: str) -> bool:
        """
        Return whether a datagram was sent to a joined group, by an accepted sender.

        :param destination: destination address, as ``inet_ntop`` writes it.
        :param interface_index: index of the receiving interface; 0 if it is not known.
        :param source: source address; its zone is ignored.
        """
        joined = self._accepted.get(destination)
        if joined is None:
            return False
        if interface_index == 0:
            return any(_is_among(source, sources) for sources in joined.values())
        sources = joined.get(interface_index, joined.get(0, _NO_SOURCES))
        return sources is None or _is_among(source, sources)

    def join(
        self, group: str, interface: Interface | None = None, source: str | None = None
    ) -> None:
        """
        Join a group on one interface. Joining twice is harmless.

        :param interface: with None the kernel chooses, by its route to the group.
        :param source: receive only from this sender; None for all senders.
        :raises LocalProtocolError: when the group was joined there for all sources and ``source``
            is set, or the other way round. The earlier membership stays.
        :raises SocketError: the errors of the function `join`.
        """
        wanted = self._named(group, interface or KERNEL_CHOICE, source)
        self._refuse_mixture(wanted)
        key = _key(wanted)
        held = self._held.get(key)
        if held == wanted and key not in self._lost:
            return
        if held is not None:
            # The interface is new, and `refresh` was not called since.
            self._lose(key, held)
        join(self._socket, wanted.group, wanted.interface.index, wanted.source)
        self._hold(key, wanted)
        self._index()

    def take(self, membership: Membership, *, is_lost: bool) -> None:
        """
        Note a membership that the socket has in the kernel: an earlier owner has joined.

        :param membership: with addresses as ``inet_ntop`` writes them.
        :param is_lost: whether its interface is gone; `refresh` joins again.
        """
        key = _key(membership)
        self._hold(key, membership)
        if is_lost:
            self._lost.add(key)
        self._index()

    def is_lost(self, membership: Membership) -> bool:
        """Return whether a group is not received now, as its interface is gone."""
        return _key(membership) in self._lost

    def leave(
        self, group: str, interface: Interface | None = None, source: str | None = None
    ) -> None:
        """
        Leave a group.

        :param interface: None for every interface on which it was joined.
        :param source: None for all joined sources.
        :raises LocalProtocolError: when there is no such membership.
        :raises SocketError: when the address is not a group.
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
        self._index()

    def refresh(self) -> list[MembershipChange]:
        """
        Look up the interfaces again after they have changed, and join again where needed.

        :returns: the lost memberships, each reported once, and those that were joined again. A
            membership whose interface only went down and up is not among them.
        """
        found = [self._refreshed(key, held) for key, held in list(self._held.items())]
        changes = [change for change in found if change is not None]
        if changes:
            self._index()
        return changes

    def _named(self, group: str, interface: Interface, source: str | None) -> Membership:
        """Return a membership whose addresses have the canonical spelling."""
        named, named_source = check_addresses(self._socket, group, source)
        return Membership(named, interface, named_source)

    def _refuse_mixture(self, wanted: Membership) -> None:
        for held in self._held.values():
            names = {held.interface.name, wanted.interface.name}
            # The kernel may choose any interface.
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
        """
        Leave in the kernel, unless that was done.

        A membership on a removed interface still counts towards the kernel's limit.
        """
        if key in self._lost and held.interface != KERNEL_CHOICE:
            return
        self._lost.add(key)
        try:
            leave(self._socket, held.group, held.interface.index, held.source)
        except LocalProtocolError:
            pass  # It was left together with another source.
        except SocketError as error:
            if error.status is not SocketErrorStatus.UNREACHABLE_HOST:
                raise
            self._lose_all_sources(held)

    def _lose_all_sources(self, held: Membership) -> None:
        """
        Leave all sources of a group whose interface was removed.

        The kernel cannot leave a single source of a removed interface.
        """
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
                    f"lost group {held.group}: interface {held.interface.name} does not exist",
                    status=SocketErrorStatus.UNREACHABLE_HOST,
                )
            is_new = join(self._socket, held.group, index, held.source)
        except SocketError as error:
            self._lost.add(key)
            return None if was_lost else MembershipChange(held, error)
        restored = replace(held, interface=Interface(held.interface.name, index))
        self._hold(key, restored)
        return MembershipChange(restored) if is_new or was_lost else None

    def _index(self) -> None:
        """Build the table that `accepts` reads."""
        accepted: dict[str, dict[int, _Sources]] = {}
        for key, held in self._held.items():
            # If the kernel chooses and has no route any more, datagrams may still arrive.
            if key not in self._lost or held.interface == KERNEL_CHOICE:
                joined = accepted.setdefault(held.group, {})
                sources = None if held.source is None else frozenset([held.source])
                index = held.interface.index
                joined[index] = _united(joined.get(index, _NO_SOURCES), sources)
        for joined in accepted.values():
            anywhere = joined.get(0, _NO_SOURCES)
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
    """Return the current index of an interface; a renamed interface keeps its index."""
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
