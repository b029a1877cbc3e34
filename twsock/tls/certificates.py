"""
Certificates, their keys, and the files they come from: files → **certificates** → contexts.

Applications pass them to sockets and listeners; the information of a socket has the peer's. The
``cryptography`` library parses them; nothing is verified here. Private keys stay in memory, and are
never printed.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL

from twsock.errors import SocketError, SocketErrorStatus

__all__ = [
    "Certificate",
    "CertificateQuery",
    "CertificateStores",
    "SubjectAlternativeName",
    "is_readable_by_others",
    "use_certificate",
]

#: Suffixes of files that hold certificates.
_SUFFIXES: Final = frozenset({".pem", ".crt", ".cer", ".p12", ".pfx"})
_PKCS12: Final = frozenset({".p12", ".pfx"})

#: Larger files are refused, in bytes.
_MAX_FILE: Final = 1024 * 1024

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)
_HASHES: Final = {"SHA1": hashes.SHA1, "SHA256": hashes.SHA256}


@dataclass(frozen=True, slots=True)
class SubjectAlternativeName:
    """
    The names that a certificate is issued for; all are empty if it has no such extension.

    :ivar dns_names: host names; internationalized names as A-labels.
    :ivar ip_addresses: IPv4 and IPv6 addresses.
    :ivar email_names: email addresses.
    :ivar urls: URIs.
    """

    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    email_names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


class Certificate:
    """
    A certificate; ``Windows.Security.Cryptography.Certificates.Certificate``.

    Two certificates are equal when their bytes are, whether or not they have a key.

    :param blob: the certificate as DER.
    :raises ValueError: when it is not a certificate.

    :ivar friendly_name: a name for people; empty unless set, or found in its PKCS#12 file.
    """

    def __init__(self, blob: bytes, friendly_name: str = "") -> None:
        self._x509 = x509.load_der_x509_certificate(blob)
        self._key: Any = None
        self._chain: tuple[Certificate, ...] = ()
        self.friendly_name = friendly_name

    @classmethod
    def from_pem(
        cls, data: bytes, *, key: bytes | None = None, password: str | None = None
    ) -> Certificate:
        """
        Read a certificate, its chain and its key.

        :param data: PEM: first the certificate, then those of its issuers. The key may stand
            anywhere among them, or be missing.
        :param key: PEM of the key, if it is separate.
        :param password: password of the key.
        :raises ValueError: when there is no certificate, the password is wrong or missing, the key
            belongs to another certificate, or the certificate of the key is not the first.
        """
        blocks = [(match[1], match[0]) for match in _BLOCK.finditer(data)]
        found = [_load_pem(block) for kind, block in blocks if kind == b"CERTIFICATE"]
        if not found:
            raise ValueError("there is no certificate in it")
        keys = [block for kind, block in blocks if kind.endswith(b"PRIVATE KEY")]
        certificate = found[0]
        certificate._chain = tuple(found[1:])
        if key is not None or keys:
            certificate._key = _load_key(key if key is not None else keys[0], password)
            certificate._check_order()
            certificate._check_key()
        return certificate

    @classmethod
    def from_pkcs12(cls, data: bytes, password: str | None = None) -> Certificate:
        """
        Read a certificate, its chain, its key and its friendly name.

        :param data: a PKCS#12 file (``.p12``, ``.pfx``).
        :raises ValueError: when it is not PKCS#12, has no certificate, or the password is wrong.
        """
        secret = None if password is None else password.encode()
        try:
            bundle = load_pkcs12(data, secret)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(
                f"it is not a PKCS#12 file, or the password is wrong: {error}"
            ) from error
        if bundle.cert is None:
            raise ValueError("there is no certificate in it")
        name = (bundle.cert.friendly_name or b"").decode("utf-8", "replace")
        certificate = cls(bundle.cert.certificate.public_bytes(Encoding.DER), name)
        certificate._key = bundle.key
        certificate._chain = tuple(
            cls(other.certificate.public_bytes(Encoding.DER)) for other in bundle.additional_certs
        )
        return certificate

    @classmethod
    def load(
        cls, path: str | Path, *, key: str | Path | None = None, password: str | None = None
    ) -> Certificate:
        """
        Read a file: PEM, PKCS#12 (``.p12``, ``.pfx``) or DER.

        :param key: PEM file of the key, if it is separate.
        :param password: password of the key, or of the PKCS#12 file.
        :raises SocketError: when the file cannot be read or used; the text is one line that names
            it. The status is ``CERTIFICATE_IS_INVALID``, or that of the system's error.
        """
        path = Path(path)
        data = _read(path)
        apart = None if key is None else _read(Path(key))
        try:
            if path.suffix.lower() in _PKCS12:
                return cls.from_pkcs12(data, password)
            if b"-----BEGIN" in data:
                return cls.from_pem(data, key=apart, password=password)
            return _load_der(data, apart, password)
        except ValueError as error:
            raise SocketError(
                f"cannot use {path}: {error}", status=SocketErrorStatus.CERTIFICATE_IS_INVALID
            ) from error

    @property
    def subject(self) -> str:
        """The common name of the subject; its whole name if it has none."""
        return _common_name(self._x509.subject)

    @property
    def issuer(self) -> str:
        """The common name of the issuer; its whole name if it has none."""
        return _common_name(self._x509.issuer)

    @property
    def subject_alternative_name(self) -> SubjectAlternativeName:
        """The names that it is issued for."""
        try:
            extension = self._x509.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return SubjectAlternativeName()
        names = extension.value
        return SubjectAlternativeName(
            tuple(names.get_values_for_type(x509.DNSName)),
            tuple(map(str, names.get_values_for_type(x509.IPAddress))),
            tuple(names.get_values_for_type(x509.RFC822Name)),
            tuple(names.get_values_for_type(x509.UniformResourceIdentifier)),
        )

    @property
    def valid_from(self) -> datetime:
        """The start of its validity, in UTC."""
        return self._x509.not_valid_before_utc

    @property
    def valid_to(self) -> datetime:
        """The end of its validity, in UTC."""
        return self._x509.not_valid_after_utc

    @property
    def serial_number(self) -> bytes:
        """The serial number that its issuer assigned, big-endian."""
        number = self._x509.serial_number
        return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")

    @property
    def enhanced_key_usages(self) -> tuple[str, ...]:
        """OIDs of its permitted uses; empty if it does not restrict them."""
        try:
            extension = self._x509.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE)
        except x509.ExtensionNotFound:
            return ()
        usages: Any = extension.value
        return tuple(usage.dotted_string for usage in usages)

    @property
    def has_private_key(self) -> bool:
        """Whether its private key is known, so that it can identify this end."""
        return self._key is not None

    @property
    def intermediates(self) -> tuple[Certificate, ...]:
        """Certificates of issuers that were read with it, its own issuer first."""
        return self._chain

    def get_hash_value(self, algorithm: str = "SHA1") -> bytes:
        """
        Return the fingerprint.

        :param algorithm: ``SHA1`` or ``SHA256``.
        :raises ValueError: for any other algorithm.
        """
        if algorithm not in _HASHES:
            raise ValueError(f"a hash is SHA1 or SHA256, not {algorithm!r}")
        return self._x509.fingerprint(_HASHES[algorithm]())

    def get_certificate_blob(self) -> bytes:
        """Return the certificate as DER, without its key."""
        return self._x509.public_bytes(Encoding.DER)

    def to_cryptography(self) -> tuple[x509.Certificate, Any]:
        """Return the certificate, and its key or None, as ``cryptography`` objects."""
        return self._x509, self._key

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Certificate):
            return NotImplemented
        return self.get_certificate_blob() == other.get_certificate_blob()

    def __hash__(self) -> int:
        return hash(self.get_certificate_blob())

    def __repr__(self) -> str:
        key = ", with its key" if self.has_private_key else ""
        return f"<Certificate of {self.subject!r} by {self.issuer!r}{key}>"

    def _check_order(self) -> None:
        """Refuse a chain in which the certificate of the key, the leaf, is not the first."""
        public = self._key.public_key()
        if self._has_key(public):
            return
        leaf = next((other for other in self._chain if other._has_key(public)), None)
        if leaf is not None:
            raise ValueError(
                f"the key belongs to {leaf.subject}, but the first certificate is {self.subject}; "
                "put the leaf first, then its issuers"
            )

    def _has_key(self, public: Any) -> bool:
        try:
            return bool(self._x509.public_key() == public)
        except UnsupportedAlgorithm:
            return False

    def _check_key(self) -> None:
        try:
            public = self._x509.public_key()
        except UnsupportedAlgorithm as error:
            raise ValueError("its key is of a kind that is not supported") from error
        if self._key.public_key() != public:
            raise ValueError("the key belongs to another certificate")


@dataclass(slots=True)
class CertificateQuery:
    """
    A search for certificates; ``Windows.Security.Cryptography.Certificates.CertificateQuery``.

    A certificate has to match every parameter that is given.

    :param friendly_name: the exact friendly name.
    :param issuer_name: the exact common name of the issuer.
    :param thumbprint: the SHA-1 fingerprint.
    :param enhanced_key_usages: OIDs that its usages have to contain. A certificate that does not
        restrict its usages matches.
    :param include_expired_certificates: whether certificates match that are not valid now.
    :param include_duplicates: whether the older of several with one subject and issuer match.
    :param has_private_key: True for certificates with a key, False for those without one.
    """

    friendly_name: str = ""
    issuer_name: str = ""
    thumbprint: bytes = b""
    enhanced_key_usages: Sequence[str] = field(default_factory=list)
    include_expired_certificates: bool = False
    include_duplicates: bool = False
    has_private_key: bool | None = None

    def matches(self, certificate: Certificate, now: datetime) -> bool:
        """Return whether a certificate matches; duplicates are not considered."""
        usages = certificate.enhanced_key_usages
        return (
            self.friendly_name in ("", certificate.friendly_name)
            and self.issuer_name in ("", certificate.issuer)
            and self.thumbprint in (b"", certificate.get_hash_value())
            and (not usages or set(self.enhanced_key_usages) <= set(usages))
            and self.has_private_key in (None, certificate.has_private_key)
            and (
                self.include_expired_certificates
                or certificate.valid_from <= now <= certificate.valid_to
            )
        )


class CertificateStores:
    """
    Directories of certificates; ``Windows.Security.Cryptography.Certificates.CertificateStores``.

    PEM, DER (``.pem``, ``.crt``, ``.cer``) and PKCS#12 (``.p12``, ``.pfx``) files are read. Other
    files and subdirectories are ignored. The friendly name of a PEM or DER file is its name without
    the suffix.

    :param directories: the directories to search.
    :param password: password of the PKCS#12 files and the keys.
    :param platform: whether to search the authorities that this machine trusts, too: OpenSSL's
        file of them, or its directory if there is no file.
    """

    def __init__(
        self, *directories: str | Path, password: str | None = None, platform: bool = False
    ) -> None:
        self._directories = tuple(map(Path, directories))
        self._password = password
        self._has_platform = platform

    def find_all(
        self, query: CertificateQuery | None = None, *, now: datetime | None = None
    ) -> list[Certificate]:
        """
        Return the matching certificates, those that are valid longest first.

        :param query: None for all valid certificates without duplicates.
        :param now: the time at which they have to be valid.
        :raises SocketError: when a directory, or a file with the suffix of a certificate, cannot be
            used. No file is skipped silently.
        """
        query = query or CertificateQuery()
        moment = now or datetime.now(timezone.utc)
        found = [each for each in self._load_all() if query.matches(each, moment)]
        found.sort(key=lambda certificate: certificate.valid_to, reverse=True)
        if query.include_duplicates:
            return found
        newest: dict[tuple[str, str], Certificate] = {}
        for certificate in found:
            newest.setdefault((certificate.subject, certificate.issuer), certificate)
        return list(newest.values())

    def _load_all(self) -> Iterator[Certificate]:
        for directory in self._directories:
            for path in _files_of(directory):
                certificate = Certificate.load(path, password=self._password)
                certificate.friendly_name = certificate.friendly_name or path.stem
                yield certificate
        if self._has_platform:
            yield from _load_platform()


def _load_platform() -> Iterator[Certificate]:
    """Return the authorities that this machine trusts."""
    where: Any = ssl.get_default_verify_paths()  # A path that does not exist is None.
    if where.cafile is not None:
        yield from _load_bundle(Path(where.cafile))
    elif where.capath is not None:
        for path in _files_of(Path(where.capath)):
            yield from _load_bundle(path)


def _files_of(directory: Path) -> list[Path]:
    """Return the files of a directory that have the suffix of a certificate."""
    try:
        paths = sorted(directory.iterdir())
    except OSError as error:
        raise SocketError.from_exception(
            error, f"cannot read {directory}: {error.strerror}"
        ) from error
    return [path for path in paths if path.suffix.lower() in _SUFFIXES and path.is_file()]


def _common_name(name: x509.Name) -> str:
    attributes = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attributes[0].value) if attributes else name.rfc4514_string()


def is_readable_by_others(path: str | Path) -> bool:
    """
    Return whether other users of this machine can read a file with keys.

    :raises SocketError: when its permissions cannot be read.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise SocketError.from_exception(error, f"cannot read {path}: {error.strerror}") from error
    return bool(mode & 0o077)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise SocketError.from_exception(error, f"cannot read {path}: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise SocketError(
            f"cannot use {path}: it has more than {_MAX_FILE} bytes",
            status=SocketErrorStatus.CERTIFICATE_IS_INVALID,
        )
    return data


