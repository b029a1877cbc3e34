"""A datagram socket is opened once, and each call in the wrong phase has an error of its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import BusyError, ClosedError, LocalProtocolError, SocketError
from twsock.sockets.datagram.state import DatagramSocketState, Phase


class StateTests(SynchronousTestCase):
    """The state of one socket."""

    def setUp(self) -> None:
        self.state = DatagramSocketState()

    def open_when(self, wait: Deferred[None], phase: Phase = Phase.BOUND) -> Deferred[Any]:
        """Start to open the socket; it is open once the wait fires."""

        async def work() -> str:
            await wait
            self.state.phase = phase
            return "open"

        return self.state.open(work(), is_connecting=phase is Phase.CONNECTED)

    def test_an_operation_that_succeeds_sets_the_phase(self) -> None:
        """Until then the socket is in use, but not open."""
        self.assertFalse(self.state.is_in_use())
        wait: Deferred[None] = Deferred()
        opening = self.open_when(wait)
        self.assertEqual((self.state.is_in_use(), self.state.is_open), (True, False))
        wait.callback(None)
        self.assertEqual(self.successResultOf(opening), "open")
        self.assertTrue(self.state.is_open)

    def test_an_operation_that_fails_restores_the_phase(self) -> None:
        """The socket can be opened again."""
        wait: Deferred[None] = Deferred()
        opening = self.open_when(wait)
        wait.errback(SocketError("no route"))
        self.failureResultOf(opening, SocketError)
        self.assertIs(self.state.phase, Phase.UNBOUND)

    def test_a_bound_socket_can_be_connected_and_not_bound_again(self) -> None:
        """A connected one can do neither."""
        self.state.phase = Phase.BOUND
        done: Deferred[None] = Deferred()
        done.callback(None)
        self.failureResultOf(self.open_when(done), LocalProtocolError)
        self.assertEqual(self.successResultOf(self.open_when(done, Phase.CONNECTED)), "open")
        self.failureResultOf(self.open_when(done, Phase.CONNECTED), LocalProtocolError)

    def test_a_second_operation_is_refused_while_one_is_under_way(self) -> None:
        """The first one goes on."""
        wait: Deferred[None] = Deferred()
        opening = self.open_when(wait)
        self.failureResultOf(self.open_when(wait), BusyError)
        wait.callback(None)
        self.assertEqual(self.successResultOf(opening), "open")

    def test_closing_ends_the_operation_under_way(self) -> None:
        """It fails with `ClosedError`, and so does every later one."""
        wait: Deferred[None] = Deferred()
        opening = self.open_when(wait)
        self.state.close()
        self.failureResultOf(opening, ClosedError)
        self.failureResultOf(self.open_when(wait), ClosedError)
        self.assertTrue(self.state.is_closed)

    def test_groups_can_be_joined_only_when_bound(self) -> None:
        """Each other phase has its error."""
        for phase, kind in (
            (Phase.UNBOUND, LocalProtocolError),
            (Phase.OPENING, BusyError),
            (Phase.CONNECTED, LocalProtocolError),
            (Phase.CLOSED, ClosedError),
        ):
            self.state.phase = phase
            self.assertRaises(kind, self.state.check_group_call)
        self.state.phase = Phase.BOUND
        self.state.check_group_call()

    def test_writes_in_the_wrong_phase_have_the_error_of_that_phase(self) -> None:
        """On a closed socket every write fails with `ClosedError`."""
        self.assertIsInstance(self.state.not_connected(), LocalProtocolError)
        self.state.phase = Phase.OPENING
        self.assertIsInstance(self.state.not_bound(), BusyError)
        self.state.phase = Phase.CONNECTED
        self.assertIsInstance(self.state.not_bound(), LocalProtocolError)
        self.state.close()
        for error in (self.state.not_connected(), self.state.not_bound()):
            self.assertIsInstance(error, ClosedError, f"{error=}")
