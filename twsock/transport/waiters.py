"""
Deferreds that wait for one event: application → **waiters** → fired when it happens.

Used for the end of a connection, and wherever several callers may wait for the same thing. Holds
one entry for each wait; a wait that is cancelled leaves in one step, however many others there are.
"""

from __future__ import annotations

from collections import OrderedDict

from twisted.internet.defer import Deferred

__all__ = ["Waiters"]


class Waiters:
    """The waits for one event, in the order in which they began."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # Ordered, and not a list or a dict: it loses an entry at either end or in the middle in
        # constant time.
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
        """Fire one that waits before the event happens."""
        del self._waiting[deferred]
        deferred.callback(None)

    def _forget(self, deferred: Deferred[None]) -> None:
        self._waiting.pop(deferred, None)
