"""What a command line asks of TLS is read before anything is connected."""

from __future__ import annotations

import io
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import AUTHORITY, CLIENT, SERVER, Conversation
from tests.tls.peer import ServerPeer
from twsock.cli.failure import UsageError
from twsock.cli.screen import Screen
from twsock.cli.security import (
    SecurityArguments,
    explain_failure,
    prepare_upgrade,
    warn_of_exposed_key,
)
from twsock.errors import BrokenError
from twsock.names import HostName
from twsock.protocols import ClientUpgrade, UpgradeStyle
from twsock.tls import Certificate, SocketProtectionLevel
from twsock.tls.levels import TlsVersion
from twsock.wire import encode_frame

HELLO = encode_frame(b"Hello")


class Files(SynchronousTestCase):
    """Files that a command line can name."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.authority = self.write("authority.pem", AUTHORITY.cert_pem.bytes())

    def write(self, name: str, data: bytes) -> str:
        """Make a file."""
        path = self.folder / name
        path.write_bytes(data)
        return str(path)


class PrepareTests(Files):
    """Options become what an upgrade needs."""

    def prepare(
        self, arguments: SecurityArguments, endpoint: str = "tcp:localhost:1"
    ) -> ClientUpgrade:
        return prepare_upgrade(arguments, endpoint, 3.0)

    def fails(self, arguments: SecurityArguments, endpoint: str = "tcp:localhost:1") -> str:
        """Give the line."""
        error = self.assertRaises(UsageError, self.prepare, arguments, endpoint)
        self.assertNotIn("\n", error.line)
        return str(error.line)

    def test_nothing_more_is_asked_for(self) -> None:
        """The platform's authorities, the best version down to TLS 1.2, no certificate."""
        upgrade = self.prepare(SecurityArguments())
        options = upgrade.options
        self.assertEqual((upgrade.style, upgrade.timeout), (UpgradeStyle.DIRECT, 3.0))
        self.assertIsNone(options.trust_roots)
        self.assertIsNone(options.certificate)
        self.assertEqual(options.versions.lowest, TlsVersion.TLS12)
        self.assertEqual(options.ignorable_errors, ())

    def test_a_level_is_a_ceiling(self) -> None:
        """Nothing above it is offered."""
        upgrade = self.prepare(SecurityArguments(level=SocketProtectionLevel.TLS12))
        self.assertEqual(upgrade.options.versions.highest, TlsVersion.TLS12)

    def test_a_level_that_cannot_be_had_is_refused(self) -> None:
        """Nothing else is taken in its place."""
        arguments = SecurityArguments(level=SocketProtectionLevel.TLS11)
        self.assertIn("--level cannot be had: ", self.fails(arguments))

    def test_a_file_may_hold_several_authorities(self) -> None:
        """Each is trusted."""
        other = trustme.CA()
        path = self.write("two.pem", AUTHORITY.cert_pem.bytes() + other.cert_pem.bytes())
        self.assertEqual(
            self.prepare(SecurityArguments(authorities=path)).options.trust_roots,
            [Certificate.from_pem(each.cert_pem.bytes()) for each in (AUTHORITY, other)],
        )

    def test_a_certificate_brings_its_key(self) -> None:
        """Or there is no use in it."""
        path = self.write("client.pem", CLIENT.private_key_and_cert_chain_pem.bytes())
        certificate = self.prepare(SecurityArguments(certificate=path)).options.certificate
        assert certificate is not None
        self.assertTrue(certificate.has_private_key)
        path = self.write("client.pem", CLIENT.cert_chain_pems[0].bytes())
        self.assertEqual(
            self.fails(SecurityArguments(certificate=path)),
            f"cannot use {path}: --client-certificate needs the key in it, too",
        )

    def test_a_key_that_others_can_read_is_told_of(self) -> None:
        """In one line, besides the conversation."""
        path = self.write("client.pem", CLIENT.private_key_and_cert_chain_pem.bytes())
        for mode, count in ((0o600, 0), (0o644, 1)):
            Path(path).chmod(mode)
            output, notes = io.BytesIO(), io.StringIO()
            screen = Screen(output, quiet=True, notes=notes)
            for arguments in (SecurityArguments(), SecurityArguments(certificate=path)):
                warn_of_exposed_key(arguments, screen)
            self.assertEqual(output.getvalue(), b"")
            self.assertEqual(notes.getvalue().count("chmod 600"), count)

    def test_files_that_cannot_be_used_are_named(self) -> None:
        """With the reason."""
        garbage, missing = self.write("garbage.pem", b"garbage"), str(self.folder / "missing.pem")
        for path, line in (
            (garbage, f"cannot use {garbage}: "),
            (missing, f"cannot read {missing}: No such file or directory"),
        ):
            for arguments in (
                SecurityArguments(authorities=path),
                SecurityArguments(certificate=path),
            ):
                self.assertIn(line, self.fails(arguments))

    def test_what_openssl_does_not_take_is_refused(self) -> None:
        """Such as a certificate for a key that cannot sign."""
        key, signs = x25519.X25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
        now = datetime.now(timezone.utc)
        useless = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
            .sign(signs, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.write("useless.pem", useless + pem)
        self.assertRegex(
            self.fails(SecurityArguments(certificate=path)),
            "^OpenSSL refuses the certificate of client: [^:]+$",
        )

    def test_the_host_is_whom_to_expect(self) -> None:
        """Unless another is named."""
        for name, endpoint, expected in (
            (None, "tcp:localhost:1", "localhost"),
            (None, "tcp:[::1]:1", "::1"),
            (None, "tcp:host=h.example:port=1", "h.example"),
            ("other.example", "tcp:localhost:1", "other.example"),
            ("other.example", "tcp:127.1:1", "other.example"),
            ("other.example", "unix:/run/echo.sock", "other.example"),
        ):
            upgrade = self.prepare(SecurityArguments(name=name), endpoint)
            self.assertEqual(upgrade.options.host_name, HostName(expected))

    def test_somebody_has_to_be_expected(self) -> None:
        """An endpoint without a host, or with what no certificate can be for, needs a name."""
        for endpoint, reason in (
            ("unix:/run/echo.sock", "'unix:/run/echo.sock' does not say whom"),
            ("tcp:127.1:1", "'127.1' is no host name"),
        ):
            line = self.fails(SecurityArguments(), endpoint)
            self.assertIn(f"--name HOST is missing: {reason}", line)

    def test_an_endpoint_with_tls_gets_no_second(self) -> None:
        """Inside its own."""
        for endpoint in ("tls:localhost:1", "ssl:localhost:1"):
            line = self.fails(SecurityArguments(name="localhost"), endpoint)
            self.assertIn(f"the endpoint '{endpoint}' has TLS of its own", line)


class SecureTests(Files):
    """A connection becomes secure before anything is said on it."""

    def start(
        self,
        arguments: SecurityArguments | None = None,
        *,
        issued: trustme.LeafCert = SERVER,
        **settings: Any,
    ) -> Conversation:
        """Begin a conversation with a server in memory."""
        asked = arguments or SecurityArguments(authorities=self.authority)
        upgrade = prepare_upgrade(asked, "tcp:localhost:1", 3.0)
        self.peer = ServerPeer(issued)
        return Conversation(b"Hello", upgrade=upgrade, **settings)

    def converse(self, conversation: Conversation) -> None:
        """Hand on what each side sends, until neither does or the client leaves."""
        while (data := conversation.sent()) and not conversation.transport.disconnecting:
            conversation.receive(self.peer.take(data))
            conversation.clock.advance(0)

    def finish(self, conversation: Conversation) -> None:
        """Answer, and let the connection end."""
        conversation.receive(self.peer.say(HELLO))
        conversation.end()
        self.successResultOf(conversation.done)

    def test_the_text_follows_the_verification(self) -> None:
        """Nothing but the handshake leaves before, and the screen tells in which order."""
        conversation = self.start()
        hello = conversation.sent()
        self.assertEqual(hello[:2], b"\x16\x03")
        conversation.receive(self.peer.take(hello))
        self.converse(conversation)
        self.assertEqual(self.peer.received, HELLO)
        self.finish(conversation)
        self.assertEqual(
            conversation.lines,
            [
                "client is trying to connect...",
                "client connected",
                "client is secure: TLSv1.3, localhost is who it says",
                'client sent the request: "Hello"',
                'client received the response: "Hello"',
                "client closed its socket",
            ],
        )
        self.assertEqual(conversation.notes.getvalue(), "")

    def test_by_command(self) -> None:
        """The request is a message, and so is its answer."""
        conversation = self.start(
            SecurityArguments(UpgradeStyle.COMMAND, authorities=self.authority)
        )
        self.assertEqual(conversation.sent(), encode_frame(b"STARTTLS"))
        conversation.receive(encode_frame(b"OK"))
        self.converse(conversation)
        self.assertEqual(self.peer.received, HELLO)
        self.finish(conversation)

    def test_the_certificate_is_shown_beside_the_output(self) -> None:
        """Quiet leaves it, and the responses."""
        conversation = self.start(shows_certificate=True, quiet=True)
        self.converse(conversation)
        self.finish(conversation)
        self.assertEqual(conversation.lines, ["Hello"])
        self.assertRegex(
            conversation.notes.getvalue(),
            r"\Athe server showed a certificate:\n  subject     server\n(  .+\n)+"
            r"  connection  TLSv1\.3, TLS_\w+\n\Z",
        )

    def test_a_refused_server_learns_nothing(self) -> None:
        """No text is sent, and the reasons are told."""
        conversation = self.start(issued=trustme.CA().issue_cert("other.example"))
        self.converse(conversation)
        self.assertTrue(conversation.transport.disconnecting)
        conversation.end()
        error = self.failureResultOf(conversation.done).value
        self.assertEqual(
            error.line,
            "the certificate of localhost is refused: CertificateUntrustedRoot (24)",
        )
        self.assertEqual(
            [line.partition(":")[0] for line in error.details], ["IncompleteChain", "InvalidName"]
        )
        self.assertEqual(self.peer.received, b"")
        self.assertEqual(conversation.notes.getvalue(), "")

    def test_a_refused_certificate_is_shown_if_asked_for(self) -> None:
        """Without a connection that it could be of."""
        conversation = self.start(
            issued=AUTHORITY.issue_cert("other.example"), shows_certificate=True
        )
        self.converse(conversation)
        conversation.end()
        self.assertIn("refused: CertificateCommonNameIsIncorrect (25)", conversation.fails(self))
        self.assertIn("  names       other.example\n", conversation.notes.getvalue())
        self.assertNotIn("  connection  ", conversation.notes.getvalue())

    def test_a_server_that_does_not_go_along_is_told(self) -> None:
        """One line each: it says no, it speaks plaintext, it speaks first, it leaves."""
        command = SecurityArguments(UpgradeStyle.COMMAND, authorities=self.authority)
        for arguments, answer, line in (
            (command, encode_frame(b"NO"), "the server did not grant the request for TLS"),
            (command, encode_frame(b"OK") + HELLO, "the server sent plaintext behind its go-ahead"),
            (None, b"HTTP/1.1 400 Bad Request\r\n\r\n", "what the server sent is no TLS"),
            (None, b"", "perhaps the server does not offer TLS"),
            (command, b"", "perhaps the server does not offer TLS"),
        ):
            conversation = self.start(arguments)
            if answer:
                conversation.receive(answer)
            if not conversation.transport.disconnected or not answer:
                conversation.end()
            failed = conversation.fails(self)
            self.assertTrue(failed.startswith("TLS failed: "), failed)
            self.assertTrue(failed.endswith(line), failed)
            self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_an_echo_server_is_told(self) -> None:
        """Which gives a client its own hello."""
        conversation = self.start()
        conversation.receive(conversation.sent())
        conversation.end()
        self.assertIn("is no answer to a handshake", conversation.fails(self))

    def test_a_silent_server_is_left_after_the_timeout(self) -> None:
        """Not before."""
        for style in UpgradeStyle:
            conversation = self.start(SecurityArguments(style, authorities=self.authority))
            conversation.clock.advance(2.9)
            self.assertNoResult(conversation.done)
            conversation.clock.advance(0.2)
            self.assertRegex(
                conversation.fails(self), r"^TLS failed: ConnectionTimedOut \(3\): the "
            )

    def test_ctrl_c_ends_a_handshake(self) -> None:
        """At once, whatever the server does."""
        for style in UpgradeStyle:
            conversation = self.start(SecurityArguments(style, authorities=self.authority))
            conversation.done.cancel()
            self.assertTrue(conversation.transport.disconnected)
            conversation.end()
            self.failureResultOf(conversation.done)
            self.assertEqual(conversation.clock.getDelayedCalls(), [])


class FailureTests(SynchronousTestCase):
    """A failure of TLS is one line with a hint."""

    def test_hints(self) -> None:
        """For what servers say in alerts, in the words of OpenSSL."""
        for reason, line in (
            ("tlsv13 alert certificate required", "asks for --client-certificate FILE"),
            (
                "sslv3 alert handshake failure",
                "may ask for --client-certificate FILE or another --level",
            ),
            ("tlsv1 alert protocol version", "see --level"),
            ("tlsv1 alert unknown ca", "does not trust who issued the --client-certificate"),
            ("sslv3 alert certificate expired", "the --client-certificate has expired"),
        ):
            cause = SSL.Error([("SSL routines", "", reason)])
            explained = explain_failure(BrokenError.from_exception(cause))
            self.assertIn(f"{reason}; ", explained)
            self.assertTrue(explained.endswith(line), explained)

    def test_no_hint_is_better_than_a_wrong_one(self) -> None:
        """What is not known is told as it is."""
        error = BrokenError("the cable broke")
        self.assertEqual(explain_failure(error), error.summary)
