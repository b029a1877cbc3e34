"""Settings of WebSocket servers are checked when they are made."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twsock.websocket.settings import WebSocketSettings


class SettingsTests(SynchronousTestCase):
    """Defaults and bounds."""

    def test_defaults_are_those_of_the_documentation(self) -> None:
        """10 seconds for the handshake, a ping every 20 seconds, and 20 seconds to answer it."""
        settings = WebSocketSettings()
        self.assertEqual(
            (settings.handshake_timeout, settings.ping_interval, settings.ping_timeout),
            (10, 20, 20),
        )
        self.assertEqual((settings.max_fragments, settings.max_fragment_size), (1024, None))

    def test_numbers_out_of_bounds_are_refused(self) -> None:
        """The error names the number."""
        wrong: list[dict[str, Any]] = [
            {"handshake_timeout": 0},
            {"handshake_timeout": float("nan")},
            {"ping_interval": 0},
            {"ping_timeout": -1},
            {"max_fragments": 0},
            {"max_fragment_size": 0},
        ]
        for options in wrong:
            with self.assertRaisesRegex(ValueError, next(iter(options))):
                WebSocketSettings(**options)
