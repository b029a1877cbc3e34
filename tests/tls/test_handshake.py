"""A handshake lets nothing pass until it is done, and ends in time."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.sockets.stream.connected import InMemory
from twsock import ClosedError, SocketError, SocketErrorStatus
from twsock.names import HostName
from twsock.tls.client import ClientOptions, make_client
from twsock.tls.handshake import Handshake
from twsock.tls.levels import SocketProtectionLevel, choose_versions


class HandshakeTests(SynchronousTestCase):
    """With a peer that says nothing; the others are on a real kernel."""

    def setUp(self) -> None:
        self.connected = InMemory()
        versions = choose_versions(SocketProtectionLevel.TLS13)
        creator, verification = make_client(ClientOptions(versions, HostName("localhost"), []))
        self.handshake = Handshake(
            self.connected.protocol, creator, verification, self.connected.clock, 10.0
        )

    def test_it_is_told_of_its_end(self) -> None:
        """By Twisted's engine."""
        verifyObject(IHandshakeListener, self.handshake)

    def test_only_a_hello_is_sent(self) -> None:
        """What is written meanwhile waits."""
        self.handshake.begin().addErrback(lambda _: None)
        self.connected.output.write(b"never in plaintext")
        self.connected.clock.advance(0)
        sent = self.connected.sent()
        self.assertEqual(sent[:2], b"\x16\x03")
        self.assertNotIn(b"plaintext", sent)

    def test_what_was_not_judged_is_not_let_in(self) -> None:
        """Whatever OpenSSL thinks of the handshake."""
        begun = self.handshake.begin()
        self.handshake.handshakeCompleted()
        error = self.failureResultOf(begun, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CERTIFICATE_IS_INVALID)
        self.assertTrue(self.connected.transport.disconnected)

    def test_it_ends_at_its_deadline(self) -> None:
        """The connection is gone, and no timer is left."""
        begun = self.handshake.begin()
        self.connected.clock.advance(9.9)
        self.assertNoResult(begun)
        self.connected.clock.advance(0.1)
        error = self.failureResultOf(begun, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertTrue(self.connected.transport.disconnected)
        self.assertEqual(self.connected.clock.getDelayedCalls(), [])

    def test_who_closes_meanwhile_ends_it(self) -> None:
        """What waited is not sent."""
        begun = self.handshake.begin()
        write = self.connected.output.write(b"never")
        self.connected.sent()
        self.connected.socket.close()
        engine: Any = self.handshake.transport
        self.assertTrue(self.connected.transport.disconnected)
        self.connected.lose_through(engine)
        self.failureResultOf(begun, ClosedError)
        self.failureResultOf(write, ClosedError)
        self.assertNotIn(b"never", self.connected.sent())
