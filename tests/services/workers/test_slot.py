"""The place of one worker, and the order in which workers are replaced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError
from twsock.services.workers.slot import (
    LONGEST_PAUSE,
    STEADY,
    TABLE,
    Action,
    Event,
    Rollout,
    Slot,
    State,
)


def slot_after(*events: Event) -> Slot:
    """Return a slot after events."""
    slot = Slot()
    for event in events:
        slot.handle(event)
    return slot


READY = (Event.START, Event.READY)


class Workers:
    """The processes of one slot, as the actions of the slot start and end them."""

    def __init__(self) -> None:
        self.slot = Slot()
        self.current: bool | None = None  # Whether it is ready; None: there is none.
        self.successor: bool | None = None
        self.leaving = 0
        self.pauses = False

    def possible(self) -> list[Event]:
        """Return what may happen now."""
        found = [Event.STOP]
        if self.slot.state is State.NEW:
            found.append(Event.START)
        if self.current is not None:
            found += [Event.DIED, *([] if self.current else [Event.READY])]
        if self.successor is not None:
            found += [Event.SUCCESSOR_DIED, *([] if self.successor else [Event.SUCCESSOR_READY])]
        if self.pauses:
            found.append(Event.PAUSE_OVER)
        if self.slot.state is State.READY:
            found.append(Event.REPLACE)
        idle = self.current is self.successor is None and not self.leaving
        if self.slot.state is State.STOPPING and idle:
            found.append(Event.ENDED)
        return found

    def happen(self, event: Event) -> None:
        """Let an event happen, and do what the slot says."""
        if event is Event.READY:
            self.current = True
        elif event is Event.SUCCESSOR_READY:
            self.successor = True
        elif event is Event.DIED:
            self.current = None
        elif event is Event.SUCCESSOR_DIED:
            self.successor = None
        elif event is Event.PAUSE_OVER:
            self.pauses = False
        for action in self.slot.handle(event):
            getattr(self, f"do_{action.name.lower()}")()

    def do_start(self) -> None:
        if self.current is None:
            self.current = False
        else:
            assert self.successor is None
            self.successor = False

    def do_pause(self) -> None:
        assert self.current is self.successor is None
        self.pauses = True

    def do_promote(self) -> None:
        self.leaving += self.current is not None
        assert self.successor is not None
        self.current, self.successor = self.successor, None

    def do_keep(self) -> None:
        assert self.successor is None

    def do_stop(self) -> None:
        self.pauses = False


class TableTests(SynchronousTestCase):
    """What a slot does on each event."""

    @given(st.lists(st.integers(0, 9), max_size=40))
    def test_any_order_of_events_keeps_the_workers_in_order(self, choices: list[int]) -> None:
        """No possible event lacks a row, and the state is true of the processes."""
        workers = Workers()
        for choice in choices:
            possible = workers.possible()
            event = possible[choice % len(possible)]
            if workers.leaving and choice > 6:
                workers.leaving -= 1  # A worker that drains may end at any time.
                continue
            workers.happen(event)
            state = workers.slot.state
            self.assertEqual(workers.pauses, state is State.PAUSING, state)
            if state not in (State.STOPPING, State.ENDED):
                self.assertEqual(workers.slot.is_ready, workers.current is True, state)
                self.assertEqual(workers.successor is not None, state is State.REPLACING, state)

    def test_every_row_can_happen(self) -> None:
        """The table has no row that no order of events reaches."""
        seen: set[tuple[State, Event]] = set()
        remaining: list[tuple[Event, ...]] = [()]
        while remaining:
            events = remaining.pop()
            workers = Workers()
            for event in events:
                workers.happen(event)
            for event in workers.possible():
                row = (workers.slot.state, event)
                if row not in seen or len(events) < 5:
                    seen.add(row)
                    remaining.append((*events, event))
        self.assertEqual(set(TABLE) - seen, set())

    def test_any_other_event_is_an_error_of_the_parent(self) -> None:
        """It names the event and the state, and changes nothing."""
        slot = slot_after(Event.START)
        error = self.assertRaises(LocalProtocolError, slot.handle, Event.PAUSE_OVER)
        expected = f"{Event.PAUSE_OVER.value} is not possible: {State.STARTING.value}"
        self.assertEqual(str(error), expected)
        self.assertIs(slot.state, State.STARTING)

    def test_the_old_worker_serves_until_its_successor_is_ready(self) -> None:
        """The slot is ready all the time."""
        slot = slot_after(*READY, Event.REPLACE)
        self.assertTrue(slot.is_ready)
        self.assertEqual(slot.handle(Event.SUCCESSOR_READY), (Action.PROMOTE,))
        self.assertTrue(slot.is_ready)

    def test_a_successor_that_cannot_start_changes_nothing(self) -> None:
        """The old worker serves on; the other workers are not replaced."""
        slot = slot_after(*READY, Event.REPLACE)
        self.assertEqual(slot.handle(Event.SUCCESSOR_DIED), (Action.KEEP,))
        self.assertTrue(slot.is_ready)


class PauseTests(SynchronousTestCase):
    """How long a slot pauses after a worker has died."""

    def test_the_pause_doubles_up_to_a_minute(self) -> None:
        """It begins with a second."""
        slot = Slot()
        pauses = [slot.next_pause(0.5) for _ in range(8)]
        self.assertEqual(pauses, [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE])

    def test_the_pause_is_short_again_after_a_steady_worker(self) -> None:
        """One that ran for a minute."""
        slot = Slot()
        lifetimes = (0, 0, 0, STEADY - 0.1, STEADY, 0)
        self.assertEqual([slot.next_pause(each) for each in lifetimes], [1, 2, 4, 8, 1, 2])


class RolloutTests(SynchronousTestCase):
    """The order in which workers are replaced."""

    def setUp(self) -> None:
        self.slots = [slot_after(*READY) for _ in range(3)]
        self.rollout = Rollout()

    def replace(self) -> int | None:
        """Begin the next replacement; return the number of its slot."""
        slot = self.rollout.next_slot(self.slots)
        if slot is None:
            return None
        slot.handle(Event.REPLACE)
        return self.slots.index(slot)

    def test_workers_are_replaced_one_after_the_other(self) -> None:
        """The next one begins when the successor is ready."""
        self.rollout.begin(self.slots)
        order = []
        for slot in self.slots:
            order += [self.replace(), self.replace()]
            slot.handle(Event.SUCCESSOR_READY)
        self.assertEqual([*order, self.replace()], [0, None, 1, None, 2, None, None])

    def test_a_second_signal_replaces_all_again(self) -> None:
        """Also those that the first one has replaced."""
        self.rollout.begin(self.slots)
        self.replace()
        self.rollout.begin(self.slots)
        self.assertIsNone(self.replace())
        self.slots[0].handle(Event.SUCCESSOR_READY)
        self.assertEqual(self.replace(), 0)

    def test_a_slot_that_pauses_is_left_out(self) -> None:
        """Its next worker is a new one anyway."""
        self.slots[0].handle(Event.DIED)
        self.rollout.begin(self.slots)
        self.assertEqual(self.replace(), 1)

    def test_a_worker_that_starts_is_waited_for(self) -> None:
        """It may have read its files before the signal."""
        for event in (Event.DIED, Event.PAUSE_OVER):
            self.slots[0].handle(event)
        self.rollout.begin(self.slots)
        self.assertIsNone(self.replace())
        self.slots[0].handle(Event.READY)
        self.assertEqual(self.replace(), 0)

    def test_a_cancelled_rollout_replaces_nothing(self) -> None:
        """It says whether something was left."""
        self.rollout.begin(self.slots)
        self.assertEqual([self.rollout.cancel(), self.rollout.cancel()], [True, False])
        self.assertIsNone(self.replace())
