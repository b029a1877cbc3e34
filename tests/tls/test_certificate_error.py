"""A certificate that is refused comes with its error."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.tls.peer import SERVER
from twsock.errors import SocketError, SocketErrorStatus
from twsock.tls.certificate_error import CertificateError
from twsock.tls.certificates import Certificate
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

Result = ChainValidationResult


class CertificateErrorTests(SynchronousTestCase):
    """What is wrong, whose it is, how bad it is."""

    def test_it_names_every_reason(self) -> None:
        """The status is that of the worst."""
        shown = Certificate.from_pem(SERVER.cert_chain_pems[0].bytes())
        error = CertificateError("it", [Result.EXPIRED, Result.UNTRUSTED], shown)
        self.assertEqual(str(error), "it was refused: Expired, Untrusted")
        self.assertIs(error.status, SocketErrorStatus.CERTIFICATE_UNTRUSTED_ROOT)
        self.assertIs(error.severity, SocketSslErrorSeverity.IGNORABLE)
        self.assertEqual(error.certificate, shown)

    def test_it_keeps_its_status_when_it_is_told_on(self) -> None:
        """As every error does."""
        error = CertificateError("it", [Result.REVOKED])
        self.assertIs(error.severity, SocketSslErrorSeverity.FATAL)
        self.assertIs(
            SocketError.from_exception(error).status, SocketErrorStatus.CERTIFICATE_REVOKED
        )
