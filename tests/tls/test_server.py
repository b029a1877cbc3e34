"""The server side of a handshake: its certificates, and its verdict on a client's certificate."""

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
#: The first certificate, for clients that trust the authority of these tests.
SHOWN = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
#: The certificate for clients that ask for its name.
OTHER = Certificate.from_pem(
    TRUSTED.issue_cert("other.example").private_key_and_cert_chain_pem.bytes()
)
REQUIRED = ClientCertificatePolicy.REQUIRED


class ServerTests(SynchronousTestCase):
    """A `ServerTls` before and during handshakes."""

    def test_it_provides_twisteds_creator_of_connections(self) -> None:
        """The creator makes a new connection for each handshake, and verifies each client anew."""
        authority = Certificate.from_pem(AUTHORITY.cert_pem.bytes())
        tls = ServerTls(
            ServerOptions(
                [CERTIFICATE], client_certificate=REQUIRED, client_authorities=[authority]
            )
        )
        creator, verification = tls.begin()
        verifyObject(IOpenSSLServerConnectionCreator, creator)
        self.assertIsNot(tls.begin()[1], verification)
        for each in (creator, ServerTls(ServerOptions([CERTIFICATE])).begin()[0]):
            connections = [each.serverConnectionForTLS(None) for _ in range(2)]
            self.assertIsNot(connections[0], connections[1], each)

    def test_settings_that_cannot_serve_are_refused(self) -> None:
        """No certificate, no key, no authority to trust, a level that OpenSSL lacks."""
        for certificates in ([], [BARE], [CERTIFICATE, BARE]):
            self.assertRaises(ValueError, ServerOptions, certificates)
        self.assertRaises(ValueError, ServerOptions, [CERTIFICATE], client_certificate=REQUIRED)
        weak = ServerOptions([CERTIFICATE], Level.SSL3_ALLOW_WEAK_ENCRYPTION)
        self.assertRaises(OperationNotSupported, ServerTls, weak)
        self.assertRaises(
            ValueError, ServerTls(ServerOptions([CERTIFICATE])).replace_certificates, [BARE]
        )

    def test_client_authorities_are_passed_without_a_warning(self) -> None:
        """A service has to start under ``python -W error``."""
        trusted = [Certificate.from_pem(TRUSTED.cert_pem.bytes())]
        options = ServerOptions([SHOWN], client_certificate=REQUIRED, client_authorities=trusted)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ServerTls(options)

    def test_a_client_without_a_certificate_is_refused_if_one_is_required(self) -> None:
        """With the other policies it is accepted."""
        for policy in ClientCertificatePolicy:
            verification = ServerVerification(policy)
            self.assertEqual(verification.is_accepted, policy is not REQUIRED, f"{policy=}")
            self.assertIsNone(verification.refusal(), f"{policy=}")

    def test_errors_of_a_client_certificate_are_collected(self) -> None:
        """Status and alert are those of the worst; no error is ignored."""
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

    def test_an_error_after_the_clients_certificate_refuses_it(self) -> None:
        """OpenSSL checks the name constraints of the issuers last."""
        verification = ServerVerification(REQUIRED)
        connection: Any = None
        shown = X509.from_cryptography(BARE.to_cryptography()[0])
        self.assertEqual(verification.check(connection, shown, 0, 0, 1), (True, 0))
        self.assertEqual(verification.check(connection, shown, 47, 0, 0), (False, 47))
        self.assertFalse(verification.is_accepted)
        self.assertIsNone(verification.certificate)

    def test_the_certificate_of_a_verified_client_is_known(self) -> None:
        """It is the client's own certificate, not its authority's."""
        verification = ServerVerification(REQUIRED)
        connection: Any = None
        authority = Certificate.from_pem(AUTHORITY.cert_pem.bytes()).to_cryptography()[0]
        verification.check(connection, X509.from_cryptography(authority), 0, 1, 1)
        self.assertFalse(verification.is_accepted)
        verification.check(connection, X509.from_cryptography(BARE.to_cryptography()[0]), 0, 0, 1)
        self.assertEqual(verification.certificate, BARE)
        self.assertTrue(verification.is_accepted)


def shake_hands_again(client: SSL.Connection, engine: Any, transport: StringTransport) -> bool:
    """Do the client's side of a handshake to its end; return whether it was done."""
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
    """Handshakes with Python's ``ssl`` as the client."""

    def judge(self, tls: ServerTls, peer: ClientPeer) -> ServerVerification:
        """Return the verdict on a client."""
        creator, verification = tls.begin()
        self._converse(creator, peer)
        return verification

    def shake_hands(self, tls: ServerTls, peer: ClientPeer) -> Any:
        """Return OpenSSL's connection; the peer gets what the server sends behind the handshake."""
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

    def test_the_server_chooses_the_alpn_protocol(self) -> None:
        """
        It takes its first one that the client offers; without a common one the handshake fails.
        """
        tls = ServerTls(ServerOptions([SHOWN], application_protocols=[b"new", b"old"]))
        for offered, agreed in ((["old", "new"], b"new"), (["old"], b"old"), ([], b"")):
            context = client_context()
            context.set_alpn_protocols(offered)
            connection = self.shake_hands(tls, ClientPeer(context))
            self.assertEqual(connection.get_alpn_proto_negotiated(), agreed, f"{offered=}")

    def test_a_client_without_a_common_alpn_protocol_reads_the_alert(self) -> None:
        """The alert is no_application_protocol (120), with each certificate."""
        tls = ServerTls(ServerOptions([OTHER, SHOWN], application_protocols=[b"new"]))
        for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
            context = client_context(version=version)
            context.set_alpn_protocols(["other"])
            peer = ClientPeer(context)
            self.shake_hands(tls, peer)
            # Python's own table has no name for the reason.
            self.assertIn(
                "alert no application protocol", str(peer.error), f"{version=}: {peer.error}"
            )

    def test_a_server_without_alpn_accepts_clients_that_offer_protocols(self) -> None:
        """
        Browsers, curl and health checks do; the server answers no protocol, with each certificate.
        """
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
        """
        Below the lowest and above the highest the alert is protocol_version, with each certificate.
        """
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
        """In TLS 1.2 it could stop in its middle, and all writes would wait."""
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

    def test_sessions_are_resumed_until_the_certificates_are_replaced(self) -> None:
        """Only with tickets of the same server."""
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

    def test_a_required_client_certificate_is_verified_each_time(self) -> None:
        """A session does not replace it."""
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

    def test_a_refused_client_reads_the_alert_of_the_worst_error(self) -> None:
        """:rfc:`8446`, section 6.2; all errors are kept."""
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

    def test_a_server_name_that_is_no_domain_name_gets_the_first_certificate(self) -> None:
        """Any client may send any bytes as the name."""

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
