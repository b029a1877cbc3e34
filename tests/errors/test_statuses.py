"""Statuses have the names and numbers of WinRT, and a meaning."""

from __future__ import annotations

import pickle

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import (
    SocketErrorStatus,
    WebErrorStatus,
)

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
        """Names are upper case, with an underscore before each capital of the documented name."""
        self.assertEqual(WebErrorStatus.HTTP_TO_HTTPS_ON_REDIRECTION, 12)
        self.assertEqual(WebErrorStatus.REQUEST_URI_TOO_LONG, 414)
        self.assertEqual(SocketErrorStatus.CERTIFICATE_COMMON_NAME_IS_INCORRECT, 25)

    def test_every_status_has_a_meaning(self) -> None:
        """One sentence."""
        for status in (*SocketErrorStatus, *WebErrorStatus):
            self.assertRegex(status.meaning, r"^[A-Z][^.]+\.$", status)

    def test_a_status_is_found_by_value_and_survives_pickling(self) -> None:
        """As the same member."""
        self.assertIs(SocketErrorStatus(12), SocketErrorStatus.CONNECTION_REFUSED)
        self.assertIs(pickle.loads(pickle.dumps(WebErrorStatus.GONE)), WebErrorStatus.GONE)
