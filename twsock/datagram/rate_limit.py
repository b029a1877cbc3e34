"""
How many datagrams a peer may have answered: peers and times in, allowances out.

Asked by `twsock.datagram.echo`. A bucket for each peer holds ``burst`` tokens and gets
``rate`` of them a second; held is one entry for each of at most ``max_peers`` peers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twsock._integers import checked_integer

__all__ = ["DEFAULT_MAX_PEERS", "RateLimit"]

#: About 250 bytes each.
DEFAULT_MAX_PEERS: Final = 10_000


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

        :param peer: see `twsock.ip.addresses.network_of`.
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
