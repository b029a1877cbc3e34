"""
The statuses of errors: `SocketErrorStatus`, `WebErrorStatus`, and the HRESULT of each.

Used by `twsock.errors.socket_error` and `twsock.errors.diagnosis`. The names and numbers are those
of WinRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twsock._enums import DocumentedEnum

__all__ = [
    "E_FAIL",
    "E_ILLEGAL_METHOD_CALL",
    "E_INVALIDARG",
    "HRESULTS",
    "INVALID_DATA",
    "INVALID_OPERATION",
    "NOT_SUPPORTED",
    "RO_E_CLOSED",
    "STATUS_OF_HRESULT",
    "WIN32",
    "SocketErrorStatus",
    "WebErrorStatus",
]


class _Status(DocumentedEnum):
    """A number with a documented name and a meaning."""

    meaning: str

    # The default is for `SocketErrorStatus(12)`, which finds a member and does not get here.
    def __new__(cls, value: int, meaning: str = "") -> _Status:
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class SocketErrorStatus(_Status):
    """
    Why an operation on a socket failed; ``Windows.Networking.Sockets.SocketErrorStatus``.

    ``documented_name`` is the spelling of the WinRT documentation, ``meaning`` one sentence.
    """

    UNKNOWN = 0, "The reason is not in this list, or was not recognised."
    OPERATION_ABORTED = 1, "The operation was cancelled, or its socket closed, before it was done."
    HTTP_INVALID_SERVER_RESPONSE = 2, "The answer of the proxy or server is not HTTP."
    CONNECTION_TIMED_OUT = 3, "No answer arrived within the time allowed."
    ADDRESS_FAMILY_NOT_SUPPORTED = 4, "The socket does not support addresses of this family."
    SOCKET_TYPE_NOT_SUPPORTED = 5, "This machine does not support sockets of this type."
    HOST_NOT_FOUND = 6, "No host has this name."
    NO_DATA_RECORD_OF_REQUESTED_TYPE = 7, "The name exists, but has no record of this type."
    NON_AUTHORITATIVE_HOST_NOT_FOUND = 8, "The lookup of the name failed for now; try again later."
    CLASS_TYPE_NOT_FOUND = 9, "No service has this name."
    ADDRESS_ALREADY_IN_USE = 10, "Another socket uses the local address and port."
    CANNOT_ASSIGN_REQUESTED_ADDRESS = 11, "This machine does not have the local address."
    CONNECTION_REFUSED = 12, "Nothing accepts connections on that port, or the peer refused TLS."
    NETWORK_IS_UNREACHABLE = 13, "This machine has no route to that network."
    UNREACHABLE_HOST = 14, "No route leads to that host."
    NETWORK_IS_DOWN = 15, "The network interface of this machine is down."
    NETWORK_DROPPED_CONNECTION_ON_RESET = 16, "The network ended the connection, not the peer."
    SOFTWARE_CAUSED_CONNECTION_ABORT = (
        17,
        "This machine aborted the connection, or refused TLS.",
    )
    CONNECTION_RESET_BY_PEER = 18, "The peer reset the connection, or its port is closed (UDP)."
    HOST_IS_DOWN = 19, "The host is switched off, or does not answer on its own network."
    NO_ADDRESSES_FOUND = 20, "The lookup of the name gave no address to try."
    TOO_MANY_OPEN_FILES = 21, "The process or the machine has no file descriptor left."
    MESSAGE_TOO_LONG = 22, "The datagram is longer than the limit for sending or receiving."
    CERTIFICATE_EXPIRED = 23, "The certificate is not valid yet, or has expired."
    CERTIFICATE_UNTRUSTED_ROOT = 24, "No trusted authority issued the certificate."
    CERTIFICATE_COMMON_NAME_IS_INCORRECT = 25, "The certificate is for another name."
    CERTIFICATE_WRONG_USAGE = 26, "The certificate was issued for another purpose."
    CERTIFICATE_REVOKED = 27, "The certificate was revoked."
    CERTIFICATE_NO_REVOCATION_CHECK = 28, "No revocation list was available."
    CERTIFICATE_REVOCATION_SERVER_OFFLINE = 29, "The server for revocations did not answer."
    CERTIFICATE_IS_INVALID = 30, "The certificate has a fault that no other status names."


class WebErrorStatus(_Status):
    """
    Why a WebSocket or HTTP operation failed; ``Windows.Web.WebErrorStatus``.

    From 300 on the values are those of HTTP status codes (:rfc:`9110` section 15).
    ``documented_name`` and ``meaning`` are as in `SocketErrorStatus`.
    """

    UNKNOWN = 0, "The reason is not in this list, or was not recognised."
    CERTIFICATE_COMMON_NAME_IS_INCORRECT = 1, "The certificate of the server is for another name."
    CERTIFICATE_EXPIRED = 2, "The certificate of the server is not valid yet, or has expired."
    CERTIFICATE_CONTAINS_ERRORS = 3, "The certificate of the server has errors."
    CERTIFICATE_REVOKED = 4, "The certificate of the server was revoked."
    CERTIFICATE_IS_INVALID = 5, "The certificate of the server is not valid."
    SERVER_UNREACHABLE = 6, "The server does not answer."
    TIMEOUT = 7, "No answer arrived within the time allowed."
    ERROR_HTTP_INVALID_SERVER_RESPONSE = 8, "The answer of the server is not HTTP."
    CONNECTION_ABORTED = 9, "The connection was aborted."
    CONNECTION_RESET = 10, "The peer reset the connection."
    DISCONNECTED = 11, "The connection has ended."
    HTTP_TO_HTTPS_ON_REDIRECTION = 12, "A redirection left plain HTTP for TLS."
    HTTPS_TO_HTTP_ON_REDIRECTION = 13, "A redirection left TLS for plain HTTP."
    CANNOT_CONNECT = 14, "The server could not be connected to."
    HOST_NAME_NOT_RESOLVED = 15, "The name of the server has no address."
    OPERATION_CANCELED = 16, "The operation was cancelled, or its socket closed."
    REDIRECT_FAILED = 17, "A redirection failed."
    UNEXPECTED_STATUS_CODE = 18, "The status code is a failure that is unexpected here."
    UNEXPECTED_REDIRECTION = 19, "The server redirects the request instead of answering it."
    UNEXPECTED_CLIENT_ERROR = 20, "The server reports an unexpected error of the request."
    UNEXPECTED_SERVER_ERROR = 21, "The server reports an unexpected error of its own."
    INSUFFICIENT_RANGE_SUPPORT = 22, "The server cannot send parts of a resource."
    MISSING_CONTENT_LENGTH_SUPPORT = 23, "The server does not send the length of the content."
    MULTIPLE_CHOICES = 300, "The resource has several representations."
    MOVED_PERMANENTLY = 301, "The resource has a new address permanently."
    FOUND = 302, "The resource has another address temporarily."
    SEE_OTHER = 303, "The answer is at another address, for a GET request."
    NOT_MODIFIED = 304, "The resource has not changed since the copy that the client has."
    USE_PROXY = 305, "The resource is available only through a proxy."
    TEMPORARY_REDIRECT = 307, "Repeat the same request at another address, temporarily."
    BAD_REQUEST = 400, "The server does not understand the request."
    UNAUTHORIZED = 401, "The server requires authentication."
    PAYMENT_REQUIRED = 402, "Reserved for payments."
    FORBIDDEN = 403, "The server understands the request, and refuses it."
    NOT_FOUND = 404, "The server has no resource at this address."
    METHOD_NOT_ALLOWED = 405, "The resource does not allow this method."
    NOT_ACCEPTABLE = 406, "The resource has no representation that the request accepts."
    PROXY_AUTHENTICATION_REQUIRED = 407, "The proxy requires authentication."
    REQUEST_TIMEOUT = 408, "The request did not arrive completely in time."
    CONFLICT = 409, "The request conflicts with the state of the resource."
    GONE = 410, "The resource was removed permanently."
    LENGTH_REQUIRED = 411, "The request has to give the length of its content."
    PRECONDITION_FAILED = 412, "A condition of the request is not met."
    REQUEST_ENTITY_TOO_LARGE = 413, "The content is larger than the limit of the server."
    REQUEST_URI_TOO_LONG = 414, "The address is longer than the limit of the server."
    UNSUPPORTED_MEDIA_TYPE = 415, "The server does not support content of this type."
    REQUESTED_RANGE_NOT_SATISFIABLE = 416, "The resource does not have the requested part."
    EXPECTATION_FAILED = 417, "The server does not support what the Expect header requires."
    INTERNAL_SERVER_ERROR = 500, "The server failed."
    NOT_IMPLEMENTED = 501, "The server does not implement this method."
    BAD_GATEWAY = 502, "A server behind the server sent an invalid answer."
    SERVICE_UNAVAILABLE = 503, "The server cannot handle requests at the moment."
    GATEWAY_TIMEOUT = 504, "A server behind the server did not answer in time."
    HTTP_VERSION_NOT_SUPPORTED = 505, "The server does not support this version of HTTP."


_S = SocketErrorStatus

#: HRESULT_FROM_WIN32: the facility of Win32, with the failure bit, before a number of Win32.
WIN32: Final = 0x8007_0000
#: An unspecified failure.
E_FAIL: Final = 0x8000_4005
#: The object was closed.
RO_E_CLOSED: Final = 0x8000_0013
#: The state of the object does not allow the call.
E_ILLEGAL_METHOD_CALL: Final = 0x8000_000E
#: ERROR_INVALID_DATA.
INVALID_DATA: Final = WIN32 | 13
#: ERROR_INVALID_PARAMETER.
E_INVALIDARG: Final = WIN32 | 87
#: ERROR_INVALID_OPERATION.
INVALID_OPERATION: Final = WIN32 | 4317
#: WSAEOPNOTSUPP.
NOT_SUPPORTED: Final = WIN32 | 10045

#: The HRESULT that Windows returns for each status.
HRESULTS: Final[Mapping[SocketErrorStatus, int]] = {
    _S.OPERATION_ABORTED: WIN32 | 995,  # WSA_OPERATION_ABORTED
    _S.HTTP_INVALID_SERVER_RESPONSE: WIN32 | 12152,  # WinINet
    _S.CONNECTION_TIMED_OUT: WIN32 | 10060,
    _S.ADDRESS_FAMILY_NOT_SUPPORTED: WIN32 | 10047,
    _S.SOCKET_TYPE_NOT_SUPPORTED: WIN32 | 10044,
    _S.HOST_NOT_FOUND: WIN32 | 11001,
    _S.NO_DATA_RECORD_OF_REQUESTED_TYPE: WIN32 | 11004,
    _S.NON_AUTHORITATIVE_HOST_NOT_FOUND: WIN32 | 11002,
    _S.CLASS_TYPE_NOT_FOUND: WIN32 | 10109,
    _S.ADDRESS_ALREADY_IN_USE: WIN32 | 10048,
    _S.CANNOT_ASSIGN_REQUESTED_ADDRESS: WIN32 | 10049,
    _S.CONNECTION_REFUSED: WIN32 | 10061,
    _S.NETWORK_IS_UNREACHABLE: WIN32 | 10051,
    _S.UNREACHABLE_HOST: WIN32 | 10065,
    _S.NETWORK_IS_DOWN: WIN32 | 10050,
    _S.NETWORK_DROPPED_CONNECTION_ON_RESET: WIN32 | 10052,
    _S.SOFTWARE_CAUSED_CONNECTION_ABORT: WIN32 | 10053,
    _S.CONNECTION_RESET_BY_PEER: WIN32 | 10054,
    _S.HOST_IS_DOWN: WIN32 | 10064,
    _S.NO_ADDRESSES_FOUND: WIN32 | 232,  # ERROR_NO_DATA
    _S.TOO_MANY_OPEN_FILES: WIN32 | 10024,
    _S.MESSAGE_TOO_LONG: WIN32 | 10040,
    _S.CERTIFICATE_EXPIRED: 0x800B_0101,
    _S.CERTIFICATE_UNTRUSTED_ROOT: 0x800B_0109,
    _S.CERTIFICATE_COMMON_NAME_IS_INCORRECT: 0x800B_010F,
    _S.CERTIFICATE_WRONG_USAGE: 0x800B_0110,
    _S.CERTIFICATE_REVOKED: 0x800B_010C,
    _S.CERTIFICATE_NO_REVOCATION_CHECK: 0x8009_2012,
    _S.CERTIFICATE_REVOCATION_SERVER_OFFLINE: 0x8009_2013,
    _S.CERTIFICATE_IS_INVALID: 0x800B_0103,  # CERT_E_ROLE; no general one exists
}

#: The status of each HRESULT, including some that twsock does not return.
STATUS_OF_HRESULT: Final[Mapping[int, SocketErrorStatus]] = {
    **{hresult: status for status, hresult in HRESULTS.items()},
    RO_E_CLOSED: _S.OPERATION_ABORTED,
    0x8000_4004: _S.OPERATION_ABORTED,  # E_ABORT
    WIN32 | 10058: _S.OPERATION_ABORTED,  # WSAESHUTDOWN
    0x800B_0102: _S.CERTIFICATE_EXPIRED,  # CERT_E_VALIDITYPERIODNESTING
    0x800B_010A: _S.CERTIFICATE_UNTRUSTED_ROOT,  # CERT_E_CHAINING
    0x800B_010E: _S.CERTIFICATE_REVOCATION_SERVER_OFFLINE,  # CERT_E_REVOCATION_FAILURE
    0x8009_2010: _S.CERTIFICATE_REVOKED,  # CRYPT_E_REVOKED
}
