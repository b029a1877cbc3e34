"""Failures of all kinds become a `SocketError` with a status, an HRESULT and a text."""

from __future__ import annotations

import errno
import io
import os
import pickle
import socket

from OpenSSL import SSL
from service_identity import VerificationError
from service_identity.exceptions import DNSMismatch, IPAddressMismatch
from service_identity.hazmat import DNS_ID, IPAddress_ID
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.errors.cases import caused, os_error, tls_error, verification_error
from twsock.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    ProtocolError,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.names import HostName

S = SocketErrorStatus


#: HRESULT_FROM_WIN32(ERROR_INVALID_PARAMETER).
E_INVALIDARG = 0x80070057


class TreeTests(SynchronousTestCase):
    """The classes of errors."""

    def test_an_error_pickled_under_the_name_of_the_package_can_be_loaded(self) -> None:
        """``twsock.errors`` has the names of all classes, wherever they are defined."""
        loaded = pickle.loads(b"ctwsock.errors\nClosedError\n(Vclosed here\ntR.")
        self.assertIs(type(loaded), ClosedError)
        self.assertEqual((str(loaded), loaded.status), ("closed here", S.OPERATION_ABORTED))

    def test_the_class_shows_which_side_broke_a_rule(self) -> None:
        """Every error is a `SocketError`."""
        for side in (LocalProtocolError, RemoteProtocolError):
            self.assertTrue(issubclass(side, ProtocolError), side)
        for kind in (ProtocolError, ClosedError, BrokenError, BusyError, OperationNotSupported):
            self.assertEqual(kind.__bases__, (SocketError,), kind)

    def test_each_class_has_its_defaults(self) -> None:
        """Without arguments, the class sets status and HRESULT."""
        for kind, status, hresult in [
            (SocketError, S.UNKNOWN, 0x80004005),
            (ProtocolError, S.UNKNOWN, 0x8007000D),
            (LocalProtocolError, S.UNKNOWN, 0x8000000E),
            (RemoteProtocolError, S.UNKNOWN, 0x8007000D),
            (ClosedError, S.OPERATION_ABORTED, 0x80000013),
            (BrokenError, S.UNKNOWN, 0x80004005),
            (BusyError, S.UNKNOWN, 0x800710DD),
            (OperationNotSupported, S.UNKNOWN, 0x8007273D),
        ]:
            failed = kind("why")
            self.assertEqual(
                (failed.status, failed.hresult, str(failed)),
                (status, hresult, "why"),
                (kind, status, hresult),
            )

    def test_a_status_sets_its_hresult(self) -> None:
        """If no HRESULT is given."""
        failed = BrokenError("gone", status=S.CONNECTION_RESET_BY_PEER)
        self.assertEqual(failed.hresult, 0x80072746)

    def test_an_hresult_sets_its_status(self) -> None:
        """Signed or unsigned, if it has one."""
        failed = SocketError("no", hresult=0x8007274D - 2**32)
        self.assertEqual((failed.status, failed.hresult), (S.CONNECTION_REFUSED, 0x8007274D))
        other = ClosedError("no", hresult=0x80070057)
        self.assertEqual((other.status, other.hresult), (S.OPERATION_ABORTED, 0x80070057))

    def test_both_can_be_given(self) -> None:
        """Given values are kept."""
        failed = SocketError("no", status=S.CERTIFICATE_REVOKED, hresult=0x80092010)
        self.assertEqual((failed.status, failed.hresult), (S.CERTIFICATE_REVOKED, 0x80092010))

    def test_the_summary_is_one_line(self) -> None:
        """Name, value and message, for standard error."""
        failed = SocketError("Connection\n refused", status=S.CONNECTION_REFUSED)
        self.assertEqual(failed.summary, "ConnectionRefused (12): Connection refused")

    def test_an_error_survives_pickling(self) -> None:
        """With message, status and HRESULT."""
        failed = BrokenError("gone", status=S.HOST_IS_DOWN, hresult=0x8000FFFF)
        other = pickle.loads(pickle.dumps(failed))
        self.assertEqual(
            (type(other), str(other), other.status, other.hresult),
            (BrokenError, "gone", S.HOST_IS_DOWN, 0x8000FFFF),
        )


REFUSED = os.strerror(errno.ECONNREFUSED)


