"""The table of ends has a row for every event, and no order of events sends two close frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.end_tables import EndTableContract
from twsock.errors import LocalProtocolError
from twsock.websocket.closing import (
    APPLICATION_EVENTS,
    TABLE,
    Action,
    Event,
    Role,
    State,
    follow,
)

_CLOSE_FRAMES = (Action.SEND_CLOSE, Action.ECHO_CLOSE)

#: How far each state is from the first; no step leads to a state with a lower number.
_PROGRESS = {
    State.OPENING: 0,
    State.OPEN: 1,
    State.CLOSING: 2,
    State.CLOSED: 3,
    State.ENDED: 4,
    State.REFUSED: 4,
    State.ABORTED: 5,
    State.LOST: 6,
}

_EVENTS = st.lists(st.sampled_from(sorted(Event, key=lambda event: event.name)), max_size=30)


class TableTests(EndTableContract, SynchronousTestCase):
    """Each state has a row for each event from outside."""

    table = TABLE
    outside = sorted(set(Event) - APPLICATION_EVENTS, key=lambda event: event.name)
    progress = _PROGRESS

    def test_closing_and_aborting_are_possible_in_every_state(self) -> None:
        """Closing twice is harmless, and so is closing what is lost."""
        for state in State:
            for event in (Event.CLOSE, Event.ABORT):
                self.assertIn((state, event), TABLE)

    def test_a_handshake_is_judged_once(self) -> None:
        """The error names the call and the state."""
        with self.assertRaisesRegex(LocalProtocolError, "handshake is done.*messages are sent"):
            follow(State.OPEN, Event.ACCEPTED, Role.SERVER)

    def test_a_server_ends_tcp_first(self) -> None:
        """A server ends the connection when both close frames were sent; a client waits for it."""
        for state in (State.OPEN, State.CLOSING):
            row = TABLE[state, Event.CLOSE_RECEIVED]
            self.assertIn(Action.END, row.server.actions, state.name)
            self.assertNotIn(Action.END, row.client.actions, state.name)
            self.assertIs(row.client.state, State.CLOSED, state.name)

    def test_a_wait_for_the_peer_has_a_deadline(self) -> None:
        """Each end that waits for the peer has started the deadline before, and only once."""
        waiting = (State.CLOSING, State.CLOSED, State.ENDED, State.REFUSED)
        for (state, event), row in TABLE.items():
            for step in row:
                is_reset = Action.RESET in step.actions
                expected = step.state in waiting and state not in waiting and not is_reset
                has_started = Action.START_DEADLINE in step.actions
                self.assertEqual(has_started, expected, f"{state.name}, {event.name}")

    def test_nothing_is_sent_after_the_close_frame(self) -> None:
        """A close frame is sent only from OPEN, and every such step leaves OPEN."""
        for (state, event), row in TABLE.items():
            for step in row:
                if any(action in _CLOSE_FRAMES for action in step.actions):
                    where = f"{state.name}, {event.name}"
                    self.assertIs(state, State.OPEN, where)
                    self.assertIsNot(step.state, State.OPEN, where)


class OrderTests(SynchronousTestCase):
    """Any order of events."""

    @given(_EVENTS, st.sampled_from(Role))
    def test_any_order_of_events_ends_once(self, events: list[Event], role: Role) -> None:
        """
        Any order sends at most one close frame, has one deadline, and reports the end once.

        A loss is the last event: nothing is done after it.
        """
        state = State.OPENING
        done: list[Action] = []
        for event in events:
            if (state, event) not in TABLE:
                self.assertIn(event, APPLICATION_EVENTS)
                continue
            was_lost = state is State.LOST
            state, actions = follow(state, event, role)
            done += actions
            self.assertFalse(was_lost and actions, event.name)
        self.assertLessEqual(sum(map(done.count, _CLOSE_FRAMES)), 1)
        for action in (Action.START_DEADLINE, Action.END, Action.REPORT_CLOSED):
            self.assertLessEqual(done.count(action), 1, action.name)
        self.assertEqual(Event.LOST in events, state is State.LOST, "the last state")

    @given(_EVENTS)
    def test_only_what_was_open_is_reported(self, events: list[Event]) -> None:
        """A WebSocket whose handshake failed reports no end to the application."""
        state = State.OPENING
        was_open = False
        reports = 0
        for event in (*events, Event.LOST):
            if (state, event) in TABLE:
                was_lost = state is State.LOST
                state, actions = follow(state, event, Role.SERVER)
                was_open |= state is State.OPEN
                reports += actions.count(Action.REPORT_CLOSED)
                self.assertFalse(was_lost and actions)
        self.assertEqual(reports, int(was_open))
