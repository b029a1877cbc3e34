"""Certificates and keys are read from files, and found by their contents."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.certificates_for_tests import NOW
from tests.tls.peer import SERVER
from twsock.errors import SocketError, SocketErrorStatus
from twsock.tls import certificates
from twsock.tls.certificates import (
    Certificate,
    CertificateQuery,
    CertificateStores,
    is_readable_by_others,
    use_certificate,
)

AUTHORITY = trustme.CA(organization_name="Trust Me")
ISSUED = AUTHORITY.issue_cert("www.example.com", "192.0.2.1", common_name="Ada")
OTHER = AUTHORITY.issue_cert("other.example", common_name="Grace")

CERTIFICATE = ISSUED.cert_chain_pems[0].bytes()
KEY = ISSUED.private_key_pem.bytes()
SERVER_AUTHENTICATION = "1.3.6.1.5.5.7.3.1"


def locked_key(password: bytes) -> bytes:
    """Return the key, encrypted with a password."""
    key = Certificate.from_pem(CERTIFICATE + KEY).to_cryptography()[1]
    locked: bytes = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)
    )
    return locked


def pkcs12(name: bytes, password: bytes | None) -> bytes:
    """Return the certificate, its key and its authority in one PKCS #12 file."""
    certificate, key = Certificate.from_pem(CERTIFICATE + KEY).to_cryptography()
    authority = x509.load_pem_x509_certificate(AUTHORITY.cert_pem.bytes())
    lock = NoEncryption() if password is None else BestAvailableEncryption(password)
    return serialize_key_and_certificates(name, key, certificate, [authority], lock)


class CertificateTests(SynchronousTestCase):
    """One certificate."""

    def test_a_certificate_shows_its_fields(self) -> None:
        """Names, usages, times and hashes are those of the file."""
        certificate = Certificate.from_pem(CERTIFICATE)
        self.assertEqual(certificate.subject, "Ada")
        self.assertIn("Trust Me", certificate.issuer)
        names = certificate.subject_alternative_name
        self.assertEqual(
            (names.dns_names, names.ip_addresses), (("www.example.com",), ("192.0.2.1",))
        )
        self.assertIn(SERVER_AUTHENTICATION, certificate.enhanced_key_usages)
        self.assertLess(certificate.valid_from, datetime.now(timezone.utc))
        self.assertGreater(certificate.valid_to, datetime.now(timezone.utc))
        self.assertEqual(len(certificate.get_hash_value()), 20)
        self.assertEqual(len(certificate.get_hash_value("SHA256")), 32)
        self.assertRaises(ValueError, certificate.get_hash_value, "MD5")
        self.assertEqual(Certificate(certificate.get_certificate_blob()), certificate)
        self.assertGreater(len(certificate.serial_number), 0)

    def test_an_authority_has_empty_fields(self) -> None:
        """An authority's certificate has no host names; fields that are missing are empty."""
        authority = Certificate.from_pem(AUTHORITY.cert_pem.bytes())
        self.assertEqual(authority.subject_alternative_name.dns_names, ())
        self.assertEqual(authority.subject, authority.issuer)
        self.assertFalse(authority.has_private_key)

    def test_a_key_is_found_and_not_shown(self) -> None:
        """The key is in the same bytes or given separately; ``repr`` shows neither."""
        for certificate in (
            Certificate.from_pem(KEY + CERTIFICATE),
            Certificate.from_pem(CERTIFICATE, key=KEY),
        ):
            self.assertTrue(certificate.has_private_key, f"{certificate=}")
            self.assertNotIn("PRIVATE", repr(certificate), f"{certificate=}")
        self.assertFalse(Certificate.from_pem(CERTIFICATE).has_private_key)

    def test_intermediates_follow_the_certificate(self) -> None:
        """They are in the order of the file."""
        certificate = Certificate.from_pem(CERTIFICATE + AUTHORITY.cert_pem.bytes())
        (authority,) = certificate.intermediates
        self.assertEqual(authority.subject, certificate.issuer)

    def test_a_chain_that_begins_with_an_issuer_is_refused(self) -> None:
        """The error says that the leaf comes first, wherever the key is."""
        issuer = AUTHORITY.cert_pem.bytes()
        for data, key in ((KEY + issuer + CERTIFICATE, None), (issuer + CERTIFICATE, KEY)):
            error = self.assertRaises(ValueError, Certificate.from_pem, data, key=key)
            self.assertIn(
                "put the leaf first, then its issuers", str(error), f"{key is None=}: {error}"
            )
            self.assertIn("the key belongs to Ada, but", str(error), f"{key is None=}: {error}")

    def test_an_encrypted_key_needs_the_right_password(self) -> None:
        """A password that is not needed does no harm."""
        locked = CERTIFICATE + locked_key(b"secret")
        self.assertTrue(Certificate.from_pem(locked, password="secret").has_private_key)
        for password in (None, "wrong"):
            error = self.assertRaises(ValueError, Certificate.from_pem, locked, password=password)
            self.assertIn("password", str(error), f"{password=}: {error}")
        self.assertTrue(Certificate.from_pem(CERTIFICATE + KEY, password="x").has_private_key)

    def test_unusable_data_is_refused(self) -> None:
        """No certificate, a broken one, and a key of another certificate raise an error."""
        for data in (
            b"",
            KEY,
            CERTIFICATE[:300] + CERTIFICATE[400:],
            CERTIFICATE.replace(b"MI", b"!!", 1),
        ):
            self.assertRaises(ValueError, Certificate.from_pem, data)
        other = OTHER.private_key_pem.bytes()
        error = self.assertRaises(ValueError, Certificate.from_pem, CERTIFICATE + other)
        self.assertIn("another certificate", str(error))
        self.assertRaises(ValueError, Certificate, b"no DER")

    def test_a_pkcs12_file_has_a_name_a_key_and_a_chain(self) -> None:
        """All three are read."""
        for password in (None, "secret"):
            data = pkcs12(b"my certificate", password.encode() if password else None)
            certificate = Certificate.from_pkcs12(data, password)
            self.assertEqual(certificate.friendly_name, "my certificate", f"{password=}")
            self.assertTrue(certificate.has_private_key, f"{password=}")
            self.assertEqual(len(certificate.intermediates), 1, f"{password=}")
        self.assertRaises(ValueError, Certificate.from_pkcs12, pkcs12(b"x", b"secret"), "wrong")
        self.assertRaises(ValueError, Certificate.from_pkcs12, b"no such file")


