"""
Development certificates: names → an authority, a server's and a client's certificate → files.

Made by `twsock certificates init`, and by services without a certificate. The authority's key is
dropped once it has signed both certificates, so that nobody can sign another.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twsock.errors import SocketError
from twsock.tls.certificates import Certificate

__all__ = [
    "LOOPBACK_NAMES",
    "CertificateFiles",
    "KeyKind",
    "find_or_make_certificates",
    "make_certificates",
]

#: Default names of a server's certificate: this machine.
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")

#: Validity. Some clients refuse certificates that are valid longer than 398 days.
_LIFETIME: Final = timedelta(days=365)

#: The upper bound of a common name, in characters (:rfc:`5280`, appendix A.1).
_MAX_COMMON_NAME: Final = 64

#: In bits; the least that OpenSSL's default security level accepts (NIST SP 800-57: 112 bits).
_RSA_SIZE: Final = 2048
#: The usual exponent, and the smallest that FIPS 186-5 permits.
_RSA_EXPONENT: Final = 65_537

#: The validity begins earlier by this much, since the clocks of peers differ.
_HEAD_START: Final = timedelta(hours=1)


class KeyKind(enum.Enum):
    """The kind of keys: ECDSA (P-256), or RSA (2,048 bits) for peers such as old .NET."""

    ECDSA = "ecdsa"
    RSA = "rsa"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """
    The paths of the three PEM files.

    :ivar directory: contains them.
    """

    directory: Path

    @property
    def authority(self) -> Path:
        """The authority's certificate, which peers have to trust."""
        return self.directory / "authority.pem"

    @property
    def server(self) -> Path:
        """A server's certificate and its key."""
        return self.directory / "server.pem"

    @property
    def client(self) -> Path:
        """A client's certificate and its key."""
        return self.directory / "client.pem"


def make_certificates(
    directory: str | Path,
    names: Sequence[str] = LOOPBACK_NAMES,
    *,
    key: KeyKind = KeyKind.ECDSA,
    now: datetime | None = None,
) -> CertificateFiles:
    """
    Make an authority, and a server's and a client's certificate that it signs, valid for a year.

    Only the user can read the keys. All files appear at the same moment.

    :param directory: for the files; created if it does not exist. It must be empty.
    :param names: hosts and addresses that the server's certificate is for.
    :param key: the kind of all three keys.
    :param now: the start of the validity.
    :raises SocketError: when the directory is not empty or cannot be written; the text is one line
        that names it.
    :raises ValueError: when there are no names.
    """
    if not names:
        raise ValueError("a server's certificate needs a name")
    directory = Path(directory).absolute()
    moment = now or datetime.now(timezone.utc)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=directory.parent, prefix=f".{directory.name}-", ignore_cleanup_errors=True
        ) as made:
            _write_all(CertificateFiles(Path(made)), names, key, moment)
            Path(made).replace(directory)
    except OSError as error:
        raise SocketError.from_exception(
            error, f"cannot make certificates in {directory}: {_reason(error)}"
        ) from error
    return CertificateFiles(directory)


def find_or_make_certificates(
    directory: str | Path, *, now: datetime | None = None
) -> CertificateFiles:
    """
    Return the certificates of a directory; make new ones if there are none or they have expired.

    :raises SocketError: when the files cannot be used, or new ones cannot be made.
    """
    files = CertificateFiles(Path(directory).absolute())
    moment = now or datetime.now(timezone.utc)
    if _is_there(files.server):
        until = Certificate.load(files.server).valid_to
        if moment < until:
            return files
        aside = files.directory.with_name(f"{files.directory.name}-until-{until:%Y-%m-%d}")
        try:
            files.directory.replace(aside)
        except OSError as error:
            raise SocketError.from_exception(
                error, f"cannot move {files.directory} aside: {error.strerror}"
            ) from error
    try:
        return make_certificates(directory, now=moment)
    except SocketError:
        if _is_there(files.server):
            return files  # Another process was faster.
        raise


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise SocketError.from_exception(error, f"cannot read {path}: {error.strerror}") from error


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and error.filename2 is not None:
        return "it exists and is not empty"
    if error.errno == errno.ENOTDIR and error.filename2 is not None:
        return "it exists and is not a directory"
    return str(error.strerror)


def _write_all(files: CertificateFiles, names: Sequence[str], kind: KeyKind, now: datetime) -> None:
    authority_key = _make_key(kind)
    authority_name = _name(f"twsock development authority {now:%Y-%m-%d}")
    authority = (
        _begin(authority_name, authority_name, authority_key, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    files.authority.write_bytes(authority.public_bytes(Encoding.PEM))
    for path, name, alternatives, usage in (
        (files.server, names[0][:_MAX_COMMON_NAME], names, ExtendedKeyUsageOID.SERVER_AUTH),
        (files.client, "twsock client", (), ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        key = _make_key(kind)
        # An old peer may support only RSA key transport, in TLS 1.2.
        key_usage = _key_usage(signs_certificates=False, enciphers_keys=kind is KeyKind.RSA)
        builder = (
            _begin(_name(name), authority_name, key, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
                critical=False,
            )
        )
        if alternatives:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(list(map(_general_name, alternatives))), critical=False
            )
        issued = builder.sign(authority_key, hashes.SHA256())
        _write_private(
            path,
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + issued.public_bytes(Encoding.PEM),
        )


def _make_key(kind: KeyKind) -> Any:
    if kind is KeyKind.RSA:
        return rsa.generate_private_key(_RSA_EXPONENT, _RSA_SIZE)
    return ec.generate_private_key(ec.SECP256R1())


def _begin(subject: x509.Name, issuer: x509.Name, key: Any, now: datetime) -> Any:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HEAD_START)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool, enciphers_keys: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=enciphers_keys,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_private(path: Path, data: bytes) -> None:
    # The file has these permissions before the key is written to it.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
