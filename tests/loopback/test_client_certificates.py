"""Clients without a valid certificate; sessions and second handshakes that could replace one."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

from tests.loopback.hostile import (
    EVIL,
    FORMATS,
    FRAMES,
    GOOD_CERTIFICATE,
    STRANGER,
    VERSIONS,
    Address,
    Format,
    Hostile,
    attacker,
    echo,
    identified,
)
from tests.loopback.reactors import connect, on_every_reactor, receive_exactly
from tests.tls.peer import client_context, issue
from twsock.protocols import (
    UpgradePolicy,
    UpgradeToSsl,
)
from twsock.tls.certificates import Certificate
from twsock.tls.server import ClientCertificatePolicy, ServerTls

#: The certificates that have to be refused, and the reason in the log.
BAD_CERTIFICATES: tuple[tuple[bytes | None, str], ...] = (
    (None, "did not return a certificate"),
    (issue(STRANGER), "refused: IncompleteChain"),
    (issue(None), "refused: Untrusted"),
    (issue(begins=timedelta(hours=-2), ends=timedelta(hours=-1)), "refused: Expired"),
    (issue(begins=timedelta(hours=1), ends=timedelta(hours=2)), "refused: Expired"),
    (issue(usage=ExtendedKeyUsageOID.SERVER_AUTH), "refused: WrongUsage"),
)


class CertificateTests(Hostile):
    """Clients without a valid certificate."""

    def attack_without_identity(self, version: ssl.TLSVersion) -> Callable[[Address], None]:
        """Show each wrong certificate, and send a message with the end of the handshake."""
        contexts = [client_context(pem, version) for pem, _ in BAD_CERTIFICATES]

        def attack(address: Address) -> None:
            for number, context in enumerate(contexts):
                with attacker(address, context) as mallory:
                    mallory.shake_hands(behind=FRAMES.evil)
                    self.assertEqual(mallory.inside(1), b"", f"{number=}")

        return attack

    @on_every_reactor
    def test_a_client_without_a_required_certificate_is_refused(self) -> None:
        """S12: in either version; no message is handled, and no hook is called."""
        tls = ServerTls(identified(ClientCertificatePolicy.REQUIRED))
        for version in VERSIONS:
            attack = self.attack_without_identity(version)
            seen = self.attack(attack, upgrade=UpgradeToSsl(tls), count=len(BAD_CERTIFICATES))
            self.assert_refused(seen, len(BAD_CERTIFICATES))
            for warning, (_, reason) in zip(seen.warnings, BAD_CERTIFICATES, strict=True):
                self.assertIn(reason, warning, f"{version=}")

    def test_with_tls_first_a_refused_client_is_no_event(self) -> None:
        """S12: neither its connection nor its end is reported."""
        tls = ServerTls(identified(ClientCertificatePolicy.REQUIRED))
        upgrade = UpgradeToSsl(tls, UpgradePolicy.IMPLICIT)
        for version in VERSIONS:
            attack = self.attack_without_identity(version)
            seen = self.attack(attack, upgrade=upgrade, count=len(BAD_CERTIFICATES))
            self.assert_refused(seen, len(BAD_CERTIFICATES))
            self.assertEqual((seen.announced, seen.lost), ([], []), f"{version=}")

    def test_a_listener_calls_no_handler_for_a_refused_client(self) -> None:
        """S12: a client with a valid certificate is served."""
        for version in VERSIONS:
            attack = self.attack_without_identity(version)

            def then_come_in(
                address: Address, attack: Any = attack, version: Any = version
            ) -> None:
                attack(address)
                with attacker(address, client_context(GOOD_CERTIFICATE, version)) as client:
                    client.shake_hands()
                    self.assertEqual(client.ask(b"inside", 6), b"inside")
                    client.send(client.tls.end())
                    client.rest()

            tls = identified(ClientCertificatePolicy.REQUIRED)
            seen = self.attack_socket(then_come_in, echo, tls=tls)
            self.assertEqual(seen.announced, [True], f"{version=}")
            self.assertEqual(len(seen.warnings), len(BAD_CERTIFICATES), f"{version=}")
            self.assertNotIn(EVIL.decode(), seen.text, f"{version=}: {seen.text}")

    def test_a_wrong_optional_certificate_is_refused(self) -> None:
        """S12: a client without one is accepted without an identity."""
        tls = ServerTls(identified(ClientCertificatePolicy.OPTIONAL))
        answer = FRAMES.encode(b"got x")

        def attack(address: Address) -> None:
            for pem in (None, GOOD_CERTIFICATE):
                with attacker(address, client_context(pem)) as client:
                    self.assertTrue(client.shake_hands(), f"{pem is None=}")
                    self.assertEqual(
                        client.ask(FRAMES.encode(b"x"), len(answer)), answer, f"{pem is None=}"
                    )
            for pem, reason in BAD_CERTIFICATES[1:]:
                with attacker(address, client_context(pem)) as mallory:
                    mallory.shake_hands(behind=FRAMES.evil)
                    self.assertEqual(mallory.inside(1), b"", f"{reason=}")

        count = len(BAD_CERTIFICATES) + 1
        seen = self.attack(attack, upgrade=UpgradeToSsl(tls), count=count)
        self.assertEqual(seen.messages, [(b"x", True)] * 2)
        self.assertEqual(seen.certificates, ["mallory"])
        self.assertEqual(len(seen.warnings), len(BAD_CERTIFICATES) - 1)


class ResumptionTests(Hostile):
    """Sessions of earlier connections."""

    def test_a_session_does_not_replace_a_certificate(self) -> None:
        """
        S18: a session of a listener without client certificates is offered to one that requires
        them.
        """
        for policy in (ClientCertificatePolicy.REQUIRED, ClientCertificatePolicy.OPTIONAL):
            strict = UpgradeToSsl(ServerTls(identified(policy)))
            for version in VERSIONS:
                context = client_context(version=version)
                sessions: list[Any] = []

                def get(address: Address, context: Any = context, sessions: Any = sessions) -> None:
                    with attacker(address, context) as client:
                        client.shake_hands()
                        client.ask(FRAMES.encode(b"x"), 9)
                        sessions.append(client.tls.session)

                def attack(
                    address: Address, context: Any = context, sessions: Any = sessions
                ) -> None:
                    for session in sessions:
                        with attacker(address, context, session) as mallory:
                            mallory.shake_hands(behind=FRAMES.evil)
                            mallory.inside(1)
                            mallory.connection.close()

                self.attack(get)
                self.assertEqual(len(sessions), 1, f"{policy=}, {version=}")
                seen = self.attack(attack, upgrade=strict)
                self.assertEqual(seen.certificates, [], f"{policy=}, {version=}")
                if policy is ClientCertificatePolicy.REQUIRED:
                    self.assert_refused(seen, 1)

    def test_a_client_with_a_session_is_identified_again(self) -> None:
        """S18: at the same listener; the application always knows the client."""
        strict = UpgradeToSsl(ServerTls(identified(ClientCertificatePolicy.REQUIRED)))
        for version in VERSIONS:
            context = client_context(GOOD_CERTIFICATE, version)

            def attack(address: Address, context: ssl.SSLContext = context) -> None:
                session = None
                for attempt in range(3):
                    with attacker(address, context, session) as client:
                        self.assertTrue(client.shake_hands(), f"{attempt=}")
                        self.assertEqual(
                            client.ask(FRAMES.encode(b"x"), 9),
                            FRAMES.encode(b"got x"),
                            f"{attempt=}",
                        )
                        session = client.tls.session

            seen = self.attack(attack, upgrade=strict, count=3)
            self.assertEqual(seen.certificates, ["mallory"] * 3, f"{version=}")

    def test_a_stolen_session_is_refused(self) -> None:
        """S18: a client without a certificate offers the session of another one."""
        strict = UpgradeToSsl(ServerTls(identified(ClientCertificatePolicy.REQUIRED)))
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):

            def attack(address: Address, version: int = version) -> None:
                session: Any = None
                context = openssl_context(version)
                for pem in (GOOD_CERTIFICATE, None):
                    with connect(address) as connection:
                        client = OpenSslClient(connection, context, pem)
                        if session is not None:
                            client.engine.set_session(session)
                        client.shake_hands()
                        client.say(FRAMES.encode(b"x") if pem else FRAMES.evil)
                        answer = client.receive()
                        session = client.engine.get_session()
                        self.assertEqual(
                            answer, FRAMES.encode(b"got x") if pem else b"", f"{pem is None=}"
                        )

            seen = self.attack(attack, upgrade=strict, count=2)
            self.assertEqual(seen.messages, [(b"x", True)], f"{version=}")
            self.assertEqual(seen.certificates, ["mallory"], f"{version=}")

    @on_every_reactor
    def test_early_data_is_not_handled(self) -> None:
        """S18: bytes behind the ClientHello are not read before the handshake is done."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for trigger in (b"", server.request):
                    with attacker(address) as mallory:
                        early = b"\x17\x03\x03" + struct.pack(">H", len(server.evil)) + server.evil
                        mallory.send(trigger + mallory.tls.hello() + early)
                        mallory.go_on()
                        mallory.finish()
                        self.assertNotIn(b"got", mallory.rest(), f"{trigger=}")

            self.assert_refused(self.attack(attack, server, count=2), 2)


