"""The table of a send queue: every event from outside has a row, and no item is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import lists, sampled_from
from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram.sending import ANSWERS, OUTSIDE_EVENTS, TABLE, Event, State
from twsock.errors import LocalProtocolError

#: Calls of the owner.
CALLS = frozenset(Event) - OUTSIDE_EVENTS - ANSWERS

#: States in which pushed items leave without a further call of the owner.
WAITING_STATES = {State.BLOCKED: Event.WRITABLE, State.RESTING: Event.TIMER}


def follow(*events: Event) -> State:
    """Return the state of a new queue after these events."""
    state = State.IDLE
    for event in events:
        state = TABLE[state, event]
    return state


class TableTests(SynchronousTestCase):
    """Each state has a row for each event that can happen in it."""

    def test_events_from_outside_have_a_row_in_every_state(self) -> None:
        """A reactor may report an event late."""
        for state in State:
            for event in OUTSIDE_EVENTS:
                self.assertIn((state, event), TABLE)

    def test_answers_have_a_row_while_flushing_only(self) -> None:
        """The kernel answers calls, and only a flush calls it."""
        for event in ANSWERS:
            states = [state for state in State if (state, event) in TABLE]
            self.assertEqual(states, [State.FLUSHING], event.name)

    def test_holds_releases_and_closes_are_possible_in_every_state(self) -> None:
        """An event holds and releases, whatever its handler does."""
        for state in State:
            for event in (Event.HOLD, Event.RELEASE, Event.CLOSE):
                self.assertIn((state, event), TABLE)

    def test_only_a_closed_queue_refuses_a_push(self) -> None:
        """The error names the call and the state."""
        states = [state for state in State if (state, Event.PUSH) not in TABLE]
        self.assertEqual(states, [State.CLOSED])
        with self.assertRaisesRegex(LocalProtocolError, "a push is not possible: .* closed"):
            follow(Event.CLOSE, Event.PUSH)

    def test_only_a_report_can_end_as_one(self) -> None:
        """The queue itself ends each report."""
        states = [state for state in State if (state, Event.REPORTED) in TABLE]
        self.assertEqual(states, [State.REPORTING])

    def test_every_state_is_reached_and_left(self) -> None:
        """A step leads into each state but the first, and out of each but the last."""
        steps = {(state, target) for (state, _), target in TABLE.items() if state is not target}
        self.assertEqual({target for _, target in steps}, set(State))
        self.assertEqual({state for state, _ in steps}, set(State) - {State.CLOSED})


class StepTests(SynchronousTestCase):
    """The step of each event."""

    def test_a_push_is_sent_at_once(self) -> None:
        """A push to an idle queue begins a flush."""
        self.assertIs(follow(Event.PUSH), State.FLUSHING)
        self.assertIs(follow(Event.PUSH, Event.DRAINED, Event.PUSH), State.FLUSHING)

    def test_a_held_queue_collects_until_its_release(self) -> None:
        """A second hold changes nothing."""
        for holds in ((Event.HOLD,), (Event.HOLD, Event.HOLD)):
            self.assertIs(follow(*holds, Event.PUSH), State.HELD, len(holds))
            released = (*holds, Event.PUSH, Event.RELEASE)
            self.assertIs(follow(*released), State.IDLE, len(holds))
            self.assertIs(follow(*released, Event.PUSH), State.FLUSHING, len(holds))

    def test_a_held_queue_can_be_flushed_before_its_socket_is_closed(self) -> None:
        """The owner may close the socket within a held event."""
        self.assertIs(follow(Event.HOLD, Event.WRITABLE), State.FLUSHING)

    def test_no_flush_begins_within_another(self) -> None:
        """A call of a callback neither begins nor ends a flush, unless it closes the queue."""
        for event in (*OUTSIDE_EVENTS, *CALLS - {Event.CLOSE, Event.REPORTED}):
            self.assertIs(TABLE[State.FLUSHING, event], State.FLUSHING, event.name)

    def test_a_waiting_queue_leaves_its_state_for_its_own_event_only(self) -> None:
        """A push does not call a kernel without room again."""
        for state, awaited in WAITING_STATES.items():
            for event in (*OUTSIDE_EVENTS, *CALLS - {Event.CLOSE, Event.REPORTED}):
                expected = State.FLUSHING if event is awaited else state
                self.assertIs(TABLE[state, event], expected, f"{state.name}, {event.name}")

    def test_a_full_kernel_is_awaited(self) -> None:
        """A lack of memory, and the next turn of the reactor, need a timer."""
        self.assertIs(follow(Event.PUSH, Event.NO_ROOM), State.BLOCKED)
        self.assertIs(follow(Event.PUSH, Event.NO_MEMORY), State.RESTING)
        self.assertIs(follow(Event.PUSH, Event.TURN_OVER), State.RESTING)

    def test_a_report_collects_what_is_pushed_in_it(self) -> None:
        """A flush sends the collected items; without items the report ends."""
        reporting = (Event.PUSH, Event.DRAINED_FULL)
        for event in (Event.HOLD, Event.RELEASE, Event.PUSH, Event.TIMER):
            self.assertIs(follow(*reporting, event), State.REPORTING, event.name)
        self.assertIs(follow(*reporting, Event.WRITABLE), State.FLUSHING)
        self.assertIs(follow(*reporting, Event.REPORTED), State.IDLE)

    def test_late_events_change_nothing(self) -> None:
        """For example, the socket of an idle queue becomes writable."""
        for event in (Event.WRITABLE, Event.TIMER, Event.RELEASE):
            self.assertIs(follow(event), State.IDLE, event.name)
        self.assertIs(follow(Event.HOLD, Event.TIMER), State.HELD)

    def test_a_close_is_final(self) -> None:
        """Every state leads to CLOSED, and no event leads out of it."""
        for state in State:
            self.assertIs(TABLE[state, Event.CLOSE], State.CLOSED, state.name)
        for event in Event:
            if (State.CLOSED, event) in TABLE:
                self.assertIs(TABLE[State.CLOSED, event], State.CLOSED, event.name)

    @given(lists(sampled_from(sorted(Event, key=lambda event: event.name)), max_size=30))
    def test_after_any_events_a_pushed_item_can_leave(self, events: list[Event]) -> None:
        """It leaves at once, after a release, or after the awaited event."""
        state = State.IDLE
        for event in events:
            if (state, event) in TABLE:
                state = TABLE[state, event]
            else:
                self.assertNotIn(event, OUTSIDE_EVENTS, state.name)
        if state is State.CLOSED:
            self.assertIn(Event.CLOSE, events)
            return
        state = TABLE[state, Event.PUSH]
        if state is State.HELD:
            state = TABLE[TABLE[state, Event.RELEASE], Event.PUSH]
        elif state is not State.FLUSHING:
            state = TABLE[state, WAITING_STATES.get(state, Event.WRITABLE)]
        self.assertIs(state, State.FLUSHING)
