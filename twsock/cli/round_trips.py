"""
The times that messages took to come back, and what to say about them at the end.

Filled by `twsock.cli.echo`. Held are at most `MAX_SAMPLES` numbers, however long a run lasts.
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
    """

    def __init__(self, max_samples: int = MAX_SAMPLES) -> None:
        self.count = 0
        self._max_samples = max_samples
        self._samples = array("d")
        self._stride = 1
        self._shortest = float("inf")
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        """Count one message that came back."""
        if self.count % self._stride == 0:
            self._samples.append(seconds)
            if len(self._samples) >= self._max_samples:
                self._samples = self._samples[::2]
                self._stride *= 2
        self.count += 1
        self._shortest = min(self._shortest, seconds)
        self._longest = max(self._longest, seconds)

    @property
    def summary(self) -> str:
        """One line: the number of echoes; shortest, median and longest in milliseconds."""
        if not self.count:
            return "0 echoes"
        times = (self._shortest, median(self._samples), self._longest)
        figures = "/".join(f"{seconds * 1000:.2f}" for seconds in times)
        echoes = "1 echo" if self.count == 1 else f"{self.count} echoes"
        return f"{echoes}, round trip min/median/max {figures} ms"
