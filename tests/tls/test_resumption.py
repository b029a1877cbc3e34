"""Sessions are resumed only where the verification stays as strict; the server is Python's."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import OpenSSL
import trustme
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.tls.peer import AUTHORITY, SERVER, issue
from tests.tls.peer import ServerPeer as Peer
from twsock.names import HostName
from twsock.tls.certificates import Certificate
from twsock.tls.client import ClientOptions, ClientVerification, make_client
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.openssl import BINDING, Binding
from twsock.tls.resumption import (
    MAX_AGE,
    MAX_SESSIONS,
    MAX_SETTINGS,
    ClientSessions,
    make_verdict,
)
from twsock.tls.validation import ChainValidationResult

ROOT = Certificate.from_pem(AUTHORITY.cert_pem.bytes())
OTHER_ROOT = Certificate.from_pem(trustme.CA().cert_pem.bytes())
CLIENT_PEM = issue()
CLIENT = Certificate.from_pem(CLIENT_PEM)
SECOND = timedelta(seconds=1)
BOTH = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
OPTIONS = ClientOptions(choose_versions(SocketProtectionLevel.TLS13), HostName("localhost"), [ROOT])


class ServerPeer(Peer):
    """A server with a context that several connections share, and so its tickets."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    @override
    def _make_inside(self) -> ssl.SSLObject:
        return self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)


