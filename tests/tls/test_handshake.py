"""A handshake lets no byte of the application pass before its end, and has a deadline."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.sockets.stream.connected import InMemory
from twsock import ClosedError, SocketError, SocketErrorStatus
from twsock.tls.handshake import Handshake
from twsock.tls.levels import SocketProtectionLevel


class HandshakeTests(SynchronousTestCase):
    """A handshake of a socket with a silent peer; other tests use real connections."""

    def setUp(self) -> None:
        self.connected = InMemory()

    def begin(self) -> Deferred[None]:
        """Begin the handshake; its engine becomes the protocol of the transport."""
        level, timeout = SocketProtectionLevel.TLS13, 10.0
        return self.connected.socket.upgrade_to_ssl(level, "localhost", timeout=timeout)

    @property
    def handshake(self) -> Any:
        transport: Any = self.connected.transport
        return transport.protocol.wrappedProtocol

    def test_it_provides_twisteds_handshake_listener(self) -> None:
        """Twisted's engine calls it at the end of the handshake."""
        self.begin().addErrback(lambda _: None)
        self.assertIsInstance(self.handshake, Handshake)
        verifyObject(IHandshakeListener, self.handshake)

    def test_during_the_handshake_only_the_hello_is_sent(self) -> None:
        """Writes wait."""
        self.begin().addErrback(lambda _: None)
        self.connected.output.write(b"never in plaintext")
        self.connected.clock.advance(0)
        sent = self.connected.sent()
        self.assertEqual(sent[:2], b"\x16\x03")
        self.assertNotIn(b"plaintext", sent)

    def test_a_peer_that_was_not_verified_is_refused(self) -> None:
        """Also if OpenSSL has accepted the handshake."""
        begun = self.begin()
        self.handshake.handshakeCompleted()
        error = self.failureResultOf(begun, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CERTIFICATE_IS_INVALID)
        self.assertTrue(self.connected.transport.disconnected)

    def test_at_the_deadline_the_connection_is_aborted(self) -> None:
        """No timer is left."""
        begun = self.begin()
        self.connected.clock.advance(9.9)
        self.assertNoResult(begun)
        self.connected.clock.advance(0.1)
        error = self.failureResultOf(begun, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertTrue(self.connected.transport.disconnected)
        self.assertEqual(self.connected.clock.getDelayedCalls(), [])

    def test_closing_during_the_handshake_ends_it(self) -> None:
        """Writes that wait are not sent."""
        begun = self.begin()
        write = self.connected.output.write(b"never")
        self.connected.sent()
        self.connected.socket.close()
        engine = self.handshake.transport
        self.assertTrue(self.connected.transport.disconnected)
        self.connected.lose_through(engine)
        self.failureResultOf(begun, ClosedError)
        self.failureResultOf(write, ClosedError)
        self.assertNotIn(b"never", self.connected.sent())
