"""Certificates made to try things out are good ones."""

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
    """An authority, a server's and a client's."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "certificates"

    def shake_hands(self, files: CertificateFiles, name: str) -> None:
        """Let Python's ``ssl`` judge both of them."""
        server_context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(files.authority)
        )
        server_context.verify_mode = ssl.CERT_REQUIRED
        server_context.load_cert_chain(files.server)
        client_context = ssl.create_default_context(cafile=str(files.authority))
        client_context.load_cert_chain(files.client)
        # The strictest that there is: Python 3.13 has it by default.
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

    def test_others_accept_them(self) -> None:
        """For the names given, both ways."""
        files = make_certificates(self.directory)
        for name in ("localhost", "127.0.0.1", "::1"):
            self.shake_hands(files, name)

    def test_with_rsa_keys(self) -> None:
        """All three, as a peer that knows nothing else has to verify the whole chain."""
        files = make_certificates(self.directory, key=KeyKind.RSA)
        self.shake_hands(files, "localhost")
        for path in (files.authority, files.server, files.client):
            made = Certificate.load(path).to_cryptography()[0]
            self.assertIsInstance(made.public_key(), rsa.RSAPublicKey, f"{path=}")
            self.assertIsInstance(made.signature_algorithm_parameters, padding.PKCS1v15, f"{path=}")
        usage = Certificate.load(files.server).to_cryptography()[0].extensions
        self.assertTrue(usage.get_extension_for_class(x509.KeyUsage).value.key_encipherment)

    def test_for_other_names(self) -> None:
        """The first is the common name too."""
        files = make_certificates(self.directory, ["example.org", "192.0.2.1"])
        self.shake_hands(files, "example.org")
        names = Certificate.load(files.server).subject_alternative_name
        self.assertEqual(names.dns_names, ("example.org",))
        self.assertEqual(names.ip_addresses, ("192.0.2.1",))

    def test_keys_are_the_users_alone(self) -> None:
        """The authority has none any more."""
        files = make_certificates(self.directory)
        for path in (files.server, files.client):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600, f"{path=}")
            self.assertTrue(Certificate.load(path).has_private_key, f"{path=}")
        self.assertFalse(Certificate.load(files.authority).has_private_key)
        self.assertEqual(
            sorted(path.name for path in self.directory.parent.rglob("*") if path.is_file()),
            ["authority.pem", "client.pem", "server.pem"],
        )

    def test_nothing_is_overwritten(self) -> None:
        """One line names the directory; nothing is left behind."""
        make_certificates(self.directory)
        before = {path: path.read_bytes() for path in self.directory.iterdir()}
        error = self.assertRaises(SocketError, make_certificates, self.directory)
        self.assertIn(str(self.directory), str(error))
        self.assertIn("not empty", str(error))
        self.assertEqual({path: path.read_bytes() for path in self.directory.iterdir()}, before)
        self.assertEqual(list(self.directory.parent.iterdir()), [self.directory])

    def test_a_long_name(self) -> None:
        """It is longer than a common name may be; clients look at the alternative names."""
        name = f"{'a' * 60}.example.org"
        files = make_certificates(self.directory, [name])
        self.shake_hands(files, name)

    def test_an_empty_directory_will_do(self) -> None:
        """It was made for them."""
        self.directory.mkdir(parents=True)
        self.assertTrue(make_certificates(self.directory).server.exists())

    def test_where_nothing_can_be_written(self) -> None:
        """A file is in the way."""
        self.directory.parent.mkdir(parents=True)
        self.directory.write_bytes(b"")
        error = self.assertRaises(SocketError, make_certificates, self.directory / "below")
        self.assertIn(f"cannot make certificates in {self.directory.absolute()}", str(error))
        self.assertRaises(ValueError, make_certificates, self.directory, [])

    def test_they_are_made_once(self) -> None:
        """And again when they have expired; the old ones are kept beside."""
        files = find_or_make_certificates(self.directory)
        made = files.server.read_bytes()
        self.assertEqual(find_or_make_certificates(self.directory).server.read_bytes(), made)
        later = datetime.now(timezone.utc) + timedelta(days=366)
        find_or_make_certificates(self.directory, now=later)
        self.assertNotEqual(files.server.read_bytes(), made)
        (aside,) = set(self.directory.parent.iterdir()) - {self.directory}
        self.assertEqual((aside / "server.pem").read_bytes(), made)

    def test_a_place_that_cannot_be_looked_at(self) -> None:
        """A name that is too long for any file."""
        error = self.assertRaises(
            SocketError, find_or_make_certificates, self.directory / ("a" * 300) / "below"
        )
        self.assertNotIn("\n", str(error))

    def test_a_file_in_the_place(self) -> None:
        """It is no directory, and is not overwritten."""
        self.directory.parent.mkdir(parents=True)
        self.directory.write_bytes(b"mine")
        error = self.assertRaises(SocketError, make_certificates, self.directory)
        self.assertIn("not a directory", str(error))
        self.assertEqual(self.directory.read_bytes(), b"mine")

    def test_what_cannot_be_used_is_not_replaced(self) -> None:
        """Somebody may have put it there."""
        self.directory.mkdir(parents=True)
        (self.directory / "server.pem").write_bytes(b"nonsense")
        error = self.assertRaises(SocketError, find_or_make_certificates, self.directory)
        self.assertIn("server.pem", str(error))
