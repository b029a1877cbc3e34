"""
How a connection becomes secure: event → **table** → next state and actions. No I/O, no clock.

`twsock.stream.upgrade` (the server) and `twsock.stream.client_upgrade` (the client) report what the
peer sends and what the application calls, and carry out the actions. Holds one state and one
deadline. Wire format: docs/wire/upgrade.rst.

States::

    server    ┌────── a ClientHello at a boundary ────────┐
              │                                           v
            PLAIN ── the request, or ──> HELD ── a ──> HANDSHAKE ── completed ──> JUDGED
                     implicit TLS        ClientHello    ^  ^                        │
                                                        │  │               accepted v
    client  PLAIN ── command ──> REQUESTED ── go-ahead ─┘  │                     SECURE
              └────── direct ──────────────────────────────┘

    each state ── plaintext in the wrong place, a refusal, the deadline, a loss ──> FAILED

The client begins directly, with its ClientHello, or by command: with a request, which the server
answers with a go-ahead. The server accepts both. Implicit TLS begins with the first byte
(:rfc:`8314`). A socket without messages has no boundaries: as a server it begins directly, too.

The switch is the step out of PLAIN. An attacker on the network path can add bytes before the
switch, but not inside TLS. So each state keeps one invariant:

- Bytes that the peer sent in plaintext are never delivered after the switch.
- Bytes that the application writes after the switch are never sent in plaintext.
- After a failure nothing is delivered and nothing is sent. No state leads from TLS, or from a
  failed attempt, back to plaintext.

`delivers_in` and `sending_in` state this invariant as functions of the state. Each row below
follows from them: in a state that delivers nothing, a message of the peer counts as an attack, and
the connection is aborted. Dropping the message silently would hide the attack.

Why JUDGED is a state of its own: OpenSSL can complete a handshake without a verified peer. It
verifies nothing if a session is resumed, and a peer may send no certificate. So the end of a
handshake alone never makes a connection secure; only the verification does.

Why there is one deadline: a peer that is silent, or sends one byte now and then, would otherwise
occupy a connection for ever. The deadline begins with the switch, and no byte extends it. It covers
the wait for the go-ahead or the ClientHello, and the handshake.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from twsock._enums import KeyEnum
from twsock.errors import LocalProtocolError

__all__ = [
    "APPLICATION_EVENTS",
    "CLIENT_EVENTS",
    "SERVER_EVENTS",
    "TABLE",
    "TIMED_STATES",
    "Action",
    "Event",
    "Row",
    "Sending",
    "Side",
    "State",
    "UpgradeCore",
    "delivers_in",
    "sending_in",
]


class Side(enum.Enum):
    """The sides of an upgrade."""

    SERVER = "server"
    CLIENT = "client"


class State(KeyEnum):
    """How far the upgrade of a connection is."""

    PLAIN = "the connection is in plaintext"
    REQUESTED = "the request was sent; the go-ahead is awaited"
    HELD = "a ClientHello is awaited"
    HANDSHAKE = "the handshake runs"
    JUDGED = "the handshake is done; the peer is not verified yet"
    SECURE = "the connection is secure"
    FAILED = "the upgrade failed, or the connection is lost"


class Event(KeyEnum):
    """What happens to an upgrade."""

    # Calls of the application.
    BEGIN_DIRECT = "a handshake without a request"
    BEGIN_COMMAND = "a request for TLS"
    AWAIT_HELLO = "TLS from the first byte"
    CANCEL = "cancelling the upgrade"
    # Bytes of the peer outside TLS, and messages.
    MESSAGE = "a message"
    EARLY_MESSAGE = "a message before an upgrade that is required"
    TOO_MANY_BYTES = "too many bytes before an upgrade that is required"
    REQUEST = "the request for TLS"
    CLIENT_HELLO = "a ClientHello at a boundary"
    GO_AHEAD = "the go-ahead, and nothing behind it"
    PLAINTEXT = "plaintext where a handshake has to begin"
    # The TLS engine and the verification.
    COMPLETED = "the end of a handshake"
    ACCEPTED = "an accepted peer"
    REFUSED = "a refused peer"
    # The clock and the kernel.
    DEADLINE = "the deadline"
    LOST = "the loss of the connection"


class Action(KeyEnum):
    """What the owner of the upgrade does next."""

    DELIVER = "handle the message"
    DROP = "drop the message unanswered"
    SEND_REQUEST = "send the request"
    SEND_GO_AHEAD = "send the go-ahead"
    SEND_REFUSAL = "answer that TLS is on already"
    #: Bytes written before are sent first.
    HOLD_OUTPUT = "keep written bytes"
    ARM_DEADLINE = "arm the deadline"
    #: Nothing happens if no deadline is armed.
    DISARM_DEADLINE = "disarm the deadline"
    START_HANDSHAKE = "start the handshake"
    JUDGE = "verify the peer"
    CONTINUE = "continue above the engine"
    ABORT = "abort the connection"
    #: In the log, and to the caller of the upgrade.
    REPORT = "report the failure"


class Sending(enum.Enum):
    """What happens to bytes that the application writes."""

    PLAINTEXT = "they are sent in plaintext"
    HELD = "they wait, to be sent encrypted"
    ENCRYPTED = "they are sent encrypted"
    NOTHING = "they are dropped"


def delivers_in(state: State) -> bool:
    """Return whether messages of the peer may be handled: all of them, or none."""
    return state is State.PLAIN or state is State.SECURE


def sending_in(state: State) -> Sending:
    """Return what may be sent."""
    if state is State.PLAIN:
        return Sending.PLAINTEXT
    if state is State.SECURE:
        return Sending.ENCRYPTED
    return Sending.NOTHING if state is State.FAILED else Sending.HELD


class Row(NamedTuple):
    """The next state, and what to do in it, in this order."""

    state: State
    actions: tuple[Action, ...]


#: Calls of the application. A state may have no row for a call; it has one for each other event
#: that its side can have.
APPLICATION_EVENTS: Final = frozenset(
    (Event.BEGIN_DIRECT, Event.BEGIN_COMMAND, Event.AWAIT_HELLO, Event.CANCEL)
)

#: Events that only a server has; REQUESTED, a state of clients, has none of them.
SERVER_EVENTS: Final = frozenset(
    (
        Event.AWAIT_HELLO,
        Event.EARLY_MESSAGE,
        Event.TOO_MANY_BYTES,
        Event.REQUEST,
        Event.CLIENT_HELLO,
    )
)

#: Events that only a client has; HELD, a state of servers, has none of them.
CLIENT_EVENTS: Final = frozenset((Event.BEGIN_COMMAND, Event.GO_AHEAD))

#: The states in which the deadline is armed.
TIMED_STATES: Final = frozenset((State.REQUESTED, State.HELD, State.HANDSHAKE, State.JUDGED))

# With short names, most rules below fit on one line.
_S, _E, _A = State, Event, Action

#: The peer broke a rule, or was refused.
_FAIL: Final = Row(_S.FAILED, (_A.DISARM_DEADLINE, _A.ABORT, _A.REPORT))
#: The application cancelled the upgrade, so nothing is reported.
_END: Final = Row(_S.FAILED, (_A.DISARM_DEADLINE, _A.ABORT))

_Rule = tuple[Event, tuple[State, ...], Row]


def _to(state: State, *actions: Action) -> Row:
    return Row(state, actions)


def _rules(event: Event, *rows: tuple[State | tuple[State, ...], Row]) -> tuple[_Rule, ...]:
    """Make the rows of one event; several states may share one."""
    return tuple(
        (event, states if isinstance(states, tuple) else (states,), row) for states, row in rows
    )


_SWITCHING: Final = (_S.HANDSHAKE, _S.JUDGED)

_RULES: Final[tuple[_Rule, ...]] = (
    # The application begins. Bytes written before the switch are sent in plaintext. The deadline
    # comes first, since a transport in memory may deliver the answer while the request is sent.
    *_rules(
        _E.BEGIN_DIRECT,
        (_S.PLAIN, _to(_S.HANDSHAKE, _A.ARM_DEADLINE, _A.HOLD_OUTPUT, _A.START_HANDSHAKE)),
    ),
    *_rules(
        _E.BEGIN_COMMAND,
        (_S.PLAIN, _to(_S.REQUESTED, _A.ARM_DEADLINE, _A.HOLD_OUTPUT, _A.SEND_REQUEST)),
    ),
    *_rules(_E.AWAIT_HELLO, (_S.PLAIN, _to(_S.HELD, _A.ARM_DEADLINE, _A.HOLD_OUTPUT))),
    *_rules(
        _E.CANCEL,
        # In SECURE, too: `connection_secured` is called before the caller's Deferred fires.
        ((_S.REQUESTED, _S.HELD, *_SWITCHING, _S.SECURE), _END),
        (_S.FAILED, _to(_S.FAILED)),
    ),
    # The peer sends messages.
    *_rules(
        _E.MESSAGE,
        (_S.PLAIN, _to(_S.PLAIN, _A.DELIVER)),
        # In REQUESTED, any answer but the go-ahead.
        ((_S.REQUESTED, _S.HELD, *_SWITCHING), _FAIL),
        (_S.SECURE, _to(_S.SECURE, _A.DELIVER)),
        (_S.FAILED, _to(_S.FAILED, _A.DROP)),
    ),
    *_rules(
        _E.EARLY_MESSAGE,
        # Unanswered, since an answer would look like that of a connection without TLS.
        (_S.PLAIN, _to(_S.PLAIN, _A.DROP)),
        ((_S.HELD, *_SWITCHING, _S.SECURE), _FAIL),
        (_S.FAILED, _to(_S.FAILED, _A.DROP)),
    ),
    *_rules(
        _E.TOO_MANY_BYTES,
        ((_S.PLAIN, _S.HELD, *_SWITCHING, _S.SECURE), _FAIL),
        (_S.FAILED, _to(_S.FAILED, _A.DROP)),
    ),
    # The peer asks for TLS, grants it, or begins.
    *_rules(
        _E.REQUEST,
        (_S.PLAIN, _to(_S.HELD, _A.ARM_DEADLINE, _A.HOLD_OUTPUT, _A.SEND_GO_AHEAD)),
        # A second request is plaintext behind the first one.
        ((_S.HELD, *_SWITCHING), _FAIL),
        (_S.SECURE, _to(_S.SECURE, _A.SEND_REFUSAL)),
        (_S.FAILED, _to(_S.FAILED, _A.DROP)),
    ),
    *_rules(
        _E.CLIENT_HELLO,
        (_S.PLAIN, _to(_S.HANDSHAKE, _A.ARM_DEADLINE, _A.HOLD_OUTPUT, _A.START_HANDSHAKE)),
        (_S.HELD, _to(_S.HANDSHAKE, _A.START_HANDSHAKE)),
        # After the switch the engine receives, so this one did not come through it.
        (_SWITCHING, _FAIL),
        # Inside TLS its bytes are data like any other.
        (_S.SECURE, _to(_S.SECURE, _A.DELIVER)),
        (_S.FAILED, _to(_S.FAILED, _A.DROP)),
    ),
    *_rules(
        _E.GO_AHEAD,
        # Without a request it is a message like any other.
        (_S.PLAIN, _to(_S.PLAIN, _A.DELIVER)),
        (_S.REQUESTED, _to(_S.HANDSHAKE, _A.START_HANDSHAKE)),
        (_SWITCHING, _FAIL),
        (_S.SECURE, _to(_S.SECURE, _A.DELIVER)),
        (_S.FAILED, _to(_S.FAILED, _A.DROP)),
    ),
    *_rules(
        _E.PLAINTEXT,
        # In PLAIN, bytes that were not handled when the upgrade begins.
        ((_S.PLAIN, _S.REQUESTED, _S.HELD, *_SWITCHING, _S.SECURE), _FAIL),
        (_S.FAILED, _to(_S.FAILED, _A.DROP)),
    ),
    # The engine and the verification. Where no handshake runs, their events fail the connection.
    *_rules(
        _E.COMPLETED,
        (_S.HANDSHAKE, _to(_S.JUDGED, _A.JUDGE)),
        ((_S.PLAIN, _S.REQUESTED, _S.HELD, _S.JUDGED, _S.SECURE), _FAIL),
        (_S.FAILED, _to(_S.FAILED)),
    ),
    *_rules(
        _E.ACCEPTED,
        (_S.JUDGED, _to(_S.SECURE, _A.DISARM_DEADLINE, _A.CONTINUE)),
        ((_S.PLAIN, _S.REQUESTED, _S.HELD, _S.HANDSHAKE, _S.SECURE), _FAIL),
        (_S.FAILED, _to(_S.FAILED)),
    ),
    *_rules(
        _E.REFUSED,
        ((_S.PLAIN, _S.REQUESTED, _S.HELD, *_SWITCHING, _S.SECURE), _FAIL),
        (_S.FAILED, _to(_S.FAILED)),
    ),
    # The clock and the kernel.
    *_rules(
        _E.DEADLINE,
        ((_S.REQUESTED, _S.HELD, *_SWITCHING), _FAIL),
        (_S.PLAIN, _to(_S.PLAIN)),
        (_S.SECURE, _to(_S.SECURE)),
        (_S.FAILED, _to(_S.FAILED)),
    ),
    *_rules(
        _E.LOST,
        ((_S.REQUESTED, *_SWITCHING), _to(_S.FAILED, _A.DISARM_DEADLINE, _A.REPORT)),
        # A client that disconnects before its ClientHello has broken no rule.
        (_S.HELD, _to(_S.FAILED, _A.DISARM_DEADLINE)),
        ((_S.PLAIN, _S.SECURE, _S.FAILED), _to(_S.FAILED)),
    ),
)


def _make_table(rules: tuple[_Rule, ...]) -> dict[tuple[State, Event], Row]:
    return {(state, event): row for event, states, row in rules for state in states}


#: All rows.
TABLE: Final[Mapping[tuple[State, Event], Row]] = _make_table(_RULES)


class UpgradeCore:
    """
    The state and the deadline of one upgrade.

    :ivar side: which end this is.
    :param timeout: seconds from the switch to the end of the handshake; above 0.
    :param is_secure: whether the connection is above a TLS endpoint, and so begins as SECURE.
    :ivar deadline: when `advance` fails the upgrade, in seconds; None if no deadline is armed.
    """

    __slots__ = ("_timeout", "deadline", "side", "state")

    def __init__(self, side: Side, timeout: float, *, is_secure: bool = False) -> None:
        self.side = side
        self._timeout = timeout
        self.state = State.SECURE if is_secure else State.PLAIN
        self.deadline: float | None = None

    def handle(self, event: Event, now: float) -> tuple[Action, ...]:
        """
        Handle one event.

        :param now: the time, in seconds, on the clock of `deadline`.
        :returns: what to do, in this order.
        :raises LocalProtocolError: for a call of the application that has no row in this state, and
            for an event of the other side. Then the state does not change.
        """
        row = TABLE.get((self.state, event))
        foreign = CLIENT_EVENTS if self.side is Side.SERVER else SERVER_EVENTS
        if row is None or event in foreign:
            raise LocalProtocolError(
                f"{event.value} is not possible for a {self.side.value}: {self.state.value}"
            )
        self.state = row.state
        if Action.ARM_DEADLINE in row.actions:
            self.deadline = now + self._timeout
        elif Action.DISARM_DEADLINE in row.actions:
            self.deadline = None
        return row.actions

    def advance(self, now: float) -> tuple[Action, ...]:
        """
        Handle the deadline, if it is due.

        :param now: as in `handle`.
        :returns: what to do, in this order.
        """
        if self.deadline is None or now < self.deadline:
            return ()
        return self.handle(Event.DEADLINE, now)
