"""
How a stream connection ends: event → **table** → next state and actions. No I/O, no clock.

`twsock.stream.ending` looks up each event that belongs to an end, and carries out the actions.
Sending and receiving a message uses no row.

States::

                          peer's end                            all is with the kernel
    OPEN ──────────────────> ANSWERING ─── close() ──> ANSWERED ──────────────────┐
     │ │                         └──── end_output() ────────────────────────────┐ │
     │ │                                                                        v v
     │ ├── close() ──> FINISHING ── all is with the kernel ──> LINGERING ────> ENDED ──> LOST
     │ │                  └──── peer's end ──> ANSWERED          ^     peer's end ^        ^
     │ └── end_output() ──> HALF_CLOSED ── close() ──────────────┘ (TLS: FINISHING) │      │
     │                            └──── peer's end ─────────────────────────────────┘      │
     ├── a send fails ──> BROKEN: received bytes can be read ──> ABORTED ─────────────────>│
     ├── abort(), the deadline with unsent bytes ──────────────> ABORTED ─────────────────>│
     └── detach() ─────────────────────────────────────────────> DETACHED ────────────────>┘

A connection has two directions, which end separately. Each side ends its output with FIN, under TLS
with close_notify. Either side may be first; the other direction stays usable until its own end.

Why ``close()`` continues to read: the kernel resets a connection that is closed with unread input.
The reset can destroy answers that the peer has not read. So FINISHING and LINGERING read and drop,
until the peer's end or the deadline.

Why close_notify decides: anybody on the network path can send a FIN (:rfc:`8446`, section 6.1). A
loss of the connection after the peer's close_notify is an end in order, unless bytes of this end
were not sent. A loss before it is an error.

Why the deadline has two outcomes: the kernel sends the bytes that it has taken to a slow peer even
after ``close(2)``. Bytes that this process still holds would be lost. The connection is then reset:
after an end in order, the peer would take the bytes that it has for all bytes.

Why an answered connection skips ANSWERED: if a socket has sent all bytes when the peer ends, there
is nothing to wait for, and ``close(2)`` follows in the same turn of the reactor.

A carrier is what the connection runs on, as far as its end differs. ``TCP`` includes UNIX sockets.
``TLS`` is an engine of `twsock.tls.engine`, whose directions end separately. ``WHOLE`` is any
transport that ends both directions at once, such as a TLS engine of Twisted.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from twsock._enums import KeyEnum
from twsock.errors import LocalProtocolError

__all__ = [
    "AFTER_INPUT_STATES",
    "APPLICATION_EVENTS",
    "GONE_STATES",
    "OPEN_STATES",
    "TABLE",
    "Action",
    "Carrier",
    "Event",
    "Row",
    "State",
    "Step",
    "follow",
]


class State(KeyEnum):
    """How far a connection has ended."""

    OPEN = "both directions are open"
    ANSWERING = "the peer has ended its output; this end writes"
    HALF_CLOSED = "this end has ended its output; it reads"
    BROKEN = "a send failed; received bytes can be read"
    FINISHING = "closed: queued bytes leave, input is dropped"
    ANSWERED = "closed after the peer's end: queued bytes leave"
    LINGERING = "this end has ended; input is dropped until the peer's end"
    ENDED = "both directions have ended; the transport closes"
    ABORTED = "this end has reset the connection; its loss follows"
    DETACHED = "the socket was taken out; the loss follows"
    LOST = "the connection is gone"


class Event(KeyEnum):
    """What happens to a connection and belongs to its end."""

    # Calls of the application.
    CLOSE = "close()"
    CLOSE_HELD = "close() during an upgrade"
    CLOSE_ANSWERED = "close() at the peer's end, all bytes with the kernel"
    CLOSE_SILENT = "close() before the peer began its handshake"
    END_OUTPUT = "end_output()"
    ABORT = "abort()"
    DETACH = "detach()"
    # Events of the peer, the kernel and the clock.
    PEER_ENDED = "the peer's FIN, or its close_notify"
    FLUSHED = "all bytes are with the kernel"
    FIN_SENT = "FIN is with the kernel"
    SEND_FAILED = "a send fails for good"
    HUNG_UP = "the kernel reports a reset after the peer's end"
    DEADLINE = "the deadline, all bytes with the kernel"
    DEADLINE_UNSENT = "the deadline, bytes unsent"
    DONE = "loss in order"
    RESET = "loss with an error"
    RESET_UNSENT = "loss with an error, bytes unsent"


class Action(KeyEnum):
    """What the owner of the connection does next."""

    START_DEADLINE = "start the deadline"
    READ_ON = "read, and drop"
    SEND_FIN = "send FIN"
    SEND_CLOSE_NOTIFY = "send close_notify"
    SEND_BOTH = "send close_notify and FIN"
    CLOSE_TRANSPORT = "close the transport"
    CLOSE_SOCKET = "close(2)"
    CUT = "drop unread input, close(2)"
    RESET = "reset"
    WATCH_FOR_RESET = "look for a reset at intervals"
    # Reports to the owner and to waits.
    REPORT_INPUT_END = "report the end of the input"
    REPORT_FIN = "end the wait for FIN"
    REPORT_BROKEN = "report the failed send"
    KEEP_SEND_ERROR = "keep the error of the send"
    # Records of the reason of the end.
    BLAME_RESET = "reason: the peer reset the connection"
    BLAME_DEADLINE = "reason: the peer did not end in time"
    # The outcome.
    END_IN_ORDER = "outcome: in order"
    END_AS_SENT = "outcome: in order, unless a send failed"
    END_WITH_ERROR = "outcome: the error"
    END_BY_ABORT = "outcome: aborted by this end"
    END_DETACHED = "outcome: another owner has the socket"


class Carrier(enum.IntEnum):
    """What a connection runs on; the columns of the table."""

    TCP = 0
    TLS = 1
    WHOLE = 2


class Step(NamedTuple):
    """The next state, and what to do in it, in this order."""

    state: State
    actions: tuple[Action, ...]


class Row(NamedTuple):
    """One step for each `Carrier`."""

    tcp: Step
    tls: Step
    whole: Step


#: Calls of the application. A state may have no row for a call; it has one for each other event.
APPLICATION_EVENTS: Final = frozenset(
    (
        Event.CLOSE,
        Event.CLOSE_HELD,
        Event.CLOSE_ANSWERED,
        Event.CLOSE_SILENT,
        Event.END_OUTPUT,
        Event.ABORT,
        Event.DETACH,
    )
)

#: States in which the application may write.
OPEN_STATES: Final = frozenset((State.OPEN, State.ANSWERING))

#: States in which nothing more can be read: the peer has ended its output, or the connection is
#: gone.
AFTER_INPUT_STATES: Final = frozenset(
    (
        State.ANSWERING,
        State.ANSWERED,
        State.ENDED,
        State.ABORTED,
        State.DETACHED,
        State.LOST,
    )
)

#: States after which only the loss follows, and the loss.
GONE_STATES: Final = frozenset((State.ABORTED, State.DETACHED, State.LOST))


def _to(state: State, *actions: Action) -> Step:
    return Step(state, actions)


def _stay(*actions: Action) -> tuple[Action, ...]:
    """Make a step that keeps the state."""
    return actions


# With short names, most rules below fit on one line.
_S, _E, _A = State, Event, Action

_Rule = tuple[Event, tuple[State, ...], Step | tuple[Action, ...], Step | None, Step | None]


def _rule(
    event: Event,
    states: tuple[State, ...],
    tcp: Step | tuple[Action, ...],
    *,
    tls: Step | None = None,
    whole: Step | None = None,
) -> _Rule:
    """Make one step for several states. Without an own step, TLS and WHOLE have that of TCP."""
    return event, states, tcp, tls, whole


_CLOSED: Final = (_S.FINISHING, _S.ANSWERED, _S.LINGERING, _S.ENDED)
_GONE: Final = (_S.ABORTED, _S.DETACHED, _S.LOST)

_RULES: Final[tuple[_Rule, ...]] = (
    # The application closes. FLUSHED follows, at once if no byte is queued.
    _rule(_E.CLOSE, (_S.OPEN,), _to(_S.FINISHING, _A.START_DEADLINE, _A.READ_ON)),
    _rule(_E.CLOSE, (_S.ANSWERING,), _to(_S.ANSWERED, _A.START_DEADLINE)),
    _rule(
        _E.CLOSE,
        (_S.HALF_CLOSED,),
        _to(_S.LINGERING, _A.START_DEADLINE, _A.READ_ON),
        # close_notify was sent, and FIN was not.
        tls=_to(_S.FINISHING, _A.START_DEADLINE, _A.READ_ON),
    ),
    _rule(_E.CLOSE, (_S.BROKEN,), _to(_S.ABORTED, _A.RESET)),
    # The deadline runs already, and a further close does not move it.
    _rule(_E.CLOSE, (*_CLOSED, *_GONE), _stay()),
    # Bytes that wait for the handshake cannot be sent any more. So this is no end in order.
    _rule(
        _E.CLOSE_HELD,
        (_S.OPEN, _S.ANSWERING, _S.HALF_CLOSED, _S.BROKEN),
        _to(_S.ABORTED, _A.RESET),
    ),
    _rule(_E.CLOSE_HELD, (_S.ENDED, *_GONE), _stay()),
    # Nothing is left to wait for, so the socket is closed in the same turn of the reactor.
    _rule(
        _E.CLOSE_ANSWERED,
        (_S.ANSWERING,),
        _to(_S.ENDED, _A.CLOSE_SOCKET),
        # The engine sends close_notify, and then closes the socket in the same turn.
        tls=_to(_S.ENDED, _A.CLOSE_TRANSPORT),
        whole=_to(_S.ENDED, _A.CLOSE_TRANSPORT),
    ),
    _rule(_E.CLOSE_SILENT, (_S.OPEN,), _to(_S.ENDED, _A.CLOSE_TRANSPORT)),
    # The application ends its output alone.
    _rule(
        _E.END_OUTPUT,
        (_S.OPEN,),
        _to(_S.HALF_CLOSED, _A.SEND_FIN),
        tls=_to(_S.HALF_CLOSED, _A.SEND_CLOSE_NOTIFY),
    ),
    _rule(
        _E.END_OUTPUT,
        (_S.ANSWERING,),
        # The deadline is needed although all bytes are with the kernel: Twisted closes a socket
        # when it is writable, and the peer decides when the kernel has room.
        _to(_S.ENDED, _A.START_DEADLINE, _A.CLOSE_TRANSPORT),
    ),
    _rule(_E.END_OUTPUT, (_S.HALF_CLOSED, *_CLOSED), _stay()),
    _rule(
        _E.ABORT,
        (_S.OPEN, _S.ANSWERING, _S.HALF_CLOSED, _S.BROKEN, *_CLOSED),
        _to(_S.ABORTED, _A.RESET),
    ),
    _rule(_E.ABORT, _GONE, _stay()),
    # The kernel still has the connection, for another owner. So nothing is sent.
    _rule(_E.DETACH, (_S.OPEN,), _to(_S.DETACHED)),
    # The peer ends its output.
    _rule(_E.PEER_ENDED, (_S.OPEN,), _to(_S.ANSWERING, _A.REPORT_INPUT_END, _A.WATCH_FOR_RESET)),
    _rule(
        _E.PEER_ENDED,
        (_S.HALF_CLOSED,),
        _to(_S.ENDED, _A.START_DEADLINE, _A.CLOSE_TRANSPORT, _A.REPORT_INPUT_END),
    ),
    _rule(_E.PEER_ENDED, (_S.FINISHING,), _to(_S.ANSWERED)),
    _rule(_E.PEER_ENDED, (_S.LINGERING,), _to(_S.ENDED, _A.CLOSE_TRANSPORT)),
    _rule(
        _E.PEER_ENDED,
        (_S.BROKEN,),
        # The failed send has cleared the error of the socket. So a reset may look like this FIN.
        _to(_S.ABORTED, _A.RESET),
        tls=_to(_S.ABORTED, _A.REPORT_INPUT_END, _A.RESET),
    ),
    _rule(_E.PEER_ENDED, (_S.ANSWERING, _S.ANSWERED, _S.ENDED, *_GONE), _stay()),
    # The kernel has all bytes, or FIN.
    _rule(
        _E.FLUSHED,
        (_S.FINISHING,),
        _to(_S.LINGERING, _A.SEND_FIN),
        tls=_to(_S.LINGERING, _A.SEND_BOTH),
        whole=_to(_S.ENDED, _A.CLOSE_TRANSPORT),
    ),
    _rule(_E.FLUSHED, (_S.ANSWERED,), _to(_S.ENDED, _A.CLOSE_TRANSPORT)),
    _rule(_E.FLUSHED, (_S.OPEN, _S.ANSWERING, _S.HALF_CLOSED, _S.BROKEN), _stay()),
    _rule(_E.FLUSHED, (_S.LINGERING, _S.ENDED, *_GONE), _stay()),
    _rule(
        _E.FIN_SENT,
        (_S.OPEN, _S.ANSWERING, _S.HALF_CLOSED, _S.BROKEN, *_CLOSED, _S.ABORTED, _S.DETACHED),
        _stay(_A.REPORT_FIN),
    ),
    _rule(_E.FIN_SENT, (_S.LOST,), _stay()),
    # The kernel accepts no more bytes, or the connection was reset. Only the send reports that.
    _rule(_E.SEND_FAILED, (_S.OPEN, _S.ANSWERING), _to(_S.BROKEN, _A.REPORT_BROKEN)),
    # The TLS engine sent an answer or close_notify. An alert that the peer sent says more than the
    # error of this send.
    _rule(_E.SEND_FAILED, (_S.HALF_CLOSED, *_CLOSED), _stay(_A.KEEP_SEND_ERROR)),
    _rule(_E.SEND_FAILED, (_S.BROKEN, *_GONE), _stay()),
    _rule(_E.HUNG_UP, (_S.ANSWERING,), _to(_S.ABORTED, _A.BLAME_RESET, _A.RESET)),
    _rule(_E.HUNG_UP, (_S.BROKEN,), _to(_S.ABORTED, _A.RESET)),
    _rule(_E.HUNG_UP, (_S.OPEN, _S.HALF_CLOSED, *_CLOSED, *_GONE), _stay()),
    # The clock.
    _rule(_E.DEADLINE, (_S.LINGERING, _S.ENDED), _to(_S.ENDED, _A.BLAME_DEADLINE, _A.CUT)),
    _rule(_E.DEADLINE, (_S.FINISHING, _S.ANSWERED), _to(_S.ABORTED, _A.BLAME_DEADLINE, _A.RESET)),
    _rule(_E.DEADLINE_UNSENT, _CLOSED, _to(_S.ABORTED, _A.BLAME_DEADLINE, _A.RESET)),
    _rule(_E.DEADLINE, (_S.OPEN, _S.ANSWERING, _S.HALF_CLOSED, _S.BROKEN, *_GONE), _stay()),
    _rule(_E.DEADLINE_UNSENT, (_S.OPEN, _S.ANSWERING, _S.HALF_CLOSED, _S.BROKEN, *_GONE), _stay()),
    # The connection is lost. In the second group of states the peer's end was read before.
    _rule(
        _E.DONE,
        (_S.OPEN, _S.HALF_CLOSED, _S.BROKEN, _S.FINISHING, _S.LINGERING),
        _to(_S.LOST, _A.END_AS_SENT),
    ),
    _rule(
        _E.RESET,
        (_S.OPEN, _S.HALF_CLOSED, _S.BROKEN, _S.FINISHING, _S.LINGERING),
        _to(_S.LOST, _A.END_WITH_ERROR),
    ),
    _rule(
        _E.RESET_UNSENT,
        (_S.OPEN, _S.HALF_CLOSED, _S.BROKEN, _S.FINISHING, _S.LINGERING),
        _to(_S.LOST, _A.END_WITH_ERROR),
    ),
    _rule(
        _E.DONE,
        (_S.ANSWERING, _S.ANSWERED, _S.ENDED),
        _to(_S.LOST, _A.END_AS_SENT),
        tls=_to(_S.LOST, _A.END_IN_ORDER),
    ),
    _rule(
        _E.RESET,
        (_S.ANSWERING, _S.ANSWERED, _S.ENDED),
        _to(_S.LOST, _A.END_WITH_ERROR),
        tls=_to(_S.LOST, _A.END_IN_ORDER),
    ),
    _rule(_E.RESET_UNSENT, (_S.ANSWERING, _S.ANSWERED), _to(_S.LOST, _A.END_WITH_ERROR)),
    _rule(
        _E.RESET_UNSENT,
        (_S.ENDED,),
        _to(_S.LOST, _A.END_WITH_ERROR),
        # Of all bytes, only the close_notify of this end can be unsent.
        tls=_to(_S.LOST, _A.END_IN_ORDER),
    ),
    _rule(_E.DONE, (_S.ABORTED,), _to(_S.LOST, _A.END_BY_ABORT)),
    _rule(_E.RESET, (_S.ABORTED,), _to(_S.LOST, _A.END_BY_ABORT)),
    _rule(_E.RESET_UNSENT, (_S.ABORTED,), _to(_S.LOST, _A.END_BY_ABORT)),
    _rule(_E.DONE, (_S.DETACHED,), _to(_S.LOST, _A.END_DETACHED)),
    _rule(_E.RESET, (_S.DETACHED,), _to(_S.LOST, _A.END_DETACHED)),
    _rule(_E.RESET_UNSENT, (_S.DETACHED,), _to(_S.LOST, _A.END_DETACHED)),
    _rule(_E.DONE, (_S.LOST,), _stay()),
    _rule(_E.RESET, (_S.LOST,), _stay()),
    _rule(_E.RESET_UNSENT, (_S.LOST,), _stay()),
)


def _make_table(rules: tuple[_Rule, ...]) -> dict[tuple[State, Event], Row]:
    table = {}
    for event, states, tcp, tls, whole in rules:
        for state in states:
            step = tcp if isinstance(tcp, Step) else Step(state, tcp)
            table[state, event] = Row(step, tls or step, whole or step)
    return table


#: All rows.
TABLE: Final[Mapping[tuple[State, Event], Row]] = _make_table(_RULES)


def follow(state: State, event: Event, carrier: Carrier) -> Step:
    """
    Return the step for an event.

    :raises LocalProtocolError: for a call of the application that has no row in this state.
    """
    row = TABLE.get((state, event))
    if row is None:
        raise LocalProtocolError(f"{event.value} is not possible: {state.value}")
    return row[carrier]
