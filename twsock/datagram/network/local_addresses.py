"""
Cached list of the addresses of this machine: kernel → **list, at most one second old** → caller.

Used by `twsock.datagram.echo` to recognise its own address, and by `twsock.datagram.addresses` to
choose the source address of an answer. The kernel is asked at most once a second, so forged
datagrams cannot keep it busy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Final

from twsock.datagram.network.interfaces import local_addresses
from twsock.datagram.network.netlink import LocalAddress
from twsock.errors import SocketError

__all__ = ["LocalAddresses"]

#: Seconds for which a list is used. A new address is unknown for as long, and a removed one still
#: counts as local.
_MAX_AGE: Final = 1.0


class LocalAddresses:
    """
    The addresses of this machine.

    :param now: seconds, on a clock that never goes back.
    :param list_addresses: returns the addresses of this machine. It raises `SocketError` if the
        system does not report them.
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
