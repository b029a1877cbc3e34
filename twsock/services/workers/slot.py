"""
One place for a worker: event → **table** → next state and action. No I/O, no clock.

A slot has a number and its sockets, which its workers serve one after the other. The parent asks
`Slot` what to do on each event. `Rollout` says which slot gets a new worker next, on SIGHUP.

States::

    NEW ── start ──> STARTING ── ready ──> READY ── replace ──> REPLACING
                      │    ^                │ ^                  │ │ │
                      │    │                │ ├ successor ready ─┘ │ └── died ──> STARTING
                      └────│── died ──> PAUSING<── died   successor died ──> READY
                           └─ pause over ┘

    every state ── stop ──> STOPPING ── ended ──> ENDED

STARTING has one worker, which is not ready. REPLACING has two: the worker still serves, and its
successor is not ready. When it is, the old worker stops: it accepts what is queued, drains its
connections and ends. A slot may have several workers that drain; they have no events here. If the
worker of REPLACING dies, its successor becomes the worker, and is still starting.

PAUSING has no worker. Its sockets stay open in the parent, so connections wait in their queues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from twsock._enums import KeyEnum
from twsock.errors import LocalProtocolError

__all__ = [
    "LONGEST_PAUSE",
    "SHORTEST_PAUSE",
    "STEADY",
    "TABLE",
    "Action",
    "Event",
    "Rollout",
    "Slot",
    "State",
]

#: Seconds from the end of a worker until the next one starts; doubled each time.
SHORTEST_PAUSE: Final = 1.0

#: The pause is not doubled above this one.
LONGEST_PAUSE: Final = 60.0

#: After a worker that ran for this many seconds, the pause is the shortest again.
STEADY: Final = 60.0


class State(KeyEnum):
    """What a slot has."""

    NEW = "no worker was started"
    STARTING = "a worker that is not ready"
    READY = "a worker that serves"
    REPLACING = "a worker that serves, and its successor, which is not ready"
    PAUSING = "no worker until the pause is over"
    STOPPING = "workers that drain"
    ENDED = "no worker any more"


class Event(KeyEnum):
    """What happens to a slot."""

    START = "the parent starts"
    READY = "the worker is ready"
    DIED = "the worker has ended by itself"
    SUCCESSOR_READY = "the successor is ready"
    SUCCESSOR_DIED = "the successor has ended by itself"
    PAUSE_OVER = "the pause is over"
    REPLACE = "the slot gets a new worker, on SIGHUP"
    STOP = "the parent stops"
    ENDED = "the last process of the slot has ended"


class Action(KeyEnum):
    """What the parent does then."""

    START = "start a worker"
    PAUSE = "begin a pause"
    PROMOTE = "the successor becomes the worker; the old worker, if there is one, stops"
    KEEP = "end the rollout"
    STOP = "stop all workers; end the pause"


_S, _E, _A = State, Event, Action

#: All steps. The events that are ignored have a row as well.
TABLE: Final[Mapping[tuple[State, Event], tuple[State, tuple[Action, ...]]]] = {
    (_S.NEW, _E.START): (_S.STARTING, (_A.START,)),
    (_S.NEW, _E.STOP): (_S.STOPPING, ()),
    (_S.STARTING, _E.READY): (_S.READY, ()),
    (_S.STARTING, _E.DIED): (_S.PAUSING, (_A.PAUSE,)),
    (_S.STARTING, _E.STOP): (_S.STOPPING, (_A.STOP,)),
    (_S.READY, _E.DIED): (_S.PAUSING, (_A.PAUSE,)),
    (_S.READY, _E.REPLACE): (_S.REPLACING, (_A.START,)),
    (_S.READY, _E.STOP): (_S.STOPPING, (_A.STOP,)),
    (_S.REPLACING, _E.SUCCESSOR_READY): (_S.READY, (_A.PROMOTE,)),
    (_S.REPLACING, _E.SUCCESSOR_DIED): (_S.READY, (_A.KEEP,)),
    (_S.REPLACING, _E.DIED): (_S.STARTING, (_A.PROMOTE,)),
    (_S.REPLACING, _E.STOP): (_S.STOPPING, (_A.STOP,)),
    (_S.PAUSING, _E.PAUSE_OVER): (_S.STARTING, (_A.START,)),
    (_S.PAUSING, _E.STOP): (_S.STOPPING, (_A.STOP,)),
    # Workers that were starting may become ready, and die, before they read the command.
    (_S.STOPPING, _E.READY): (_S.STOPPING, ()),
    (_S.STOPPING, _E.SUCCESSOR_READY): (_S.STOPPING, ()),
    (_S.STOPPING, _E.DIED): (_S.STOPPING, ()),
    (_S.STOPPING, _E.SUCCESSOR_DIED): (_S.STOPPING, ()),
    (_S.STOPPING, _E.STOP): (_S.STOPPING, ()),
    (_S.STOPPING, _E.ENDED): (_S.ENDED, ()),
    (_S.ENDED, _E.STOP): (_S.ENDED, ()),
}


class Slot:
    """The state of one slot, and the length of its next pause."""

    __slots__ = ("_pause", "state")

    def __init__(self) -> None:
        self.state = State.NEW
        self._pause = SHORTEST_PAUSE

    @property
    def is_ready(self) -> bool:
        """Whether a worker serves the sockets."""
        return self.state in (State.READY, State.REPLACING)

    def handle(self, event: Event) -> tuple[Action, ...]:
        """
        Change the state; return what to do, in this order.

        :raises LocalProtocolError: when the event cannot happen in this state.
        """
        found = TABLE.get((self.state, event))
        if found is None:
            raise LocalProtocolError(f"{event.value} is not possible: {self.state.value}")
        self.state, actions = found
        return actions

    def next_pause(self, lifetime: float) -> float:
        """
        Return the seconds until the next worker starts.

        :param lifetime: seconds that the worker ran.
        """
        pause = SHORTEST_PAUSE if lifetime >= STEADY else self._pause
        self._pause = min(2 * pause, LONGEST_PAUSE)
        return pause


class Rollout:
    """Which slots still get a new worker on SIGHUP: one after the other."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending: list[Slot] = []

    def begin(self, slots: Sequence[Slot]) -> None:
        """Begin, or begin again: a SIGHUP during a rollout counts for all workers as well."""
        self._pending = list(slots)

    def next_slot(self, slots: Sequence[Slot]) -> Slot | None:
        """
        Return the slot whose worker is replaced now, and forget it.

        :param slots: all of the parent.
        :returns: None while a successor or a worker starts, and when no slot is left. A slot that
            pauses is left out: its next worker is a new one anyway.
        """
        if any(slot.state is State.REPLACING for slot in slots):
            return None
        self._pending = [each for each in self._pending if each.state in _REPLACEABLE]
        if not self._pending or self._pending[0].state is State.STARTING:
            return None
        return self._pending.pop(0)

    def cancel(self) -> bool:
        """End the rollout; return whether slots were left."""
        left, self._pending = bool(self._pending), []
        return left


_REPLACEABLE: Final = (State.STARTING, State.READY)
