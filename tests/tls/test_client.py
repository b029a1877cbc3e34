"""The client side of a handshake: its settings, and its verdict on the server's certificate."""

from __future__ import annotations

from typing import Any

import trustme
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twsock.errors import SocketError
from twsock.names import HostName
from twsock.tls.certificates import Certificate
from twsock.tls.client import ClientOptions, ClientVerification, make_client
from twsock.tls.engine import make_engine
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

AUTHORITY = trustme.CA()
ISSUED = AUTHORITY.issue_cert("localhost")
#: The key and the certificate, as OpenSSL takes them.
ISSUED_KEY_AND_CERTIFICATE: Any = Certificate.from_pem(
    ISSUED.private_key_and_cert_chain_pem.bytes()
).to_cryptography()
VERSIONS = choose_versions(SocketProtectionLevel.TLS13)


def options(**others: Any) -> ClientOptions:
    return ClientOptions(VERSIONS, HostName("localhost"), [], **others)


class FakeConnection:
    """An OpenSSL connection without a chain."""

    def get_peer_cert_chain(self) -> None:
        return None


class Shown:
    """The certificate that OpenSSL passes to a callback."""

    def to_cryptography(self) -> Any:
        return Certificate.from_pem(ISSUED.cert_chain_pems[0].bytes()).to_cryptography()[0]


class ClientTests(SynchronousTestCase):
    """A `ClientTls` before and during a handshake."""

    def test_it_provides_twisteds_creator_of_connections(self) -> None:
        """It provides `IOpenSSLClientConnectionCreator`."""
        creator, _ = make_client(options())
        verifyObject(IOpenSSLClientConnectionCreator, creator)

    def test_an_own_certificate_without_its_key_is_refused(self) -> None:
        """The error is raised before any packet."""
        bare = Certificate.from_pem(ISSUED.cert_chain_pems[0].bytes())
        self.assertRaises(SocketError, make_client, options(certificate=bare))

    def test_a_handshake_without_a_verification_is_refused(self) -> None:
        """No server is accepted if OpenSSL never called the verification."""
        verification = ClientVerification(options())
        self.assertFalse(verification.is_accepted)
        self.assertIs(verification.severity, SocketSslErrorSeverity.NONE)
        self.assertIsNone(verification.refusal())

    def test_errors_are_collected_and_decide_at_the_end(self) -> None:
        """Each error counts once; the decision comes with the server's own certificate."""
        verification = ClientVerification(options())
        connection: Any = FakeConnection()
        shown: Any = Shown()
        for code in (20, 21, 10):
            self.assertEqual(
                verification.check(connection, shown, code, 0, 0), (True, code), f"{code=}"
            )
        self.assertEqual(verification.check(connection, shown, 10, 1, 1), (True, 10))
        self.assertEqual(verification.check(connection, shown, 10, 0, 1), (False, 20))
        self.assertEqual(
            verification.errors,
            (ChainValidationResult.INCOMPLETE_CHAIN, ChainValidationResult.EXPIRED),
        )

    def test_an_ignored_error_does_not_choose_the_alert(self) -> None:
        """The untrusted issuer is worse than the expired certificate, and is ignored here."""
        forgiven = [ChainValidationResult.INCOMPLETE_CHAIN]
        verification = ClientVerification(options(ignorable_errors=forgiven))
        connection: Any = FakeConnection()
        shown: Any = Shown()
        verification.check(connection, shown, 20, 0, 0)
        self.assertEqual(verification.check(connection, shown, 20, 0, 1), (True, 20))
        self.assertEqual(verification.check(connection, shown, 10, 0, 0), (False, 10))
        self.assertFalse(verification.is_accepted)

    def test_a_server_cannot_begin_a_second_handshake(self) -> None:
        """In TLS 1.2 it could stop in its middle, and all writes would wait."""
        versions = choose_versions(SocketProtectionLevel.TLS12)
        trusted = [Certificate.from_pem(AUTHORITY.cert_pem.bytes())]
        creator, _ = make_client(ClientOptions(versions, HostName("localhost"), trusted))
        engine: Any = make_engine(creator, True, Protocol(), Clock())
        transport = StringTransport()
        engine.makeConnection(transport)
        server = pyopenssl_server()
        self.assertTrue(take_a_turn(server, engine, transport, turns=10))
        server.renegotiate()
        take_a_turn(server, engine, transport, turns=10)
        self.assertEqual(engine.getHandle().total_renegotiations(), 0)


def pyopenssl_server() -> SSL.Connection:
    """Make a server that can ask for a second handshake, which Python's ``ssl`` can't."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(ISSUED_KEY_AND_CERTIFICATE[0])
    context.use_privatekey(ISSUED_KEY_AND_CERTIFICATE[1])
    server = SSL.Connection(context, None)
    server.set_accept_state()
    return server


def take_a_turn(
    server: SSL.Connection, engine: Any, transport: StringTransport, *, turns: int
) -> bool:
    """Pass on the bytes of both sides; return whether the server's handshake is done."""
    is_done = False
    for _ in range(turns):
        if transport.value():
            server.bio_write(transport.value())
            transport.clear()
        try:
            server.do_handshake()
            is_done = True
            server.recv(1)  # Reads the client's answer to the request for another handshake.
        except SSL.Error:
            pass
        try:
            engine.dataReceived(server.bio_read(1 << 16))
        except SSL.WantReadError:
            pass
    return is_done
