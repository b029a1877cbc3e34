"""
Who owns a connection during a hand-over: event → **table** → next state. No I/O, no clock.

One side is the giver, the other one the taker. Exactly one of them continues the connection, even
if one process is killed at any point. If the owner is killed, the connection ends with it.

Giver::

    OFFERED ── accepted ──────────────────────────────> GIVEN: it closes its copy
     │ │ └──── refused, the end of the channel ───────> KEPT: it continues
     │ └────── reset ────────────> READING_ON ── accepted ──> GIVEN
     └──────── deadline, foreign ─> READING_ON ── the end ──> KEPT: it sends "withdrawn"

Taker::

    WAITING ── offer ──> DECIDING ── approved ──> HELD ── the acknowledgement is sent ──> TAKEN
     │                    │                        └───── it cannot be sent ──> UNSURE
     │                    └── declined, deadline ──> EMPTY: it sends "refused"
     └── anything else ──> EMPTY: it sends "refused"

    UNSURE ── the end ──> TAKEN: it continues
     └─────── withdrawn, deadline ──> EMPTY

DECIDING is one call of the application, which approves or declines before the acknowledgement. So
a connection that the application cannot continue stays with the giver.

Why the acknowledgement decides: once the kernel has it, the giver reads it, even if the taker dies.
On a reset the giver reads on, as an acknowledgement may follow the reset. Before the giver
withdraws, it shuts its reading side, so that the taker can send no acknowledgement any more.

Why the taker reads on: it cannot send an acknowledgement if the giver has withdrawn, or is dead. A
giver that continues always sends "withdrawn". If the channel ends without this packet, the giver is
dead, and the taker continues. At the deadline the giver may be alive. So the taker closes what it
received: a connection is never served twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from twsock._enums import KeyEnum
from twsock.errors import LocalProtocolError

__all__ = [
    "GIVER_TABLE",
    "TAKER_TABLE",
    "GiverState",
    "HandoverEvent",
    "TakerState",
    "follow_giver",
    "follow_taker",
]


class HandoverEvent(KeyEnum):
    """What happens on the channel of a hand-over."""

    OFFER = "an offer arrives"
    ACCEPTED = "an acknowledgement arrives"
    REFUSED = "a refusal arrives"
    WITHDRAWN = "a withdrawal arrives"
    FOREIGN = "anything else arrives"
    RESET = "the channel was reset"
    END = "the channel has ended"
    DEADLINE = "the deadline"
    APPROVED = "the application of the taker approves"
    DECLINED = "the application of the taker declines"
    SENT = "the kernel has the acknowledgement"
    NOT_SENT = "the acknowledgement cannot be sent"


class GiverState(KeyEnum):
    """The state of the giver."""

    OFFERED = "the offer is with the kernel"
    READING_ON = "it reads to the end of the channel"
    GIVEN = "the taker owns the connection"
    KEPT = "the giver owns the connection"


class TakerState(KeyEnum):
    """The state of the taker."""

    WAITING = "no offer has arrived"
    DECIDING = "it holds the connection, and its application decides"
    HELD = "it holds the connection, and acknowledges it"
    UNSURE = "the acknowledgement was not sent; it reads to the end of the channel"
    TAKEN = "the taker owns the connection"
    EMPTY = "the taker has closed what it received"


_G, _T, _E = GiverState, TakerState, HandoverEvent

#: All steps of the giver.
GIVER_TABLE: Final[Mapping[tuple[GiverState, HandoverEvent], GiverState]] = {
    (_G.OFFERED, _E.ACCEPTED): _G.GIVEN,
    (_G.OFFERED, _E.REFUSED): _G.KEPT,
    (_G.OFFERED, _E.END): _G.KEPT,
    (_G.OFFERED, _E.RESET): _G.READING_ON,
    (_G.OFFERED, _E.DEADLINE): _G.READING_ON,
    (_G.OFFERED, _E.OFFER): _G.READING_ON,
    (_G.OFFERED, _E.WITHDRAWN): _G.READING_ON,
    (_G.OFFERED, _E.FOREIGN): _G.READING_ON,
    (_G.READING_ON, _E.ACCEPTED): _G.GIVEN,
    (_G.READING_ON, _E.REFUSED): _G.KEPT,
    (_G.READING_ON, _E.END): _G.KEPT,
    (_G.READING_ON, _E.RESET): _G.READING_ON,
    (_G.READING_ON, _E.DEADLINE): _G.READING_ON,
    (_G.READING_ON, _E.OFFER): _G.READING_ON,
    (_G.READING_ON, _E.WITHDRAWN): _G.READING_ON,
    (_G.READING_ON, _E.FOREIGN): _G.READING_ON,
}

#: All steps of the taker.
TAKER_TABLE: Final[Mapping[tuple[TakerState, HandoverEvent], TakerState]] = {
    (_T.WAITING, _E.OFFER): _T.DECIDING,
    **{
        (_T.WAITING, event): _T.EMPTY
        for event in (
            *(_E.ACCEPTED, _E.REFUSED, _E.WITHDRAWN, _E.FOREIGN),
            *(_E.RESET, _E.END, _E.DEADLINE),
        )
    },
    (_T.DECIDING, _E.APPROVED): _T.HELD,
    (_T.DECIDING, _E.DECLINED): _T.EMPTY,
    (_T.DECIDING, _E.DEADLINE): _T.EMPTY,
    (_T.HELD, _E.SENT): _T.TAKEN,
    (_T.HELD, _E.NOT_SENT): _T.UNSURE,
    (_T.UNSURE, _E.WITHDRAWN): _T.EMPTY,
    (_T.UNSURE, _E.DEADLINE): _T.EMPTY,
    (_T.UNSURE, _E.END): _T.TAKEN,
    **{
        (_T.UNSURE, event): _T.UNSURE
        for event in (_E.OFFER, _E.ACCEPTED, _E.REFUSED, _E.FOREIGN, _E.RESET)
    },
}


_State = TypeVar("_State", GiverState, TakerState)


def follow_giver(state: GiverState, event: HandoverEvent) -> GiverState:
    """
    Return the next state of the giver.

    :raises LocalProtocolError: for an event that this state does not have.
    """
    return _follow(GIVER_TABLE, state, event)


def follow_taker(state: TakerState, event: HandoverEvent) -> TakerState:
    """
    Return the next state of the taker.

    :raises LocalProtocolError: for an event that this state does not have.
    """
    return _follow(TAKER_TABLE, state, event)


def _follow(
    table: Mapping[tuple[_State, HandoverEvent], _State], state: _State, event: HandoverEvent
) -> _State:
    after = table.get((state, event))
    if after is None:
        raise LocalProtocolError(f"{event.value} is not possible: {state.value}")
    return after