def openssl_context(version: int) -> SSL.Context:
    """Make a context for one connection, or for several that share sessions."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(version)
    context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT)
    return context


class OpenSslClient:
    """A client side with functions that Python's ``ssl`` does not offer."""

    def __init__(self, connection: Any, context: SSL.Context, pem: bytes | None = None) -> None:
        self.engine = SSL.Connection(context, None)
        if pem is not None:
            own, key = Certificate.from_pem(pem).to_cryptography()
            self.engine.use_certificate(own)
            self.engine.use_privatekey(key)
        self.engine.set_connect_state()
        self._connection = connection

    def shake_hands(self) -> bool:
        """Do a handshake; return whether it succeeded for this side."""
        while True:
            try:
                self.engine.do_handshake()
            except SSL.WantReadError:
                self.flush()
                if not self.feed():
                    return False
            except SSL.Error:
                self.flush()
                return False
            else:
                self.flush()
                return True

    def say(self, data: bytes) -> None:
        """Send bytes inside TLS, if there is TLS."""
        try:
            self.engine.send(data)
        except SSL.Error:
            pass
        self.flush()

    def receive(self) -> bytes:
        """Receive bytes inside TLS; return none at the end."""
        while True:
            try:
                return self.engine.recv(65536)
            except SSL.WantReadError:
                self.flush()
                if not self.feed():
                    return b""
            except SSL.Error:
                self.flush()
                return b""

    def flush(self) -> None:
        try:
            self._connection.sendall(self.engine.bio_read(65536))
        except (SSL.WantReadError, OSError):
            pass

    def feed(self) -> bool:
        try:
            data = self._connection.recv(65536)
        except OSError:
            return False
        if data:
            self.engine.bio_write(data)
        return bool(data)


