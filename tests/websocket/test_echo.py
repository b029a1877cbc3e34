"""The echo sends each message back with its type."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.connections import binary, connected, ping, text
from twsock.websocket.echo import WebSocketEcho


class EchoTests(SynchronousTestCase):
    """`WebSocketEcho`."""

    def test_messages_come_back(self) -> None:
        """Text as text, binary as binary, in one send."""
        made = connected(WebSocketEcho)
        made.receive(text("\u00e4") + binary(b"") + ping(b"p") + binary(b"x" * 70_000))
        expected = [("text", "\u00e4"), ("binary", b""), ("pong", b"p"), ("binary", b"x" * 70_000)]
        self.assertEqual(made.frames(), expected)
