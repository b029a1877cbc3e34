"""
The certificate that an end sends: certificate, its issuers and its key → **context** → handshake.
"""

from __future__ import annotations

from OpenSSL import SSL

from twsock.errors import SocketError, SocketErrorStatus
from twsock.tls.certificates import Certificate

__all__ = ["use_certificate"]


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
