"""
How many datagrams a peer may have answered: peers and times in, allowances out.

Asked by `twsock.protocols.datagram_echo`. A bucket for each peer holds ``burst`` tokens and gets
``rate`` of them a second; held is one entry for each of at most ``max_peers`` peers.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

from twsock._integers import checked_integer

__all__ = ["DEFAULT_MAX_PEERS", "RateLimit", "network_of"]

#: About 250 bytes each.
DEFAULT_MAX_PEERS: Final = 10_000


#: Bits of an IPv6 address that are the same for all that one host may take (:rfc:`4291`, 2.5.4).
_HOST_BITS: Final = 64


def network_of(host: str) -> str:
    """
    Give what counts as one peer: an IPv4 address, or the network of an IPv6 address.

    The port does not count: a peer has as many of those as it likes; nor do the last 64 bits of an
    IPv6 address, for the same reason.

    :param host: numeric.
    """
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)  # A socket of both families has IPv4-mapped peers.
    # All hosts of a link share the network of their link-local addresses.
    return host if address.is_link_local else str(int(address) >> _HOST_BITS)


class RateLimit:
    """
    A token bucket for each peer.

    With more peers than ``max_peers`` the one longest unheard of is forgotten, and would begin with
    a full bucket again. A forged source can so be any peer, but none gets more than its share
    unless that many others are heard of in between.

    :param rate: tokens a second, above 0.
    :param burst: tokens that a peer has at first, and at most; 1 or more.
    :param max_peers: 1 or more.
    :raises ValueError: when one is out of its bounds.
    """

    def __init__(self, rate: float, burst: int, max_peers: int = DEFAULT_MAX_PEERS) -> None:
        if not rate > 0:
            raise ValueError(f"rate is above 0, not {rate!r}")
        if checked_integer(burst, "burst") < 1 or checked_integer(max_peers, "max_peers") < 1:
            raise ValueError(f"burst and max_peers are 1 or more, not {burst} and {max_peers}")
        self._rate = rate
        self._burst = burst
        self._max_peers = max_peers
        # What each peer has left, and when that was so.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, peer: str, count: int, now: float) -> int:
        """
        Take tokens.

        :param peer: see `network_of`.
        :param count: how many are wanted.
        :param now: seconds, on a clock that never goes back.
        :returns: how many there were, 0 to ``count``.
        """
        left, then = self._buckets.pop(peer, (float(self._burst), now))
        left = min(self._burst, left + max(0.0, now - then) * self._rate)
        taken = min(count, int(left))
        self._buckets[peer] = (left - taken, now)
        if len(self._buckets) > self._max_peers:
            self._buckets.popitem(last=False)
        return taken
