"""
TLS: levels, certificates, and what is wrong with them.

What most programs need is importable from `twsock` itself; the handshakes are made by its sockets.
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