def make_context(
    issued: trustme.LeafCert = SERVER, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    context.maximum_version = version
    return context


class Client:
    """One connection of a client."""

    def __init__(
        self,
        sessions: ClientSessions,
        options: ClientOptions = OPTIONS,
        service: str = "1337",
        binding: Binding | None = BINDING,
    ) -> None:
        creator, self.verification = make_client(
            options, service, sessions=sessions, binding=binding
        )
        self.connection: SSL.Connection = creator.clientConnectionForTLS(None)
        self.connection.set_connect_state()

    def shake_hands(self, context: ssl.SSLContext) -> ServerPeer:
        """Do the handshake as far as it goes, and call what the engine calls then."""
        connection, peer = self.connection, ServerPeer(context)
        while not peer.is_done:
            try:
                connection.do_handshake()
            except SSL.WantReadError:
                pass
            if answer := peer.take(connection.bio_read(65536)):
                connection.bio_write(answer)
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            raise AssertionError("the handshake is not done") from None
        self.verification.conclude(connection)
        return peer

    def end(self, peer: ServerPeer | None, *, says_so: bool = True) -> None:
        """
        End the connection.

        :param peer: the server, which sends its close_notify; None for one that sends nothing more.
        :param says_so: whether the client sends close_notify.
        """
        if peer is not None:
            self.connection.bio_write(peer.end())
            try:
                self.connection.recv(1)
            except SSL.ZeroReturnError:
                pass
        if says_so:
            self.connection.shutdown()
        self.verification.ended(self.connection)


class ResumptionCase(SynchronousTestCase):
    """What all tests of resumption share."""

    def setUp(self) -> None:
        self.seconds = 0.0
        self.now = datetime.now(timezone.utc)
        self.sessions = ClientSessions(lambda: self.seconds, lambda: self.now)
        self.context = make_context()

    def converse(
        self, options: ClientOptions = OPTIONS, service: str = "1337", **others: Any
    ) -> ClientVerification:
        """Connect, do the handshake, and end in order."""
        client = Client(self.sessions, options, service, **others)
        client.end(client.shake_hands(self.context))
        return client.verification


class ResumedTests(ResumptionCase):
    """Connections that resume a session."""

    def test_a_session_of_an_orderly_end_is_resumed(self) -> None:
        """In both versions, with all that was known of the server."""
        for version in BOTH:
            self.sessions.clear()
            self.context = make_context(version=version)
            first, second = self.converse(), self.converse()
            self.assertEqual((first.is_resumed, second.is_resumed), (False, True), f"{version=}")
            self.assertTrue(second.is_accepted, f"{version=}")
            self.assertEqual(second.errors, (), f"{version=}")
            self.assertEqual(second.certificate, first.certificate, f"{version=}")
            self.assertEqual(second.intermediates, first.intermediates, f"{version=}")

    def test_each_resumption_in_tls_13_leaves_a_new_session(self) -> None:
        """The server sends a new ticket each time."""
        self.assertEqual([self.converse().is_resumed for _ in range(4)], [False, True, True, True])

    def test_a_server_that_lost_its_ticket_key_is_verified(self) -> None:
        """There is a full handshake, as in the first connection."""
        self.converse()
        self.context = make_context()
        verification = self.converse()
        self.assertFalse(verification.is_resumed)
        self.assertTrue(verification.is_accepted)

    def test_an_impostor_without_the_ticket_key_is_refused(self) -> None:
        """It has to show a certificate."""
        self.converse()
        self.context = make_context(trustme.CA().issue_cert("localhost"))
        with self.assertRaises(SSL.Error):
            self.converse()


class FullHandshakeTests(ResumptionCase):
    """Connections that do a full handshake instead."""

    def assert_verified(self, options: ClientOptions = OPTIONS, service: str = "1337") -> None:
        """Connect twice: first as before, then with other settings, which verifies the server."""
        self.sessions.clear()
        self.converse()
        self.assertEqual(len(self.sessions), 1)
        verification = self.converse(options, service)
        self.assertFalse(verification.is_resumed)
        self.assertTrue(verification.is_accepted)

    def test_other_settings_resume_no_session(self) -> None:
        """Host, port, roots, ignored errors, own certificate, ALPN protocols and versions."""
        self.context = make_context(AUTHORITY.issue_cert("localhost", "other.example"))
        tls12 = choose_versions(SocketProtectionLevel.TLS12)
        floor = choose_versions(SocketProtectionLevel.TLS13, SocketProtectionLevel.TLS13)
        for changed in (
            {"host_name": HostName("other.example")},
            {"trust_roots": [ROOT, OTHER_ROOT]},
            {"ignorable_errors": [ChainValidationResult.EXPIRED]},
            {"certificate": CLIENT},
            {"application_protocols": [b"echo"]},
            {"versions": tls12},
            {"versions": floor},
            {"resumes_sessions": False},
        ):
            self.assert_verified(replace(OPTIONS, **changed))
        self.assert_verified(service="1338")
        self.assert_verified(service="")

    def test_another_chain_of_the_own_certificate_resumes_no_session(self) -> None:
        """A context sends the chain, although two certificates are equal whatever their chain."""
        chained = Certificate.from_pem(CLIENT_PEM + AUTHORITY.cert_pem.bytes())
        alone = Certificate.from_pem(CLIENT_PEM)
        self.assertEqual(chained, alone)
        self.converse(replace(OPTIONS, certificate=alone))
        self.assertFalse(self.converse(replace(OPTIONS, certificate=chained)).is_resumed)
        self.assertTrue(self.converse(replace(OPTIONS, certificate=alone)).is_resumed)

    def test_the_order_of_ignored_errors_does_not_matter(self) -> None:
        """They are a set."""
        two = [ChainValidationResult.EXPIRED, ChainValidationResult.INVALID_NAME]
        self.converse(replace(OPTIONS, ignorable_errors=two))
        verification = self.converse(replace(OPTIONS, ignorable_errors=two[::-1]))
        self.assertTrue(verification.is_resumed)

    def test_a_session_with_ignored_errors_is_not_kept(self) -> None:
        """Neither a strict client nor a forgiving one resumes it."""
        self.context = make_context(trustme.CA().issue_cert("other.example"))
        forgiving = replace(
            OPTIONS,
            ignorable_errors=[
                ChainValidationResult.INCOMPLETE_CHAIN,
                ChainValidationResult.INVALID_NAME,
            ],
        )
        for attempt in range(2):
            verification = self.converse(forgiving)
            self.assertTrue(verification.is_accepted, f"{attempt=}")
            self.assertFalse(verification.is_resumed, f"{attempt=}")
            self.assertEqual(len(verification.errors), 2, f"{attempt=}")
        self.assertEqual(len(self.sessions), 0)
        with self.assertRaises(SSL.Error):
            self.converse()

    def test_errors_that_openssl_forgot_prevent_resumption(self) -> None:
        """
        A callback can reset OpenSSL's record, as pyOpenSSL's own does; twsock's verdict counts.
        """

        class Forgetful(Binding):
            """A binding that reports no error."""

            @override
            def verify_result(self, connection: SSL.Connection) -> int:
                return 0

        self.context = make_context(AUTHORITY.issue_cert("other.example"))
        forgiving = replace(OPTIONS, ignorable_errors=[ChainValidationResult.INVALID_NAME])
        util: Any = getattr(OpenSSL, "_util", None)
        self.converse(forgiving, binding=Forgetful(util))
        self.assertEqual(len(self.sessions), 0)

    def test_a_ticket_is_used_once(self) -> None:
        """Of two simultaneous connections one resumes; a used ticket does not come back."""
        self.converse()
        first, second = Client(self.sessions), Client(self.sessions)
        peers = first.shake_hands(self.context), second.shake_hands(self.context)
        self.assertTrue(first.verification.is_resumed)
        self.assertFalse(second.verification.is_resumed)
        first.end(peers[0], says_so=False)
        second.end(None)
        self.assertEqual(len(self.sessions), 0)

    def test_a_ticket_that_the_server_does_not_renew_is_not_used_again(self) -> None:
        """In TLS 1.2 a resumed session has the ticket that it was resumed with."""
        self.context = make_context(version=ssl.TLSVersion.TLSv1_2)
        resumed = [self.converse().is_resumed for _ in range(4)]
        self.assertEqual(resumed, [False, True, False, True])

    def test_an_end_out_of_order_leaves_no_session(self) -> None:
        """Without close_notify from both sides the connection may have been cut off."""
        for sends, says_so in ((False, True), (True, False), (False, False)):
            client = Client(self.sessions)
            peer = client.shake_hands(self.context)
            client.end(peer if sends else None, says_so=says_so)
            self.assertEqual(len(self.sessions), 0, f"{sends=}, {says_so=}")

    def test_without_private_names_of_pyopenssl_nothing_is_resumed(self) -> None:
        """Without them twsock can't know whether a session was resumed."""
        for attempt in range(2):
            verification = self.converse(binding=None)
            self.assertFalse(verification.is_resumed, f"{attempt=}")
            self.assertTrue(verification.is_accepted, f"{attempt=}")
        self.assertEqual(len(self.sessions), 0)


class VerdictTests(ResumptionCase):
    """The verdict on a resumed session, which OpenSSL does not verify again."""

    def test_a_session_of_an_expired_certificate_is_not_offered(self) -> None:
        """It is dropped; a full handshake reports the reason."""
        leaf = self.converse().certificate
        assert leaf is not None
        for moment in (leaf.valid_to + SECOND, leaf.valid_from - SECOND):
            self.now = datetime.now(timezone.utc)
            self.sessions.clear()
            self.converse()
            self.now = moment
            self.assertFalse(self.converse().is_resumed, f"{moment=}")

    def test_a_certificate_that_expires_during_the_handshake_is_refused(self) -> None:
        """It was valid when the session was offered."""
        leaf = self.converse().certificate
        assert leaf is not None
        client = Client(self.sessions)
        self.now = leaf.valid_to + SECOND
        client.shake_hands(self.context)
        self.assertTrue(client.verification.is_resumed)
        self.assertFalse(client.verification.is_accepted)

    def test_a_verdict_holds_for_one_name_and_the_time_of_the_whole_chain(self) -> None:
        """From the latest start to the earliest end of validity."""
        client = Client(self.sessions)
        client.shake_hands(self.context)
        leaf = client.verification.certificate
        assert leaf is not None
        verdict = make_verdict(client.connection, leaf, ())
        assert verdict is not None
        chain = [leaf, ROOT]
        self.assertEqual(verdict.valid_from, max(each.valid_from for each in chain))
        self.assertEqual(verdict.valid_to, min(each.valid_to for each in chain))
        self.assertTrue(verdict.is_good(HostName("localhost"), self.now))
        self.assertFalse(verdict.is_good(HostName("other.example"), self.now))

    def test_a_resumed_session_with_an_error_is_refused(self) -> None:
        """OpenSSL's record of the error counts, whatever the kept verdict says."""

        class Doubting(Binding):
            """A binding that reports an error for each verification."""

            @override
            def verify_result(self, connection: SSL.Connection) -> int:
                return 20

        self.converse()
        util: Any = getattr(OpenSSL, "_util", None)
        client = Client(self.sessions, binding=Doubting(util))
        peer = client.shake_hands(self.context)
        self.assertTrue(client.verification.is_resumed)
        self.assertFalse(client.verification.is_accepted)
        client.end(peer)
        self.assertEqual(len(self.sessions), 0)

    def test_a_session_with_a_late_error_is_not_kept(self) -> None:
        """Its server was accepted when the handshake was done."""

        class Changing(Binding):
            """A binding that reports an error from some moment on."""

            code = 0

            @override
            def verify_result(self, connection: SSL.Connection) -> int:
                return self.code

        util: Any = getattr(OpenSSL, "_util", None)
        binding = Changing(util)
        for code, kept in ((20, 0), (0, 1)):
            binding.code = 0
            client = Client(self.sessions, binding=binding)
            peer = client.shake_hands(self.context)
            self.assertTrue(client.verification.is_accepted, f"{code=}")
            binding.code = code
            client.end(peer)
            self.assertEqual(len(self.sessions), kept, f"{code=}")

    def test_a_server_with_another_certificate_is_refused(self) -> None:
        """The kept verdict is for the certificate that was verified."""
        self.converse()
        client = Client(self.sessions)
        other = OTHER_ROOT.to_cryptography()[0]
        self.patch(client.connection, "get_peer_certificate", lambda **_: other)
        client.shake_hands(self.context)
        self.assertTrue(client.verification.is_resumed)
        self.assertFalse(client.verification.is_accepted)


class BoundTests(ResumptionCase):
    """Bounds of the cache."""

    def test_above_the_limit_the_oldest_session_is_dropped(self) -> None:
        """The limit is for each group of equal settings."""
        for number in range(MAX_SESSIONS + 1):
            self.converse(service=str(number))
        self.assertEqual(len(self.sessions), MAX_SESSIONS)
        self.assertFalse(self.converse(service="0").is_resumed)
        self.assertTrue(self.converse(service=str(MAX_SESSIONS)).is_resumed)

    def test_above_the_limit_the_settings_used_longest_ago_are_dropped(self) -> None:
        """With all their sessions."""
        for number in range(MAX_SETTINGS + 1):
            self.converse(replace(OPTIONS, application_protocols=[bytes([number])]))
        self.assertEqual(len(self.sessions), MAX_SETTINGS)
        first = replace(OPTIONS, application_protocols=[b"\0"])
        self.assertFalse(self.converse(first).is_resumed)

    def test_authorities_are_read_again_after_a_while(self) -> None:
        """The context is dropped, and its sessions with it."""
        self.converse()
        self.seconds = MAX_AGE
        self.assertTrue(self.converse().is_resumed)
        self.seconds = MAX_AGE + 1
        self.assertFalse(self.converse().is_resumed)
        self.assertEqual(len(self.sessions), 1)
