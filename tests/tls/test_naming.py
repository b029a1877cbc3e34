"""The names in a certificate are compared with the host by ``service_identity``."""

from __future__ import annotations

import trustme
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from OpenSSL.crypto import X509
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.certificates_for_tests import Authority
from twsock.names import HostName
from twsock.tls.certificates import Certificate
from twsock.tls.naming import from_openssl, is_named

ISSUED = trustme.CA().issue_cert("www.example.com", "*.wild.example", "192.0.2.1", "2001:db8::1")
CERTIFICATE = Certificate.from_pem(ISSUED.cert_chain_pems[0].bytes())


def certificate_of(issued: trustme.LeafCert) -> X509:
    """Return a certificate as an object of OpenSSL."""
    loaded = x509.load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    return X509.from_cryptography(loaded)


SHOWN = certificate_of(ISSUED)


class NamingTests(SynchronousTestCase):
    """One certificate, compared with many hosts."""

    def test_names_and_addresses_of_the_certificate_match(self) -> None:
        """In any spelling; a wildcard stands for one label."""
        for host in (
            "www.example.com",
            "WWW.Example.COM.",
            "a.wild.example",
            "192.0.2.1",
            "2001:db8:0::1",
        ):
            self.assertTrue(is_named(SHOWN, HostName(host)), host)

    def test_other_names_and_addresses_do_not_match(self) -> None:
        """However similar."""
        for host in (
            "example.com",
            "a.b.wild.example",
            "wild.example",
            "192.0.2.2",
            "2001:db8::2",
            "www.example.com.evil.example",
        ):
            self.assertFalse(is_named(SHOWN, HostName(host)), host)

    def test_a_zone_is_ignored_in_an_address(self) -> None:
        """Zones are names of this machine only."""
        shown = certificate_of(trustme.CA().issue_cert("fe80::1"))
        self.assertTrue(is_named(shown, HostName("fe80::1%lo")))

    def test_malformed_names_match_no_host(self) -> None:
        """A DNS name that is no text, and an address of 3 bytes."""
        authority = Authority("authority")
        for blob in (b"\x30\x04\x82\x02\xff\xfe", b"\x30\x05\x87\x03\x01\x02\x03"):
            names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, blob)
            shown = certificate_of(authority.issue(extensions=[(names, False)]))
            self.assertFalse(is_named(shown, HostName("localhost")), f"{blob=}")

    def test_a_certificate_without_names_matches_no_host(self) -> None:
        """A common name is no name of a host (RFC 9525)."""
        bare = trustme.CA().issue_cert("someone@example.com", common_name="www.example.com")
        shown = Certificate.from_pem(bare.cert_chain_pems[0].bytes()).to_cryptography()[0]
        self.assertFalse(is_named(X509.from_cryptography(shown), HostName("www.example.com")))

    def test_a_pyopenssl_certificate_becomes_a_certificate(self) -> None:
        """It has the same bytes."""
        self.assertEqual(from_openssl(SHOWN), CERTIFICATE)