class RenegotiationTests(Hostile):
    """Second handshakes inside the first, which TLS 1.2 allows."""

    @on_every_reactor
    def test_a_client_cannot_begin_a_second_handshake(self) -> None:
        """It is refused: the connection continues or ends, and nothing is reported twice."""

        def attack(address: Address) -> None:
            for request in (b"", FRAMES.request):
                with connect(address) as connection:
                    connection.sendall(request)
                    receive_exactly(connection, len(FRAMES.go_ahead) if request else 0)
                    client = OpenSslClient(connection, openssl_context(SSL.TLS1_2_VERSION))
                    self.assertTrue(client.shake_hands(), f"{request=}")
                    client.say(FRAMES.encode(b"x"))
                    self.assertEqual(client.receive(), FRAMES.encode(b"got x"), f"{request=}")
                    self.assertTrue(client.engine.renegotiate(), f"{request=}")
                    self.assertFalse(client.shake_hands(), f"{request=}")
                    client.say(FRAMES.evil)
                    connection.shutdown(socket.SHUT_WR)
                    while client.receive():
                        pass

        seen = self.attack(attack, count=2)
        self.assertEqual(seen.secured, [True] * 2)
        self.assertEqual(len(seen.lost), 2)
        self.assertEqual({is_secure for _, is_secure in seen.messages}, {True})


for case in (CertificateTests, ResumptionTests, RenegotiationTests):
    globals().update(case.makeTestCaseClasses())
del CertificateTests, ResumptionTests, RenegotiationTests, case
