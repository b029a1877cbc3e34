"""Sessions are resumed where nothing is lost by it, and nowhere else; the server is Python's."""

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
    """A server with a context that several connections share, and with it its tickets."""

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
    """One connection, from its beginning on."""

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
        """Shake hands, as far as it goes; what the engine calls then is called."""
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
        End it.

        :param peer: sends its close_notify; None for one that sends nothing more.
        :param says_so: whether this end sends one.
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
    """What every test here has."""

    def setUp(self) -> None:
        self.seconds = 0.0
        self.now = datetime.now(timezone.utc)
        self.sessions = ClientSessions(lambda: self.seconds, lambda: self.now)
        self.context = make_context()

    def converse(
        self, options: ClientOptions = OPTIONS, service: str = "1337", **others: Any
    ) -> ClientVerification:
        """Connect, shake hands and end in order."""
        client = Client(self.sessions, options, service, **others)
        client.end(client.shake_hands(self.context))
        return client.verification


class ResumedTests(ResumptionCase):
    """What a later connection to the same server saves."""

    def test_a_session_of_a_connection_that_ended_in_order_is_resumed(self) -> None:
        """With both versions, and with all that was known of the server."""
        for version in BOTH:
            self.sessions.clear()
            self.context = make_context(version=version)
            first, second = self.converse(), self.converse()
            self.assertEqual((first.is_resumed, second.is_resumed), (False, True), f"{version=}")
            self.assertTrue(second.is_accepted, f"{version=}")
            self.assertEqual(second.errors, (), f"{version=}")
            self.assertEqual(second.certificate, first.certificate, f"{version=}")
            self.assertEqual(second.intermediates, first.intermediates, f"{version=}")

    def test_each_resumption_leaves_a_session_in_tls_13(self) -> None:
        """The server sends a new ticket each time."""
        self.assertEqual([self.converse().is_resumed for _ in range(4)], [False, True, True, True])

    def test_a_server_that_forgot_it_is_verified(self) -> None:
        """As in the first connection."""
        self.converse()
        self.context = make_context()
        verification = self.converse()
        self.assertFalse(verification.is_resumed)
        self.assertTrue(verification.is_accepted)

    def test_an_impostor_gains_nothing(self) -> None:
        """A server without the key of the tickets has to show a certificate."""
        self.converse()
        self.context = make_context(trustme.CA().issue_cert("localhost"))
        with self.assertRaises(SSL.Error):
            self.converse()


class RefusedTests(ResumptionCase):
    """When there is a full handshake instead."""

    def assert_verified(self, options: ClientOptions = OPTIONS, service: str = "1337") -> None:
        """Connect twice: first as ever, then in another way, which verifies the server."""
        self.sessions.clear()
        self.converse()
        self.assertEqual(len(self.sessions), 1)
        verification = self.converse(options, service)
        self.assertFalse(verification.is_resumed)
        self.assertTrue(verification.is_accepted)

    def test_other_settings_resume_nothing(self) -> None:
        """Host, port, roots, what is forgiven, own certificate, protocols inside, versions."""
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

    def test_the_chain_of_the_own_certificate_is_a_setting_too(self) -> None:
        """A context shows it, and two certificates are equal whatever their chain."""
        chained = Certificate.from_pem(CLIENT_PEM + AUTHORITY.cert_pem.bytes())
        alone = Certificate.from_pem(CLIENT_PEM)
        self.assertEqual(chained, alone)
        self.converse(replace(OPTIONS, certificate=alone))
        self.assertFalse(self.converse(replace(OPTIONS, certificate=chained)).is_resumed)
        self.assertTrue(self.converse(replace(OPTIONS, certificate=alone)).is_resumed)

    def test_the_order_of_what_is_forgiven_does_not_matter(self) -> None:
        """It is a set."""
        two = [ChainValidationResult.EXPIRED, ChainValidationResult.INVALID_NAME]
        self.converse(replace(OPTIONS, ignorable_errors=two))
        verification = self.converse(replace(OPTIONS, ignorable_errors=two[::-1]))
        self.assertTrue(verification.is_resumed)

    def test_what_was_forgiven_something_is_not_kept(self) -> None:
        """Neither for a strict client, which refuses, nor for a forgiving one."""
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

    def test_the_verdict_counts_where_openssl_has_no_error_on_record(self) -> None:
        """As when a callback resets it, which pyOpenSSL's own does."""

        class Forgetful(Binding):
            """Remembers no error."""

            @override
            def verify_result(self, connection: SSL.Connection) -> int:
                return 0

        self.context = make_context(AUTHORITY.issue_cert("other.example"))
        forgiving = replace(OPTIONS, ignorable_errors=[ChainValidationResult.INVALID_NAME])
        util: Any = getattr(OpenSSL, "_util", None)
        self.converse(forgiving, binding=Forgetful(util))
        self.assertEqual(len(self.sessions), 0)

    def test_a_ticket_is_used_once(self) -> None:
        """Two connections at a time get one of two; one that is used up does not come back."""
        self.converse()
        first, second = Client(self.sessions), Client(self.sessions)
        peers = first.shake_hands(self.context), second.shake_hands(self.context)
        self.assertTrue(first.verification.is_resumed)
        self.assertFalse(second.verification.is_resumed)
        first.end(peers[0], says_so=False)
        second.end(None)
        self.assertEqual(len(self.sessions), 0)

    def test_a_ticket_that_the_server_does_not_renew_is_not_used_again(self) -> None:
        """As in TLS 1.2, where a resumed session has the ticket that it was resumed with."""
        self.context = make_context(version=ssl.TLSVersion.TLSv1_2)
        resumed = [self.converse().is_resumed for _ in range(4)]
        self.assertEqual(resumed, [False, True, False, True])

    def test_an_end_out_of_order_leaves_nothing(self) -> None:
        """A peer that sends no close_notify may have been cut off; nor may we be in the middle."""
        for sends, says_so in ((False, True), (True, False), (False, False)):
            client = Client(self.sessions)
            peer = client.shake_hands(self.context)
            client.end(peer if sends else None, says_so=says_so)
            self.assertEqual(len(self.sessions), 0, f"{sends=}, {says_so=}")

    def test_without_private_names_of_pyopenssl_nothing_is_resumed(self) -> None:
        """Since what was resumed could not be told."""
        for attempt in range(2):
            verification = self.converse(binding=None)
            self.assertFalse(verification.is_resumed, f"{attempt=}")
            self.assertTrue(verification.is_accepted, f"{attempt=}")
        self.assertEqual(len(self.sessions), 0)


