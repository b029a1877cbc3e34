"""
TLS: protection levels, certificates, handshakes, and the errors of verification.

Most programs import what they need from `twsock` itself; its sockets make the handshakes.
"""

from twsock.tls.certificate_error import CertificateError
from twsock.tls.certificates import (
    Certificate,
    CertificateQuery,
    CertificateStores,
    SubjectAlternativeName,
)
from twsock.tls.client import ClientOptions
from twsock.tls.levels import SocketProtectionLevel, choose_versions
from twsock.tls.server import ClientCertificatePolicy, ServerOptions, ServerTls
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

__all__ = [
    "Certificate",
    "CertificateError",
    "CertificateQuery",
    "CertificateStores",
    "ChainValidationResult",
    "ClientCertificatePolicy",
    "ClientOptions",
    "ServerOptions",
    "ServerTls",
    "SocketProtectionLevel",
    "SocketSslErrorSeverity",
    "SubjectAlternativeName",
    "choose_versions",
]
