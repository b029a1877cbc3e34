"""
Number of reads for each readable event: one, unless more datagrams are likely to wait.

A read that finds nothing costs a third of an echo. It is wasted if the peer waits for each answer.
A read that was not tried costs a turn of the reactor, on a socket with many peers. So each wake-up
has one read. From time to time it tries a second read. If the second read finds a datagram, later
wake-ups have more reads. Tries that find nothing become rarer.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_READS", "ReadBudget"]

#: Most reads in one wake-up. One stream may send as many datagrams in a turn of the reactor, so a
#: program that sends to itself loses none. With the largest runs this is 4 MiB.
MAX_READS: Final = 64

#: Most wake-ups between two tries.
_MAX_INTERVAL: Final = 64


class ReadBudget:
    """
    The number of reads of the next wake-up.

    :ivar allowed: 1 to `MAX_READS`.
    """

    __slots__ = ("_interval", "_until_try", "allowed")

    def __init__(self) -> None:
        self.allowed = 1
        self._interval = 1
        self._until_try = 1

    def note(self, found: int, *, has_met_end: bool) -> None:
        """
        Record the result of a wake-up.

        :param found: how many reads found a datagram.
        :param has_met_end: whether the last read found nothing.
        """
        if not has_met_end:
            if self.allowed > 1:
                self.allowed = min(2 * self.allowed, MAX_READS)
            else:
                self._until_try -= 1
                if self._until_try <= 0:
                    self.allowed = 2
        elif found > 1:
            self._interval = 1
        else:
            self.allowed = 1
            self._interval = min(2 * self._interval, _MAX_INTERVAL)
            self._until_try = self._interval
