"""Exceptions of Python, Twisted, OpenSSL and resolvers get a status."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import socket
import ssl

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.exceptions import DNSMismatch
from service_identity.hazmat import DNS_ID
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address
from twisted.names import error as names_error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.errors.cases import caused, os_error, tls_error, verification_error
from twsock.errors import (
    ClosedError,
    OperationNotSupported,
    SocketError,
    SocketErrorStatus,
)

S = SocketErrorStatus


ERRNOS = {
    errno.ECANCELED: S.OPERATION_ABORTED,
    errno.ETIMEDOUT: S.CONNECTION_TIMED_OUT,
    errno.EAFNOSUPPORT: S.ADDRESS_FAMILY_NOT_SUPPORTED,
    errno.ESOCKTNOSUPPORT: S.SOCKET_TYPE_NOT_SUPPORTED,
    errno.EADDRINUSE: S.ADDRESS_ALREADY_IN_USE,
    errno.EADDRNOTAVAIL: S.CANNOT_ASSIGN_REQUESTED_ADDRESS,
    errno.ECONNREFUSED: S.CONNECTION_REFUSED,
    errno.ENETUNREACH: S.NETWORK_IS_UNREACHABLE,
    errno.EHOSTUNREACH: S.UNREACHABLE_HOST,
    errno.ENETDOWN: S.NETWORK_IS_DOWN,
    errno.ENETRESET: S.NETWORK_DROPPED_CONNECTION_ON_RESET,
    errno.ECONNABORTED: S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    errno.ECONNRESET: S.CONNECTION_RESET_BY_PEER,
    errno.EPIPE: S.CONNECTION_RESET_BY_PEER,
    errno.ESHUTDOWN: S.OPERATION_ABORTED,
    errno.EHOSTDOWN: S.HOST_IS_DOWN,
    errno.EMFILE: S.TOO_MANY_OPEN_FILES,
    errno.ENFILE: S.TOO_MANY_OPEN_FILES,
    errno.EMSGSIZE: S.MESSAGE_TOO_LONG,
    errno.EACCES: S.UNKNOWN,
    errno.EPERM: S.UNKNOWN,
    errno.EINVAL: S.UNKNOWN,
    errno.ENOBUFS: S.UNKNOWN,
    errno.ENOENT: S.UNKNOWN,
}


HRESULTS = {
    0x800703E3: S.OPERATION_ABORTED,
    0x80000013: S.OPERATION_ABORTED,
    0x80072F78: S.HTTP_INVALID_SERVER_RESPONSE,
    0x8007274C: S.CONNECTION_TIMED_OUT,
    0x8007273F: S.ADDRESS_FAMILY_NOT_SUPPORTED,
    0x8007273C: S.SOCKET_TYPE_NOT_SUPPORTED,
    0x80072AF9: S.HOST_NOT_FOUND,
    0x80072AFC: S.NO_DATA_RECORD_OF_REQUESTED_TYPE,
    0x80072AFA: S.NON_AUTHORITATIVE_HOST_NOT_FOUND,
    0x8007277D: S.CLASS_TYPE_NOT_FOUND,
    0x80072740: S.ADDRESS_ALREADY_IN_USE,
    0x80072741: S.CANNOT_ASSIGN_REQUESTED_ADDRESS,
    0x8007274D: S.CONNECTION_REFUSED,
    0x80072743: S.NETWORK_IS_UNREACHABLE,
    0x80072751: S.UNREACHABLE_HOST,
    0x80072742: S.NETWORK_IS_DOWN,
    0x80072744: S.NETWORK_DROPPED_CONNECTION_ON_RESET,
    0x80072745: S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    0x80072746: S.CONNECTION_RESET_BY_PEER,
    0x80072750: S.HOST_IS_DOWN,
    0x800700E8: S.NO_ADDRESSES_FOUND,
    0x80072728: S.TOO_MANY_OPEN_FILES,
    0x80072738: S.MESSAGE_TOO_LONG,
    0x800B0101: S.CERTIFICATE_EXPIRED,
    0x800B0109: S.CERTIFICATE_UNTRUSTED_ROOT,
    0x800B010F: S.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
    0x800B0110: S.CERTIFICATE_WRONG_USAGE,
    0x800B010C: S.CERTIFICATE_REVOKED,
    0x80092010: S.CERTIFICATE_REVOKED,
    0x80092012: S.CERTIFICATE_NO_REVOCATION_CHECK,
    0x80092013: S.CERTIFICATE_REVOCATION_SERVER_OFFLINE,
    0x800B0103: S.CERTIFICATE_IS_INVALID,
    0x80070057: S.UNKNOWN,
    0x8007273D: S.UNKNOWN,
}


class NumberStatusTests(SynchronousTestCase):
    """`SocketError.get_status` of a number."""

    def test_an_errno_has_a_status(self) -> None:
        """Most numbers have none."""
        self.assertEqual({number: SocketError.get_status(number) for number in ERRNOS}, ERRNOS)

    def test_an_hresult_has_a_status(self) -> None:
        """As an unsigned and as a signed number."""
        self.assertEqual({number: SocketError.get_status(number) for number in HRESULTS}, HRESULTS)
        signed = {number: SocketError.get_status(number - 2**32) for number in HRESULTS}
        self.assertEqual(signed, HRESULTS)

    def test_a_number_of_winsock_has_a_status(self) -> None:
        """Windows uses these instead of an ``errno``."""
        self.assertIs(SocketError.get_status(10061), S.CONNECTION_REFUSED)
        self.assertIs(SocketError.get_status(11001), S.HOST_NOT_FOUND)

    def test_a_status_is_returned_unchanged(self) -> None:
        """It is not looked up as the ``errno`` of the same value."""
        for status in SocketErrorStatus:
            found = SocketError.get_status(status)
            self.assertIs(found, status, f"{status=}, {found=}")

    def test_any_other_value_is_unknown(self) -> None:
        """`get_status` fails for no number and no object."""
        for thing in (
            0,
            -1,
            232,
            2**31,
            2**32 + 0x8007274D,
            -(2**40),
            None,
            "x",
            object(),
            OSError,
        ):
            self.assertIs(SocketError.get_status(thing), S.UNKNOWN, thing)


#: Each exception of the operating system, of Python, of Twisted and of TLS, with its status.
EXCEPTIONS = [
    (OSError(), S.UNKNOWN),
    (OSError("no number"), S.UNKNOWN),
    (OSError(errno.ECONNREFUSED), S.CONNECTION_REFUSED),
    (ConnectionRefusedError(), S.CONNECTION_REFUSED),
    (ConnectionResetError(), S.CONNECTION_RESET_BY_PEER),
    (ConnectionAbortedError(), S.SOFTWARE_CAUSED_CONNECTION_ABORT),
    (BrokenPipeError(), S.CONNECTION_RESET_BY_PEER),
    (TimeoutError(), S.CONNECTION_TIMED_OUT),
    (asyncio.TimeoutError(), S.CONNECTION_TIMED_OUT),
    (concurrent.futures.TimeoutError(), S.CONNECTION_TIMED_OUT),
    (asyncio.CancelledError(), S.OPERATION_ABORTED),
    (concurrent.futures.CancelledError(), S.OPERATION_ABORTED),
    (ValueError("bad"), S.UNKNOWN),
    (ValueError(errno.ECONNREFUSED), S.UNKNOWN),
    # Lookups
    (socket.gaierror(socket.EAI_NONAME, "?"), S.HOST_NOT_FOUND),
    (socket.gaierror(socket.EAI_AGAIN, "?"), S.NON_AUTHORITATIVE_HOST_NOT_FOUND),
    (socket.gaierror(socket.EAI_SERVICE, "?"), S.CLASS_TYPE_NOT_FOUND),
    (socket.gaierror(socket.EAI_FAMILY, "?"), S.ADDRESS_FAMILY_NOT_SUPPORTED),
    (socket.gaierror(socket.EAI_SOCKTYPE, "?"), S.SOCKET_TYPE_NOT_SUPPORTED),
    (socket.gaierror(socket.EAI_FAIL, "?"), S.UNKNOWN),
    (socket.herror(1, "?"), S.HOST_NOT_FOUND),
    (socket.herror(2, "?"), S.NON_AUTHORITATIVE_HOST_NOT_FOUND),
    (socket.herror(4, "?"), S.NO_DATA_RECORD_OF_REQUESTED_TYPE),
    (error.DNSLookupError("example.invalid"), S.HOST_NOT_FOUND),
    (error.UnknownHostError(socket.EAI_AGAIN, "?"), S.NON_AUTHORITATIVE_HOST_NOT_FOUND),
    (error.UnknownHostError(), S.HOST_NOT_FOUND),
    (error.ServiceNameUnknownError(string="?"), S.CLASS_TYPE_NOT_FOUND),
    (names_error.DNSNameError(), S.HOST_NOT_FOUND),
    (names_error.DNSServerError(), S.NON_AUTHORITATIVE_HOST_NOT_FOUND),
    (names_error.DomainError(), S.NO_DATA_RECORD_OF_REQUESTED_TYPE),
    (names_error.AuthoritativeDomainError(), S.NO_DATA_RECORD_OF_REQUESTED_TYPE),
    (names_error.DNSQueryTimeoutError(1), S.CONNECTION_TIMED_OUT),
    (names_error.DNSQueryRefusedError(), S.UNKNOWN),
    (names_error.DNSFormatError(), S.UNKNOWN),
    # Connecting
    (error.ConnectionRefusedError(), S.CONNECTION_REFUSED),
    (error.NoRouteError(), S.UNREACHABLE_HOST),
    (error.NoRouteError(errno.ENETUNREACH, "?"), S.NETWORK_IS_UNREACHABLE),
    (error.TCPTimedOutError(), S.CONNECTION_TIMED_OUT),
    (error.TimeoutError(), S.CONNECTION_TIMED_OUT),
    (error.UserError(), S.OPERATION_ABORTED),
    (error.NotConnectingError(), S.OPERATION_ABORTED),
    (error.ConnectingCancelledError(IPv4Address("TCP", "::", 1)), S.OPERATION_ABORTED),
    (error.ConnectError(), S.UNKNOWN),
    (error.ConnectError(errno.EHOSTUNREACH, "?"), S.UNREACHABLE_HOST),
    (error.ConnectError(errno.ENOENT, "?"), S.UNKNOWN),
    (error.ConnectError(string=Failure(os_error(errno.ENETDOWN))), S.NETWORK_IS_DOWN),
    (error.ConnectBindError(errno.EADDRINUSE, "?"), S.ADDRESS_ALREADY_IN_USE),
    (error.getConnectError((errno.ECONNREFUSED, "?")), S.CONNECTION_REFUSED),
    (error.CannotListenError("", 80, os_error(errno.EADDRINUSE)), S.ADDRESS_ALREADY_IN_USE),
    (error.UnsupportedAddressFamily(), S.ADDRESS_FAMILY_NOT_SUPPORTED),
    (error.UnsupportedSocketType(), S.SOCKET_TYPE_NOT_SUPPORTED),
    (error.MessageLengthError(), S.MESSAGE_TOO_LONG),
    # Connected
    (error.ConnectionLost(), S.CONNECTION_RESET_BY_PEER),
    (error.ConnectionAborted(), S.OPERATION_ABORTED),
    (error.ConnectionDone(), S.OPERATION_ABORTED),
    (defer.CancelledError(), S.OPERATION_ABORTED),
    (defer.TimeoutError(), S.CONNECTION_TIMED_OUT),
    (defer.TimeoutError(errno.ECONNREFUSED, "Deferred"), S.CONNECTION_TIMED_OUT),
    (defer.FirstError(Failure(os_error(errno.EPIPE)), 0), S.CONNECTION_RESET_BY_PEER),
    (Failure(os_error(errno.ECONNREFUSED)), S.CONNECTION_REFUSED),
    # TLS
    (tls_error("certificate verify failed"), S.CERTIFICATE_IS_INVALID),
    (tls_error("peer did not return a certificate"), S.CERTIFICATE_IS_INVALID),
    (tls_error("sslv3 alert certificate expired"), S.CERTIFICATE_EXPIRED),
    (tls_error("tls alert certificate expired"), S.CERTIFICATE_EXPIRED),
    (tls_error("tlsv1 alert unknown ca"), S.CERTIFICATE_UNTRUSTED_ROOT),
    (tls_error("sslv3 alert certificate revoked"), S.CERTIFICATE_REVOKED),
    (tls_error("sslv3 alert unsupported certificate"), S.CERTIFICATE_WRONG_USAGE),
    (tls_error("sslv3 alert bad certificate"), S.CERTIFICATE_IS_INVALID),
    (tls_error("tlsv13 alert certificate required"), S.CERTIFICATE_IS_INVALID),
    (tls_error("tlsv1 alert protocol version"), S.CONNECTION_REFUSED),
    (tls_error("ssl/tls alert handshake failure"), S.CONNECTION_REFUSED),
    (tls_error("tlsv1 alert no application protocol"), S.CONNECTION_REFUSED),
    (tls_error("tlsv1 alert internal error"), S.CONNECTION_RESET_BY_PEER),
    (tls_error("unsupported protocol"), S.SOFTWARE_CAUSED_CONNECTION_ABORT),
    (tls_error("no shared cipher"), S.SOFTWARE_CAUSED_CONNECTION_ABORT),
    (tls_error("no application protocol"), S.SOFTWARE_CAUSED_CONNECTION_ABORT),
    (tls_error("wrong version number"), S.UNKNOWN),
    (SSL.Error([]), S.UNKNOWN),
    (SSL.Error(), S.UNKNOWN),
    (SSL.SysCallError(-1, "Unexpected EOF"), S.CONNECTION_RESET_BY_PEER),
    (SSL.SysCallError(errno.ETIMEDOUT, "ETIMEDOUT"), S.CONNECTION_TIMED_OUT),
    (SSL.ZeroReturnError(), S.OPERATION_ABORTED),
    (ssl.SSLEOFError(8, "?"), S.CONNECTION_RESET_BY_PEER),
    (ssl.SSLZeroReturnError(6, "?"), S.OPERATION_ABORTED),
    (ssl.SSLError(errno.ECONNREFUSED, "not an errno"), S.UNKNOWN),
    (VerificationError(errors=[]), S.CERTIFICATE_COMMON_NAME_IS_INCORRECT),
    (CertificateError("no names"), S.CERTIFICATE_COMMON_NAME_IS_INCORRECT),
    (DNSMismatch(DNS_ID("example.com")), S.CERTIFICATE_COMMON_NAME_IS_INCORRECT),
    (error.VerifyError(), S.CERTIFICATE_IS_INVALID),
    (error.PeerVerifyError(), S.CERTIFICATE_IS_INVALID),
    (error.CertificateError(), S.CERTIFICATE_IS_INVALID),
]


VERIFY_CODES = {
    2: S.CERTIFICATE_UNTRUSTED_ROOT,
    3: S.CERTIFICATE_NO_REVOCATION_CHECK,
    7: S.CERTIFICATE_IS_INVALID,
    9: S.CERTIFICATE_EXPIRED,
    10: S.CERTIFICATE_EXPIRED,
    18: S.CERTIFICATE_UNTRUSTED_ROOT,
    19: S.CERTIFICATE_UNTRUSTED_ROOT,
    20: S.CERTIFICATE_UNTRUSTED_ROOT,
    21: S.CERTIFICATE_UNTRUSTED_ROOT,
    23: S.CERTIFICATE_REVOKED,
    24: S.CERTIFICATE_IS_INVALID,
    25: S.CERTIFICATE_IS_INVALID,
    26: S.CERTIFICATE_WRONG_USAGE,
    27: S.CERTIFICATE_UNTRUSTED_ROOT,
    34: S.CERTIFICATE_IS_INVALID,
    62: S.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
    63: S.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
    64: S.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
    79: S.CERTIFICATE_IS_INVALID,
}


class ExceptionStatusTests(SynchronousTestCase):
    """`SocketError.get_status` of an exception."""

    def test_an_os_error_has_the_status_of_its_errno(self) -> None:
        """Whatever subclass Python makes of it."""
        found = {number: SocketError.get_status(os_error(number)) for number in ERRNOS}
        self.assertEqual(found, ERRNOS)

    def test_every_known_exception_has_its_status(self) -> None:
        """Exceptions of Python, Twisted and TLS are recognised by the names of their classes."""
        for thing, status in EXCEPTIONS:
            self.assertIs(SocketError.get_status(thing), status, repr(thing))

    def test_a_missing_record_differs_from_a_missing_name(self) -> None:
        """If the system has a number for it."""
        number = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)
        if number != socket.EAI_NONAME:
            status = SocketError.get_status(socket.gaierror(number, "?"))
            self.assertIs(status, S.NO_DATA_RECORD_OF_REQUESTED_TYPE)

    def test_a_failed_verification_has_the_status_of_its_code(self) -> None:
        """`ssl` reports the error of a certificate as a number of OpenSSL."""
        found = {code: SocketError.get_status(verification_error(code)) for code in VERIFY_CODES}
        self.assertEqual(found, VERIFY_CODES)

    def test_an_alert_in_the_spelling_of_ssl_is_recognised(self) -> None:
        """`ssl` spells a reason as its constant in C."""
        failed = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
        failed.reason = "TLSV1_ALERT_UNKNOWN_CA"
        self.assertIs(SocketError.get_status(failed), S.CERTIFICATE_UNTRUSTED_ROOT)

    def test_an_unknown_subclass_has_the_status_of_its_base(self) -> None:
        """The nearest known base counts."""

        class Refused(error.ConnectionRefusedError):
            pass

        class RefusedError(Refused, TimeoutError):
            pass

        self.assertIs(SocketError.get_status(Refused()), S.CONNECTION_REFUSED)
        self.assertIs(SocketError.get_status(RefusedError()), S.CONNECTION_REFUSED)

    def test_a_class_of_the_same_name_in_another_module_is_unknown(self) -> None:
        """The module of a class is compared too."""
        namesake = type("ConnectionRefusedError", (Exception,), {})
        self.assertIs(SocketError.get_status(namesake()), S.UNKNOWN)

    def test_a_socket_error_keeps_its_status(self) -> None:
        """Whatever its cause."""
        failed = caused(ClosedError("closed"), os_error(errno.ECONNRESET))
        self.assertIs(SocketError.get_status(failed), S.OPERATION_ABORTED)
        failed = caused(OperationNotSupported("no"), os_error(errno.ECONNRESET))
        self.assertIs(SocketError.get_status(failed), S.UNKNOWN)


class CauseTests(SynchronousTestCase):
    """An exception without a status has that of its cause."""

    def test_an_unknown_exception_has_the_status_of_its_cause(self) -> None:
        """Also that of the cause of the cause."""
        failed = caused(ValueError(), caused(KeyError(), os_error(errno.EADDRINUSE)))
        self.assertIs(SocketError.get_status(failed), S.ADDRESS_ALREADY_IN_USE)

    def test_an_unknown_exception_has_the_status_of_its_context(self) -> None:
        """If it has no cause."""
        failed = KeyError()
        failed.__context__ = os_error(errno.EADDRINUSE)
        self.assertIs(SocketError.get_status(failed), S.ADDRESS_ALREADY_IN_USE)

    def test_a_suppressed_context_does_not_count(self) -> None:
        """After ``raise … from None``."""
        failed = caused(KeyError(), os_error(errno.EADDRINUSE))
        failed.__context__, failed.__cause__ = failed.__cause__, None
        self.assertTrue(failed.__suppress_context__)
        self.assertIs(SocketError.get_status(failed), S.UNKNOWN)

    def test_the_cause_of_a_vague_exception_takes_precedence(self) -> None:
        """Twisted's `ConnectionLost` may have any cause."""
        failed = caused(error.ConnectionLost("Connection lost"), os_error(errno.ETIMEDOUT))
        self.assertIs(SocketError.get_status(failed), S.CONNECTION_TIMED_OUT)
        failed = caused(tls_error("certificate verify failed"), verification_error(10))
        self.assertIs(SocketError.get_status(failed), S.CERTIFICATE_EXPIRED)

    def test_a_vague_exception_keeps_its_status_without_a_better_one(self) -> None:
        """If the cause is unknown or vague as well."""
        failed = caused(error.ConnectionLost(), caused(error.ConnectionDone(), ValueError()))
        self.assertIs(SocketError.get_status(failed), S.CONNECTION_RESET_BY_PEER)

    def test_a_precise_exception_takes_precedence_over_its_cause(self) -> None:
        """A timeout while a refused connection is handled is a timeout."""
        failed = caused(TimeoutError(), os_error(errno.ECONNREFUSED))
        self.assertIs(SocketError.get_status(failed), S.CONNECTION_TIMED_OUT)

    def test_cyclic_causes_end_the_search(self) -> None:
        """Exceptions that are each other's cause, or their own argument."""
        one, other = ValueError(), KeyError()
        one.__cause__, other.__cause__ = other, one
        one.args = (one, Failure(other))
        self.assertIs(SocketError.get_status(one), S.UNKNOWN)
        self.assertEqual(str(SocketError.from_exception(one)), "ValueError")

    def test_a_long_chain_of_causes_is_followed_to_its_end(self) -> None:
        """Even if it is longer than Python's stack."""
        failed: BaseException = os_error(errno.EHOSTDOWN)
        for _ in range(5000):
            failed = caused(ValueError(), failed)
        self.assertIs(SocketError.get_status(failed), S.HOST_IS_DOWN)