def _load_der(data: bytes, key: bytes | None, password: str | None) -> Certificate:
    try:
        certificate = Certificate(data)
    except ValueError as error:
        raise ValueError("it is neither a PEM nor a DER certificate") from error
    if key is not None:
        certificate._key = _load_key(key, password)
        certificate._check_key()
    return certificate


def _load_bundle(path: Path) -> Iterator[Certificate]:
    """Return each certificate of a PEM file, without a chain."""
    for match in _BLOCK.finditer(_read(path)):
        if match[1] == b"CERTIFICATE":
            yield _load_pem(match[0])


def _load_pem(block: bytes) -> Certificate:
    try:
        loaded = x509.load_pem_x509_certificate(block)
    except ValueError as error:
        raise ValueError(f"a certificate in it is malformed: {error}") from error
    return Certificate(loaded.public_bytes(Encoding.DER))


def _load_key(block: bytes, password: str | None) -> Any:
    secret = None if password is None else password.encode()
    if b"ENCRYPTED" not in block:
        secret = None  # cryptography refuses a password for a key that has none.
    try:
        return load_pem_private_key(block, secret)
    except TypeError as error:
        raise ValueError("its key has a password, and none was given") from error
    except UnsupportedAlgorithm as error:
        raise ValueError("its key is of a kind that is not supported") from error
    except ValueError as error:
        raise ValueError(
            "its key cannot be read: the password is wrong, or the file is damaged"
        ) from error


def use_certificate(certificate: Certificate, context: SSL.Context) -> None:
    """
    Set the certificate that the handshakes of a context send.

    :raises SocketError: when it has no key, or OpenSSL refuses it: a key that is too short or of an
        unknown kind.
    """
    shown, key = certificate.to_cryptography()
    if key is None:
        raise SocketError(f"the certificate of {certificate.subject} has no key")
    try:
        context.use_certificate(shown)
        context.use_privatekey(key)
        context.check_privatekey()
        for issuer in certificate.intermediates:
            context.add_extra_chain_cert(issuer.to_cryptography()[0])
    except (SSL.Error, TypeError) as error:
        reason = SocketError.from_exception(error)
        raise SocketError(
            f"OpenSSL refuses the certificate of {certificate.subject}: {reason}",
            status=SocketErrorStatus.CERTIFICATE_IS_INVALID,
        ) from error
