"""
Deferreds that wait for one event: application → **waiters** → fired when it happens.

Used for the end of a connection, and wherever several callers may wait for the same event. Holds
one entry for each wait. A cancelled wait is removed in constant time.
"""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.defer import Deferred

__all__ = ["Waiters"]


class Waiters:
    """The waits for one event, in the order in which they began."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # An OrderedDict removes any entry in constant time; a list does not, nor does a dict whose
        # first entry is looked for again and again.
        self._waiting: OrderedDict[Deferred[None], None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self) -> Deferred[None]:
        """
        Wait for the event.

        :returns: fires with None. Cancelling ends this wait only.
        """
        deferred: Deferred[None] = Deferred(self._forget)
        self._waiting[deferred] = None
        return deferred

    def fire(self) -> None:
        """
        Fire every Deferred that waits, in order.

        A callback may cancel other waits. A wait that a callback begins is fired as well.
        """
        while self._waiting:
            self._waiting.popitem(last=False)[0].callback(None)

    def fire_one(self, deferred: Deferred[None]) -> None:
        """Fire one waiting Deferred before the event happens."""
        del self._waiting[deferred]
        deferred.callback(None)

    def _forget(self, deferred: Deferred[None]) -> None:
        self._waiting.pop(deferred, None)
