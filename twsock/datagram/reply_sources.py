"""
Source addresses of answers: run → **own address** → control message of the answer.

Called by `twsock.datagram.port` for each run that is answered on a port of all addresses. The
answer to a unicast datagram leaves from the address that it was sent to. The answer to a multicast
or broadcast datagram leaves from an address of the receiving interface. The kernel is asked for
these addresses at most once a second, so that a flood does not keep it busy.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime

from twsock.datagram.network.interfaces import local_addresses
from twsock.datagram.network.netlink import LocalAddress
from twsock.datagram.network.packet_info import Control, source_control
from twsock.datagram.runs import Run
from twsock.errors import SocketError

__all__ = ["ReplySources"]

#: Seconds for which a list of addresses is used. If an address is removed meanwhile, answers from
#: it fail.
_GOOD_FOR: Final = 1.0

_ANY_IPV6: Final = "::"


class ReplySources:
    """
    Finds the addresses that answers leave from.

    :param clock: measures the age of the list of addresses.
    :param list_addresses: returns the addresses of this machine. If it raises `SocketError`, the
        list is taken as empty.
    """

    def __init__(
        self,
        clock: IReactorTime,
        list_addresses: Callable[[], Sequence[LocalAddress]] = local_addresses,
    ) -> None:
        self._clock = clock
        self._list_addresses = list_addresses
        self._known: Sequence[LocalAddress] = ()
        self._asked_at: float | None = None

    def find_address(self, run: Run) -> str:
        """
        Return the address that answers to a run leave from.

        :returns: a numeric address without a zone; empty if the kernel chooses.
        """
        if run.local == run.destination:
            return run.local
        own = self._addresses_of(run)
        if not own or _is_among(run.local, own):
            return run.local
        if run.local:
            # The kernel reports the address from which it would send to the peer. That may be an
            # address of another interface. The first address of an interface is its primary one.
            return own[0]
        return max(own, key=lambda address: _common_bits(address, run.source[0]))

    def make_control(self, run: Run) -> Control | None:
        """Return the control message that sets this address; None if the kernel chooses."""
        address = self.find_address(run)
        if not address:
            # The kernel chooses among the addresses of the interface (RFC 3542 section 6.7).
            is_group = bool(run.destination and run.interface)
            return source_control(_ANY_IPV6, run.interface) if is_group else None
        # A link-local address is valid on one link only, so the interface is set as well.
        return source_control(address, run.interface if _is_link_local(address) else 0)

    def _addresses_of(self, run: Run) -> list[str]:
        """Return the addresses of the receiving interface that have the scope of the source."""
        family = socket.AF_INET6 if len(run.source) == 4 else socket.AF_INET
        found = [
            one.address
            for one in self._ask()
            if one.interface == run.interface and one.family == family
        ]
        if family == socket.AF_INET:
            return found
        is_link_local = _is_link_local(run.source[0])
        return [address for address in found if _is_link_local(address) is is_link_local]

    def _ask(self) -> Sequence[LocalAddress]:
        now = self._clock.seconds()
        if self._asked_at is None or now - self._asked_at >= _GOOD_FOR:
            self._asked_at = now
            try:
                self._known = self._list_addresses()
            except SocketError:
                self._known = ()
        return self._known


def _is_among(address: str, own: Sequence[str]) -> bool:
    """Return whether an interface has an address; loopback has the whole of 127.0.0.0/8."""
    if address.startswith("127."):
        return any(one.startswith("127.") for one in own)
    return address in own


def _is_link_local(address: str) -> bool:
    return address.startswith("169.254.") or address[:3].lower() in _LINK_LOCAL


#: The first three digits of addresses in fe80::/10 (:rfc:`4291` section 2.5.6).
_LINK_LOCAL: Final = frozenset({"fe8", "fe9", "fea", "feb"})


def _common_bits(one: str, other: str) -> int:
    """Return the length of the common prefix of two IPv6 addresses (:rfc:`6724`, rule 8)."""
    difference = int(ipaddress.IPv6Address(one)) ^ int(
        ipaddress.IPv6Address(other.partition("%")[0])
    )
    return 128 - difference.bit_length()
