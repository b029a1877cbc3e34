"""
The error of a refused certificate: certificate and results of its verification → **error**.

A handshake fails with it.
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
    A peer was refused because of its certificate.

    :param whose: the certificate, in words.
    :param errors: the errors of its verification.

    :ivar certificate: the certificate that the peer sent, which proves nothing; None if unknown.
    :ivar errors: the errors of its verification, the ignored ones included.
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
        """The severity of the worst error; only ``IGNORABLE`` errors can be ignored."""
        return severity_of(self.errors)
