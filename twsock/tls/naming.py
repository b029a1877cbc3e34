"""
Check of the names in certificates: certificate and host → ``service_identity`` → **match or not**.

``service_identity`` compares the names.
"""

from __future__ import annotations

from typing import Any

import service_identity
from cryptography.hazmat.primitives.serialization import Encoding
from service_identity.pyopenssl import extract_patterns

from twsock.names import HostName, HostNameType
from twsock.tls.certificates import Certificate

__all__ = ["from_openssl", "is_named"]


def is_named(shown: Any, host: HostName) -> bool:
    """
    Return whether a certificate is for a host (:rfc:`9525`).

    :param shown: a certificate of pyOpenSSL.
    :param host: a domain name, compared as A-labels, or an address.
    """
    try:
        identifier: Any = (
            service_identity.hazmat.DNS_ID(host.canonical_name)
            if host.type is HostNameType.DOMAIN_NAME
            # A zone has a meaning on this machine only (RFC 4007, section 11).
            else service_identity.hazmat.IPAddress_ID(host.canonical_name.partition("%")[0])
        )
        service_identity.hazmat.verify_service_identity(extract_patterns(shown), [identifier], [])
    # The certificate is for other names. A ValueError: it has malformed names, or none.
    except (service_identity.VerificationError, service_identity.CertificateError, ValueError):
        return False
    return True


def from_openssl(shown: Any) -> Certificate:
    """Convert a certificate of pyOpenSSL."""
    return Certificate(shown.to_cryptography().public_bytes(Encoding.DER))
