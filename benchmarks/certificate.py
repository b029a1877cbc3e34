"""
Makes a certificate for one run, and deletes it at the end.

Called by `benchmarks.rounds`. All servers send this certificate, and `benchmarks.tls_client` trusts
nothing else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trustme

__all__ = ["SERVER_NAME", "temporary_certificate"]

#: The name in the certificate.
SERVER_NAME: Final = "localhost"


@contextmanager
def temporary_certificate() -> Iterator[Path]:
    """Yield a PEM file with a P-256 key and its certificate; it is deleted after the block."""
    # The folder is readable by its owner only, and so is the key in it.
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        issued = trustme.CA().issue_cert(SERVER_NAME)
        path = Path(folder, "server.pem")
        # The authority's certificate is left out, so a handshake carries a single one.
        path.write_bytes(issued.private_key_pem.bytes() + issued.cert_chain_pems[0].bytes())
        yield path
