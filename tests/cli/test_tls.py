"""What a command line asks of TLS is read before anything is connected."""

from __future__ import annotations

import io
import shlex
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import AUTHORITY, CLIENT, SERVER, Conversation
from tests.tls.peer import ServerPeer
from twsock.cli.arguments import EchoArguments, InitArguments, parse_certificates, parse_echo
from twsock.cli.output import CommandError, Output, UsageError
from twsock.cli.tls import (
    MAX_NAMES,
    NO_TLS,
    describe_certificate,
    explain_failure,
    explain_refusal,
    init_certificates,
    prepare_security,
    warn_of_exposed_key,
)
from twsock.errors import BrokenError
from twsock.names import HostName
from twsock.tls import (
    Certificate,
    CertificateError,
    ChainValidationResult,
    ClientOptions,
    SocketProtectionLevel,
    choose_versions,
)
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

    def prepare(self, endpoint: str = "tcp:localhost:1", **given: object) -> ClientOptions:
        return prepare_security(EchoArguments(endpoint=endpoint, tls=True, **given))

    def fails(self, endpoint: str = "tcp:localhost:1", **given: object) -> str:
        """Return the line."""
        error = self.assertRaises(UsageError, self.prepare, endpoint, **given)
        self.assertNotIn("\n", error.line)
        return str(error.line)

    def test_nothing_more_is_asked_for(self) -> None:
        """The platform's authorities, the best version down to TLS 1.2, no certificate."""
        options = self.prepare()
        self.assertIsNone(options.trust_roots)
        self.assertIsNone(options.certificate)
        self.assertEqual(options.versions.lowest, TlsVersion.TLS12)
        self.assertEqual(options.ignorable_errors, ())

    def test_a_level_is_a_ceiling(self) -> None:
        """Nothing above it is offered."""
        self.assertEqual(self.prepare(level="tls12").versions.highest, TlsVersion.TLS12)

    def test_a_file_may_hold_several_authorities(self) -> None:
        """Each is trusted."""
        other = trustme.CA()
        path = self.write("two.pem", AUTHORITY.cert_pem.bytes() + other.cert_pem.bytes())
        self.assertEqual(
            self.prepare(ca=path).trust_roots,
            [Certificate.from_pem(each.cert_pem.bytes()) for each in (AUTHORITY, other)],
        )

    def test_a_certificate_brings_its_key(self) -> None:
        """Or there is no use in it."""
        path = self.write("client.pem", CLIENT.private_key_and_cert_chain_pem.bytes())
        certificate = self.prepare(client_certificate=path).certificate
        assert certificate is not None
        self.assertTrue(certificate.has_private_key)
        path = self.write("client.pem", CLIENT.cert_chain_pems[0].bytes())
        self.assertEqual(
            self.fails(client_certificate=path),
            f"cannot use {path}: --client-certificate needs the key in it, too",
        )

    def test_a_key_that_others_can_read_is_told_of(self) -> None:
        """In one line, besides the conversation."""
        path = self.write("client.pem", CLIENT.private_key_and_cert_chain_pem.bytes())
        for mode, count in ((0o600, 0), (0o644, 1)):
            Path(path).chmod(mode)
            output, notes = io.BytesIO(), io.StringIO()
            for exposed in (None, path):
                warn_of_exposed_key(exposed, Output(output, quiet=True, notes=notes))
            self.assertEqual(output.getvalue(), b"", f"{mode=}")
            self.assertEqual(notes.getvalue().count("chmod 600"), count, f"{mode=}")

    def test_files_that_cannot_be_used_are_named(self) -> None:
        """With the reason."""
        garbage, missing = self.write("garbage.pem", b"garbage"), str(self.folder / "missing.pem")
        for path, line in (
            (garbage, f"cannot use {garbage}: "),
            (missing, f"cannot read {missing}: No such file or directory"),
        ):
            for option in ("ca", "client_certificate"):
                failed = self.fails(**{option: path})
                self.assertIn(line, failed, f"{option=}, {line=}: {failed}")

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
            self.fails(client_certificate=path),
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
            self.assertEqual(
                self.prepare(endpoint, name=name).host_name,
                HostName(expected),
                f"{endpoint=}, {name=}",
            )

    def test_somebody_has_to_be_expected(self) -> None:
        """An endpoint without a host, or with what no certificate can be for, needs a name."""
        for endpoint, reason in (
            ("unix:/run/echo.sock", "'unix:/run/echo.sock' does not contain the host"),
            ("tcp:127.1:1", "'127.1' is not a host name"),
        ):
            line = self.fails(endpoint)
            self.assertIn(
                f"--name HOST is missing: {reason}", line, f"{endpoint=}, {reason=}: {line}"
            )

    def test_an_endpoint_with_tls_gets_no_second(self) -> None:
        """Inside its own."""
        for endpoint in ("tls:localhost:1", "ssl:localhost:1"):
            line = self.fails(endpoint, name="localhost")
            self.assertIn(
                f"the endpoint '{endpoint}' already uses TLS", line, f"{endpoint=}: {line}"
            )


