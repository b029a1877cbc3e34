"""
Durations, counted by their length: event → **histogram** → whoever exports it.

Holds one number for each bucket, whatever the number of durations.
"""

from __future__ import annotations

import operator
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BOUNDS", "Histogram"]

#: The upper bounds of the buckets, in seconds: from a handshake between processes of one machine
#: to the default deadline of a handshake.
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(slots=True)
class Histogram:
    """
    How many durations there were, by bucket; two with the same bounds can be added.

    :ivar counts: durations in each bucket; the bounds are included. The last bucket has those above
        all bounds.
    :ivar total: the sum of all durations, in seconds.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def add(self, other: Histogram) -> None:
        """Add the durations of another histogram."""
        self.counts = list(map(operator.add, self.counts, other.counts))
        self.total += other.total
