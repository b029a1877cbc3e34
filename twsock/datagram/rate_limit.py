"""
Token buckets for each peer: peer, count and time → **allowed count**.

Called by `twsock.datagram.echo`. The bucket of each peer holds at most ``burst`` tokens and gets
``rate`` tokens a second. Memory: one entry for each of at most ``max_peers`` peers.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twsock._integers import checked_integer

__all__ = ["DEFAULT_MAX_PEERS", "RateLimit"]

#: An entry takes about 250 bytes.
DEFAULT_MAX_PEERS: Final = 10_000


class RateLimit:
    """
    A token bucket for each peer.

    With more than ``max_peers`` peers, the bucket of the least recently seen peer is dropped. Its
    next datagram starts with a full bucket. With forged sources, a peer gets more than its share
    only after ``max_peers`` other sources.

    :param rate: tokens a second, above 0.
    :param burst: tokens of a new peer, and the most that a bucket holds; 1 or more.
    :param max_peers: 1 or more.
    :raises ValueError: when an argument is out of bounds.
    """

    def __init__(self, rate: float, burst: int, max_peers: int = DEFAULT_MAX_PEERS) -> None:
        if not rate > 0:
            raise ValueError(f"rate is above 0, not {rate!r}")
        if checked_integer(burst, "burst") < 1 or checked_integer(max_peers, "max_peers") < 1:
            raise ValueError(f"burst and max_peers are 1 or more, not {burst} and {max_peers}")
        self._rate = rate
        self._burst = burst
        self._max_peers = max_peers
        # For each peer the remaining tokens and the time of the last call; least recent first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, peer: str, count: int, now: float) -> int:
        """
        Take tokens from the bucket of a peer.

        :param peer: see `twsock.ip.addresses.network_of`.
        :param count: the number of tokens wanted.
        :param now: seconds, on a clock that never goes back.
        :returns: the number of tokens taken, 0 to ``count``.
        """
        left, then = self._buckets.pop(peer, (float(self._burst), now))
        left = min(self._burst, left + max(0.0, now - then) * self._rate)
        taken = min(count, int(left))
        self._buckets[peer] = (left - taken, now)
        if len(self._buckets) > self._max_peers:
            self._buckets.popitem(last=False)
        return taken
