"""
Several Deferreds that wait for the same event: application → **waiters** → event.

Used for the end of a connection and for other events that several callers may wait for. Holds one
entry for each wait. A cancelled wait is removed in constant time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

__all__ = ["NO_WAIT", "Waiters"]


class Waiters:
    """The pending waits for one event, oldest first."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # An OrderedDict removes any entry in constant time. A list does not. A dict does not either
        # if its first entry is removed again and again.
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

    def wait_at_most(self, timeout: float, clock: IReactorTime) -> Deferred[None]:
        """
        Wait for the event, or for the timeout.

        :param timeout: seconds; 0 or less fires at once.
        :returns: fires with None in both cases. Cancelling ends this wait only.
        """
        if timeout <= 0:
            return succeed(None)
        waiting = self.wait()
        deadline = clock.callLater(timeout, self.fire_one, waiting)

        def stop(result: None) -> None:
            # A cancelled wait ends here, too.
            if deadline.active():
                deadline.cancel()
            return result

        return waiting.addBoth(stop)

    def fire(self) -> None:
        """
        Fire every waiting Deferred, oldest first.

        A callback may cancel other waits. A wait that a callback starts is fired as well.
        """
        while self._waiting:
            self._waiting.popitem(last=False)[0].callback(None)

    def fire_one(self, deferred: Deferred[None]) -> None:
        """Fire one waiting Deferred before the event occurs."""
        del self._waiting[deferred]
        deferred.callback(None)

    def _forget(self, deferred: Deferred[None]) -> None:
        self._waiting.pop(deferred, None)


class _NoWait(Waiters):
    """Waits for an event that has occurred."""

    __slots__ = ()

    @override
    def wait(self) -> Deferred[None]:
        return succeed(None)


#: Replaces the waits for an event that has occurred: each further wait has fired.
NO_WAIT: Final = _NoWait()
