"""
The old process of a restart: event → **table** → next state and actions. No I/O, no clock.

The new process is `twsock.restart.new_side`. The packets are those of `twsock.restart.records`, and
"the channel" is the connection between both processes.

States::

    SERVING ── asked for the sockets ──> SHARED ── ready ──> MOVING ── answered ──> DRAINING
       ^                                   │                 │ │ │                   │ │ │
       ├── a failure, the deadline ────────┘                 │ │ │                   │ │ │
       ├── answered ── RETURNING <── the new one was killed ─┘ │ │                   │ │ │
       ├──────────────────────────── the new one was killed ───│─│───────────────────┘ │ │
       │                                                       v │                     │ │
       │             LEAVING <── the new one ends in order ────┴─│─────────────────────┘ │
       │                └── drained ──> ENDED <── drained ───────│───────────────────────┘
       └── stopped ───────────────────────^── stopped ───────────┘

Until the new process is ready, the old one serves as before. For a moment both processes accept
from the same sockets, and each connection is accepted by one of them.

Why a failure is reported: without a report, the new process takes the end of the channel for the
death of the old one, and serves alone. So a restart whose old process is killed succeeds.

Why the old process accepts again: it keeps a copy of each socket until it ends. If the channel ends
without a farewell, the new process was killed, and no other process accepts.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from twsock.errors import LocalProtocolError

__all__ = ["TABLE", "Action", "Event", "State", "Step", "follow"]


class State(enum.Enum):
    """The state of the old process in a restart."""

    SERVING = "it serves; no restart is under way"
    SHARED = "both processes hold the sockets, and this one serves"
    MOVING = "it accepts nothing, and offers its connections"
    DRAINING = "the connections that did not move end"
    RETURNING = "it serves again, and waits for the answers to its offers"
    LEAVING = "it drains, and will not serve again, whatever the new process does"
    ENDED = "the process ends"


class Event(enum.Enum):
    """What happens to the old process."""

    TAKE_OVER = "a new process asks for the sockets"
    READY = "the new process is ready"
    FAREWELL = "the new process reports that it ends in order"
    FOREIGN = "an unexpected packet arrives"
    BROKEN = "the channel has ended"
    DEADLINE = "the new process is not ready in time"
    ANSWERED = "each offer of a connection is answered"
    DRAINED = "no connection is left"
    STOPPED = "this process was stopped, such as by SIGTERM"


class Action(enum.Enum):
    """What the old process does next."""

    SEND_SOCKETS = "send the sockets"
    REFUSE = "refuse the new process"
    CLOSE = "close the channel"
    YIELD = "stop accepting, and leave UNIX paths to the new process"
    LEAVE_PATHS = "leave UNIX paths to the new process"
    OFFER = "offer each connection that can move"
    REPORT = "send the numbers of connections"
    DRAIN = "drain the other connections"
    SERVE_AGAIN = "accept again, and own the UNIX paths"
    END = "end the process"


class Step(NamedTuple):
    """The next state, and what to do in it, in this order."""

    state: State
    actions: tuple[Action, ...]


def _to(state: State, *actions: Action) -> Step:
    return Step(state, actions)


# With short names, most rules below fit on one line.
_S, _E, _A = State, Event, Action

#: All steps.
TABLE: Final[Mapping[tuple[State, Event], Step]] = {
    (_S.SERVING, _E.TAKE_OVER): _to(_S.SHARED, _A.SEND_SOCKETS),
    (_S.SERVING, _E.STOPPED): _to(_S.ENDED),
    (_S.SHARED, _E.READY): _to(_S.MOVING, _A.YIELD, _A.OFFER),
    (_S.SHARED, _E.BROKEN): _to(_S.SERVING, _A.CLOSE),
    **{
        (_S.SHARED, event): _to(_S.SERVING, _A.REFUSE, _A.CLOSE)
        for event in (_E.FAREWELL, _E.FOREIGN, _E.DEADLINE)
    },
    # The new process goes on alone: it was started to serve.
    (_S.SHARED, _E.STOPPED): _to(_S.ENDED, _A.LEAVE_PATHS, _A.CLOSE),
    (_S.MOVING, _E.ANSWERED): _to(_S.DRAINING, _A.REPORT, _A.DRAIN),
    (_S.MOVING, _E.BROKEN): _to(_S.RETURNING, _A.CLOSE, _A.SERVE_AGAIN),
    (_S.DRAINING, _E.BROKEN): _to(_S.SERVING, _A.CLOSE, _A.SERVE_AGAIN),
    (_S.DRAINING, _E.DRAINED): _to(_S.ENDED, _A.END),
    # A new process that breaks the format is alive, and serves.
    **{
        (state, event): _to(_S.LEAVING, _A.CLOSE)
        for state in (_S.MOVING, _S.DRAINING)
        for event in (_E.FAREWELL, _E.FOREIGN)
    },
    **{(state, _E.STOPPED): _to(_S.ENDED, _A.CLOSE) for state in (_S.MOVING, _S.DRAINING)},
    (_S.RETURNING, _E.ANSWERED): _to(_S.SERVING),
    (_S.RETURNING, _E.STOPPED): _to(_S.ENDED),
    (_S.LEAVING, _E.ANSWERED): _to(_S.LEAVING, _A.DRAIN),
    (_S.LEAVING, _E.DRAINED): _to(_S.ENDED, _A.END),
    (_S.LEAVING, _E.STOPPED): _to(_S.ENDED),
    # In the other states, READY breaks the format.
    **{(state, _E.READY): _to(_S.LEAVING, _A.CLOSE) for state in (_S.MOVING, _S.DRAINING)},
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
