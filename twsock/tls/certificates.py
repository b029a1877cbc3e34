"""
Certificates, their keys, and where they are found: files → **certificates** → contexts.

Given to sockets and listeners by applications, and handed out by the information of a socket. Read
with the ``cryptography`` library; nothing is verified here. Private keys stay in memory, and are
never shown.
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

from twsock.errors import SocketError, SocketErrorStatus

__all__ = [
    "Certificate",
    "CertificateQuery",
    "CertificateStores",
    "SubjectAlternativeName",
    "is_readable_by_others",
]

#: Files of a directory that may hold certificates.
_SUFFIXES: Final = frozenset({".pem", ".crt", ".cer", ".p12", ".pfx"})
_PKCS12: Final = frozenset({".p12", ".pfx"})

#: A file larger than this is no certificate, in bytes.
_MAX_FILE: Final = 1024 * 1024

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)
_HASHES: Final = {"SHA1": hashes.SHA1, "SHA256": hashes.SHA256}


@dataclass(frozen=True, slots=True)
class SubjectAlternativeName:
    """
    What a certificate is for; all are empty where it does not say.

    :ivar dns_names: host names, A-labels as they are.
    :ivar ip_addresses: IPv4 and IPv6.
    :ivar email_names: addresses.
    :ivar urls: other names of services.
    """

    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    email_names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


class Certificate:
    """
    A certificate; ``Windows.Security.Cryptography.Certificates.Certificate``.

    Two are equal when their bytes are, whether or not one has a key.

    :param blob: DER.
    :raises ValueError: when it is no certificate.

    :ivar friendly_name: a name for people; empty unless given, or found beside it (PKCS#12).
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

        :param data: PEM: first the certificate, then those of its issuers; the key anywhere among
            them, or nowhere.
        :param key: PEM of the key, where it is apart.
        :param password: of the key.
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
        :raises ValueError: when it is none, has no certificate, or the password is wrong.
        """
        secret = None if password is None else password.encode()
        try:
            bundle = load_pkcs12(data, secret)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(
                f"it is no PKCS#12 file, or its password is another: {error}"
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

        :param key: the file of the key, where it is apart (PEM).
        :param password: of the key, or of the PKCS#12 file.
        :raises SocketError: in one line that names the file, when it cannot be read or used; its
            status is ``CERTIFICATE_IS_INVALID``, unless the system has one.
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
        """Whom it is about: the common name, or all of the name where there is none."""
        return _common_name(self._x509.subject)

    @property
    def issuer(self) -> str:
        """Who issued it: the common name, or all of the name where there is none."""
        return _common_name(self._x509.issuer)

    @property
    def subject_alternative_name(self) -> SubjectAlternativeName:
        """What it is for."""
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
        """When it begins to be valid, in UTC."""
        return self._x509.not_valid_before_utc

    @property
    def valid_to(self) -> datetime:
        """When it ceases to be valid, in UTC."""
        return self._x509.not_valid_after_utc

    @property
    def serial_number(self) -> bytes:
        """The number that its issuer gave it, big-endian."""
        number = self._x509.serial_number
        return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")

    @property
    def enhanced_key_usages(self) -> tuple[str, ...]:
        """OIDs of what it may be used for; empty where it does not say."""
        try:
            extension = self._x509.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE)
        except x509.ExtensionNotFound:
            return ()
        usages: Any = extension.value
        return tuple(usage.dotted_string for usage in usages)

    @property
    def has_private_key(self) -> bool:
        """Whether it can be used to identify this end."""
        return self._key is not None

    @property
    def intermediates(self) -> tuple[Certificate, ...]:
        """Certificates of issuers that were found with it, its own issuer first."""
        return self._chain

    def get_hash_value(self, algorithm: str = "SHA1") -> bytes:
        """
        Give the fingerprint.

        :param algorithm: ``SHA1`` or ``SHA256``.
        :raises ValueError: for any other.
        """
        if algorithm not in _HASHES:
            raise ValueError(f"a hash is SHA1 or SHA256, not {algorithm!r}")
        return self._x509.fingerprint(_HASHES[algorithm]())

    def get_certificate_blob(self) -> bytes:
        """Give the certificate as DER, without its key."""
        return self._x509.public_bytes(Encoding.DER)

    def to_cryptography(self) -> tuple[x509.Certificate, Any]:
        """Give the certificate, and its key or None, as objects of the ``cryptography`` library."""
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
                f"the leaf comes first, then its issuers: the key is that of {leaf.subject}, and "
                f"the first certificate is that of {self.subject}"
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
    What to look for; ``Windows.Security.Cryptography.Certificates.CertificateQuery``.

    All that is given has to match; what is left empty matches everything.

    :param friendly_name: exactly this.
    :param issuer_name: the issuer's common name, exactly.
    :param thumbprint: the SHA-1 fingerprint.
    :param enhanced_key_usages: OIDs that have to be among its usages. A certificate that does not
        say what it is for matches.
    :param include_expired_certificates: also those that are not valid now.
    :param include_duplicates: also the older of several with one subject and issuer.
    :param has_private_key: True for those that can identify this end, False for the others.
    """

    friendly_name: str = ""
    issuer_name: str = ""
    thumbprint: bytes = b""
    enhanced_key_usages: Sequence[str] = field(default_factory=list)
    include_expired_certificates: bool = False
    include_duplicates: bool = False
    has_private_key: bool | None = None

    def matches(self, certificate: Certificate, now: datetime) -> bool:
        """Say whether a certificate is meant, whatever its duplicates."""
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

    PEM, DER (``.pem``, ``.crt``, ``.cer``) and PKCS#12 (``.p12``, ``.pfx``) files are read; others,
    and those in folders below, are left alone. The friendly name of a PEM or DER file is its name
    without the suffix.

    :param directories: where to look.
    :param password: of the PKCS#12 files and the keys.
    :param platform: whether to look among the authorities that this machine trusts, too: OpenSSL's
        file of them, or where there is none its directory.
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
        Find certificates, the ones that are valid longest first.

        :param query: what to look for; None for all that are valid, without duplicates.
        :param now: the moment at which they have to be valid.
        :raises SocketError: when a directory, or a file that looks like a certificate, cannot be
            used: one that is not found is not silently left out.
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
    """Read the authorities that this machine trusts."""
    where: Any = ssl.get_default_verify_paths()  # A path that does not exist is None.
    if where.cafile is not None:
        yield from _load_bundle(Path(where.cafile))
    elif where.capath is not None:
        for path in _files_of(Path(where.capath)):
            yield from _load_bundle(path)


def _files_of(directory: Path) -> list[Path]:
    """Name the files of a directory that should hold certificates."""
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
    Tell whether the keys in a file are no secret on this machine.

    :raises SocketError: when it cannot be looked at.
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
        raise ValueError("it is neither PEM nor DER of a certificate") from error
    if key is not None:
        certificate._key = _load_key(key, password)
        certificate._check_key()
    return certificate


def _load_bundle(path: Path) -> Iterator[Certificate]:
    """Read each certificate of a PEM file, as one that stands for itself."""
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
        secret = None  # A password that is not needed is no mistake.
    try:
        return load_pem_private_key(block, secret)
    except TypeError as error:
        raise ValueError("its key has a password, and none was given") from error
    except UnsupportedAlgorithm as error:
        raise ValueError("its key is of a kind that is not supported") from error
    except ValueError as error:
        raise ValueError(
            "its key cannot be read: the password is another, or it is damaged"
        ) from error
