"""
From where an answer leaves: run → **own address** → control message of the answer.

Asked by `twsock.transport.datagrams` for each run that is answered on a port of all addresses. What
was sent to one address is answered from it. What was sent to a group or to everybody has no such
address: it is answered from one that the receiving interface has. For these the kernel is asked
which addresses there are, at most once a second, so that a flood cannot keep it busy.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime

from twsock.errors import SocketError
from twsock.transport.interfaces import local_addresses
from twsock.transport.netlink import LocalAddress
from twsock.transport.packet_info import Control, source_control
from twsock.transport.runs import Run

__all__ = ["AnswerSources"]

#: How long an answer of the kernel is good, in seconds. An address that goes meanwhile makes the
#: answers from it fail.
_GOOD_FOR: Final = 1.0

_ANY_IPV6: Final = "::"


class AnswerSources:
    """
    The addresses that answers leave from.

    :param clock: measures how long what is known is good.
    :param list_addresses: asks for the addresses of this machine; what it raises as a `SocketError`
        means that there is nobody to ask.
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
        Find the address that answers to a run leave from.

        :returns: numeric, without a zone; empty where it is left to the kernel.
        """
        if run.local == run.destination:
            return run.local
        own = self._addresses_of(run)
        if not own or _is_among(run.local, own):
            return run.local
        if run.local:
            # The kernel names the address with which it would send to the peer, which may be one
            # of another interface. The first that an interface got is its primary one.
            return own[0]
        return max(own, key=lambda address: _common_bits(address, run.source[0]))

    def make_control(self, run: Run) -> Control | None:
        """Make what has an answer leave from that address; None for the kernel's choice."""
        address = self.find_address(run)
        if not address:
            # Its choice among the addresses of the interface (RFC 3542 section 6.7).
            is_group = bool(run.destination and run.interface)
            return source_control(_ANY_IPV6, run.interface) if is_group else None
        # Each link may have such an address, and a peer with the address of the answer.
        return source_control(address, run.interface if _is_link_local(address) else 0)

    def _addresses_of(self, run: Run) -> list[str]:
        """List what the interface has that a run came by: those of the scope of its source."""
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
    """Return whether an interface has an address; that of loopback has all that begin with 127."""
    if address.startswith("127."):
        return any(one.startswith("127.") for one in own)
    return address in own


def _is_link_local(address: str) -> bool:
    return address.startswith("169.254.") or address[:3].lower() in _LINK_LOCAL


#: fe80::/10, as far as three digits tell (:rfc:`4291` section 2.5.6).
_LINK_LOCAL: Final = frozenset({"fe8", "fe9", "fea", "feb"})


def _common_bits(one: str, other: str) -> int:
    """Count the bits with which two IPv6 addresses begin alike (:rfc:`6724` section 5, rule 8)."""
    difference = int(ipaddress.IPv6Address(one)) ^ int(
        ipaddress.IPv6Address(other.partition("%")[0])
    )
    return 128 - difference.bit_length()
