"""An upgrade leads from plaintext to TLS, or to a failure; it never leads back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis.strategies import floats, lists, sampled_from, tuples
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError
from twsock.stream.upgrade_core import (
    APPLICATION_EVENTS,
    CLIENT_EVENTS,
    SERVER_EVENTS,
    TABLE,
    TIMED_STATES,
    Action,
    Event,
    Row,
    Sending,
    Side,
    State,
    UpgradeCore,
    delivers_in,
    sending_in,
)

TIMEOUT = 10.0
BEGIN = (Action.ARM_DEADLINE, Action.HOLD_OUTPUT, Action.START_HANDSHAKE)
FAIL = (Action.DISARM_DEADLINE, Action.ABORT, Action.REPORT)
#: Events of messages and bytes of the peer.
SENT = frozenset(
    (
        Event.MESSAGE,
        Event.EARLY_MESSAGE,
        Event.TOO_MANY_BYTES,
        Event.REQUEST,
        Event.CLIENT_HELLO,
        Event.GO_AHEAD,
        Event.PLAINTEXT,
    )
)
#: The events that lead to each state, by the side that has it.
TO_HELD = (Event.REQUEST,)
TO_REQUESTED = (Event.BEGIN_COMMAND,)
TO_HANDSHAKE = (Event.BEGIN_DIRECT,)
TO_JUDGED = (*TO_HANDSHAKE, Event.COMPLETED)
TO_SECURE = (*TO_JUDGED, Event.ACCEPTED)
TO_FAILED = (*TO_JUDGED, Event.REFUSED)


def events_of(side: Side) -> frozenset[Event]:
    """Return the events that one side has."""
    return frozenset(Event) - (CLIENT_EVENTS if side is Side.SERVER else SERVER_EVENTS)


def start(side: Side, *events: Event) -> UpgradeCore:
    """Return a core after some events."""
    core = UpgradeCore(side, TIMEOUT)
    for event in events:
        core.handle(event, 0.0)
    return core


def walk(side: Side) -> Iterator[tuple[State, Event, Row]]:
    """Return each row that one side can reach."""
    found, queue = {State.PLAIN}, [State.PLAIN]
    while queue:
        state = queue.pop(0)
        for event in events_of(side):
            row = TABLE.get((state, event))
            if row is None:
                continue
            yield state, event, row
            if row.state not in found:
                found.add(row.state)
                queue.append(row.state)


class Wire:
    """A connection that carries out the actions, and does not know the states."""

    def __init__(self) -> None:
        self.output = Sending.PLAINTEXT
        self.is_armed = False

    def carry_out(self, event: Event, actions: Sequence[Action]) -> None:
        if event is Event.LOST:
            self.output = Sending.NOTHING
        for action in actions:
            if action is Action.HOLD_OUTPUT:
                self.output = Sending.HELD
            elif action is Action.CONTINUE:
                self.output = Sending.ENCRYPTED
            elif action is Action.ABORT:
                self.output = Sending.NOTHING
            elif action is Action.ARM_DEADLINE:
                self.is_armed = True
            elif action is Action.DISARM_DEADLINE:
                self.is_armed = False


class ConversationTests(SynchronousTestCase):
    """Both sides, both ways to begin, TLS from the first byte, and a socket without messages."""

    def assert_conversation(self, side: Side, *steps: tuple[Event, Row]) -> None:
        core = UpgradeCore(side, TIMEOUT)
        for event, (state, actions) in steps:
            self.assertEqual(core.handle(event, 0.0), actions, event)
            self.assertIs(core.state, state, event)

    def test_a_server_upgrades_after_a_request(self) -> None:
        """The go-ahead is the last message in plaintext; inside TLS a request is refused."""
        self.assert_conversation(
            Side.SERVER,
            (Event.MESSAGE, Row(State.PLAIN, (Action.DELIVER,))),
            (
                Event.REQUEST,
                Row(State.HELD, (Action.ARM_DEADLINE, Action.HOLD_OUTPUT, Action.SEND_GO_AHEAD)),
            ),
            (Event.CLIENT_HELLO, Row(State.HANDSHAKE, (Action.START_HANDSHAKE,))),
            (Event.COMPLETED, Row(State.JUDGED, (Action.JUDGE,))),
            (Event.ACCEPTED, Row(State.SECURE, (Action.DISARM_DEADLINE, Action.CONTINUE))),
            (Event.MESSAGE, Row(State.SECURE, (Action.DELIVER,))),
            (Event.REQUEST, Row(State.SECURE, (Action.SEND_REFUSAL,))),
            (Event.CLIENT_HELLO, Row(State.SECURE, (Action.DELIVER,))),
            (Event.LOST, Row(State.FAILED, ())),
        )

    def test_a_server_upgrades_at_a_hello(self) -> None:
        """A ClientHello at a boundary needs no request."""
        self.assert_conversation(
            Side.SERVER,
            (Event.EARLY_MESSAGE, Row(State.PLAIN, (Action.DROP,))),
            (Event.CLIENT_HELLO, Row(State.HANDSHAKE, BEGIN)),
        )

    def test_a_server_awaits_the_hello_with_implicit_tls(self) -> None:
        """The server sends nothing in plaintext."""
        self.assert_conversation(
            Side.SERVER,
            (
                Event.AWAIT_HELLO,
                Row(State.HELD, (Action.ARM_DEADLINE, Action.HOLD_OUTPUT)),
            ),
            (Event.CLIENT_HELLO, Row(State.HANDSHAKE, (Action.START_HANDSHAKE,))),
        )

    def test_a_client_upgrades_by_command(self) -> None:
        """Bytes written behind the request wait."""
        self.assert_conversation(
            Side.CLIENT,
            (Event.MESSAGE, Row(State.PLAIN, (Action.DELIVER,))),
            (Event.GO_AHEAD, Row(State.PLAIN, (Action.DELIVER,))),
            (
                Event.BEGIN_COMMAND,
                Row(
                    State.REQUESTED,
                    (Action.ARM_DEADLINE, Action.HOLD_OUTPUT, Action.SEND_REQUEST),
                ),
            ),
            (Event.GO_AHEAD, Row(State.HANDSHAKE, (Action.START_HANDSHAKE,))),
            (Event.COMPLETED, Row(State.JUDGED, (Action.JUDGE,))),
            (Event.ACCEPTED, Row(State.SECURE, (Action.DISARM_DEADLINE, Action.CONTINUE))),
            (Event.GO_AHEAD, Row(State.SECURE, (Action.DELIVER,))),
        )

    def test_a_server_above_a_tls_endpoint_begins_secure(self) -> None:
        """A request inside TLS is refused."""
        core = UpgradeCore(Side.SERVER, TIMEOUT, is_secure=True)
        self.assertEqual(core.handle(Event.MESSAGE, 0.0), (Action.DELIVER,))
        self.assertEqual(core.handle(Event.REQUEST, 0.0), (Action.SEND_REFUSAL,))
        self.assertRaises(LocalProtocolError, core.handle, Event.AWAIT_HELLO, 0.0)

    def test_both_sides_begin_directly(self) -> None:
        """A client sends its ClientHello; a server without messages begins when it is called."""
        for side in Side:
            self.assert_conversation(side, (Event.BEGIN_DIRECT, Row(State.HANDSHAKE, BEGIN)))

    def test_a_refused_peer_fails_the_upgrade(self) -> None:
        """OpenSSL had completed the handshake."""
        self.assert_conversation(
            Side.CLIENT,
            (Event.BEGIN_DIRECT, Row(State.HANDSHAKE, BEGIN)),
            (Event.COMPLETED, Row(State.JUDGED, (Action.JUDGE,))),
            (Event.REFUSED, Row(State.FAILED, FAIL)),
            (Event.MESSAGE, Row(State.FAILED, (Action.DROP,))),
        )


class FailureTests(SynchronousTestCase):
    """Events that end an upgrade."""

    def test_plaintext_after_the_switch_fails_it(self) -> None:
        """No such message is handled, not even a second request."""
        for side, path in (
            (Side.SERVER, TO_HELD),
            (Side.CLIENT, TO_REQUESTED),
            (Side.SERVER, TO_HANDSHAKE),
            (Side.CLIENT, TO_HANDSHAKE),
            (Side.SERVER, TO_JUDGED),
            (Side.CLIENT, TO_JUDGED),
        ):
            for event in SENT & events_of(side):
                core = start(side, *path)
                if core.handle(event, 0.0) != FAIL:
                    # Only the event that has to come next continues the upgrade.
                    expected = Event.CLIENT_HELLO if side is Side.SERVER else Event.GO_AHEAD
                    self.assertIs(event, expected, (side, path))
                    self.assertIs(core.state, State.HANDSHAKE, (side, path))
                    self.assertIn(path, (TO_HELD, TO_REQUESTED), (side, event))

    def test_plaintext_that_nobody_handled_fails_it(self) -> None:
        """Such bytes would pass as an answer from inside TLS."""
        for side in Side:
            self.assertEqual(start(side).handle(Event.PLAINTEXT, 0.0), FAIL, side)

    def test_too_many_bytes_before_a_required_upgrade_fail_it(self) -> None:
        """The bytes of dropped messages count."""
        self.assertEqual(start(Side.SERVER).handle(Event.TOO_MANY_BYTES, 0.0), FAIL)

    def test_inside_tls_nothing_comes_before_the_upgrade(self) -> None:
        """An event that is reported too late aborts the connection."""
        for event in (Event.EARLY_MESSAGE, Event.TOO_MANY_BYTES, Event.PLAINTEXT):
            self.assertEqual(start(Side.SERVER, *TO_SECURE).handle(event, 0.0), FAIL, event)

    def test_the_end_of_a_handshake_that_does_not_run_fails_the_upgrade(self) -> None:
        """A connection becomes secure only by the verification of a finished handshake."""
        ends = (Event.COMPLETED, Event.ACCEPTED, Event.REFUSED)
        for side, path in (
            (Side.SERVER, ()),
            (Side.SERVER, TO_HELD),
            (Side.CLIENT, TO_REQUESTED),
            (Side.CLIENT, TO_HANDSHAKE),
            (Side.CLIENT, TO_JUDGED),
            (Side.CLIENT, TO_SECURE),
        ):
            for event in ends:
                core = start(side, *path)
                is_next = (path, event) in (
                    (TO_HANDSHAKE, Event.COMPLETED),
                    (TO_JUDGED, Event.ACCEPTED),
                )
                if not is_next:
                    self.assertEqual(core.handle(event, 0.0), FAIL, (side, path, event))
                    self.assertIs(core.state, State.FAILED, (side, path, event))

    def test_after_a_failure_messages_are_dropped(self) -> None:
        """All other events keep the state and cause no action."""
        for side in Side:
            for event in events_of(side) - APPLICATION_EVENTS:
                core = start(side, *TO_FAILED)
                expected = (Action.DROP,) if event in SENT else ()
                self.assertEqual(core.handle(event, 0.0), expected, (side, event))
                self.assertIs(core.state, State.FAILED, (side, event))

    def test_a_cancelled_upgrade_aborts_without_a_report(self) -> None:
        """The application may cancel in `connection_secured`, too."""
        for side, path in (
            (Side.SERVER, TO_HELD),
            (Side.CLIENT, TO_REQUESTED),
            (Side.CLIENT, TO_HANDSHAKE),
            (Side.CLIENT, TO_JUDGED),
            (Side.CLIENT, TO_SECURE),
        ):
            core = start(side, *path)
            actions = core.handle(Event.CANCEL, 0.0)
            self.assertEqual(actions, (Action.DISARM_DEADLINE, Action.ABORT), path)
            self.assertIs(core.state, State.FAILED, path)

    def test_cancelling_a_failed_upgrade_does_nothing(self) -> None:
        """A failed upgrade has ended."""
        self.assertEqual(start(Side.CLIENT, *TO_FAILED).handle(Event.CANCEL, 0.0), ())

    def test_a_loss_is_reported_to_whoever_waits(self) -> None:
        """A client that disconnects before its ClientHello is not reported."""
        report = (Action.DISARM_DEADLINE, Action.REPORT)
        for side, path, expected in (
            (Side.CLIENT, (), ()),
            (Side.SERVER, TO_HELD, (Action.DISARM_DEADLINE,)),
            (Side.CLIENT, TO_REQUESTED, report),
            (Side.CLIENT, TO_HANDSHAKE, report),
            (Side.CLIENT, TO_JUDGED, report),
            (Side.CLIENT, TO_SECURE, ()),
            (Side.CLIENT, TO_FAILED, ()),
        ):
            core = start(side, *path)
            self.assertEqual(core.handle(Event.LOST, 0.0), expected, path)
            self.assertIs(core.state, State.FAILED, path)


class DeadlineTests(SynchronousTestCase):
    """One deadline lasts from the switch to the end of the handshake."""

    def test_it_begins_with_the_switch(self) -> None:
        """A connection in plaintext has no deadline."""
        core = UpgradeCore(Side.SERVER, 2.5)
        core.handle(Event.MESSAGE, 1.0)
        self.assertIsNone(core.deadline)
        core.handle(Event.REQUEST, 100.0)
        self.assertEqual(core.deadline, 102.5)

    def test_no_event_moves_it(self) -> None:
        """The handshake has the remaining seconds."""
        core = UpgradeCore(Side.SERVER, TIMEOUT)
        core.handle(Event.REQUEST, 100.0)
        core.handle(Event.CLIENT_HELLO, 105.0)
        core.handle(Event.COMPLETED, 109.0)
        self.assertEqual(core.deadline, 110.0)

    def test_it_fails_the_upgrade_once_when_it_is_due(self) -> None:
        """In each state with a deadline, an earlier call changes nothing."""
        for side, path in (
            (Side.SERVER, TO_HELD),
            (Side.CLIENT, TO_REQUESTED),
            (Side.CLIENT, TO_HANDSHAKE),
            (Side.CLIENT, TO_JUDGED),
        ):
            core = start(side, *path)
            self.assertEqual(core.advance(TIMEOUT - 0.1), (), path)
            self.assertEqual(core.advance(TIMEOUT), FAIL, path)
            self.assertIs(core.state, State.FAILED, path)
            self.assertIsNone(core.deadline, path)
            self.assertEqual(core.advance(2 * TIMEOUT), (), path)

    def test_a_late_call_changes_nothing(self) -> None:
        """PLAIN and SECURE have no deadline."""
        for path in ((), TO_SECURE, TO_FAILED):
            core = start(Side.CLIENT, *path)
            state = core.state
            self.assertEqual(core.handle(Event.DEADLINE, 0.0), (), path)
            self.assertIs(core.state, state, path)


class WrongCallTests(SynchronousTestCase):
    """Calls of the application that a state does not allow."""

    def test_an_upgrade_begins_once(self) -> None:
        """The error names the call and the state; the state does not change."""
        begins = (Event.BEGIN_DIRECT, Event.BEGIN_COMMAND, Event.AWAIT_HELLO)
        for side in Side:
            for event in events_of(side) & set(begins):
                for path in (TO_HANDSHAKE, TO_JUDGED, TO_SECURE, TO_FAILED):
                    core = start(side, *path)
                    state = core.state
                    error = self.assertRaises(LocalProtocolError, core.handle, event, 0.0)
                    self.assertIn(event.value, str(error), path)
                    self.assertIn(state.value, str(error), path)
                    self.assertIs(core.state, state, (event, path))

    def test_an_upgrade_that_was_not_begun_cannot_be_cancelled(self) -> None:
        """The call raises an error in PLAIN."""
        self.assertRaises(LocalProtocolError, start(Side.CLIENT).handle, Event.CANCEL, 0.0)

    def test_each_side_has_its_own_events(self) -> None:
        """A client receives no request for TLS, and a server no go-ahead."""
        for side, events in ((Side.SERVER, CLIENT_EVENTS), (Side.CLIENT, SERVER_EVENTS)):
            for event in events:
                error = self.assertRaises(LocalProtocolError, start(side).handle, event, 0.0)
                self.assertIn(side.value, str(error), event)


class TableTests(SynchronousTestCase):
    """Rules that hold for every row."""

    def test_no_event_of_the_peer_the_kernel_or_the_clock_is_missing(self) -> None:
        """Each state of a side has a row for each event of that side."""
        for side in Side:
            states = {state for state, _, _ in walk(side)}
            for state in states:
                for event in events_of(side) - APPLICATION_EVENTS:
                    self.assertIn((state, event), TABLE, side)

    def test_every_row_is_reached(self) -> None:
        """A server or a client reaches every row, state and action."""
        reached = {(state, event) for side in Side for state, event, _ in walk(side)}
        self.assertEqual(set(TABLE) - reached, set())
        self.assertEqual({state for state, _ in reached}, set(State))
        self.assertEqual({action for row in TABLE.values() for action in row.actions}, set(Action))

    def test_only_messages_of_one_side_are_delivered(self) -> None:
        """Messages are handled in PLAIN and SECURE; in between they fail the upgrade."""
        for (state, event), row in TABLE.items():
            is_handled = Action.DELIVER in row.actions
            self.assertLessEqual(
                is_handled, delivers_in(state) and row.state is state, (state, event)
            )
            if event in SENT and not delivers_in(state):
                expected = (Action.DROP,) if state is State.FAILED else FAIL
                if row.state is not State.HANDSHAKE or state is State.HANDSHAKE:
                    self.assertEqual(row.actions, expected, (state, event))

    def test_words_in_plaintext_are_sent_before_the_switch_only(self) -> None:
        """All other output is held by then; the refusal is sent inside TLS."""
        for (state, event), row in TABLE.items():
            words = {Action.SEND_REQUEST, Action.SEND_GO_AHEAD} & set(row.actions)
            if words:
                self.assertIs(sending_in(state), Sending.PLAINTEXT, event)
                self.assertEqual(row.actions[-2:], (Action.HOLD_OUTPUT, *words), event)
            if Action.SEND_REFUSAL in row.actions:
                self.assertIs(sending_in(state), Sending.ENCRYPTED, event)

    def test_an_action_is_where_its_step_is(self) -> None:
        """Each step has its actions, and each action belongs to its step."""
        for (state, event), row in TABLE.items():
            before, after = sending_in(state), sending_in(row.state)
            is_step = state is not row.state
            for action, belongs in (
                (Action.HOLD_OUTPUT, (before, after) == (Sending.PLAINTEXT, Sending.HELD)),
                (Action.CONTINUE, after is Sending.ENCRYPTED and is_step),
                (Action.START_HANDSHAKE, row.state is State.HANDSHAKE and is_step),
                (Action.JUDGE, row.state is State.JUDGED and is_step),
                (Action.ARM_DEADLINE, state not in TIMED_STATES and row.state in TIMED_STATES),
                (Action.ABORT, row.state is State.FAILED and is_step and event is not Event.LOST),
            ):
                self.assertEqual(action in row.actions, belongs, (state, event, action))
            if state in TIMED_STATES and row.state not in TIMED_STATES:
                self.assertEqual(row.actions[0], Action.DISARM_DEADLINE, (state, event))

    def test_no_state_leads_back(self) -> None:
        """No step leads to PLAIN or out of FAILED; only the verification leads to SECURE."""
        for (state, event), row in TABLE.items():
            if state is not row.state:
                self.assertIsNot(row.state, State.PLAIN, (state, event))
                self.assertIsNot(state, State.FAILED, event)
                if row.state is State.SECURE:
                    self.assertEqual((state, event), (State.JUDGED, Event.ACCEPTED))


class AnyOrderTests(SynchronousTestCase):
    """Rules that hold in any order of events."""

    @given(
        sampled_from(Side),
        lists(
            tuples(sampled_from(Event), floats(min_value=0, max_value=6)),
            max_size=12,
        ),
    )
    def test_the_connection_does_what_its_state_says(
        self, side: Side, events: list[tuple[Event, float]]
    ) -> None:
        """Sending and deadline follow the actions; a deadline that is due ends the upgrade."""
        core, wire, now = UpgradeCore(side, TIMEOUT), Wire(), 0.0
        visited = [core.state]
        for event, seconds in events:
            now += seconds
            wire.carry_out(Event.DEADLINE, core.advance(now))
            state, deadline = core.state, core.deadline
            try:
                actions = core.handle(event, now)
            except LocalProtocolError:
                self.assertTrue(event in APPLICATION_EVENTS or event not in events_of(side))
                self.assertEqual((core.state, core.deadline), (state, deadline))
                continue
            wire.carry_out(event, actions)
            visited.append(core.state)
            if Action.DELIVER in actions:
                self.assertTrue(delivers_in(core.state))
            self.assertIs(wire.output, sending_in(core.state))
            self.assertEqual(wire.is_armed, core.state in TIMED_STATES)
            self.assertEqual(core.deadline is not None, core.state in TIMED_STATES)
            if deadline is not None and core.deadline is not None:
                self.assertEqual(core.deadline, deadline)
            if core.deadline is not None:
                self.assertGreater(core.deadline, now)
        if State.SECURE in visited:
            self.assertIs(visited[visited.index(State.SECURE) - 1], State.JUDGED)
        if State.FAILED in visited:
            self.assertEqual(set(visited[visited.index(State.FAILED) :]), {State.FAILED})
