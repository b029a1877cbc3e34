"""Failures of all kinds become a `SocketError` with a status, an HRESULT and a line for people."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import io
import os
import pickle
import socket
import ssl

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.exceptions import DNSMismatch, IPAddressMismatch
from service_identity.hazmat import DNS_ID, IPAddress_ID
from twisted.internet import defer, error
from twisted.internet.address import IPv4Address
from twisted.names import error as names_error
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

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
    WebErrorStatus,
)
from twsock.names import HostName

S = SocketErrorStatus

#: HRESULT_FROM_WIN32(ERROR_INVALID_PARAMETER).
E_INVALIDARG = 0x80070057

#: The documentation of Windows.Networking.Sockets.SocketErrorStatus.
SOCKET_ERROR_STATUS = {
    "Unknown": 0,
    "OperationAborted": 1,
    "HttpInvalidServerResponse": 2,
    "ConnectionTimedOut": 3,
    "AddressFamilyNotSupported": 4,
    "SocketTypeNotSupported": 5,
    "HostNotFound": 6,
    "NoDataRecordOfRequestedType": 7,
    "NonAuthoritativeHostNotFound": 8,
    "ClassTypeNotFound": 9,
    "AddressAlreadyInUse": 10,
    "CannotAssignRequestedAddress": 11,
    "ConnectionRefused": 12,
    "NetworkIsUnreachable": 13,
    "UnreachableHost": 14,
    "NetworkIsDown": 15,
    "NetworkDroppedConnectionOnReset": 16,
    "SoftwareCausedConnectionAbort": 17,
    "ConnectionResetByPeer": 18,
    "HostIsDown": 19,
    "NoAddressesFound": 20,
    "TooManyOpenFiles": 21,
    "MessageTooLong": 22,
    "CertificateExpired": 23,
    "CertificateUntrustedRoot": 24,
    "CertificateCommonNameIsIncorrect": 25,
    "CertificateWrongUsage": 26,
    "CertificateRevoked": 27,
    "CertificateNoRevocationCheck": 28,
    "CertificateRevocationServerOffline": 29,
    "CertificateIsInvalid": 30,
}

#: The documentation of Windows.Web.WebErrorStatus.
WEB_ERROR_STATUS = {
    "Unknown": 0,
    "CertificateCommonNameIsIncorrect": 1,
    "CertificateExpired": 2,
    "CertificateContainsErrors": 3,
    "CertificateRevoked": 4,
    "CertificateIsInvalid": 5,
    "ServerUnreachable": 6,
    "Timeout": 7,
    "ErrorHttpInvalidServerResponse": 8,
    "ConnectionAborted": 9,
    "ConnectionReset": 10,
    "Disconnected": 11,
    "HttpToHttpsOnRedirection": 12,
    "HttpsToHttpOnRedirection": 13,
    "CannotConnect": 14,
    "HostNameNotResolved": 15,
    "OperationCanceled": 16,
    "RedirectFailed": 17,
    "UnexpectedStatusCode": 18,
    "UnexpectedRedirection": 19,
    "UnexpectedClientError": 20,
    "UnexpectedServerError": 21,
    "InsufficientRangeSupport": 22,
    "MissingContentLengthSupport": 23,
    "MultipleChoices": 300,
    "MovedPermanently": 301,
    "Found": 302,
    "SeeOther": 303,
    "NotModified": 304,
    "UseProxy": 305,
    "TemporaryRedirect": 307,
    "BadRequest": 400,
    "Unauthorized": 401,
    "PaymentRequired": 402,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "NotAcceptable": 406,
    "ProxyAuthenticationRequired": 407,
    "RequestTimeout": 408,
    "Conflict": 409,
    "Gone": 410,
    "LengthRequired": 411,
    "PreconditionFailed": 412,
    "RequestEntityTooLarge": 413,
    "RequestUriTooLong": 414,
    "UnsupportedMediaType": 415,
    "RequestedRangeNotSatisfiable": 416,
    "ExpectationFailed": 417,
    "InternalServerError": 500,
    "NotImplemented": 501,
    "BadGateway": 502,
    "ServiceUnavailable": 503,
    "GatewayTimeout": 504,
    "HttpVersionNotSupported": 505,
}


class StatusTests(SynchronousTestCase):
    """The two enumerations."""

    def test_socket_error_status_is_the_documented_one(self) -> None:
        """`SocketErrorStatus` has the documented names and values, and no other."""
        found = {status.documented_name: status.value for status in SocketErrorStatus}
        self.assertEqual(found, SOCKET_ERROR_STATUS)

    def test_web_error_status_is_the_documented_one(self) -> None:
        """`WebErrorStatus` has the documented names and values, and no other."""
        found = {status.documented_name: status.value for status in WebErrorStatus}
        self.assertEqual(found, WEB_ERROR_STATUS)

    def test_members_have_an_underscore_at_each_word(self) -> None:
        """Names are upper case, with an underscore where the documented name has a capital."""
        self.assertEqual(WebErrorStatus.HTTP_TO_HTTPS_ON_REDIRECTION, 12)
        self.assertEqual(WebErrorStatus.REQUEST_URI_TOO_LONG, 414)
        self.assertEqual(SocketErrorStatus.CERTIFICATE_COMMON_NAME_IS_INCORRECT, 25)

    def test_every_status_has_a_meaning(self) -> None:
        """Each member explains itself in a sentence."""
        for status in (*SocketErrorStatus, *WebErrorStatus):
            self.assertRegex(status.meaning, r"^[A-Z][^.]+\.$")

    def test_a_status_is_found_by_value_and_survives_pickling(self) -> None:
        """A member is the number it stands for."""
        self.assertIs(SocketErrorStatus(12), SocketErrorStatus.CONNECTION_REFUSED)
        self.assertIs(pickle.loads(pickle.dumps(WebErrorStatus.GONE)), WebErrorStatus.GONE)


class TreeTests(SynchronousTestCase):
    """The classes of errors."""

    def test_the_tree_says_whose_fault_it_is(self) -> None:
        """A broken rule is by one side; every error is a `SocketError`."""
        for side in (LocalProtocolError, RemoteProtocolError):
            self.assertTrue(issubclass(side, ProtocolError))
        for kind in (ProtocolError, ClosedError, BrokenError, BusyError, OperationNotSupported):
            self.assertEqual(kind.__bases__, (SocketError,))

    def test_each_class_has_its_defaults(self) -> None:
        """Without arguments, the class gives status and HRESULT."""
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
            self.assertEqual((failed.status, failed.hresult, str(failed)), (status, hresult, "why"))

    def test_a_status_brings_its_hresult(self) -> None:
        """Where only the status is given, the HRESULT is that of Windows."""
        failed = BrokenError("gone", status=S.CONNECTION_RESET_BY_PEER)
        self.assertEqual(failed.hresult, 0x80072746)

    def test_an_hresult_brings_its_status(self) -> None:
        """Where only the HRESULT is given, signed or not, the status follows, if there is one."""
        failed = SocketError("no", hresult=0x8007274D - 2**32)
        self.assertEqual((failed.status, failed.hresult), (S.CONNECTION_REFUSED, 0x8007274D))
        other = ClosedError("no", hresult=0x80070057)
        self.assertEqual((other.status, other.hresult), (S.OPERATION_ABORTED, 0x80070057))

    def test_both_can_be_given(self) -> None:
        """What is given explicitly stays."""
        failed = SocketError("no", status=S.CERTIFICATE_REVOKED, hresult=0x80092010)
        self.assertEqual((failed.status, failed.hresult), (S.CERTIFICATE_REVOKED, 0x80092010))

    def test_the_summary_is_one_line(self) -> None:
        """Name, value and message, in a form for standard error."""
        failed = SocketError("Connection\n refused", status=S.CONNECTION_REFUSED)
        self.assertEqual(failed.summary, "ConnectionRefused (12): Connection refused")

    def test_an_error_survives_pickling(self) -> None:
        """Message, status and HRESULT are kept."""
        failed = BrokenError("gone", status=S.HOST_IS_DOWN, hresult=0x8000FFFF)
        other = pickle.loads(pickle.dumps(failed))
        self.assertEqual(
            (type(other), str(other), other.status, other.hresult),
            (BrokenError, "gone", S.HOST_IS_DOWN, 0x8000FFFF),
        )


def tls_error(reason: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason)])


def verification_error(code: int) -> ssl.SSLCertVerificationError:
    failed = ssl.SSLCertVerificationError(1, "certificate verify failed")
    failed.verify_code = code
    return failed


def caused(outer: BaseException, cause: BaseException) -> BaseException:
    outer.__cause__ = cause
    return outer


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


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
        """An ``errno`` is looked up; most have none."""
        self.assertEqual({number: SocketError.get_status(number) for number in ERRNOS}, ERRNOS)

    def test_an_hresult_has_a_status(self) -> None:
        """An HRESULT is looked up, as an unsigned and as a signed number."""
        self.assertEqual({number: SocketError.get_status(number) for number in HRESULTS}, HRESULTS)
        signed = {number: SocketError.get_status(number - 2**32) for number in HRESULTS}
        self.assertEqual(signed, HRESULTS)

    def test_a_number_of_winsock_has_a_status(self) -> None:
        """Windows has these where others have an ``errno``."""
        self.assertIs(SocketError.get_status(10061), S.CONNECTION_REFUSED)
        self.assertIs(SocketError.get_status(11001), S.HOST_NOT_FOUND)

    def test_a_status_is_its_own(self) -> None:
        """A member is not taken for the ``errno`` of the same value."""
        for status in SocketErrorStatus:
            self.assertIs(SocketError.get_status(status), status)

    def test_what_means_nothing_is_unknown(self) -> None:
        """No number and no object makes `get_status` fail."""
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
            self.assertIs(SocketError.get_status(thing), S.UNKNOWN)


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
    # Names
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
        """Whatever subclass Python makes of an ``errno``, the ``errno`` counts."""
        found = {number: SocketError.get_status(os_error(number)) for number in ERRNOS}
        self.assertEqual(found, ERRNOS)

    def test_every_known_exception_has_its_status(self) -> None:
        """Python's, Twisted's and those of TLS are known by the names of their classes."""
        for thing, status in EXCEPTIONS:
            self.assertIs(SocketError.get_status(thing), status, repr(thing))

    def test_a_missing_record_is_told_from_a_missing_name(self) -> None:
        """Where the system has a number of its own for it."""
        number = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)
        if number != socket.EAI_NONAME:
            status = SocketError.get_status(socket.gaierror(number, "?"))
            self.assertIs(status, S.NO_DATA_RECORD_OF_REQUESTED_TYPE)

    def test_a_failed_verification_has_the_status_of_its_code(self) -> None:
        """`ssl` says by a number of OpenSSL what is wrong with a certificate."""
        found = {code: SocketError.get_status(verification_error(code)) for code in VERIFY_CODES}
        self.assertEqual(found, VERIFY_CODES)

    def test_an_alert_in_the_words_of_ssl_is_understood(self) -> None:
        """`ssl` spells a reason as the constant it is in C."""
        failed = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
        failed.reason = "TLSV1_ALERT_UNKNOWN_CA"
        self.assertIs(SocketError.get_status(failed), S.CERTIFICATE_UNTRUSTED_ROOT)

    def test_a_subclass_falls_under_its_base(self) -> None:
        """A class that nobody has heard of is known by what it is derived from."""

        class Refused(error.ConnectionRefusedError):
            pass

        class RefusedError(Refused, TimeoutError):
            pass

        self.assertIs(SocketError.get_status(Refused()), S.CONNECTION_REFUSED)
        self.assertIs(SocketError.get_status(RefusedError()), S.CONNECTION_REFUSED)

    def test_a_namesake_is_another_class(self) -> None:
        """The module of a class counts, so another library's class of that name does not match."""
        namesake = type("ConnectionRefusedError", (Exception,), {})
        self.assertIs(SocketError.get_status(namesake()), S.UNKNOWN)

    def test_a_socket_error_has_its_own(self) -> None:
        """The status of a `SocketError` is what it says, whatever its cause."""
        failed = caused(ClosedError("closed"), os_error(errno.ECONNRESET))
        self.assertIs(SocketError.get_status(failed), S.OPERATION_ABORTED)
        failed = caused(OperationNotSupported("no"), os_error(errno.ECONNRESET))
        self.assertIs(SocketError.get_status(failed), S.UNKNOWN)


