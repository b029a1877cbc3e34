"""A `CertificateError` carries the verification errors and the certificate."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.tls.peer import SERVER
from twsock.errors import SocketError, SocketErrorStatus
from twsock.tls.certificate_error import CertificateError
from twsock.tls.certificates import Certificate
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

Result = ChainValidationResult


class CertificateErrorTests(SynchronousTestCase):
    """`CertificateError` on its own."""

    def test_an_error_names_every_reason(self) -> None:
        """Its status is that of the worst reason."""
        shown = Certificate.from_pem(SERVER.cert_chain_pems[0].bytes())
        error = CertificateError("it", [Result.EXPIRED, Result.UNTRUSTED], shown)
        self.assertEqual(str(error), "it was refused: Expired, Untrusted")
        self.assertIs(error.status, SocketErrorStatus.CERTIFICATE_UNTRUSTED_ROOT)
        self.assertIs(error.severity, SocketSslErrorSeverity.IGNORABLE)
        self.assertEqual(error.certificate, shown)

    def test_from_exception_keeps_the_status(self) -> None:
        """`SocketError.from_exception` keeps it, as for every other error."""
        error = CertificateError("it", [Result.REVOKED])
        self.assertIs(error.severity, SocketSslErrorSeverity.FATAL)
        self.assertIs(
            SocketError.from_exception(error).status, SocketErrorStatus.CERTIFICATE_REVOKED
        )
