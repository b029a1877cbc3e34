"""
Which addresses are this machine's: kernel → **remembered addresses** → yes or no.

Asked by `twsock.datagram.echo` about sources that could be the echo itself. The kernel is
asked at most once a second, so that forged datagrams cannot keep it busy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from twsock.datagram.network.interfaces import local_addresses
from twsock.errors import SocketError

__all__ = ["LocalAddresses"]

#: How long an answer of the kernel is good, in seconds: an address that comes meanwhile is unknown.
_GOOD_FOR: Final = 1.0


def _list_addresses() -> list[str]:
    return [one.address for one in local_addresses()]


class LocalAddresses:
    """
    The addresses of this machine.

    :param now: seconds, on a clock that never goes back.
    :param list_addresses: asks for them; what it raises as a `SocketError` means that nobody can
        tell.
    """

    def __init__(
        self,
        now: Callable[[], float],
        list_addresses: Callable[[], list[str]] = _list_addresses,
    ) -> None:
        self._now = now
        self._list_addresses = list_addresses
        self._known: frozenset[str] | None = frozenset()
        self._asked_at: float | None = None

    def __contains__(self, host: object) -> bool:
        """Tell whether a numeric address is one of them; yes, where nobody can tell."""
        literal = str(host).partition("%")[0]
        if ipaddress.ip_address(literal).is_loopback:
            return True
        now = self._now()
        if self._asked_at is None or now - self._asked_at >= _GOOD_FOR:
            self._asked_at = now
            self._known = self._ask()
        return self._known is None or literal in self._known

    def _ask(self) -> frozenset[str] | None:
        try:
            return frozenset(address.partition("%")[0] for address in self._list_addresses())
        except SocketError:
            return None
