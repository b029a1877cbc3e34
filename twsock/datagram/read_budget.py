"""
How often to read when a socket is readable: once, unless more is known to wait.

A receive that finds nothing costs a third of an echo, and is wasted on a peer that waits for each
answer. One that was not tried costs a turn of the reactor, on a socket with many peers. So one is
allowed per wake-up; now and then another is tried; and where it finds something, more are allowed
from then on. Tries that find nothing become rarer.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_READS", "ReadBudget"]

#: Reads in one wake-up: as many as one stream may send in a turn, so that a program that sends to
#: itself loses nothing. With the largest runs that is 4 MiB; then the reactor has its turn.
MAX_READS: Final = 64

#: Wake-ups from one try to the next, at most.
_MAX_PATIENCE: Final = 64


class ReadBudget:
    """
    How many reads the next wake-up has.

    :ivar allowed: 1 to `MAX_READS`.
    """

    __slots__ = ("_patience", "_until_try", "allowed")

    def __init__(self) -> None:
        self.allowed = 1
        self._patience = 1
        self._until_try = 1

    def note(self, found: int, *, has_met_end: bool) -> None:
        """
        Learn from a wake-up.

        :param found: how many reads brought something.
        :param has_met_end: whether one found nothing, so that nothing waits now.
        """
        if not has_met_end:
            if self.allowed > 1:
                self.allowed = min(2 * self.allowed, MAX_READS)
            else:
                self._until_try -= 1
                if self._until_try <= 0:
                    self.allowed = 2
        elif found > 1:
            self._patience = 1
        else:
            self.allowed = 1
            self._patience = min(2 * self._patience, _MAX_PATIENCE)
            self._until_try = self._patience