class VerdictTests(ResumptionCase):
    """OpenSSL verifies nothing in a resumption: the verdict is looked at again."""

    def test_an_expired_certificate_is_not_offered(self) -> None:
        """The session goes; a full handshake says what is wrong."""
        leaf = self.converse().certificate
        assert leaf is not None
        for moment in (leaf.valid_to + SECOND, leaf.valid_from - SECOND):
            self.now = datetime.now(timezone.utc)
            self.sessions.clear()
            self.converse()
            self.now = moment
            self.assertFalse(self.converse().is_resumed, f"{moment=}")

    def test_one_that_expires_meanwhile_is_refused(self) -> None:
        """Between the offer and the end of the handshake."""
        leaf = self.converse().certificate
        assert leaf is not None
        client = Client(self.sessions)
        self.now = leaf.valid_to + SECOND
        client.shake_hands(self.context)
        self.assertTrue(client.verification.is_resumed)
        self.assertFalse(client.verification.is_accepted)

    def test_the_verdict_is_for_one_name_and_the_time_of_its_whole_chain(self) -> None:
        """The earliest end counts, and the latest beginning."""
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

    def test_a_session_with_an_error_on_record_is_refused(self) -> None:
        """Whatever else the verdict says."""

        class Doubting(Binding):
            """Remembers an error of each verification."""

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

    def test_a_session_with_an_error_on_record_is_not_kept(self) -> None:
        """Though its server was accepted when the handshake was done."""

        class Changing(Binding):
            """Has an error on record from some moment on."""

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

    def test_a_server_that_shows_another_certificate_is_refused(self) -> None:
        """The verdict is that on the certificate which was verified."""
        self.converse()
        client = Client(self.sessions)
        other = OTHER_ROOT.to_cryptography()[0]
        self.patch(client.connection, "get_peer_certificate", lambda **_: other)
        client.shake_hands(self.context)
        self.assertTrue(client.verification.is_resumed)
        self.assertFalse(client.verification.is_accepted)


class BoundTests(ResumptionCase):
    """The cache stays small, and forgets."""

    def test_the_oldest_session_goes(self) -> None:
        """There are so many under one setting."""
        for number in range(MAX_SESSIONS + 1):
            self.converse(service=str(number))
        self.assertEqual(len(self.sessions), MAX_SESSIONS)
        self.assertFalse(self.converse(service="0").is_resumed)
        self.assertTrue(self.converse(service=str(MAX_SESSIONS)).is_resumed)

    def test_the_settings_used_longest_ago_go(self) -> None:
        """With all their sessions."""
        for number in range(MAX_SETTINGS + 1):
            self.converse(replace(OPTIONS, application_protocols=[bytes([number])]))
        self.assertEqual(len(self.sessions), MAX_SETTINGS)
        first = replace(OPTIONS, application_protocols=[b"\0"])
        self.assertFalse(self.converse(first).is_resumed)

    def test_authorities_are_read_again_after_a_time(self) -> None:
        """The context goes, and what was verified with it."""
        self.converse()
        self.seconds = MAX_AGE
        self.assertTrue(self.converse().is_resumed)
        self.seconds = MAX_AGE + 1
        self.assertFalse(self.converse().is_resumed)
        self.assertEqual(len(self.sessions), 1)
