"""
The error of a certificate that was not accepted: certificate and results → **error**.

Made at the end of a handshake, and given to whoever waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from twsock.errors import SocketError
from twsock.tls.certificates import Certificate
from twsock.tls.validation import (
    ChainValidationResult,
    SocketSslErrorSeverity,
    severity_of,
    status_of,
)

__all__ = ["CertificateError"]


class CertificateError(SocketError):
    """
    A peer was not accepted because of its certificate.

    :param whose: the certificate, in words.
    :param errors: all that is wrong with it.

    :ivar certificate: what the peer showed, and did not prove anything with; None where it is not
        known.
    :ivar errors: all that is wrong with it, what was forgiven included.
    """

    def __init__(
        self,
        whose: str,
        errors: Iterable[ChainValidationResult],
        certificate: Certificate | None = None,
    ) -> None:
        self.errors = tuple(errors)
        self.certificate = certificate
        reasons = ", ".join(error.documented_name for error in self.errors)
        super().__init__(f"{whose} was refused: {reasons}", status=status_of(self.errors))

    @property
    def severity(self) -> SocketSslErrorSeverity:
        """That of the worst; only what is ``IGNORABLE`` can be forgiven."""
        return severity_of(self.errors)
