"""A server's handshakes show its certificates; clients are judged as they were asked."""

from __future__ import annotations

import ssl
import warnings
from datetime import timedelta
from typing import Any

import trustme
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.tls.peer import AUTHORITY as TRUSTED
from tests.tls.peer import SERVER, ClientPeer, client_context, issue
from twsock.errors import OperationNotSupported, SocketErrorStatus
from twsock.tls.certificates import Certificate
from twsock.tls.engine import make_engine
from twsock.tls.levels import SocketProtectionLevel as Level
from twsock.tls.server import ClientCertificatePolicy, ServerOptions, ServerTls, ServerVerification
from twsock.tls.validation import ChainValidationResult

AUTHORITY = trustme.CA()
ISSUED = AUTHORITY.issue_cert("localhost")
CERTIFICATE = Certificate.from_pem(ISSUED.private_key_and_cert_chain_pem.bytes())
BARE = Certificate.from_pem(ISSUED.cert_chain_pems[0].bytes())
#: Shown to those who trust the authority of all these tests.
SHOWN = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
#: Shown to those who ask for its name.
OTHER = Certificate.from_pem(
    TRUSTED.issue_cert("other.example").private_key_and_cert_chain_pem.bytes()
)
REQUIRED = ClientCertificatePolicy.REQUIRED


class ServerTests(SynchronousTestCase):
    """Before and during handshakes."""

    def test_it_is_what_twisted_asks_for(self) -> None:
        """A creator of connections, for each handshake anew."""
        tls = ServerTls(ServerOptions([CERTIFICATE]))
        creator, verification = tls.begin()
        verifyObject(IOpenSSLServerConnectionCreator, creator)
        self.assertIsNot(tls.begin()[1], verification)

    def test_what_cannot_serve_is_refused(self) -> None:
        """No certificate, no key, nobody to trust, a level that cannot be had."""
        for certificates in ([], [BARE], [CERTIFICATE, BARE]):
            self.assertRaises(ValueError, ServerOptions, certificates)
        self.assertRaises(ValueError, ServerOptions, [CERTIFICATE], client_certificate=REQUIRED)
        weak = ServerOptions([CERTIFICATE], Level.SSL3_ALLOW_WEAK_ENCRYPTION)
        self.assertRaises(OperationNotSupported, ServerTls, weak)
        self.assertRaises(
            ValueError, ServerTls(ServerOptions([CERTIFICATE])).replace_certificates, [BARE]
        )

    def test_authorities_of_clients_are_given_to_openssl_without_a_warning(self) -> None:
        """A service starts under ``python -W error``."""
        trusted = [Certificate.from_pem(TRUSTED.cert_pem.bytes())]
        options = ServerOptions([SHOWN], client_certificate=REQUIRED, client_authorities=trusted)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ServerTls(options)

    def test_who_showed_nothing_comes_in_where_nothing_is_required(self) -> None:
        """And only there."""
        for policy in ClientCertificatePolicy:
            verification = ServerVerification(policy)
            self.assertEqual(verification.is_accepted, policy is not REQUIRED, f"{policy=}")
            self.assertIsNone(verification.refusal(), f"{policy=}")

    def test_errors_of_a_client_are_collected_and_none_is_forgiven(self) -> None:
        """The status, and the alert, are those of the worst; later errors change nothing."""
        verification = ServerVerification(ClientCertificatePolicy.OPTIONAL)
        connection: Any = None
        shown = X509.from_cryptography(BARE.to_cryptography()[0])
        for code in (10, 20, 10):
            self.assertEqual(
                verification.check(connection, shown, code, 0, 0), (True, code), f"{code=}"
            )
        self.assertEqual(verification.check(connection, shown, 10, 0, 1), (False, 20))
        self.assertEqual(
            verification.errors,
            (ChainValidationResult.EXPIRED, ChainValidationResult.INCOMPLETE_CHAIN),
        )
        self.assertFalse(verification.is_accepted)
        self.assertIsNone(verification.certificate)
        refusal = verification.refusal()
        assert refusal is not None
        self.assertIs(refusal.status, SocketErrorStatus.CERTIFICATE_UNTRUSTED_ROOT)

    def test_an_error_behind_the_certificate_of_a_client_takes_it_back(self) -> None:
        """OpenSSL looks last at what the issuers may issue."""
        verification = ServerVerification(REQUIRED)
        connection: Any = None
        shown = X509.from_cryptography(BARE.to_cryptography()[0])
        self.assertEqual(verification.check(connection, shown, 0, 0, 1), (True, 0))
        self.assertEqual(verification.check(connection, shown, 47, 0, 0), (False, 47))
        self.assertFalse(verification.is_accepted)
        self.assertIsNone(verification.certificate)

    def test_who_is_verified_is_known(self) -> None:
        """By the certificate of the client itself, not of its authority."""
        verification = ServerVerification(REQUIRED)
        connection: Any = None
        authority = Certificate.from_pem(AUTHORITY.cert_pem.bytes()).to_cryptography()[0]
        verification.check(connection, X509.from_cryptography(authority), 0, 1, 1)
        self.assertFalse(verification.is_accepted)
        verification.check(connection, X509.from_cryptography(BARE.to_cryptography()[0]), 0, 0, 1)
        self.assertEqual(verification.certificate, BARE)
        self.assertTrue(verification.is_accepted)


