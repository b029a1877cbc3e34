"""
States of the send queue of a UDP socket: event → **table** → next state. No I/O, no clock.

`twsock.datagram.send_queue` looks each event up, and sends when the state becomes FLUSHING. It
calls an `OutputOwner`, and each `Sendable` that was pushed.

States::

    HELD <── hold ── IDLE ── push ──> FLUSHING ── no room ──> BLOCKED ── writable ──> FLUSHING
     │ └── release ──> ^                │ │ │
     │                 ├─── drained ────┘ │ └── no memory, turn over ──> RESTING ── timer ──> ...
     │                 │                  └── drained, was full ──> REPORTING ── writable ──> ...
     │                 └────────────────────────── reported ────────────┘
     └── writable ──> FLUSHING

    every state ── close ──> CLOSED

IDLE has no item: a pushed item is sent at once. HELD collects the items that the handler of an
event pushes, so that they leave in few system calls. FLUSHING sends, and calls back for each item.
A callback may push, hold, release, or close the queue. Pushed items leave in a further round of the
same flush, so no flush begins within another.

BLOCKED and RESTING keep the items in order. Pushed items join them, and a hold changes nothing,
since nothing would leave anyway. BLOCKED waits for an event of the kernel: the socket is writable.
RESTING waits for a timer, for one of two reasons. No event reports that the kernel has memory
again. And a flush would never end if its callbacks push as fast as the kernel sends: the reactor
has to handle other events.

REPORTING calls the owner: the queue was full, and has drained. Like HELD, it collects what the
owner pushes. If that fills the queue again, the next report comes after a turn of the reactor, so
reports do not nest.

The kernel answers calls of the socket only, so the answers to a flush happen only in FLUSHING. If a
callback has closed the queue, the flush ends without an answer. Writable and timer come from
outside, and have a row in every state. A reactor may report writable late, since it collects events
before it makes the calls. The owner also flushes before it closes the socket, in any state. That is
the same event, as the socket may be writable.

One fact is no state: whether the queue is full, so that senders wait until it has drained. A queue
becomes full while it is HELD or FLUSHING. It stays full through BLOCKED, RESTING and the next
flush, until REPORTING. As a state it would double HELD and FLUSHING, and change one row: drained.
"""

from __future__ import annotations

import enum
import typing
from typing import Final, NoReturn

from twsock.errors import LocalProtocolError, SocketError
from twsock.wire.datagrams import Outgoing

__all__ = ["ANSWERS", "OUTSIDE_EVENTS", "TABLE", "Event", "OutputOwner", "Sendable", "State"]


class OutputOwner(typing.Protocol):
    """Receives the events of a send queue; its methods raise no exception."""

    def wait_until_writable(self, *, is_waiting: bool) -> None:
        """Call `DatagramOutput.flush` when the socket is writable; stop if not ``is_waiting``."""

    def output_drained(self) -> None:
        """Report that a full queue has drained: the kernel has all items."""

    def refused(self, error: SocketError) -> None:
        """Report the error of an ICMP reply to an earlier datagram."""

    def output_ended(self) -> None:
        """Handle the close of the queue, which calls no further method."""


class Sendable(Outgoing, typing.Protocol):
    """A datagram or run to send, to which the queue reports the outcome."""

    def sent(self) -> None:
        """Report that the kernel has the whole item."""

    def failed(self, error: SocketError) -> None:
        """Report that a datagram of the item was not sent; the queue does not try again."""


class State(enum.Enum):
    """What a send queue does."""

    IDLE = "nothing is queued"
    HELD = "items are collected"
    FLUSHING = "items are being sent"
    BLOCKED = "items wait until the socket is writable"
    RESTING = "items wait for a timer"
    REPORTING = "the queue has drained; the owner is called"
    CLOSED = "the queue is closed"

    # Written in C, unlike the hash of ``Enum``. Each event hashes two members.
    __hash__ = object.__hash__


class Event(enum.Enum):
    """What happens to a send queue."""

    # Calls of the owner.
    HOLD = "hold()"
    RELEASE = "release()"
    PUSH = "a push"
    CLOSE = "close()"
    REPORTED = "the end of a report"
    # From outside.
    WRITABLE = "the socket may be writable"
    TIMER = "the timer"
    # Answers to a flush.
    NO_ROOM = "the kernel has no room"
    NO_MEMORY = "the kernel has no memory"
    TURN_OVER = "the turn of the reactor is over"
    DRAINED = "the kernel has all items"
    DRAINED_FULL = "the kernel has all items of a full queue"

    __hash__ = object.__hash__


