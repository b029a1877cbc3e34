"""The new process of a restart: its table. `tests.restart.test_old_side` has both sides."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError
from twsock.restart.new_side import TABLE, Action, Event, State, follow

_ARRIVING = set(Event) - {Event.DEADLINE, Event.STARTED, Event.STOPPED}


class TableTests(SynchronousTestCase):
    """The table alone."""

    def test_what_arrives_has_a_step_while_the_channel_is_open(self) -> None:
        """The other process decides what arrives, so none of it is an error of this one."""
        for state in (State.ASKED, State.RECEIVING, State.HELD, State.READY):
            found = {event for one, event in TABLE if one is state}
            self.assertLessEqual(_ARRIVING, found, state)

    def test_what_fails_before_it_is_ready_closes_what_it_took(self) -> None:
        """Descriptors that stay open would take connections that nobody accepts."""
        for (state, _), step in TABLE.items():
            if step.state is State.FAILED and state is not State.FAILED:
                ending, *rest = step.actions
                # Services that have started are paused first.
                has_begun = state in (State.HELD, State.READY)
                self.assertIn(ending, {Action.DROP, Action.END} if has_begun else {Action.DROP})
                self.assertEqual(rest, [Action.CLOSE], state)

    def test_the_death_of_the_old_process_is_no_failure(self) -> None:
        """The new process may hold the only copies of the sockets."""
        for state in (State.RECEIVING, State.HELD, State.READY):
            self.assertIs(follow(state, Event.BROKEN).state, State.ALONE)
        self.assertIs(follow(State.ASKED, Event.BROKEN).state, State.FAILED)

    def test_a_process_that_ends_says_so_if_the_old_one_listens(self) -> None:
        """Without a farewell, the old one would accept again."""
        self.assertIn(Action.SEND_FAREWELL, follow(State.READY, Event.STOPPED).actions)

    def test_an_event_without_a_step_is_named(self) -> None:
        """The error names the event and the state."""
        with self.assertRaisesRegex(LocalProtocolError, "all services listen.*has asked"):
            follow(State.ASKED, Event.STARTED)
