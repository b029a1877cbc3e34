"""
Good certificates, and certificates that are wrong in one way each.

They are made with the ``cryptography`` library, since trustme makes no wrong ones; the results have
trustme's form, which Python's ``ssl`` loads easily.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from twsock.tls.certificates import Certificate

__all__ = [
    "NOW",
    "Authority",
    "Extension",
    "names_in_bytes",
    "sign_itself",
    "spoil_signature",
    "unknown_critical_extension",
]

NOW: Final = datetime.now(timezone.utc)

#: An extension, and whether it is critical.
Extension = tuple[x509.ExtensionType, bool]

_DAY: Final = timedelta(days=1)
_SERVER: Final = (ExtendedKeyUsageOID.SERVER_AUTH,)


class Authority:
    """
    Issues certificates.

    :param name: its common name.
    :param issuer: the authority that issued its own certificate; None for a root.
    :param is_authority: whether its certificate says that it may issue others.
    :param path_length: how many authorities may stand below it; None for any number.
    :param extensions: further extensions of its certificate.
    :param until: the end of its validity.
    """

    def __init__(
        self,
        name: str,
        issuer: Authority | None = None,
        *,
        is_authority: bool = True,
        path_length: int | None = None,
        extensions: Iterable[Extension] = (),
        until: datetime = NOW + 60 * _DAY,
    ) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._issuer = issuer
        signer = issuer or self
        basics = x509.BasicConstraints(ca=is_authority, path_length=path_length)
        self._x509 = signer._sign(
            self._name, self._key, [(basics, True), *extensions], (NOW - 60 * _DAY, until)
        )

    @property
    def certificate(self) -> Certificate:
        """The authority's own certificate, for peers that are to trust it."""
        return Certificate(self._x509.public_bytes(Encoding.DER))

    def issue(
        self,
        *names: str,
        common_name: str = "server",
        since: datetime = NOW - 30 * _DAY,
        until: datetime = NOW + 30 * _DAY,
        usages: Sequence[x509.ObjectIdentifier] = _SERVER,
        extensions: Iterable[Extension] = (),
        is_whole: bool = True,
    ) -> trustme.LeafCert:
        """
        Issue the certificate of a server, or one for other ``usages``.

        :param names: host names, unchecked, and addresses; no names: no such extension.
        :param is_whole: whether the certificates of the authorities below the root are included.
        """
        chosen = [*extensions, *_named(names)]
        if usages:
            chosen.append((x509.ExtendedKeyUsage(usages), False))
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = self._sign(_name(common_name), key, chosen, (since, until))
        return _make_leaf(leaf, key, self._chain() if is_whole else ())

    def _chain(self) -> list[x509.Certificate]:
        return [] if self._issuer is None else [self._x509, *self._issuer._chain()]

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        extensions: Iterable[Extension],
        validity: tuple[datetime, datetime],
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(validity[0])
            .not_valid_after(validity[1])
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(self._key, hashes.SHA256())


def sign_itself(*names: str) -> trustme.LeafCert:
    """Make a self-signed certificate of a server."""
    alone = Authority("alone", is_authority=False, extensions=_named(names))
    return _make_leaf(alone._x509, alone._key, ())


def spoil_signature(issued: trustme.LeafCert) -> trustme.LeafCert:
    """Change the last bit of a certificate, which is in its issuer's signature."""
    [leaf] = x509.load_pem_x509_certificates(issued.cert_chain_pems[0].bytes())
    blob = bytearray(leaf.public_bytes(Encoding.DER))
    blob[-1] ^= 1
    spoilt = x509.load_der_x509_certificate(bytes(blob))
    chain = [pem.bytes() for pem in issued.cert_chain_pems[1:]]
    return trustme.LeafCert(issued.private_key_pem.bytes(), _pem(spoilt), chain)


def unknown_critical_extension() -> Extension:
    """Make a critical extension that no software knows."""
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\5\0"), True


def names_in_bytes(*names: bytes) -> Extension:
    """Make a list of host names as raw bytes, which no library would accept."""
    entries = b"".join(b"\x82" + bytes([len(name)]) + name for name in names)
    blob = b"\x30" + bytes([len(entries)]) + entries
    return x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, blob), False


def _named(names: Sequence[str]) -> list[Extension]:
    return [(x509.SubjectAlternativeName([*map(_general_name, names)]), False)] if names else []


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _make_leaf(
    leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey, chain: Iterable[x509.Certificate]
) -> trustme.LeafCert:
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return trustme.LeafCert(secret, _pem(leaf), [*map(_pem, chain)])