class SecureTests(Files):
    """A connection becomes secure before anything is said on it."""

    def start(self, *, issued: trustme.LeafCert = SERVER, **settings: Any) -> Conversation:
        """Begin a conversation with a server in memory."""
        given = {"ca": self.authority, "timeout": 3.0, "upgrade": "direct", **settings}
        security = prepare_security(EchoArguments(endpoint="tcp:localhost:1", **given))
        self.peer = ServerPeer(issued)
        return Conversation(b"Hello", security=security, **given)

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
                "client is secure: TLSv1.3, certificate verified for localhost",
                'client sent the request: "Hello"',
                'client received the response: "Hello"',
                "client closed its socket",
            ],
        )
        self.assertEqual(conversation.notes.getvalue(), "")

    def test_by_command(self) -> None:
        """The request is a message, and so is its answer."""
        conversation = self.start(upgrade="command")
        self.assertEqual(conversation.sent(), encode_frame(b"STARTTLS"))
        conversation.receive(encode_frame(b"OK"))
        self.converse(conversation)
        self.assertEqual(self.peer.received, HELLO)
        self.finish(conversation)

    def test_the_certificate_is_shown_beside_the_output(self) -> None:
        """Quiet leaves it, and the responses."""
        conversation = self.start(show_certificate=True, quiet=True)
        self.converse(conversation)
        self.finish(conversation)
        self.assertEqual(conversation.lines, ["Hello"])
        self.assertRegex(
            conversation.notes.getvalue(),
            r"\Athe server sent a certificate:\n  subject     server\n(  .+\n)+"
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
            issued=AUTHORITY.issue_cert("other.example"), show_certificate=True
        )
        self.converse(conversation)
        conversation.end()
        self.assertIn("refused: CertificateCommonNameIsIncorrect (25)", conversation.fails(self))
        self.assertIn("  names       other.example\n", conversation.notes.getvalue())
        self.assertNotIn("  connection  ", conversation.notes.getvalue())

    def test_a_server_that_does_not_go_along_is_told(self) -> None:
        """One line each: it says no, it speaks plaintext, it speaks first, it leaves."""
        for upgrade, answer, line in (
            ("command", encode_frame(b"NO"), "the server did not grant the request for TLS"),
            (
                "command",
                encode_frame(b"OK") + HELLO,
                "the server sent plaintext after its go-ahead",
            ),
            ("direct", b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server did not answer with TLS"),
            ("direct", b"", "perhaps the server does not offer TLS"),
            ("command", b"", "perhaps the server does not offer TLS"),
        ):
            conversation = self.start(upgrade=upgrade)
            if answer:
                conversation.receive(answer)
            if not conversation.transport.disconnected or not answer:
                conversation.end()
            failed = conversation.fails(self)
            self.assertTrue(failed.startswith("TLS failed: "), failed)
            self.assertTrue(failed.endswith(line), failed)
            conversation.clock.advance(0)
            self.assertEqual(conversation.clock.getDelayedCalls(), [], f"{upgrade=}, {answer=}")

    def test_an_echo_server_is_told(self) -> None:
        """Which gives a client its own hello."""
        conversation = self.start()
        conversation.receive(conversation.sent())
        conversation.end()
        self.assertIn("did not answer the handshake", conversation.fails(self))

    def test_a_silent_server_is_left_after_the_timeout(self) -> None:
        """Not before."""
        for style in ("direct", "command"):
            conversation = self.start(upgrade=style)
            conversation.clock.advance(2.9)
            self.assertNoResult(conversation.done)
            conversation.clock.advance(0.2)
            line = conversation.fails(self)
            self.assertRegex(line, r"^TLS failed: ConnectionTimedOut \(3\): the ", f"{style=}")
            # A server that did not grant the command needs no guess.
            self.assertEqual(line.endswith(NO_TLS), style == "direct", line)

    def test_ctrl_c_ends_a_handshake(self) -> None:
        """At once, whatever the server does; before it, the connection is closed in order."""
        for style in ("direct", "command"):
            conversation = self.start(upgrade=style)
            conversation.done.cancel()
            transport = conversation.transport
            self.assertEqual(transport.disconnected, style == "direct", f"{style=}")
            self.assertTrue(transport.disconnecting, f"{style=}")
            conversation.end()
            self.failureResultOf(conversation.done)
            conversation.clock.advance(0)
            self.assertEqual(conversation.clock.getDelayedCalls(), [], f"{style=}")


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
            ("tlsv1 alert unknown ca", "does not trust the issuer of the --client-certificate"),
            ("sslv3 alert certificate expired", "the --client-certificate has expired"),
        ):
            cause = SSL.Error([("SSL routines", "", reason)])
            explained = explain_failure(BrokenError.from_exception(cause))
            self.assertIn(f"{reason}; ", explained, f"{reason=}: {explained}")
            self.assertTrue(explained.endswith(line), explained)

    def test_no_hint_is_better_than_a_wrong_one(self) -> None:
        """What is not known is told as it is."""
        error = BrokenError("the cable broke")
        self.assertEqual(explain_failure(error), error.summary)