class FolderTests(SynchronousTestCase):
    """Files and directories of certificates."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        (self.folder / "ada.pem").write_bytes(CERTIFICATE + KEY)
        (self.folder / "grace.crt").write_bytes(OTHER.cert_chain_pems[0].bytes())
        (self.folder / "notes.txt").write_text("no certificate")

    def find(self, **wanted: object) -> list[str]:
        query = CertificateQuery(**wanted)  # type: ignore[arg-type]
        return sorted(each.subject for each in CertificateStores(self.folder).find_all(query))

    def test_a_file_of_any_format_is_read(self) -> None:
        """Its contents and its suffix say which format it has."""
        (self.folder / "ada.der").write_bytes(
            Certificate.from_pem(CERTIFICATE).get_certificate_blob()
        )
        (self.folder / "ada.pfx").write_bytes(pkcs12(b"x", b"secret"))
        (self.folder / "ada.key").write_bytes(KEY)
        (self.folder / "bare.pem").write_bytes(CERTIFICATE)
        for name, options in (
            ("ada.pem", {}),
            ("ada.der", {}),
            ("ada.pfx", {"password": "secret"}),
            ("bare.pem", {"key": self.folder / "ada.key"}),
        ):
            loaded = Certificate.load(self.folder / name, **options)
            self.assertEqual(loaded.subject, "Ada", name)

    def test_a_file_that_cannot_be_used_is_named(self) -> None:
        """The error is one line with the file and the reason."""
        (self.folder / "huge.pem").write_bytes(bytes(1024 * 1024 + 1))
        statuses = []
        for name, words in (
            ("missing.pem", "No such file"),
            ("notes.txt", "notes.txt"),
            ("huge.pem", "bytes"),
        ):
            error = self.assertRaises(SocketError, Certificate.load, self.folder / name)
            self.assertIn(words, str(error), f"{name=}: {error}")
            self.assertIn(name, str(error), f"{name=}: {error}")
            self.assertNotIn("\n", str(error), f"{name=}: {error}")
            statuses.append(error.status)
        self.assertEqual(statuses[1:], [SocketErrorStatus.CERTIFICATE_IS_INVALID] * 2)

    def test_a_der_certificate_takes_a_separate_key(self) -> None:
        """A DER file has no room for the key."""
        (self.folder / "ada.der").write_bytes(
            Certificate.from_pem(CERTIFICATE).get_certificate_blob()
        )
        (self.folder / "ada.key").write_bytes(KEY)
        loaded = Certificate.load(self.folder / "ada.der", key=self.folder / "ada.key")
        self.assertTrue(loaded.has_private_key)

    def test_a_key_of_an_unknown_kind_is_refused(self) -> None:
        """The error is one line."""

        def refuse(*_arguments: object) -> None:
            raise UnsupportedAlgorithm("SM2")

        self.patch(certificates, "load_pem_private_key", refuse)
        error = self.assertRaises(SocketError, Certificate.load, self.folder / "ada.pem")
        self.assertIn("of a kind that is not supported", str(error))

    def test_a_file_readable_by_others_is_reported(self) -> None:
        """The permissions of the group and of others count."""
        path = self.folder / "ada.pem"
        for mode, expected in ((0o600, False), (0o400, False), (0o640, True), (0o604, True)):
            path.chmod(mode)
            self.assertEqual(is_readable_by_others(path), expected, f"{mode=:o}")
        self.assertRaises(SocketError, is_readable_by_others, self.folder / "missing.pem")

    def test_all_valid_certificates_of_a_directory_are_found(self) -> None:
        """Other files are ignored."""
        self.assertEqual(self.find(), ["Ada", "Grace"])

    def test_a_query_finds_certificates_by_their_fields(self) -> None:
        """All given fields have to match."""
        ada = Certificate.from_pem(CERTIFICATE)
        self.assertEqual(self.find(friendly_name="ada"), ["Ada"])
        self.assertEqual(self.find(issuer_name=ada.issuer), ["Ada", "Grace"])
        self.assertEqual(self.find(issuer_name="nobody"), [])
        self.assertEqual(self.find(thumbprint=ada.get_hash_value()), ["Ada"])
        self.assertEqual(self.find(has_private_key=True), ["Ada"])
        self.assertEqual(self.find(has_private_key=False), ["Grace"])
        self.assertEqual(self.find(enhanced_key_usages=[SERVER_AUTHENTICATION]), ["Ada", "Grace"])
        self.assertEqual(self.find(enhanced_key_usages=["1.2.3"]), [])
        self.assertEqual(self.find(friendly_name="ada", has_private_key=False), [])

    def test_invalid_certificates_are_left_out_unless_asked_for(self) -> None:
        """Certificates that are not valid yet, or not any more."""
        now = datetime.now(timezone.utc)
        old = AUTHORITY.issue_cert(
            "old.example", common_name="Old", not_after=now - timedelta(days=1)
        )
        (self.folder / "old.pem").write_bytes(old.cert_chain_pems[0].bytes())
        self.assertEqual(self.find(), ["Ada", "Grace"])
        self.assertEqual(self.find(include_expired_certificates=True), ["Ada", "Grace", "Old"])

    def test_of_duplicates_the_longest_valid_is_found(self) -> None:
        """Unless all are asked for."""
        now = datetime.now(timezone.utc)
        soon = AUTHORITY.issue_cert(
            "www.example.com", common_name="Ada", not_after=now + timedelta(days=1)
        )
        (self.folder / "soon.pem").write_bytes(soon.cert_chain_pems[0].bytes())
        found = CertificateStores(self.folder).find_all(CertificateQuery(has_private_key=None))
        self.assertEqual(sorted(each.subject for each in found), ["Ada", "Grace"])
        self.assertTrue(next(each for each in found if each.subject == "Ada").has_private_key)
        self.assertEqual(self.find(include_duplicates=True), ["Ada", "Ada", "Grace"])

    def test_a_directory_that_cannot_be_read_is_named(self) -> None:
        """A broken certificate file in it is named too."""
        self.assertRaises(SocketError, CertificateStores(self.folder / "missing").find_all)
        (self.folder / "broken.pem").write_text("-----BEGIN")
        error = self.assertRaises(SocketError, CertificateStores(self.folder).find_all)
        self.assertIn("broken.pem", str(error))

    def test_the_authorities_of_the_system_are_found(self) -> None:
        """They are read from OpenSSL's file, or else from its directory."""
        trusted = self.folder / "trusted"
        trusted.mkdir()
        authorities = [trustme.CA(organization_unit_name=name) for name in ("first", "second")]
        bundle = trusted / "bundle.crt"
        bundle.write_bytes(b"".join(each.cert_pem.bytes() for each in authorities))
        wanted = CertificateQuery(include_duplicates=True)
        for file, directory in ((bundle, "missing"), ("missing", trusted)):
            self.patch(os, "environ", {"SSL_CERT_FILE": str(file), "SSL_CERT_DIR": str(directory)})
            found = CertificateStores(platform=True).find_all(wanted)
            self.assertEqual(len(found), 2, f"{file=}, {directory=}")
            self.assertFalse(any(each.intermediates for each in found), f"{file=}, {directory=}")
        self.assertEqual(len(CertificateStores(self.folder, platform=True).find_all(wanted)), 4)


