"""Pongs leave at intervals, if so set."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.connected import Served, served
from twsock import MessageWebSocket
from twsock.sockets.websocket.pongs import UnsolicitedPongs


class PongTests(SynchronousTestCase):
    """One heartbeat."""

    def test_pongs_are_sent_until_the_websocket_is_closed(self) -> None:
        """Stopping ends the pongs, too; a second stop does nothing."""
        clock = Clock()
        sent: list[float] = []

        def send() -> bool:
            sent.append(clock.seconds())
            return len(sent) < 3

        UnsolicitedPongs(clock, 2, send)
        clock.pump([1] * 20)
        self.assertEqual(sent, [2, 4, 6])
        self.assertEqual(clock.getDelayedCalls(), [])
        pongs = UnsolicitedPongs(clock, 2, send)
        pongs.stop()
        pongs.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_websocket_sends_them_if_so_set(self) -> None:
        """W26: The actual interval is the desired one; the default is none."""
        self.assertIsNone(served(MessageWebSocket).socket.control.actual_unsolicited_pong_interval)
        made = Served(MessageWebSocket)
        control = made.socket.control
        control.ping_interval = None
        control.desired_unsolicited_pong_interval = 5
        self.assertEqual(control.actual_unsolicited_pong_interval, 5)
        made.connect()
        made.accept()
        made.reactor.advance(5)
        made.reactor.advance(5)
        self.assertEqual(made.frames(), [("pong", b""), ("pong", b"")])
        made.socket.close(1000)
        made.reactor.advance(4)
        self.assertEqual(made.frames(), [("close", b"\x03\xe8")])
        made.lose()
        self.assertEqual(made.reactor.getDelayedCalls(), [])

    def test_lost_websocket_stops_them(self) -> None:
        """No delayed call is left."""
        made = Served(MessageWebSocket)
        made.socket.control.desired_unsolicited_pong_interval = 5
        made.connect()
        made.accept()
        made.reset()
        self.assertEqual(made.reactor.getDelayedCalls(), [])