#: Each exception with the line that it becomes.
SUMMARIES = [
    (os_error(errno.ECONNREFUSED), f"ConnectionRefused (12): {REFUSED}"),
    (OSError(errno.ECONNREFUSED), f"ConnectionRefused (12): {REFUSED}"),
    (FileNotFoundError(2, "No such file", "/run/a"), "Unknown (0): No such file: /run/a"),
    (FileNotFoundError(2, "No", "a", None, b"/b"), "Unknown (0): No: a -> /b"),
    (OSError("boom"), "Unknown (0): boom"),
    (socket.gaierror(socket.EAI_NONAME, "Name not known"), "HostNotFound (6): Name not known"),
    (
        error.ConnectionRefusedError(errno.ECONNREFUSED, REFUSED),
        f"ConnectionRefused (12): {REFUSED}",
    ),
    (error.ConnectionRefusedError(errno.ECONNREFUSED), f"ConnectionRefused (12): {REFUSED}"),
    (error.ConnectionRefusedError(), "ConnectionRefused (12): Connection refused"),
    (error.DNSLookupError("a.invalid"), "HostNotFound (6): DNS lookup failed: a.invalid"),
    (error.DNSLookupError("no results for a"), "HostNotFound (6): no results for a"),
    (error.ConnectBindError(), "Unknown (0): Couldn't bind"),
    (
        error.CannotListenError("", 80, os_error(errno.ECONNREFUSED)),
        f"ConnectionRefused (12): {REFUSED}",
    ),
    (error.MulticastJoinError("::", "lo", 19, "No such device"), "Unknown (0): No such device"),
    (error.ConnectionLost("Connection lost"), "ConnectionResetByPeer (18): Connection lost"),
    (error.ConnectionLost(), "ConnectionResetByPeer (18): Connection reset by peer"),
    (defer.TimeoutError(30, "Deferred"), "ConnectionTimedOut (3): Connection timed out"),
    (
        error.ConnectingCancelledError(IPv4Address("TCP", "::", 1)),
        "OperationAborted (1): Operation aborted",
    ),
    (
        caused(TimeoutError(), os_error(errno.ECONNREFUSED)),
        "ConnectionTimedOut (3): Connection timed out",
    ),
    (
        caused(error.ConnectionLost("Connection lost"), OSError(errno.ETIMEDOUT, "Too late")),
        "ConnectionTimedOut (3): Too late",
    ),
    (
        tls_error("certificate verify failed"),
        "CertificateIsInvalid (30): certificate verify failed",
    ),
    (SSL.Error([]), "Unknown (0): Error"),
    (SSL.SysCallError(errno.ECONNREFUSED, "ECONNREFUSED"), f"ConnectionRefused (12): {REFUSED}"),
    (SSL.SysCallError(-1, "Unexpected EOF"), "ConnectionResetByPeer (18): Unexpected EOF"),
    (
        VerificationError(
            errors=[
                DNSMismatch(DNS_ID("a.example")),
                IPAddressMismatch(IPAddress_ID("::1")),
            ]
        ),
        "CertificateCommonNameIsIncorrect (25): the certificate does not name a.example, ::1",
    ),
    (
        VerificationError(errors=[]),
        "CertificateCommonNameIsIncorrect (25): the certificate does not name this host",
    ),
    (ValueError("a bad port"), "Unknown (0): a bad port"),
    (caused(ValueError(), KeyError("a bad key")), "Unknown (0): a bad key"),
    (RuntimeError(), "Unknown (0): RuntimeError"),
]