#: Events of the kernel and the clock that happen in any state.
OUTSIDE_EVENTS: Final = frozenset((Event.WRITABLE, Event.TIMER))

#: Events that happen while the queue is flushing.
ANSWERS: Final = frozenset(
    (Event.NO_ROOM, Event.NO_MEMORY, Event.TURN_OVER, Event.DRAINED, Event.DRAINED_FULL)
)


class _Table(dict[tuple[State, Event], State]):
    """A table whose missing rows are errors of the caller."""

    def __missing__(self, key: tuple[State, Event]) -> NoReturn:
        state, event = key
        raise LocalProtocolError(f"{event.value} is not possible: {state.value}")


#: All rows.
TABLE: Final = _Table(
    {
        # The owner collects items.
        (State.IDLE, Event.HOLD): State.HELD,
        (State.HELD, Event.HOLD): State.HELD,
        (State.FLUSHING, Event.HOLD): State.FLUSHING,
        (State.BLOCKED, Event.HOLD): State.BLOCKED,
        (State.RESTING, Event.HOLD): State.RESTING,
        (State.REPORTING, Event.HOLD): State.REPORTING,
        (State.CLOSED, Event.HOLD): State.CLOSED,
        # If items were collected, a push follows.
        (State.IDLE, Event.RELEASE): State.IDLE,
        (State.HELD, Event.RELEASE): State.IDLE,
        (State.FLUSHING, Event.RELEASE): State.FLUSHING,
        (State.BLOCKED, Event.RELEASE): State.BLOCKED,
        (State.RESTING, Event.RELEASE): State.RESTING,
        (State.REPORTING, Event.RELEASE): State.REPORTING,
        (State.CLOSED, Event.RELEASE): State.CLOSED,
        # A closed queue refuses items.
        (State.IDLE, Event.PUSH): State.FLUSHING,
        (State.HELD, Event.PUSH): State.HELD,
        (State.FLUSHING, Event.PUSH): State.FLUSHING,
        (State.BLOCKED, Event.PUSH): State.BLOCKED,
        (State.RESTING, Event.PUSH): State.RESTING,
        (State.REPORTING, Event.PUSH): State.REPORTING,
        # Closing twice is harmless.
        (State.IDLE, Event.CLOSE): State.CLOSED,
        (State.HELD, Event.CLOSE): State.CLOSED,
        (State.FLUSHING, Event.CLOSE): State.CLOSED,
        (State.BLOCKED, Event.CLOSE): State.CLOSED,
        (State.RESTING, Event.CLOSE): State.CLOSED,
        (State.REPORTING, Event.CLOSE): State.CLOSED,
        (State.CLOSED, Event.CLOSE): State.CLOSED,
        # In RESTING the kernel may lack memory although the socket is writable.
        (State.IDLE, Event.WRITABLE): State.IDLE,
        (State.HELD, Event.WRITABLE): State.FLUSHING,
        (State.FLUSHING, Event.WRITABLE): State.FLUSHING,
        (State.BLOCKED, Event.WRITABLE): State.FLUSHING,
        (State.RESTING, Event.WRITABLE): State.RESTING,
        (State.REPORTING, Event.WRITABLE): State.FLUSHING,
        (State.CLOSED, Event.WRITABLE): State.CLOSED,
        # Only RESTING starts a timer.
        (State.IDLE, Event.TIMER): State.IDLE,
        (State.HELD, Event.TIMER): State.HELD,
        (State.FLUSHING, Event.TIMER): State.FLUSHING,
        (State.BLOCKED, Event.TIMER): State.BLOCKED,
        (State.RESTING, Event.TIMER): State.FLUSHING,
        (State.REPORTING, Event.TIMER): State.REPORTING,
        (State.CLOSED, Event.TIMER): State.CLOSED,
        # How a flush ends.
        (State.FLUSHING, Event.NO_ROOM): State.BLOCKED,
        (State.FLUSHING, Event.NO_MEMORY): State.RESTING,
        (State.FLUSHING, Event.TURN_OVER): State.RESTING,
        (State.FLUSHING, Event.DRAINED): State.IDLE,
        (State.FLUSHING, Event.DRAINED_FULL): State.REPORTING,
        # If items were collected, the queue flushes instead.
        (State.REPORTING, Event.REPORTED): State.IDLE,
    }
)
