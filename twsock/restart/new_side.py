"""
The new process of a restart: event → **table** → next state and actions. No I/O, no clock.

The old process is `twsock.restart.old_side`. The packets are those of `twsock.restart.records`, and
"the channel" is the connection between both processes.

States::

    ASKED ── a socket ──> RECEIVING ── the last one ──> HELD ── started ──> READY
      │                    │     │                      │  │                │ │ │
      │                    │     │   the channel ended  │  │                │ │ │
      │                    │     └───────────> ALONE <──┘  │                │ │ │
      │                    │                   │ ^─────────│── the end ─────┘ │ │
      │                    │           stopped │           │                  │ │
      │                    │                   v           │                  │ │
      │                    │                 ENDING <──────│── stopped ───────┘ │
      └── anything else ───┴─> FAILED <── refused, ────────┴── refused ─────────┘
                                          foreign, stopped

Why the end of the channel is not a failure: an old process that goes on always sends a refusal
first. So an end without a refusal means that the old process is dead. The new process may hold the
only copies of the sockets, with the connections that wait in them.

Why a farewell: without one, the old process takes the end of the channel for the death of the new
one, and accepts again.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from twsock.errors import LocalProtocolError

__all__ = ["TABLE", "Action", "Event", "State", "Step", "follow"]


class State(enum.Enum):
    """The state of the new process in a restart."""

    ASKED = "it has asked for the sockets"
    RECEIVING = "it has some of the sockets"
    HELD = "it has all sockets, and its services start"
    READY = "it serves; the old process moves its connections, and drains"
    ALONE = "it serves; the old process has ended"
    FAILED = "there is no restart: it has closed the sockets, and ends"
    ENDING = "it ends in order"


class Event(enum.Enum):
    """What happens to the new process."""

    SOCKET = "a socket arrives"
    LISTED = "the last socket has arrived"
    REFUSED = "a refusal arrives"
    CONNECTION = "a connection is offered"
    MOVED = "the numbers of connections arrive"
    FOREIGN = "an unexpected packet arrives"
    BROKEN = "the channel has ended"
    DEADLINE = "the sockets have not arrived in time"
    STARTED = "all services listen"
    STOPPED = "this process was stopped, or a service cannot start"


class Action(enum.Enum):
    """What the new process does next."""

    KEEP = "keep the socket"
    OWN_PATHS = "own the UNIX paths"
    DROP = "close the sockets, and leave UNIX paths to the old process"
    REPORT_READY = "report that it is ready"
    TAKE = "take the connection"
    LOG = "log the numbers"
    SEND_FAREWELL = "send the farewell"
    CLOSE = "close the channel"
    END = "end the process in order, and leave UNIX paths to the old process"


class Step(NamedTuple):
    """The next state, and what to do in it, in this order."""

    state: State
    actions: tuple[Action, ...]


def _to(state: State, *actions: Action) -> Step:
    return Step(state, actions)


# With short names, most rules below fit on one line.
_S, _E, _A = State, Event, Action

_ARRIVING: Final = (_E.SOCKET, _E.LISTED, _E.REFUSED, _E.CONNECTION, _E.MOVED, _E.FOREIGN)


def _failures(state: State, *events: Event) -> dict[tuple[State, Event], Step]:
    return {(state, event): _to(_S.FAILED, _A.DROP, _A.CLOSE) for event in events}


#: All steps.
TABLE: Final[Mapping[tuple[State, Event], Step]] = {
    # First the failures; the rows that follow replace some of them.
    **_failures(_S.ASKED, *_ARRIVING, _E.BROKEN, _E.DEADLINE),
    **_failures(_S.RECEIVING, *_ARRIVING, _E.DEADLINE),
    **{(_S.HELD, event): _to(_S.FAILED, _A.END, _A.CLOSE) for event in _ARRIVING},
    **_failures(_S.HELD, _E.STOPPED),
    (_S.ASKED, _E.SOCKET): _to(_S.RECEIVING, _A.KEEP),
    (_S.RECEIVING, _E.SOCKET): _to(_S.RECEIVING, _A.KEEP),
    (_S.RECEIVING, _E.LISTED): _to(_S.HELD),
    (_S.RECEIVING, _E.BROKEN): _to(_S.ALONE, _A.OWN_PATHS, _A.CLOSE),
    (_S.HELD, _E.BROKEN): _to(_S.ALONE, _A.OWN_PATHS, _A.CLOSE),
    (_S.HELD, _E.STARTED): _to(_S.READY, _A.REPORT_READY),
    (_S.READY, _E.CONNECTION): _to(_S.READY, _A.TAKE),
    # Not before MOVED: until then, a refusal may be on its way.
    (_S.READY, _E.MOVED): _to(_S.READY, _A.OWN_PATHS, _A.LOG),
    (_S.READY, _E.BROKEN): _to(_S.ALONE, _A.OWN_PATHS, _A.CLOSE),
    # The refusal crossed the report that this process is ready.
    (_S.READY, _E.REFUSED): _to(_S.FAILED, _A.END, _A.CLOSE),
    # An old process that breaks the format is alive; with the farewell, it ends.
    **{
        (_S.READY, event): _to(_S.ALONE, _A.OWN_PATHS, _A.SEND_FAREWELL, _A.CLOSE)
        for event in (_E.SOCKET, _E.LISTED, _E.FOREIGN)
    },
    (_S.READY, _E.STOPPED): _to(_S.ENDING, _A.SEND_FAREWELL, _A.CLOSE),
    (_S.ALONE, _E.STARTED): _to(_S.ALONE),
    (_S.ALONE, _E.STOPPED): _to(_S.ENDING),
    (_S.FAILED, _E.STOPPED): _to(_S.FAILED),
}


def follow(state: State, event: Event) -> Step:
    """
    Return the next state and the actions.

    :raises LocalProtocolError: for an event that this state does not have.
    """
    step = TABLE.get((state, event))
    if step is None:
        raise LocalProtocolError(f"{event.value} is not possible: {state.value}")
    return step