class CauseTests(SynchronousTestCase):
    """Who does not know asks its cause."""

    def test_an_unknown_exception_has_the_status_of_its_cause(self) -> None:
        """The cause of the cause counts too."""
        failed = caused(ValueError(), caused(KeyError(), os_error(errno.EADDRINUSE)))
        self.assertIs(SocketError.get_status(failed), S.ADDRESS_ALREADY_IN_USE)

    def test_an_unknown_exception_has_the_status_of_its_context(self) -> None:
        """What was being handled counts where no cause is given."""
        failed = KeyError()
        failed.__context__ = os_error(errno.EADDRINUSE)
        self.assertIs(SocketError.get_status(failed), S.ADDRESS_ALREADY_IN_USE)

    def test_a_suppressed_context_does_not_count(self) -> None:
        """After ``raise … from None`` the context has nothing to do with it."""
        failed = caused(KeyError(), os_error(errno.EADDRINUSE))
        failed.__context__, failed.__cause__ = failed.__cause__, None
        self.assertTrue(failed.__suppress_context__)
        self.assertIs(SocketError.get_status(failed), S.UNKNOWN)

    def test_a_vague_exception_gives_way_to_its_cause(self) -> None:
        """Twisted's `ConnectionLost` may have any reason; if there is one, that counts."""
        failed = caused(error.ConnectionLost("Connection lost"), os_error(errno.ETIMEDOUT))
        self.assertIs(SocketError.get_status(failed), S.CONNECTION_TIMED_OUT)
        failed = caused(tls_error("certificate verify failed"), verification_error(10))
        self.assertIs(SocketError.get_status(failed), S.CERTIFICATE_EXPIRED)

    def test_a_vague_exception_keeps_its_status_without_a_better_one(self) -> None:
        """A cause that is unknown, or as vague, changes nothing."""
        failed = caused(error.ConnectionLost(), caused(error.ConnectionDone(), ValueError()))
        self.assertIs(SocketError.get_status(failed), S.CONNECTION_RESET_BY_PEER)

    def test_a_clear_exception_stands_before_its_cause(self) -> None:
        """A timeout while a refused connection is handled is a timeout."""
        failed = caused(TimeoutError(), os_error(errno.ECONNREFUSED))
        self.assertIs(SocketError.get_status(failed), S.CONNECTION_TIMED_OUT)

    def test_causes_may_go_round_in_circles(self) -> None:
        """Exceptions that are each other's cause, or their own argument, end the search."""
        one, other = ValueError(), KeyError()
        one.__cause__, other.__cause__ = other, one
        one.args = (one, Failure(other))
        self.assertIs(SocketError.get_status(one), S.UNKNOWN)
        self.assertEqual(str(SocketError.from_exception(one)), "ValueError")

    def test_causes_may_be_many(self) -> None:
        """A chain deeper than Python's stack is followed to its end."""
        failed: BaseException = os_error(errno.EHOSTDOWN)
        for _ in range(5000):
            failed = caused(ValueError(), failed)
        self.assertIs(SocketError.get_status(failed), S.HOST_IS_DOWN)


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
    """`SocketError.from_exception` tells any failure as one of ours."""

    def test_the_exception_is_the_cause(self) -> None:
        """The class is the one asked for; status, HRESULT and cause are those of the exception."""
        cause = os_error(errno.ECONNRESET)
        failed = BrokenError.from_exception(cause)
        self.assertIs(type(failed), BrokenError)
        self.assertIs(failed.__cause__, cause)
        self.assertIs(failed.status, S.CONNECTION_RESET_BY_PEER)
        self.assertEqual(failed.hresult, 0x80072746)

    def test_the_summary_reads_for_a_person(self) -> None:
        """The words are those of who noticed it, without what is wrapped around them."""
        for exception, summary in SUMMARIES:
            self.assertEqual(SocketError.from_exception(exception).summary, summary)

    def test_a_failed_verification_says_what_failed(self) -> None:
        """OpenSSL's own words about the certificate are in the message."""
        cause = verification_error(10)
        cause.verify_message = "certificate has expired"
        summary = "CertificateExpired (23): certificate verify failed: certificate has expired"
        self.assertEqual(SocketError.from_exception(cause).summary, summary)

    def test_a_message_can_be_given(self) -> None:
        """It takes the place of the exception's words."""
        failed = SocketError.from_exception(os_error(errno.ECONNRESET), "the upload broke off")
        self.assertEqual(failed.summary, "ConnectionResetByPeer (18): the upload broke off")

    def test_a_failure_is_unwrapped(self) -> None:
        """The cause is the exception in a ``Failure``."""
        cause = os_error(errno.ECONNRESET)
        self.assertIs(SocketError.from_exception(Failure(cause)).__cause__, cause)

    def test_a_socket_error_hands_on_what_it_has(self) -> None:
        """Message, status and HRESULT stay, the class is the new one."""
        cause = OperationNotSupported("not on TLS")
        failed = BrokenError.from_exception(cause)
        self.assertEqual(
            (str(failed), failed.status, failed.hresult, failed.__cause__),
            ("not on TLS", S.UNKNOWN, 0x8007273D, cause),
        )

    def test_an_errno_without_status_has_an_hresult(self) -> None:
        """What the status cannot tell apart, the HRESULT can."""
        for number, hresult in {
            errno.ENOENT: 0x80070002,
            errno.EINVAL: 0x80070057,
            errno.EACCES: 0x8007271D,
            errno.EOPNOTSUPP: 0x8007273D,
            errno.ENOTCONN: 0x80072749,
        }.items():
            failed = SocketError.from_exception(error.ConnectError(number))
            self.assertEqual((failed.status, failed.hresult), (S.UNKNOWN, hresult))

    def test_a_bad_parameter_is_an_invalid_argument(self) -> None:
        """WinRT has ``E_INVALIDARG`` for it, and no status."""
        for name in ("a b", "", None):
            error = self.assertRaises((ValueError, TypeError), HostName, name)
            failed = SocketError.from_exception(error)
            self.assertEqual((failed.status, failed.hresult), (S.UNKNOWN, E_INVALIDARG))

    def test_a_bad_parameter_in_a_handler_of_errors_is_one_as_well(self) -> None:
        """What was being handled when it was passed is no reason for it."""
        for handled in (os_error(errno.ECONNREFUSED), BusyError("busy"), os_error(errno.ENOENT)):
            try:
                raise handled
            except Exception:  # noqa: BLE001 - whatever it is
                error = self.assertRaises(ValueError, HostName, "a b")
            failed = SocketError.from_exception(error)
            self.assertEqual((failed.status, failed.hresult), (S.UNKNOWN, E_INVALIDARG))

    def test_a_bad_parameter_with_a_cause_has_what_the_cause_says(self) -> None:
        """Only where the cause says nothing it is just an invalid argument."""
        refused = SocketError.from_exception(caused(ValueError(), os_error(errno.ECONNREFUSED)))
        self.assertEqual((refused.status, refused.hresult), (S.CONNECTION_REFUSED, 0x8007274D))
        other = SocketError.from_exception(caused(ValueError(), os_error(errno.EACCES)))
        self.assertEqual((other.status, other.hresult), (S.UNKNOWN, E_INVALIDARG))

    def test_a_failed_verification_is_no_bad_parameter(self) -> None:
        """Python derives some errors of its own from ``ValueError``, which say more."""
        for number in (errno.EACCES, errno.EINVAL):
            error = io.UnsupportedOperation(number, "?")
            expected = SocketError.from_exception(os_error(number)).hresult
            self.assertEqual(SocketError.from_exception(error).hresult, expected)
        failed = SocketError.from_exception(verification_error(10))
        self.assertEqual((failed.status, failed.hresult), (S.CERTIFICATE_EXPIRED, 0x800B0101))

    def test_an_unknown_exception_leaves_the_defaults_of_the_class(self) -> None:
        """Where the cause says nothing, the class speaks."""
        failed = ClosedError.from_exception(RuntimeError("what?"))
        self.assertEqual((failed.status, failed.hresult), (S.OPERATION_ABORTED, 0x80000013))


class CopyTests(SynchronousTestCase):
    """`SocketError.copy` makes an error that was never raised."""

    def test_it_says_the_same(self) -> None:
        """Class, words, status, HRESULT, cause and what a subclass adds."""
        cause = os_error(errno.ECONNRESET)
        for failed in (
            BrokenError.from_exception(cause),
            _CountedError(5),
            OperationNotSupported("no"),
        ):
            copied = failed.copy()
            self.assertIs(type(copied), type(failed))
            self.assertIsNot(copied, failed)
            self.assertEqual(copied.args, failed.args)
            self.assertEqual(vars(copied), vars(failed))
            self.assertIs(copied.__cause__, failed.__cause__)

    def test_it_has_no_frames(self) -> None:
        """Whatever the first came through."""
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
