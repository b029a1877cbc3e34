"""Development certificates are valid, and are made once."""

from __future__ import annotations

import ssl
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import SocketError
from twsock.tls.certificates import Certificate
from twsock.tls.development import (
    CertificateFiles,
    KeyKind,
    find_or_make_certificates,
    make_certificates,
)


class DevelopmentTests(SynchronousTestCase):
    """The certificates of an authority, a server and a client."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "certificates"

    def shake_hands(self, files: CertificateFiles, name: str) -> None:
        """Let Python's ``ssl`` verify both of them."""
        server_context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(files.authority)
        )
        server_context.verify_mode = ssl.CERT_REQUIRED
        server_context.load_cert_chain(files.server)
        client_context = ssl.create_default_context(cafile=str(files.authority))
        client_context.load_cert_chain(files.client)
        # The strictest verification, the default of Python 3.13.
        client_context.verify_flags |= ssl.VERIFY_X509_STRICT
        server_context.verify_flags |= ssl.VERIFY_X509_STRICT
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
        server = server_context.wrap_bio(to_server, to_client, server_side=True)
        done: set[ssl.SSLObject] = set()
        for _ in range(4):
            for side in (client, server):
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    continue
        self.assertEqual(len(done), 2)

    def test_pythons_ssl_accepts_both_certificates(self) -> None:
        """For each of the given names, on both sides."""
        files = make_certificates(self.directory)
        for name in ("localhost", "127.0.0.1", "::1"):
            self.shake_hands(files, name)

    def test_rsa_keys_are_accepted(self) -> None:
        """All three certificates have RSA keys: an old peer has to verify the whole chain."""
        files = make_certificates(self.directory, key=KeyKind.RSA)
        self.shake_hands(files, "localhost")
        for path in (files.authority, files.server, files.client):
            made = Certificate.load(path).to_cryptography()[0]
            self.assertIsInstance(made.public_key(), rsa.RSAPublicKey, f"{path=}")
            self.assertIsInstance(made.signature_algorithm_parameters, padding.PKCS1v15, f"{path=}")
        usage = Certificate.load(files.server).to_cryptography()[0].extensions
        self.assertTrue(usage.get_extension_for_class(x509.KeyUsage).value.key_encipherment)

    def test_other_names_are_in_the_certificate(self) -> None:
        """The first is the common name too."""
        files = make_certificates(self.directory, ["example.org", "192.0.2.1"])
        self.shake_hands(files, "example.org")
        names = Certificate.load(files.server).subject_alternative_name
        self.assertEqual(names.dns_names, ("example.org",))
        self.assertEqual(names.ip_addresses, ("192.0.2.1",))

    def test_only_the_user_can_read_the_keys(self) -> None:
        """The authority's key is not kept."""
        files = make_certificates(self.directory)
        for path in (files.server, files.client):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, f"{path=}")
            self.assertTrue(Certificate.load(path).has_private_key, f"{path=}")
        self.assertFalse(Certificate.load(files.authority).has_private_key)
        self.assertEqual(
            sorted(path.name for path in self.directory.parent.rglob("*") if path.is_file()),
            ["authority.pem", "client.pem", "server.pem"],
        )

    def test_existing_files_are_not_overwritten(self) -> None:
        """The error is one line with the directory, and no file is left behind."""
        make_certificates(self.directory)
        before = {path: path.read_bytes() for path in self.directory.iterdir()}
        error = self.assertRaises(SocketError, make_certificates, self.directory)
        self.assertIn(str(self.directory), str(error))
        self.assertIn("not empty", str(error))
        self.assertEqual({path: path.read_bytes() for path in self.directory.iterdir()}, before)
        self.assertEqual(list(self.directory.parent.iterdir()), [self.directory])

    def test_a_name_longer_than_a_common_name_is_accepted(self) -> None:
        """Clients check the alternative names."""
        name = f"{'a' * 60}.example.org"
        files = make_certificates(self.directory, [name])
        self.shake_hands(files, name)

    def test_an_empty_directory_is_used(self) -> None:
        """The files are written there."""
        self.directory.mkdir(parents=True)
        self.assertTrue(make_certificates(self.directory).server.exists())

    def test_a_directory_that_cannot_be_made_is_named(self) -> None:
        """A file has its name."""
        self.directory.parent.mkdir(parents=True)
        self.directory.write_bytes(b"")
        error = self.assertRaises(SocketError, make_certificates, self.directory / "below")
        self.assertIn(f"cannot make certificates in {self.directory.absolute()}", str(error))
        self.assertRaises(ValueError, make_certificates, self.directory, [])

    def test_expired_certificates_are_made_anew(self) -> None:
        """Valid ones are used again; expired ones are kept beside the new ones."""
        files = find_or_make_certificates(self.directory)
        made = files.server.read_bytes()
        self.assertEqual(find_or_make_certificates(self.directory).server.read_bytes(), made)
        later = datetime.now(timezone.utc) + timedelta(days=366)
        find_or_make_certificates(self.directory, now=later)
        self.assertNotEqual(files.server.read_bytes(), made)
        (aside,) = set(self.directory.parent.iterdir()) - {self.directory}
        self.assertEqual((aside / "server.pem").read_bytes(), made)

    def test_a_directory_name_that_is_too_long_is_refused(self) -> None:
        """The system can't look at such a name."""
        error = self.assertRaises(
            SocketError, find_or_make_certificates, self.directory / ("a" * 300) / "below"
        )
        self.assertNotIn("\n", str(error))

    def test_a_file_in_place_of_the_directory_is_not_overwritten(self) -> None:
        """The error names it."""
        self.directory.parent.mkdir(parents=True)
        self.directory.write_bytes(b"mine")
        error = self.assertRaises(SocketError, make_certificates, self.directory)
        self.assertIn("not a directory", str(error))
        self.assertEqual(self.directory.read_bytes(), b"mine")

    def test_unusable_files_are_not_replaced(self) -> None:
        """A user may have put them there."""
        self.directory.mkdir(parents=True)
        (self.directory / "server.pem").write_bytes(b"nonsense")
        error = self.assertRaises(SocketError, find_or_make_certificates, self.directory)
        self.assertIn("server.pem", str(error))
