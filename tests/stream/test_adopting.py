"""A protocol gets a connected socket of Python."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import SocketError
from twsock.stream.adopting import OneProtocol, adopt_socket


class AdoptingTests(SynchronousTestCase):
    """`adopt_socket`, without a reactor; tests/loopback/test_handover.py has every reactor."""

    def test_a_socket_that_cannot_be_used_stays_open(self) -> None:
        """The caller still owns it."""
        with socket.socket() as alone, socket.socket(type=socket.SOCK_DGRAM) as datagram:
            self.assertRaises(SocketError, adopt_socket, Clock(), alone, Protocol)
            self.assertRaises(ValueError, adopt_socket, Clock(), datagram, Protocol)
            self.assertGreater(alone.fileno(), -1)
            self.assertGreater(datagram.fileno(), -1)

    def test_a_factory_that_was_ended_builds_nothing(self) -> None:
        """An endpoint that cannot be cancelled may connect too late."""
        factory: Any = OneProtocol(Protocol)
        self.assertIsInstance(factory.buildProtocol(None), Protocol)
        factory.end()
        self.assertIsNone(factory.buildProtocol(None))
