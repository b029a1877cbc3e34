"""
A certificate for one run: made, written to a file, deleted at the end.

Called by `benchmarks.stream` and `benchmarks.handshakes`. All servers show the same one, and
`benchmarks.secure` trusts nothing else. It is signed by its own key, so that a handshake carries
one certificate and no chain.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["SERVER_NAME", "temporary_certificate"]

#: Whom the certificate is about.
SERVER_NAME: Final = "localhost"
#: How long it is valid, to both sides of now: longer than any run, whatever the clock does.
_VALIDITY: Final = timedelta(days=1)


@contextmanager
def temporary_certificate() -> Iterator[Path]:
    """Give a file that holds, as PEM, a P-256 key and its certificate, for as long as the block."""
    # The folder is readable by its owner only, and so is the key in it.
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        path = Path(folder, "server.pem")
        path.write_bytes(_make_pem())
        yield path


def _make_pem() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALIDITY)
        .not_valid_after(now + _VALIDITY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoded_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return encoded_key + certificate.public_bytes(Encoding.PEM)
