"""
How a WebSocket ends: event → **table** → next state and actions. No I/O, no clock.

`twsock.websocket.connection` looks up each event of the handshake and of the end, and carries out
the actions. Sending or receiving a message looks up nothing. The rules are those of :rfc:`6455`,
sections 5.5.1 and 7.

States::

    OPENING ── accepted ──> OPEN ── close() ──> CLOSING ── peer's end, violation, ────┐
       │                    │ │ │                  │       deadline                   │
       │                    │ │ │                  └─ peer's close frame ─┐           │
       │                    │ │ └──── peer's close frame ─────────────────┤           │
       │                    │ │                          (client) CLOSED <┤ (server)  v
       │                    │ │        peer's end, deadline └─────────────┴──────> ENDED
       │                    │ └── violation, failure, peer's end ────────────────────^
       │                    └── abort(), no sign of life ──> ABORTED
       └── refused, close(), abort(), peer's end, deadline ──> REFUSED

    each later state ── abort() ──> ABORTED           each state ── loss ──> LOST

A WebSocket ends in two layers. Each side sends one close frame, its last frame. Then the server
ends the TCP connection, and the client waits for that end. The side that ends TCP first keeps the
state TIME_WAIT, which can keep a client from using its port again (section 7.1.1).

Why exactly one close frame: a frame after a close frame breaks the protocol. Browsers then report
the code 1006, as if the connection had been lost.

Why a violation does not wait for the peer's close frame: nothing that follows a violation can be
parsed (section 7.1.7). This end sends a close frame that names the broken rule, and ends the
connection. It reads and drops bytes until the peer's end: unread bytes would turn the end into a
reset, and a reset can destroy the close frame.

Why one deadline: the first action that starts the deadline fixes its time. The deadline covers the
peer's close frame and the end of the TCP connection. Neither a message of the peer nor a second
``close()`` moves it. At the deadline the kernel still delivers the bytes that it has; see
`twsock.stream.closing`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from twsock.errors import LocalProtocolError

__all__ = [
    "APPLICATION_EVENTS",
    "TABLE",
    "Action",
    "Event",
    "Role",
    "Row",
    "State",
    "Step",
    "follow",
]


class State(enum.Enum):
    """How far a WebSocket has ended."""

    OPENING = "the handshake runs"
    OPEN = "messages are sent and received"
    CLOSING = "this end sent its close frame; messages are dropped until the peer's"
    CLOSED = "both close frames were sent; the client awaits the server's end"
    ENDED = "the connection below ends in order"
    REFUSED = "the handshake has failed; the connection below ends"
    ABORTED = "this end has reset the connection; its loss follows"
    LOST = "the connection is gone"


class Event(enum.Enum):
    """What happens to a WebSocket and belongs to its beginning or end."""

    # Calls of the application.
    CLOSE = "close()"
    ABORT = "abort()"
    # The handshake.
    ACCEPTED = "the handshake is done"
    REFUSED = "the handshake has failed"
    # Events of the peer, of the handlers and of the clock.
    CLOSE_RECEIVED = "the peer's close frame"
    VIOLATION = "the peer broke a rule"
    FAILURE = "a handler failed"
    PEER_ENDED = "the peer's FIN or close_notify"
    SILENCE = "no sign of life"
    DEADLINE = "the deadline"
    LOST = "the loss of the connection"


class Action(enum.Enum):
    """What the owner of the WebSocket does next."""

    SEND_CLOSE = "send the close frame"
    ECHO_CLOSE = "send a close frame with the peer's code"
    START_DEADLINE = "start the deadline"
    STOP_DEADLINE = "stop the deadline"
    DROP_INPUT = "read, and drop messages"
    END = "end the connection below, within the deadline"
    RESET = "abort the connection below"
    REPORT_CLOSED = "report the code and the reason"


class Role(enum.IntEnum):
    """Which end this is; the columns of the table."""

    SERVER = 0
    CLIENT = 1


class Step(NamedTuple):
    """The next state, and what to do in it, in this order."""

    state: State
    actions: tuple[Action, ...]


class Row(NamedTuple):
    """One step for each `Role`."""

    server: Step
    client: Step


#: Calls of the application, and the results of the handshake that this end carries out. A state may
#: have no row for these events. It has a row for every other event.
APPLICATION_EVENTS: Final = frozenset((Event.CLOSE, Event.ABORT, Event.ACCEPTED, Event.REFUSED))


def _to(state: State, *actions: Action) -> Step:
    return Step(state, actions)


def _stay(*actions: Action) -> tuple[Action, ...]:
    """Make a step that keeps the state."""
    return actions


# With short names, most rules below fit on one line.
_S, _E, _A = State, Event, Action

_Rule = tuple[Event, tuple[State, ...], Step | tuple[Action, ...], Step | None]


def _rule(
    event: Event,
    states: tuple[State, ...],
    server: Step | tuple[Action, ...],
    *,
    client: Step | None = None,
) -> _Rule:
    """Make one step for several states; ``client`` is given where its step differs."""
    return event, states, server, client


#: The connection below ends, or has ended.
_OVER: Final = (_S.ENDED, _S.REFUSED, _S.ABORTED, _S.LOST)

_RULES: Final[tuple[_Rule, ...]] = (
    # The handshake, which has a deadline of its own.
    _rule(_E.ACCEPTED, (_S.OPENING,), _to(_S.OPEN, _A.STOP_DEADLINE)),
    # The application closed or aborted while it judged the request.
    _rule(_E.ACCEPTED, _OVER, _stay()),
    _rule(_E.REFUSED, (_S.OPENING,), _to(_S.REFUSED, _A.START_DEADLINE, _A.END)),
    _rule(_E.REFUSED, _OVER, _stay()),
    # The application closes.
    _rule(_E.CLOSE, (_S.OPENING,), _to(_S.REFUSED, _A.START_DEADLINE, _A.END)),
    _rule(_E.CLOSE, (_S.OPEN,), _to(_S.CLOSING, _A.START_DEADLINE, _A.SEND_CLOSE, _A.DROP_INPUT)),
    _rule(_E.CLOSE, (_S.CLOSING, _S.CLOSED, *_OVER), _stay()),
    _rule(
        _E.ABORT,
        (_S.OPEN, _S.CLOSING, _S.CLOSED, _S.ENDED),
        _to(_S.ABORTED, _A.RESET),
    ),
    _rule(_E.ABORT, (_S.OPENING, _S.REFUSED), _to(_S.REFUSED, _A.RESET)),
    _rule(_E.ABORT, (_S.ABORTED, _S.LOST), _stay()),
    # The peer closes.
    _rule(
        _E.CLOSE_RECEIVED,
        (_S.OPEN,),
        _to(_S.ENDED, _A.START_DEADLINE, _A.ECHO_CLOSE, _A.END),
        client=_to(_S.CLOSED, _A.START_DEADLINE, _A.ECHO_CLOSE),
    ),
    _rule(_E.CLOSE_RECEIVED, (_S.CLOSING,), _to(_S.ENDED, _A.END), client=_to(_S.CLOSED)),
    _rule(_E.CLOSE_RECEIVED, (_S.OPENING, _S.CLOSED, *_OVER), _stay()),
    # The peer breaks a rule, or a handler fails. During the handshake the event is REFUSED instead.
    _rule(_E.VIOLATION, (_S.OPEN,), _to(_S.ENDED, _A.START_DEADLINE, _A.SEND_CLOSE, _A.END)),
    _rule(_E.VIOLATION, (_S.CLOSING,), _to(_S.ENDED, _A.END)),
    _rule(_E.VIOLATION, (_S.OPENING, _S.CLOSED, *_OVER), _stay()),
    _rule(_E.FAILURE, (_S.OPEN,), _to(_S.ENDED, _A.START_DEADLINE, _A.SEND_CLOSE, _A.END)),
    _rule(_E.FAILURE, (_S.OPENING, _S.CLOSING, _S.CLOSED, *_OVER), _stay()),
    # The peer ends its output. It may still read, but it can send no close frame any more.
    _rule(_E.PEER_ENDED, (_S.OPENING,), _to(_S.REFUSED, _A.START_DEADLINE, _A.END)),
    _rule(_E.PEER_ENDED, (_S.OPEN,), _to(_S.ENDED, _A.START_DEADLINE, _A.END)),
    _rule(_E.PEER_ENDED, (_S.CLOSING, _S.CLOSED), _to(_S.ENDED, _A.END)),
    _rule(_E.PEER_ENDED, _OVER, _stay()),
    # The clock.
    _rule(_E.SILENCE, (_S.OPEN,), _to(_S.ABORTED, _A.RESET)),
    _rule(_E.SILENCE, (_S.OPENING, _S.CLOSING, _S.CLOSED, *_OVER), _stay()),
    _rule(_E.DEADLINE, (_S.OPENING,), _to(_S.REFUSED, _A.RESET)),
    _rule(_E.DEADLINE, (_S.CLOSING, _S.CLOSED), _to(_S.ENDED, _A.END)),
    # In ENDED and REFUSED, the connection below has the deadline.
    _rule(_E.DEADLINE, (_S.OPEN, *_OVER), _stay()),
    # The connection is lost. A WebSocket that was never open reports no end to the application.
    _rule(
        _E.LOST,
        (_S.OPEN, _S.CLOSING, _S.CLOSED, _S.ENDED, _S.ABORTED),
        _to(_S.LOST, _A.REPORT_CLOSED),
    ),
    _rule(_E.LOST, (_S.OPENING, _S.REFUSED), _to(_S.LOST)),
    _rule(_E.LOST, (_S.LOST,), _stay()),
)


def _make_table(rules: tuple[_Rule, ...]) -> dict[tuple[State, Event], Row]:
    table = {}
    for event, states, server, client in rules:
        for state in states:
            step = server if isinstance(server, Step) else Step(state, server)
            table[state, event] = Row(step, client or step)
    return table


#: All rows.
TABLE: Final[Mapping[tuple[State, Event], Row]] = _make_table(_RULES)


def follow(state: State, event: Event, role: Role) -> Step:
    """
    Return the step for an event.

    :raises LocalProtocolError: for a call that has no row in this state.
    """
    row = TABLE.get((state, event))
    if row is None:
        raise LocalProtocolError(f"{event.value} is not possible: {state.value}")
    return row[role]
