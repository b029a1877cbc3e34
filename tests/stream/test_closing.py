"""The table of ends has a row for every event, and every row leads towards the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.end_tables import EndTableContract
from twsock.errors import LocalProtocolError
from twsock.stream.closing import (
    APPLICATION_EVENTS,
    OPEN_STATES,
    TABLE,
    Action,
    Carrier,
    Event,
    State,
    follow,
)

_LOSSES = (Event.DONE, Event.RESET, Event.RESET_UNSENT)
_OUTCOMES = (
    Action.END_IN_ORDER,
    Action.END_AS_SENT,
    Action.END_WITH_ERROR,
    Action.END_BY_ABORT,
    Action.END_DETACHED,
)

#: How many ends each state has behind it; no step leads to a state with fewer.
_PROGRESS = {
    State.OPEN: 0,
    State.ANSWERING: 1,
    State.HALF_CLOSED: 1,
    State.BROKEN: 2,
    State.FINISHING: 2,
    State.ANSWERED: 3,
    State.LINGERING: 3,
    State.ENDED: 4,
    State.ABORTED: 5,
    State.DETACHED: 5,
    State.LOST: 6,
}


class TableTests(EndTableContract, SynchronousTestCase):
    """Each state has a row for each event from outside."""

    table = TABLE
    outside = sorted(set(Event) - APPLICATION_EVENTS, key=lambda event: event.name)
    progress = _PROGRESS

    def test_a_call_without_a_row_is_an_error_of_the_caller(self) -> None:
        """The error names the call and the state."""
        with self.assertRaisesRegex(LocalProtocolError, r"end_output\(\).*the connection is gone"):
            follow(State.LOST, Event.END_OUTPUT, Carrier.TCP)

    def test_a_loss_ends_every_state_with_one_outcome(self) -> None:
        """The loss of the connection reports one outcome, once."""
        for state in State:
            for event in _LOSSES:
                for step in TABLE[state, event]:
                    outcomes = [action for action in step.actions if action in _OUTCOMES]
                    expected = 0 if state is State.LOST else 1
                    where = f"{state.name}, {event.name}"
                    self.assertEqual((step.state, len(outcomes)), (State.LOST, expected), where)

    def test_only_a_close_notify_makes_a_reset_an_end_in_order(self) -> None:
        """Without TLS, a loss with an error is always reported as an error."""
        for state in State:
            for event in (Event.RESET, Event.RESET_UNSENT):
                row = TABLE[state, event]
                for step in (row.tcp, row.whole):
                    self.assertNotIn(Action.END_IN_ORDER, step.actions, state.name)

    def test_a_wait_for_the_peer_has_a_deadline(self) -> None:
        """Each close that waits for the peer has started the deadline before."""
        waiting = (State.FINISHING, State.ANSWERED, State.LINGERING)
        for (state, event), row in TABLE.items():
            for step in row:
                if step.state in waiting and state not in waiting:
                    where = f"{state.name}, {event.name}"
                    self.assertIn(Action.START_DEADLINE, step.actions, where)

    @given(
        st.lists(st.sampled_from(sorted(Event, key=lambda event: event.name)), max_size=30),
        st.sampled_from(Carrier),
    )
    def test_any_order_of_events_ends_once(self, events: list[Event], carrier: Carrier) -> None:
        """
        Any order of events reports each end at most once, and a loss ends them all.

        After a loss the state is LOST, and nothing more is done.
        """
        state = State.OPEN
        done: list[Action] = []
        for event in events:
            if (state, event) not in TABLE:
                self.assertIn(event, APPLICATION_EVENTS)
                continue
            was_lost = state is State.LOST
            state, actions = follow(state, event, carrier)
            done += actions
            self.assertFalse(was_lost and actions, event.name)
        for action in (*_OUTCOMES, Action.RESET, Action.REPORT_INPUT_END, Action.REPORT_BROKEN):
            self.assertLessEqual(done.count(action), 1, action.name)
        self.assertEqual(
            any(event in _LOSSES for event in events), state is State.LOST, "the last state"
        )

    def test_writing_is_possible_until_this_end_ends(self) -> None:
        """No step leads from a state without writes to one with writes."""
        for (state, event), row in TABLE.items():
            for step in row:
                if step.state in OPEN_STATES:
                    self.assertIn(state, OPEN_STATES, event.name)
