"""The state of a stream socket: which calls it allows, and what ends a pending connect."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.sockets.stream.state import StreamSocketState


class StateCase(SynchronousTestCase):
    """A state, and a connect that ends when the test decides."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.state = StreamSocketState()
        self.step: Deferred[None] = Deferred()
        self.restarts = 0

    def connect(self, timeout: float | None = None) -> Deferred[None]:
        return self.state.connect(self.work(), self.start_again, self.clock, timeout)

    async def work(self) -> None:
        await self.step
        self.state.connected()

    def start_again(self) -> None:
        self.restarts += 1


class ConnectingTests(StateCase):
    """A socket has one connect at a time."""

    def test_a_connect_connects_the_socket(self) -> None:
        """Options are fixed from its start; further connects are refused."""
        self.assertFalse(self.state.is_in_use())
        connecting = self.connect()
        self.assertTrue(self.state.is_in_use())
        self.failureResultOf(self.connect(), BusyError)
        self.step.callback(None)
        self.successResultOf(connecting)
        self.failureResultOf(self.connect(), LocalProtocolError)
        self.assertEqual(self.restarts, 0)

    def test_after_a_failure_the_socket_is_unconnected(self) -> None:
        """``start_again`` is called; other errors become a `SocketError`."""
        for error in (BrokenError("lost"), OSError(111, "Connection refused")):
            self.setUp()
            connecting = self.connect()
            self.state.has_begun_tls = True
            self.step.errback(error)
            self.failureResultOf(connecting, SocketError)
            self.assertFalse(self.state.is_in_use(), error)
            self.assertFalse(self.state.is_securing(), error)
            self.assertEqual(self.restarts, 1, error)

    def test_after_a_cancellation_or_a_timeout_the_socket_is_unconnected(self) -> None:
        """The error of a timeout has the status of a timeout."""
        cancelled = self.connect()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.step = Deferred()
        slow = self.connect(timeout=2)
        self.clock.advance(2)
        error = self.failureResultOf(slow, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertFalse(self.state.is_in_use())
        self.assertEqual(self.restarts, 2)

    def test_the_end_of_a_failed_connection_changes_nothing(self) -> None:
        """Its loss is reported later, before or during the next connect."""
        self.connect().addErrback(lambda _: None).cancel()
        self.state.lost(BrokenError("aborted"))
        self.assertFalse(self.state.is_in_use())
        self.step = Deferred()
        again = self.connect()
        self.state.lost(BrokenError("aborted"))
        self.assertNoResult(again)
        self.step.callback(None)
        self.successResultOf(again)
        self.assertFalse(self.state.was_lost)
        self.assertFalse(self.state.is_ended)


class EndTests(StateCase):
    """Close, abort and loss end a socket."""

    def test_the_end_of_a_socket_fails_its_connect(self) -> None:
        """The connect fails with `ClosedError`, and later calls are refused."""
        for end in ("close", "abort"):
            self.setUp()
            connecting = self.connect()
            getattr(self.state, end)()
            self.failureResultOf(connecting, ClosedError)
            self.failureResultOf(self.connect(), ClosedError)
            self.assertRaises(ClosedError, self.state.check_upgrade)
            self.assertTrue(self.state.is_ended, end)
            self.assertEqual(self.restarts, 0, end)

    def test_a_closed_socket_is_not_connected_afterwards(self) -> None:
        """A transport may report its connection after the close."""
        self.state.close()
        self.state.connected()
        self.assertTrue(self.state.is_ended)

    def test_resets_and_aborts_count_as_losses(self) -> None:
        """An end in order, and any event after a close, do not count."""
        reset = BrokenError("reset")
        for ends, error, was_lost in (
            ((), None, False),
            ((), reset, True),
            (("close",), None, False),
            (("close",), reset, False),
            (("abort",), None, True),
            (("abort",), reset, True),
            (("close", "abort"), None, True),
            (("abort", "close"), reset, True),
        ):
            self.setUp()
            self.state.connected()
            for end in ends:
                getattr(self.state, end)()
            self.assertFalse(self.state.was_lost, ends)
            self.state.lost(error)
            self.assertEqual(self.state.was_lost, was_lost, (ends, error))
            self.assertTrue(self.state.is_ended, (ends, error))
            self.state.close()
            self.assertEqual(self.state.was_lost, was_lost, (ends, error))


class UpgradeTests(StateCase):
    """A handshake on a connected socket."""

    def test_a_connected_socket_is_upgraded_once(self) -> None:
        """An upgrade is refused before the connection and after the begin of TLS."""
        self.assertRaises(LocalProtocolError, self.state.check_upgrade)
        self.state.connected()
        self.state.check_upgrade()
        self.assertFalse(self.state.is_securing())
        self.state.has_begun_tls = True
        self.assertTrue(self.state.is_securing())
        self.assertRaises(LocalProtocolError, self.state.check_upgrade)
