"""A server's certificate becomes lines that are short, and safe on a terminal."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import AUTHORITY, SERVER
from twsock.cli.server_certificate import MAX_NAMES, describe_certificate, explain_refusal
from twsock.names import HostName
from twsock.tls import (
    Certificate,
    CertificateError,
    ChainValidationResult,
    ClientOptions,
    SocketProtectionLevel,
    choose_versions,
)

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
                "the server showed a certificate:",
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
            self.assertIn(letter * 200, text)
            self.assertNotIn(letter * 300, text)


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
            "--ca FILE says whom to trust",
        )
        self.assertEqual(
            name, "InvalidName: it is for localhost, 127.0.0.1; --name HOST says whom to expect"
        )

    def test_an_authority_that_did_not_help_is_told(self) -> None:
        """It is not recommended again."""
        _, reason = self.explain(
            ChainValidationResult.UNTRUSTED, certificate=issued(SERVER), roots=[ROOT]
        )
        self.assertEqual(
            reason,
            f"Untrusted: its issuer, {ROOT.subject}, is not among those in --ca, nor known to them",
        )

    def test_an_expired_one_tells_when_it_was_valid(self) -> None:
        """Or one of its issuers was."""
        _, reason = self.explain(
            ChainValidationResult.EXPIRED, certificate=make_certificate("server")
        )
        self.assertEqual(
            reason,
            "Expired: it is valid from 2020-01-02 03:04 to 2020-01-03 03:04 UTC, "
            "if its issuers are",
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
                self.assertRegex(line, rf"\A{reason.documented_name}: [^\n]{{10,}}\Z")

    def test_the_server_does_nothing_to_the_terminal(self) -> None:
        """Here neither."""
        _, line = self.explain(
            ChainValidationResult.UNTRUSTED, certificate=make_certificate("\x1b[2J")
        )
        self.assertIn(r"its issuer, \x1b[2J, is not", line)
