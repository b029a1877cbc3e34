"""Each row of the table of ends is passed over each kind of connection, or listed with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.loopback import (
    test_closing_calls,
    test_closing_deadlines,
    test_closing_events,
    test_closing_losses,
)
from tests.loopback.closing_rows import ALL, ENCRYPTED, PLAIN, SCENARIOS, Row, is_trivial
from tests.loopback.raw_peer import Security
from twsock.stream.closing import TABLE, Event, State

#: The modules whose import fills `SCENARIOS`.
MODULES: Final = (
    test_closing_calls,
    test_closing_deadlines,
    test_closing_events,
    test_closing_losses,
)

_FROM_THE_START: Final = (Security.TLS12, Security.TLS13)

#: Why a connection does not pass rows: the kinds of connection, and the rows.
EXCEPTIONS: Final[dict[str, tuple[Iterable[Security], tuple[Row, ...]]]] = {
    "nothing waits for a handshake": (
        PLAIN,
        (
            (State.OPEN, Event.CLOSE_HELD),
            (State.ANSWERING, Event.CLOSE_HELD),
            (State.HALF_CLOSED, Event.CLOSE_HELD),
            (State.BROKEN, Event.CLOSE_HELD),
            (State.OPEN, Event.CLOSE_SILENT),
        ),
    ),
    "the application has no connection before the handshake: a socket aborts its attempt": (
        _FROM_THE_START,
        (
            (State.OPEN, Event.CLOSE_HELD),
            (State.ANSWERING, Event.CLOSE_HELD),
            (State.HALF_CLOSED, Event.CLOSE_HELD),
            (State.BROKEN, Event.CLOSE_HELD),
        ),
    ),
    "a socket starts no upgrade if its output was closed or a send has failed": (
        [Security.UPGRADED],
        ((State.HALF_CLOSED, Event.CLOSE_HELD), (State.BROKEN, Event.CLOSE_HELD)),
    ),
    "a client that was granted TLS is waited for": (
        [Security.UPGRADED],
        ((State.OPEN, Event.CLOSE_SILENT),),
    ),
    "FLUSHED comes first: Twisted calls the producer at an empty queue before it sends FIN": (
        ALL,
        ((State.FINISHING, Event.FIN_SENT), (State.ANSWERED, Event.FIN_SENT)),
    ),
    "a transport that closes sends FIN by closing its socket, and does not report it": (
        ALL,
        ((State.ENDED, Event.FIN_SENT), (State.ABORTED, Event.FIN_SENT)),
    ),
    "a broken connection sends no FIN; one that was asked for before is sent before the send": (
        ALL,
        ((State.BROKEN, Event.FIN_SENT),),
    ),
    "without TLS nothing is sent any more": (
        PLAIN,
        (
            (State.HALF_CLOSED, Event.SEND_FAILED),
            (State.LINGERING, Event.SEND_FAILED),
            (State.ENDED, Event.SEND_FAILED),
            (State.LINGERING, Event.DEADLINE_UNSENT),
            (State.ENDED, Event.DEADLINE_UNSENT),
            (State.HALF_CLOSED, Event.RESET_UNSENT),
            (State.LINGERING, Event.RESET_UNSENT),
            (State.ENDED, Event.RESET_UNSENT),
        ),
    ),
    "what is sent goes behind the queued bytes; Twisted sends those, and reports a loss": (
        ALL,
        ((State.FINISHING, Event.SEND_FAILED), (State.ANSWERED, Event.SEND_FAILED)),
    ),
    "without queued bytes FLUSHED follows at once; only an endpoint of TLS may still hold some": (
        [Security.PLAIN, Security.UPGRADED],
        ((State.FINISHING, Event.DEADLINE), (State.FINISHING, Event.RESET)),
    ),
    "without queued bytes FLUSHED follows at once; an engine that holds some had no peer's end": (
        ALL,
        ((State.ANSWERED, Event.DEADLINE), (State.ANSWERED, Event.RESET)),
    ),
    "Twisted closes only when the queue is empty, and then FLUSHED comes first": (
        ALL,
        ((State.FINISHING, Event.DONE), (State.ANSWERED, Event.DONE)),
    ),
    "a send fails only where no byte is queued": (
        ALL,
        ((State.BROKEN, Event.RESET_UNSENT),),
    ),
    "nothing is read behind the peer's FIN: HUNG_UP reports a reset": (
        PLAIN,
        ((State.ANSWERING, Event.RESET),),
    ),
    "only a transport in memory, which has no reset, is closed by an abort": (
        ALL,
        ((State.ABORTED, Event.DONE),),
    ),
    "under TLS nothing is handed over: the keys are in this process": (
        ENCRYPTED,
        ((State.OPEN, Event.DETACH), (State.DETACHED, Event.DONE)),
    ),
    "the loss of a connection that is handed over is reported in order, and at once": (
        ALL,
        (
            (State.DETACHED, Event.FIN_SENT),
            (State.DETACHED, Event.RESET),
            (State.DETACHED, Event.RESET_UNSENT),
        ),
    ),
}


def _excepted() -> set[tuple[State, Event, Security]]:
    return {
        (state, event, security)
        for securities, rows in EXCEPTIONS.values()
        for state, event in rows
        for security in securities
    }


def _names(rows: Iterable[tuple[State, Event, Security]]) -> list[str]:
    return sorted(f"{state.name} {event.name} over {over.value}" for state, event, over in rows)


class RowsTests(SynchronousTestCase):
    """The table, the scenarios, and the exceptions."""

    def test_each_row_has_a_scenario_over_each_kind_of_connection(self) -> None:
        """Trivial rows, and those listed with a reason, need none."""
        needed = {
            (state, event, security)
            for state, event in TABLE
            for security in Security
            if not is_trivial(state, event, security)
        }
        self.assertEqual(_names(needed - SCENARIOS.keys() - _excepted()), [])

    def test_exceptions_are_needed(self) -> None:
        """Each listed row is in the table, has a step, and is passed by no scenario."""
        self.assertEqual(_names(_excepted() & SCENARIOS.keys()), [])
        self.assertEqual(_names(row for row in _excepted() if is_trivial(*row)), [])
