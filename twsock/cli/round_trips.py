"""
The times that messages took to come back, and what to say about them at the end.

Filled by `twsock.cli.echo` and `twsock.cli.datagram_score`. Held are at most `MAX_SAMPLES` numbers,
however long a run lasts.
"""

from __future__ import annotations

from array import array
from statistics import median
from typing import Final

__all__ = ["MAX_SAMPLES", "RoundTrips"]

#: How many times are kept for the median: 8 MiB of them. Beyond it every second one is let go, and
#: from then on half as many are kept, so that those kept stay spread over the whole run.
MAX_SAMPLES: Final = 1_048_576


class RoundTrips:
    """
    Round trip times.

    :ivar count: how many were added.
    :ivar longest: in seconds; 0 where none was added.
    """

    def __init__(self, max_samples: int = MAX_SAMPLES) -> None:
        self.count = 0
        self._max_samples = max_samples
        self._samples = array("d")
        self._stride = 1
        self._shortest = float("inf")
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Count one message that came back."""
        if self.count % self._stride == 0:
            self._samples.append(seconds)
            if len(self._samples) >= self._max_samples:
                self._samples = self._samples[::2]
                self._stride *= 2
        self.count += 1
        self._shortest = min(self._shortest, seconds)
        self.longest = max(self.longest, seconds)

    @property
    def summary(self) -> str:
        """One line: the number of echoes; shortest, median and longest in milliseconds."""
        if not self.count:
            return "0 echoes"
        figures = _milliseconds(self._shortest, median(self._samples), self.longest)
        echoes = "1 echo" if self.count == 1 else f"{self.count} echoes"
        return f"{echoes}, round trip min/median/max {figures}"

    @property
    def figures(self) -> str:
        """Shortest, median, the one that 99 % don't exceed, and longest; empty without any."""
        if not self.count:
            return ""
        ordered = sorted(self._samples)
        # The nearest rank: of 100 samples, the 99th.
        tail = ordered[-(-len(ordered) * 99 // 100) - 1]
        times = _milliseconds(self._shortest, median(ordered), tail, self.longest)
        return f"round trip min/median/p99/max {times}"


def _milliseconds(*times: float) -> str:
    return f"{'/'.join(f'{seconds * 1000:.2f}' for seconds in times)} ms"
