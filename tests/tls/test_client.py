"""A client's handshake is prepared with what was asked for; what it finds is judged at the end."""

from __future__ import annotations

from typing import Any

import trustme
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twsock.errors import SocketError
from twsock.names import HostName
from twsock.tls.certificates import Certificate
from twsock.tls.client import ClientOptions, ClientVerification, make_client
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

AUTHORITY = trustme.CA()
ISSUED = AUTHORITY.issue_cert("localhost")
VERSIONS = choose_versions(SocketProtectionLevel.TLS13)


def options(**others: Any) -> ClientOptions:
    return ClientOptions(VERSIONS, HostName("localhost"), [], **others)


class FakeConnection:
    """Has no chain."""

    def get_peer_cert_chain(self) -> None:
        return None


class Shown:
    """What OpenSSL hands to a callback."""

    def to_cryptography(self) -> Any:
        return Certificate.from_pem(ISSUED.cert_chain_pems[0].bytes()).to_cryptography()[0]


class ClientTests(SynchronousTestCase):
    """Before and during a handshake."""

    def test_it_is_what_twisted_asks_for(self) -> None:
        """A creator of connections."""
        creator, _ = make_client(options())
        verifyObject(IOpenSSLClientConnectionCreator, creator)

    def test_a_certificate_without_its_key_identifies_nobody(self) -> None:
        """It is refused before any packet."""
        bare = Certificate.from_pem(ISSUED.cert_chain_pems[0].bytes())
        self.assertRaises(SocketError, make_client, options(certificate=bare))

    def test_nothing_is_accepted_that_was_not_judged(self) -> None:
        """A handshake that skipped the certificate is none."""
        verification = ClientVerification(options())
        self.assertFalse(verification.is_accepted)
        self.assertIs(verification.severity, SocketSslErrorSeverity.NONE)
        self.assertIsNone(verification.refusal())

    def test_errors_are_collected_and_decide_at_the_end(self) -> None:
        """Each once; the last word is that on the server's own certificate."""
        verification = ClientVerification(options())
        connection: Any = FakeConnection()
        shown: Any = Shown()
        for code in (20, 21, 10):
            self.assertEqual(verification.check(connection, shown, code, 0, 0), (True, code))
        self.assertEqual(verification.check(connection, shown, 10, 1, 1), (True, 10))
        self.assertEqual(verification.check(connection, shown, 10, 0, 1), (False, 20))
        self.assertEqual(
            verification.errors,
            (ChainValidationResult.INCOMPLETE_CHAIN, ChainValidationResult.EXPIRED),
        )

    def test_what_is_forgiven_does_not_decide_the_alert(self) -> None:
        """An untrusted issuer is worse than an expired certificate, and forgiven here."""
        forgiven = [ChainValidationResult.INCOMPLETE_CHAIN]
        verification = ClientVerification(options(ignorable_errors=forgiven))
        connection: Any = FakeConnection()
        shown: Any = Shown()
        verification.check(connection, shown, 20, 0, 0)
        self.assertEqual(verification.check(connection, shown, 20, 0, 1), (True, 20))
        self.assertEqual(verification.check(connection, shown, 10, 0, 0), (False, 10))
        self.assertFalse(verification.is_accepted)
