"""The old process of a restart: its table, and every order of events of both processes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.restart.worlds import New, Old, explore
from twsock.errors import LocalProtocolError
from twsock.restart.old_side import TABLE, Action, Event, State, follow

#: The states in which the old process reads from the channel.
_CONNECTED = {State.SHARED, State.MOVING, State.DRAINING}


class TableTests(SynchronousTestCase):
    """The table alone."""

    def test_what_the_new_process_sends_has_a_step(self) -> None:
        """The other process decides what arrives, so none of it is an error of this one."""
        for state in _CONNECTED:
            for event in (Event.READY, Event.FAREWELL, Event.FOREIGN, Event.BROKEN):
                self.assertIn((state, event), TABLE)

    def test_a_stop_has_a_step_until_the_end(self) -> None:
        """SIGTERM may come in each phase."""
        for state in set(State) - {State.ENDED}:
            self.assertEqual(follow(state, Event.STOPPED).state, State.ENDED, state)

    def test_a_refusal_is_sent_before_the_channel_is_closed(self) -> None:
        """Otherwise the new process would take this one for dead."""
        for (state, event), step in TABLE.items():
            if state is State.SHARED and step.state is State.SERVING and event is not Event.BROKEN:
                self.assertEqual(step.actions, (Action.REFUSE, Action.CLOSE), event)

    def test_an_event_without_a_step_is_named(self) -> None:
        """The error names the event and the state."""
        with self.assertRaisesRegex(LocalProtocolError, "no connection is left.*the process ends"):
            follow(State.ENDED, Event.DRAINED)


class WorldTests(SynchronousTestCase):
    """Both tables together."""

    def test_without_faults_the_new_process_serves(self) -> None:
        """The old process has ended, and the new one owns the UNIX paths."""
        _, ends = explore(0)
        self.assertTrue(ends)
        for world in ends:
            self.assertEqual((world.old, world.new), (Old.ENDED, New.ALONE))
            self.assertTrue(world.new_owns and not world.old_owns, f"{world}")

    def test_one_process_serves_after_any_two_faults(self) -> None:
        """Exactly one, if one is left that has the sockets and was not stopped."""
        _, ends = explore(2)
        served = 0
        for world in ends:
            self.assertLessEqual(world.accepting, 1, f"two serve: {world}")
            survives = world.old in (Old.SERVING, Old.RETURNING) or world.new is New.ALONE
            self.assertEqual(world.accepting, survives, f"{world}")
            served += survives
            if not survives and world.faults < 2:
                # The other process had no socket yet, or had ended, or this was a stop of both.
                had_none = (world.killed_old or world.stopped_old) and world.new is New.FAILED
                excused = had_none or world.killed_alone or world.stopped_new
                self.assertTrue(excused, f"nobody serves: {world}")
        self.assertGreater(served, 20)

    def test_the_process_that_serves_owns_the_paths(self) -> None:
        """And no other one does, so that none removes a path that is in use."""
        _, ends = explore(2)
        for world in ends:
            old_serves = world.old in (Old.SERVING, Old.RETURNING)
            new_serves = world.new is New.ALONE
            if old_serves:
                self.assertTrue(world.old_owns, f"{world}")
                self.assertFalse(world.new is not None and world.new_owns, f"{world}")
            if new_serves:
                self.assertTrue(world.new_owns, f"{world}")
                self.assertFalse(world.old is not None and world.old_owns, f"{world}")

    def test_somebody_accepts_at_every_moment(self) -> None:
        """With at most one fault: each socket is in use, or a living process starts with it."""
        seen, _ = explore(1)
        for world in seen:
            if world.accepting or world.killed_old or world.stopped_old or world.stopped_new:
                continue
            if world.killed_alone:
                continue
            # The old one waits for the end of the channel, and then accepts again.
            waits = world.old in (Old.MOVING, Old.DRAINING)
            starts = world.new in (New.RECEIVING, New.HELD)
            self.assertTrue(waits or starts, f"{world}")
