"""A socket refuses plaintext before a handshake, and knows its peer after it; in memory."""

from __future__ import annotations

import errno
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.stream.connected import InMemory, OnKernel
from tests.tls.peer import AUTHORITY, SERVER, Peer, ServerPeer
from twsock.errors import (
    BrokenError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    RemoteProtocolError,
    SocketErrorStatus,
)
from twsock.names import HostName
from twsock.sockets.stream.securing import ClientRole, ServerRole, refuse_plaintext
from twsock.tls.certificates import Certificate
from twsock.tls.levels import SocketProtectionLevel
from twsock.tls.server import ServerOptions, ServerTls

LOCALHOST = HostName("localhost")
#: A handshake has at most three flights.
FLIGHTS = 3


class RefusalTests(SynchronousTestCase):
    """Plaintext that was not read."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(self.events.append)
        self.addCleanup(publisher.removeObserver, self.events.append)
        self.here = InMemory()

    def refuse(self, leftover: bytes, *, is_server: bool) -> None:
        refuse_plaintext(
            self.here.protocol, self.here.socket.information, leftover, is_server=is_server
        )

    def test_an_empty_buffer_is_accepted(self) -> None:
        """So is the beginning of a handshake, if the peer is the client."""
        for is_server in (True, False):
            self.refuse(b"", is_server=is_server)
        for leftover in (b"\x16", b"\x16\x03", b"\x16\x03\x01\2\0"):
            self.refuse(leftover, is_server=True)
        self.assertFalse(self.here.transport.disconnected)

    def test_any_other_byte_aborts_the_connection(self) -> None:
        """One event is logged, without the bytes; a server never sends first."""
        for leftover, is_server in ((b"evil", True), (b"\x16\x04", True), (b"\x16\x03", False)):
            self.setUp()
            self.assertRaises(RemoteProtocolError, self.refuse, leftover, is_server=is_server)
            self.assertTrue(self.here.transport.disconnected, (leftover, is_server))
            (event,) = self.events
            self.assertIn(
                f"{len(leftover)} bytes of plaintext", formatEvent(event), (leftover, is_server)
            )
            self.assertNotIn("evil", repr(event), (leftover, is_server))


class ClosedOutputTests(SynchronousTestCase):
    """A handshake needs both directions."""

    def test_a_closed_output_refuses_the_upgrade(self) -> None:
        """At once, and the input can still be read."""
        here = OnKernel()
        self.addCleanup(here.close)
        self.successResultOf(here.output.close())
        upgrading = here.socket.upgrade_to_ssl(SocketProtectionLevel.SSL, "localhost")
        self.failureResultOf(upgrading, LocalProtocolError)
        here.protocol.dataReceived(b"answer")
        self.assertEqual(self.successResultOf(here.socket.input_stream.receive_some()), b"answer")

    def test_after_a_failed_send_the_upgrade_fails_with_its_error(self) -> None:
        """It does not wait for its deadline; the connection is aborted."""
        here = OnKernel()
        self.addCleanup(here.close)
        here.kernel.error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        self.failureResultOf(here.output.send_all(b"x"), BrokenError)
        upgrading = here.socket.upgrade_to_ssl(SocketProtectionLevel.SSL, "localhost")
        here.next_turn()
        error = self.failureResultOf(upgrading, BrokenError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.assertEqual(here.reactor.getDelayedCalls(), [])


class HandshakeTests(SynchronousTestCase):
    """With Python's ``ssl`` at the other end."""

    def test_a_client_has_the_facts_of_its_server(self) -> None:
        """The requested level, and the negotiated version."""
        here, peer = InMemory(), ServerPeer()
        socket = here.socket
        socket.control.trust_roots = [Certificate.from_pem(AUTHORITY.cert_pem.bytes())]
        role = ClientRole(socket.control, SocketProtectionLevel.TLS12, LOCALHOST)
        securing = role.begin(here.protocol, socket.information, 10)
        transport: Any = here.transport
        for _ in range(FLIGHTS):
            if not securing.called:
                transport.protocol.dataReceived(peer.take(here.sent()))
        self.successResultOf(securing)
        information = socket.information
        self.assertIs(information.protection_level, SocketProtectionLevel.TLS12)
        self.assertEqual(information.negotiated_version, "TLSv1.2")
        assert information.server_certificate is not None
        self.assertEqual(information.server_certificate.subject, "server")

    def test_an_unsupported_level_sends_nothing(self) -> None:
        """It is refused before."""
        here = InMemory()
        self.assertRaises(
            OperationNotSupported,
            ClientRole,
            here.socket.control,
            SocketProtectionLevel.SSL3_ALLOW_WEAK_ENCRYPTION,
            LOCALHOST,
        )
        self.assertEqual(here.sent(), b"")
        self.assertTrue(here.socket.is_open)

    def test_a_server_continues_with_the_received_bytes(self) -> None:
        """They are the beginning of the client's handshake."""
        here, peer = InMemory(), Peer()
        certificate = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
        hello = peer.hello()
        role = ServerRole(ServerTls(ServerOptions([certificate])))
        securing = role.begin(here.protocol, here.socket.information, 10, hello[:7])
        transport: Any = here.transport
        engine = transport.protocol
        engine.dataReceived(hello[7:])
        engine.dataReceived(peer.take(here.sent()))
        self.successResultOf(securing)
        self.assertEqual(here.socket.information.negotiated_version, "TLSv1.3")
        self.assertIsNone(here.socket.information.client_certificate)

    def test_what_waits_for_a_handshake_is_lost_with_a_close(self) -> None:
        """Its writes fail: there is no end in order."""
        for end in ("close", "abort"):
            here = InMemory()
            certificate = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
            tls = ServerTls(ServerOptions([certificate]))
            information = here.socket.information
            securing = ServerRole(tls).begin(here.protocol, information, 10)
            writing = here.output.write(b"never in plaintext")
            flushing = here.output.flush()
            getattr(here.socket, end)()
            transport: Any = here.transport
            self.assertTrue(transport.disconnected, end)
            here.lose_through(transport.protocol)
            self.failureResultOf(writing, ClosedError)
            self.failureResultOf(flushing, ClosedError)
            self.failureResultOf(securing, ClosedError)
            self.assertNotIn(b"never", here.sent(), end)

    def test_a_refused_client_is_logged_once(self) -> None:
        """Unless this end cancelled the handshake."""
        events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(events.append)
        self.addCleanup(publisher.removeObserver, events.append)
        certificate = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
        for end in ("late", "cancel", "close"):
            here = InMemory()
            information = here.socket.information
            tls = ServerTls(ServerOptions([certificate]))
            securing = ServerRole(tls).begin(here.protocol, information, 10)
            if end == "cancel":
                securing.cancel()
            elif end == "close":
                here.socket.close()
                transport: Any = here.transport
                here.lose_through(transport.protocol)
            else:
                here.clock.advance(10)
            self.failureResultOf(securing)
        (event,) = events
        self.assertIn(" failed: the handshake did not finish in time", formatEvent(event))