class FromExceptionTests(SynchronousTestCase):
    """`SocketError.from_exception` makes a `SocketError` of any failure."""

    def test_the_exception_is_the_cause(self) -> None:
        """The class is the called one; status and HRESULT are those of the exception."""
        cause = os_error(errno.ECONNRESET)
        failed = BrokenError.from_exception(cause)
        self.assertIs(type(failed), BrokenError)
        self.assertIs(failed.__cause__, cause)
        self.assertIs(failed.status, S.CONNECTION_RESET_BY_PEER)
        self.assertEqual(failed.hresult, 0x80072746)

    def test_the_summary_has_the_text_of_the_source(self) -> None:
        """Without the text of the exceptions around it."""
        for exception, summary in SUMMARIES:
            self.assertEqual(
                SocketError.from_exception(exception).summary, summary, (exception, summary)
            )

    def test_a_failed_verification_says_what_failed(self) -> None:
        """The message contains OpenSSL's text about the certificate."""
        cause = verification_error(10)
        cause.verify_message = "certificate has expired"
        summary = "CertificateExpired (23): certificate verify failed: certificate has expired"
        self.assertEqual(SocketError.from_exception(cause).summary, summary)

    def test_a_message_can_be_given(self) -> None:
        """It replaces the text of the exception."""
        failed = SocketError.from_exception(os_error(errno.ECONNRESET), "the upload broke off")
        self.assertEqual(failed.summary, "ConnectionResetByPeer (18): the upload broke off")

    def test_a_failure_is_unwrapped(self) -> None:
        """The cause is the exception in a ``Failure``."""
        cause = os_error(errno.ECONNRESET)
        self.assertIs(SocketError.from_exception(Failure(cause)).__cause__, cause)

    def test_a_socket_error_keeps_message_status_and_hresult(self) -> None:
        """The class is the new one."""
        cause = OperationNotSupported("not on TLS")
        failed = BrokenError.from_exception(cause)
        self.assertEqual(
            (str(failed), failed.status, failed.hresult, failed.__cause__),
            ("not on TLS", S.UNKNOWN, 0x8007273D, cause),
        )

    def test_an_errno_without_status_has_an_hresult(self) -> None:
        """The HRESULT distinguishes errors that have no status."""
        for number, hresult in {
            errno.ENOENT: 0x80070002,
            errno.EINVAL: 0x80070057,
            errno.EACCES: 0x8007271D,
            errno.EOPNOTSUPP: 0x8007273D,
            errno.ENOTCONN: 0x80072749,
        }.items():
            failed = SocketError.from_exception(error.ConnectError(number))
            self.assertEqual(
                (failed.status, failed.hresult), (S.UNKNOWN, hresult), (number, hresult)
            )

    def test_a_bad_parameter_is_an_invalid_argument(self) -> None:
        """WinRT has ``E_INVALIDARG`` for it, and no status."""
        for name in ("a b", "", None):
            error = self.assertRaises((ValueError, TypeError), HostName, name)
            failed = SocketError.from_exception(error)
            self.assertEqual((failed.status, failed.hresult), (S.UNKNOWN, E_INVALIDARG), name)

    def test_a_bad_parameter_during_another_error_is_one_as_well(self) -> None:
        """The error that was being handled is not its cause."""
        for handled in (os_error(errno.ECONNREFUSED), BusyError("busy"), os_error(errno.ENOENT)):
            try:
                raise handled
            except Exception:  # noqa: BLE001 - whatever it is
                error = self.assertRaises(ValueError, HostName, "a b")
            failed = SocketError.from_exception(error)
            self.assertEqual((failed.status, failed.hresult), (S.UNKNOWN, E_INVALIDARG), handled)

    def test_a_bad_parameter_with_a_cause_has_the_status_of_the_cause(self) -> None:
        """Without a status of the cause it is an invalid argument."""
        refused = SocketError.from_exception(caused(ValueError(), os_error(errno.ECONNREFUSED)))
        self.assertEqual((refused.status, refused.hresult), (S.CONNECTION_REFUSED, 0x8007274D))
        other = SocketError.from_exception(caused(ValueError(), os_error(errno.EACCES)))
        self.assertEqual((other.status, other.hresult), (S.UNKNOWN, E_INVALIDARG))

    def test_a_failed_verification_is_no_bad_parameter(self) -> None:
        """Python derives some errors from ``ValueError`` whose reason is known."""
        for number in (errno.EACCES, errno.EINVAL):
            error = io.UnsupportedOperation(number, "?")
            expected = SocketError.from_exception(os_error(number)).hresult
            self.assertEqual(SocketError.from_exception(error).hresult, expected, number)
        failed = SocketError.from_exception(verification_error(10))
        self.assertEqual((failed.status, failed.hresult), (S.CERTIFICATE_EXPIRED, 0x800B0101))

    def test_an_unknown_exception_leaves_the_defaults_of_the_class(self) -> None:
        """If its causes are unknown too."""
        failed = ClosedError.from_exception(RuntimeError("what?"))
        self.assertEqual((failed.status, failed.hresult), (S.OPERATION_ABORTED, 0x80000013))


class CopyTests(SynchronousTestCase):
    """`SocketError.copy` makes an error that was never raised."""

    def test_a_copy_is_equal(self) -> None:
        """In class, text, status, HRESULT, cause and the attributes of a subclass."""
        cause = os_error(errno.ECONNRESET)
        for failed in (
            BrokenError.from_exception(cause),
            _CountedError(5),
            OperationNotSupported("no"),
        ):
            copied = failed.copy()
            self.assertIs(type(copied), type(failed), failed)
            self.assertIsNot(copied, failed, f"{failed=}")
            self.assertEqual(copied.args, failed.args, failed)
            self.assertEqual(vars(copied), vars(failed), failed)
            self.assertIs(copied.__cause__, failed.__cause__, failed)

    def test_a_copy_has_no_frames(self) -> None:
        """Even if the original was raised."""
        try:
            raise _CountedError(1)
        except _CountedError as failed:
            self.assertIsNotNone(failed.__traceback__)
            self.assertIsNone(failed.copy().__traceback__)
            self.assertIsNone(failed.copy().__context__)


class _CountedError(SocketError):
    """Has an argument of its own, and another message."""

    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}")
        self.number = number
