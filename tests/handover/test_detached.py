"""The values that ``detach()`` returns."""

from __future__ import annotations

import socket
from dataclasses import FrozenInstanceError

from twisted.trial.unittest import SynchronousTestCase

from twsock.handover import DetachedConnection


class DetachedConnectionTests(SynchronousTestCase):
    """A `DetachedConnection`."""

    def setUp(self) -> None:
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        self.detached = DetachedConnection(near, b"secret in", b"secret out")
        self.addCleanup(self.detached.close)

    def test_its_text_has_no_payload(self) -> None:
        """Payloads are never logged."""
        self.assertNotIn("secret", repr(self.detached))

    def test_it_does_not_change(self) -> None:
        """Nobody else changes what will be sent and read."""
        with self.assertRaises(FrozenInstanceError):
            self.detached.unread = b""  # type: ignore[misc]

    def test_closing_it_closes_the_socket(self) -> None:
        """Closing twice is harmless."""
        self.detached.close()
        self.detached.close()
        self.assertEqual(self.detached.socket.fileno(), -1)