ROOT = Certificate.from_pem(AUTHORITY.cert_pem.bytes())


def issued(leaf: trustme.LeafCert) -> Certificate:
    return Certificate.from_pem(leaf.cert_chain_pems[0].bytes())


def make_certificate(subject: str, alternatives: bytes = b"") -> Certificate:
    """
    Make what no honest authority would.

    :param alternatives: what stands in place of the DER of its names; empty for nothing.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 2, 3, 4, tzinfo=timezone.utc))
        .not_valid_after(datetime(2020, 1, 2, 3, 4, tzinfo=timezone.utc) + timedelta(days=1))
    )
    if alternatives:
        names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, alternatives)
        builder = builder.add_extension(names, critical=False)
    signed = builder.sign(key, hashes.SHA256())
    return Certificate(signed.public_bytes(Encoding.DER))


class DescriptionTests(SynchronousTestCase):
    """What is in it."""

    def test_each_fact_has_its_line(self) -> None:
        """Whom it is about and for, who issued it, when it is valid, and which it is."""
        certificate = issued(SERVER)
        begin, end = (
            f"{moment:%Y-%m-%d %H:%M}" for moment in (certificate.valid_from, certificate.valid_to)
        )
        self.assertEqual(
            describe_certificate(certificate, "TLSv1.3, TLS_AES_256_GCM_SHA384"),
            [
                "the server sent a certificate:",
                "  subject     server",
                f"  issuer      {ROOT.subject}",
                "  names       localhost, 127.0.0.1",
                f"  valid       from {begin} to {end} UTC",
                f"  SHA-256     {certificate.get_hash_value('SHA256').hex()}",
                "  connection  TLSv1.3, TLS_AES_256_GCM_SHA384",
            ],
        )

    def test_what_is_not_there_has_none(self) -> None:
        """No names, no connection."""
        lines = describe_certificate(make_certificate("server"))
        self.assertEqual(
            [line.split()[0] for line in lines[1:]], ["subject", "issuer", "valid", "SHA-256"]
        )

    def test_the_server_does_nothing_to_the_terminal(self) -> None:
        """Whatever its name is."""
        lines = describe_certificate(make_certificate("a\x1b[2J\nb\u202e"))
        self.assertEqual(lines[1], r"  subject     a\x1b[2J\nb\u202e")

    def test_names_that_cannot_be_read_are_told(self) -> None:
        """They are read only now, and may be anything."""
        self.assertIn(
            "  names       (malformed)", describe_certificate(make_certificate("a", b"\xff\x00"))
        )

    def test_a_certificate_for_everybody_is_cut_short(self) -> None:
        """Its names are counted."""
        names = [f"{number}.example" for number in range(MAX_NAMES + 3)]
        (line,) = (
            line
            for line in describe_certificate(issued(AUTHORITY.issue_cert(*names)))
            if "names" in line
        )
        self.assertTrue(line.endswith(f" {MAX_NAMES - 1}.example, 3 more"), line)

    def test_one_name_does_not_take_the_place_of_all(self) -> None:
        """A name in the DNS has 253 characters at most, one in a certificate any number."""
        names = [x509.DNSName("a" * 5000), x509.UniformResourceIdentifier("b" * 5000)]
        names += [x509.DNSName("server.example")]
        text = "\n".join(describe_certificate(make_certificate("a", _alternatives(names))))
        self.assertIn("server.example", text)
        for letter in "ab":
            self.assertIn(letter * 200, text, f"{letter=}: {text}")
            self.assertNotIn(letter * 300, text, f"{letter=}: {text}")


def _alternatives(names: list[x509.GeneralName]) -> bytes:
    return x509.SubjectAlternativeName(names).public_bytes()


class RefusalTests(SynchronousTestCase):
    """Why it was refused, and what to do."""

    def explain(
        self,
        *errors: ChainValidationResult,
        certificate: Certificate | None = None,
        roots: list[Certificate] | None = None,
    ) -> tuple[str, ...]:
        """Give the line and the details."""
        error = CertificateError("the certificate", errors, certificate)
        options = ClientOptions(
            choose_versions(SocketProtectionLevel.SSL), HostName("wrong.example"), roots
        )
        failed = explain_refusal(error, options)
        self.assertEqual(failed.exit_code, 1)
        return (failed.line, *failed.details)

    def test_the_line_names_the_status(self) -> None:
        """With its number, and the name that was expected."""
        line, *_ = self.explain(ChainValidationResult.INVALID_NAME)
        self.assertEqual(
            line,
            "the certificate of wrong.example is refused: CertificateCommonNameIsIncorrect (25)",
        )

    def test_each_reason_has_its_line(self) -> None:
        """With what the certificate says, and the option that helps."""
        _, issuer, name = self.explain(
            ChainValidationResult.INCOMPLETE_CHAIN,
            ChainValidationResult.INVALID_NAME,
            certificate=issued(SERVER),
        )
        self.assertEqual(
            issuer,
            f"IncompleteChain: its issuer, {ROOT.subject}, is not trusted; "
            "name a trusted authority with --ca FILE",
        )
        self.assertEqual(
            name,
            "InvalidName: it is for localhost, 127.0.0.1; set the expected name with --name HOST",
        )

    def test_an_authority_that_did_not_help_is_told(self) -> None:
        """It is not recommended again."""
        _, reason = self.explain(
            ChainValidationResult.UNTRUSTED, certificate=issued(SERVER), roots=[ROOT]
        )
        self.assertEqual(
            reason,
            f"Untrusted: its issuer, {ROOT.subject}, is not in --ca, nor issued by one that is",
        )

    def test_an_expired_one_tells_when_it_was_valid(self) -> None:
        """Or one of its issuers was."""
        _, reason = self.explain(
            ChainValidationResult.EXPIRED, certificate=make_certificate("server")
        )
        self.assertEqual(
            reason,
            "Expired: it is valid from 2020-01-02 03:04 to 2020-01-03 03:04 UTC, "
            "unless an issuer expired",
        )

    def test_a_certificate_for_nobody_is_told(self) -> None:
        """Its subject does not count."""
        _, reason = self.explain(
            ChainValidationResult.INVALID_NAME, certificate=make_certificate("wrong.example")
        )
        self.assertIn("it is for nobody;", reason)

    def test_every_reason_has_words(self) -> None:
        """With a certificate and without, in one line each."""
        for certificate in (None, issued(SERVER)):
            for reason in ChainValidationResult:
                _, line = self.explain(reason, certificate=certificate)
                self.assertRegex(
                    line,
                    rf"\A{reason.documented_name}: [^\n]{{10,}}\Z",
                    f"{certificate=}, {reason=}",
                )

    def test_the_server_does_nothing_to_the_terminal(self) -> None:
        """Here neither."""
        _, line = self.explain(
            ChainValidationResult.UNTRUSTED, certificate=make_certificate("\x1b[2J")
        )
        self.assertIn(r"its issuer, \x1b[2J, is not", line)


class InitTests(SynchronousTestCase):
    """One folder."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute() / "it's here"

    def init(self, *names: str) -> list[str]:
        """Make certificates; give the lines."""
        output = io.BytesIO()
        arguments = InitArguments(directory=str(self.folder), name=names)
        init_certificates(arguments, Output(output))
        return output.getvalue().decode().splitlines()

    def fails(self, *names: str) -> str:
        """Give the line for standard error."""
        line = self.assertRaises(CommandError, self.init, *names).line
        self.assertNotIn("\n", line)
        return str(line)

    def test_three_files_are_made(self) -> None:
        """An authority, and what it issued: the server's is for the names."""
        self.init("a.example", "192.0.2.1")
        self.assertEqual(
            sorted(path.name for path in self.folder.iterdir()),
            ["authority.pem", "client.pem", "server.pem"],
        )
        authority = Certificate.load(self.folder / "authority.pem")
        server = Certificate.load(self.folder / "server.pem")
        names = server.subject_alternative_name
        self.assertEqual((names.dns_names, names.ip_addresses), (("a.example",), ("192.0.2.1",)))
        self.assertEqual(server.issuer, authority.subject)
        self.assertFalse(authority.has_private_key)

    def test_keys_are_of_the_kind_that_was_asked_for(self) -> None:
        """``--key rsa`` reaches the files."""
        arguments = parse_certificates(["init", str(self.folder), "--key", "rsa"])
        init_certificates(arguments, Output(io.BytesIO()))
        key = Certificate.load(self.folder / "server.pem").to_cryptography()[1]
        self.assertIsInstance(key, rsa.RSAPrivateKey)

    def test_keys_are_secret(self) -> None:
        """From everybody but the user."""
        self.init()
        for name in ("server.pem", "client.pem"):
            self.assertEqual(stat.S_IMODE((self.folder / name).stat().st_mode), 0o600, f"{name=}")

    def test_the_lines_name_the_files(self) -> None:
        """Each with what it is."""
        lines = self.init()
        for line, name in zip(lines, ("authority", "server", "client"), strict=False):
            self.assertTrue(line.startswith(f"{self.folder / name}.pem: "), line)

    def test_the_next_commands_can_be_typed_as_they_are(self) -> None:
        """Whatever the folder is called: a shell reads the same paths."""
        serve, use = map(shlex.split, self.init()[-2:])
        self.assertEqual(serve[:4], ["twistd", "--pidfile=", "-n", "twsock-stream"])
        self.assertEqual(serve[4:], ["--tls", "--certificate", str(self.folder / "server.pem")])
        self.assertEqual(use[0], "twsock")
        self.assertEqual(use[1], "echo")
        arguments = parse_echo(use[2:])
        self.assertEqual((arguments.endpoint, arguments.tls), ("tcp:127.0.0.1:1337", True))
        self.assertEqual(arguments.ca, str(self.folder / "authority.pem"))
        self.assertIsNone(arguments.name)

    def test_a_certificate_for_others_is_asked_for_by_name(self) -> None:
        """Which the address of this machine is not."""
        self.assertEqual(shlex.split(self.init("a.example")[-1])[-2:], ["--name", "a.example"])

    def test_a_folder_with_anything_in_it_is_refused(self) -> None:
        """And left as it is."""
        self.folder.mkdir(parents=True)
        (self.folder / "mine").touch()
        self.assertEqual(
            self.fails(),
            f"cannot make certificates in {self.folder}: it exists and is not empty",
        )
        self.assertEqual([path.name for path in self.folder.iterdir()], ["mine"])

    def test_any_name_will_do(self) -> None:
        """However long, and with the zone of an address, which is this machine's own matter."""
        for name in ("a" * 63 + ".example", "fe80::1%lo"):
            self.folder = self.folder / "below"
            line = self.init(name)[1]
            self.assertIn(name, line, f"{name=}: {line}")
