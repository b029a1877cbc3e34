"""Tests of `benchmarks.certificate`."""

from __future__ import annotations

import ssl

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.certificate import temporary_certificate


class TemporaryCertificateTests(SynchronousTestCase):
    """One file for all that a server needs, and only for a time."""

    def test_key_is_on_p256(self) -> None:
        """What the key costs is the same for all, and is what servers use."""
        with temporary_certificate() as path:
            key = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertEqual(key.curve.name, "secp256r1")

    def test_file_has_the_key_and_its_certificate(self) -> None:
        """A server loads it as it is."""
        with temporary_certificate() as path:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)
            pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, None)
        self.assertEqual(key.public_key(), x509.load_pem_x509_certificate(pem).public_key())

    def test_nothing_is_left(self) -> None:
        """With the block, the file ends and its folder too."""
        with temporary_certificate() as path:
            pass
        self.assertFalse(path.parent.exists())