def make_weak_certificate() -> Certificate:
    """Make one whose key is of 1,024 bits."""
    key = rsa.generate_private_key(65_537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "weak")])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, SHA256())
    )
    return Certificate.from_pem(
        signed.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


def make_context() -> SSL.Context:
    return SSL.Context(SSL.TLS_METHOD)


class UseCertificateTests(SynchronousTestCase):
    """Certificates that OpenSSL accepts, and certificates that it refuses."""

    def test_a_certificate_with_its_key_is_used(self) -> None:
        """The context has both."""
        context = make_context()
        use_certificate(
            Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes()), context
        )
        context.check_privatekey()

    def test_a_certificate_without_a_key_is_refused(self) -> None:
        """Without the key it proves nothing."""
        bare = Certificate.from_pem(SERVER.cert_chain_pems[0].bytes())
        error = self.assertRaises(SocketError, use_certificate, bare, make_context())
        self.assertIn("server has no key", str(error))

    def test_a_too_weak_certificate_is_refused_with_openssls_reason(self) -> None:
        """The error is one line that names the certificate."""
        error = self.assertRaises(
            SocketError, use_certificate, make_weak_certificate(), make_context()
        )
        self.assertIs(error.status, SocketErrorStatus.CERTIFICATE_IS_INVALID)
        self.assertIn("the certificate of weak", str(error))
        self.assertIn("key too small", str(error))
        self.assertNotIn("\n", str(error))
