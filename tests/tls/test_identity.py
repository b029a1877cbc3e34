"""A certificate is shown, or refused in one line before any handshake."""

from __future__ import annotations

from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.certificates_for_tests import NOW
from tests.tls.peer import SERVER
from twsock.errors import SocketError, SocketErrorStatus
from twsock.tls.certificates import Certificate
from twsock.tls.identity import use_certificate


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


class ShowTests(SynchronousTestCase):
    """What OpenSSL takes, and what it does not."""

    def test_one_with_its_key(self) -> None:
        """The context has both."""
        context = make_context()
        use_certificate(
            Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes()), context
        )
        context.check_privatekey()

    def test_one_without_a_key(self) -> None:
        """It proves nothing."""
        bare = Certificate.from_pem(SERVER.cert_chain_pems[0].bytes())
        error = self.assertRaises(SocketError, use_certificate, bare, make_context())
        self.assertIn("server has no key", str(error))

    def test_one_that_is_too_weak(self) -> None:
        """One line says whose, with OpenSSL's reason."""
        error = self.assertRaises(
            SocketError, use_certificate, make_weak_certificate(), make_context()
        )
        self.assertIs(error.status, SocketErrorStatus.CERTIFICATE_IS_INVALID)
        self.assertIn("the certificate of weak", str(error))
        self.assertIn("key too small", str(error))
        self.assertNotIn("\n", str(error))