def shake_hands_again(client: SSL.Connection, engine: Any, transport: StringTransport) -> bool:
    """Take the client's side of a handshake to its end; return whether it was done."""
    for _ in range(10):
        try:
            client.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error:
            return False
        else:
            return True
        engine.dataReceived(client.bio_read(1 << 16))
        if transport.value():
            client.bio_write(transport.value())
            transport.clear()
    return False


class HandshakeTests(SynchronousTestCase):
    """With Python's ``ssl`` as the client."""

    def judge(self, tls: ServerTls, peer: ClientPeer) -> ServerVerification:
        """Give the verdict on a client."""
        creator, verification = tls.begin()
        self._converse(creator, peer)
        return verification

    def shake_hands(self, tls: ServerTls, peer: ClientPeer) -> Any:
        """Give OpenSSL's connection, and the peer what the server sends behind the handshake."""
        return self._converse(tls.begin()[0], peer)

    def _converse(self, creator: Any, peer: ClientPeer) -> Any:
        engine: Any = make_engine(creator, False, Protocol(), Clock())
        transport: Any = StringTransport()
        engine.makeConnection(transport)
        data = peer.hello()
        while data:
            engine.dataReceived(data)
            data = peer.take(transport.value())
            transport.clear()
        return engine.getHandle()

    def test_protocols_inside_are_chosen_by_the_server(self) -> None:
        """Its first one that the client offers; where there is none, the handshake fails."""
        tls = ServerTls(ServerOptions([SHOWN], application_protocols=[b"new", b"old"]))
        for offered, agreed in ((["old", "new"], b"new"), (["old"], b"old"), ([], b"")):
            context = client_context()
            context.set_alpn_protocols(offered)
            connection = self.shake_hands(tls, ClientPeer(context))
            self.assertEqual(connection.get_alpn_proto_negotiated(), agreed, f"{offered=}")

    def test_a_client_that_offers_none_of_the_protocols_reads_why(self) -> None:
        """The alert is no_application_protocol (120), whichever certificate it asked for."""
        tls = ServerTls(ServerOptions([OTHER, SHOWN], application_protocols=[b"new"]))
        for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
            context = client_context(version=version)
            context.set_alpn_protocols(["other"])
            peer = ClientPeer(context)
            self.shake_hands(tls, peer)
            # The reason has no name in Python's own table.
            self.assertIn(
                "alert no application protocol", str(peer.error), f"{version=}: {peer.error}"
            )

    def test_a_server_without_protocols_accepts_clients_that_offer_some(self) -> None:
        """As browsers, curl and health checks do; it answers nothing, with each certificate."""
        for number, tls in enumerate(
            (
                ServerTls(ServerOptions([SHOWN])),
                ServerTls(ServerOptions([OTHER, SHOWN])),
                ServerTls(ServerOptions([SHOWN], Level.TLS12)),
            )
        ):
            context = client_context()
            context.set_alpn_protocols(["h2", "http/1.1"])
            peer = ClientPeer(context)
            connection = self.shake_hands(tls, peer)
            self.assertIsNone(peer.error, f"{number=}")
            self.assertTrue(peer.is_done, f"{number=}")
            self.assertEqual(connection.get_alpn_proto_negotiated(), b"", f"{number=}")

    def test_versions_outside_the_levels_are_refused(self) -> None:
        """Below the lowest and above the highest: alert protocol_version, with each certificate."""
        tls12, tls13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
        for certificates in ([SHOWN], [OTHER, SHOWN]):
            for options, version in (
                (ServerOptions(certificates, min_protection_level=Level.TLS13), tls12),
                (ServerOptions(certificates, Level.TLS12), tls13),
            ):
                tls = ServerTls(options)
                context = client_context(version=version)
                context.minimum_version = version
                refused = ClientPeer(context)
                self.shake_hands(tls, refused)
                self.assertFalse(refused.is_done, f"{len(certificates)=}, {version=}")
                self.assertIn(
                    "alert protocol version",
                    str(refused.error),
                    f"{len(certificates)=}, {version=}: {refused.error}",
                )
                welcome = ClientPeer(client_context(version=tls13))
                connection = self.shake_hands(tls, welcome)
                self.assertTrue(welcome.is_done, f"{len(certificates)=}, {version=}")
                expected = "TLSv1.3" if version is tls12 else "TLSv1.2"
                self.assertEqual(
                    connection.get_protocol_version_name(),
                    expected,
                    f"{len(certificates)=}, {version=}",
                )

    def test_a_client_cannot_begin_a_second_handshake(self) -> None:
        """In TLS 1.2 it could, and stop in its middle, so that all that is written waits."""
        creator, _ = ServerTls(ServerOptions([SHOWN], Level.TLS12)).begin()
        engine, transport = make_engine(creator, False, Protocol(), Clock()), StringTransport()
        engine.makeConnection(transport)
        client = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        client.set_connect_state()
        self.assertTrue(shake_hands_again(client, engine, transport))
        client.renegotiate()
        self.assertFalse(shake_hands_again(client, engine, transport))
        server: Any = engine.getHandle()
        self.assertEqual(server.total_renegotiations(), 0)

    def test_sessions_are_resumed(self) -> None:
        """With the ticket of this very server, and only until its certificates are replaced."""
        tls = ServerTls(ServerOptions([SHOWN]))
        context = client_context()
        first = ClientPeer(context)
        self.shake_hands(tls, first)
        second = ClientPeer(context, first.session)
        self.shake_hands(tls, second)
        self.assertTrue(second.is_done and second.is_resumed)
        tls.replace_certificates([SHOWN])
        for server in (tls, ServerTls(ServerOptions([SHOWN]))):
            another = ClientPeer(context, second.session)
            self.shake_hands(server, another)
            self.assertEqual(
                (another.is_done, another.is_resumed), (True, False), f"{server is tls=}"
            )

    def test_who_has_to_show_a_certificate_shows_it_each_time(self) -> None:
        """No session takes its place."""
        authority = Certificate.from_pem(TRUSTED.cert_pem.bytes())
        options = ServerOptions(
            [SHOWN], client_certificate=REQUIRED, client_authorities=[authority]
        )
        context = client_context(SERVER.private_key_and_cert_chain_pem.bytes())
        tls = ServerTls(options)
        first = ClientPeer(context)
        self.shake_hands(tls, first)
        second = ClientPeer(context, first.session)
        self.shake_hands(tls, second)
        self.assertFalse(second.is_resumed)

    def test_a_client_that_is_refused_reads_why(self) -> None:
        """The alert is that of the worst error (:rfc:`8446`, section 6.2); all errors are kept."""
        stranger = trustme.CA()
        over, later = timedelta(hours=-1), timedelta(hours=1)
        begins = timedelta(hours=-2)
        server_auth = ExtendedKeyUsageOID.SERVER_AUTH
        for alert, count, pem in (
            ("unknown ca", 1, issue(stranger)),
            ("unknown ca", 1, issue(None)),
            ("certificate expired", 1, issue(begins=begins, ends=over)),
            ("bad certificate", 1, issue(begins=later, ends=2 * later)),
            ("unsupported certificate", 1, issue(usage=server_auth)),
            ("unknown ca", 3, issue(stranger, begins=begins, ends=over, usage=server_auth)),
        ):
            for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
                tls = ServerTls(
                    ServerOptions(
                        [SHOWN],
                        client_certificate=ClientCertificatePolicy.OPTIONAL,
                        client_authorities=[Certificate.from_pem(TRUSTED.cert_pem.bytes())],
                    )
                )
                peer = ClientPeer(client_context(pem, version))
                verification = self.judge(tls, peer)
                self.assertIn(
                    f"alert {alert}", str(peer.error), f"{alert=}, {version=}: {peer.error}"
                )
                self.assertFalse(verification.is_accepted, f"{alert=}, {version=}")
                self.assertEqual(len(verification.errors), count, f"{alert=}, {version=}")

    def test_what_is_no_domain_name_gets_the_first_certificate(self) -> None:
        """However odd: anybody can ask for anything."""

        class Asking:
            """A connection whose client asks for a name."""

            def __init__(self, name: bytes | None) -> None:
                self.name = name
                self.contexts: list[Any] = []

            def get_servername(self) -> bytes | None:
                return self.name

            def set_context(self, context: Any) -> None:
                self.contexts.append(context)

        tls: Any = ServerTls(ServerOptions([SHOWN, OTHER]))
        for name in (
            None,
            b"",
            b"\xff",
            b"01:23:45:67:89:ab",
            b"127.0.0.1",
            b"::1",
            b"third.example",
        ):
            asking = Asking(name)
            tls._choose(asking)
            self.assertEqual(asking.contexts, [], name)
        asking = Asking(b"other.example")
        tls._choose(asking)
        self.assertEqual(len(asking.contexts), 1)
