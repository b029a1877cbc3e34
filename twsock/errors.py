"""
What can go wrong, as values: the ground under every room of the house.

Whoever meets a failure (of the operating system, of Twisted, of OpenSSL, of the wire format) turns
it into a `SocketError` with a `SocketErrorStatus`. Holds no state. Imports the standard library
only, so that the wire formats can use it: what other libraries raise is known by names of classes.

How an exception finds its status: its classes, from the most derived to the base, are looked up in
one table of rules. A rule reads the finest evidence there is (an ``errno``, OpenSSL's verification
code, the reason in OpenSSL's error queue) and has a status for where there is none. An exception
without an answer, or with a vague one, passes the question on to what it wraps and to its cause.

Longer than a module should be, since two thirds are tables that belong beside each other.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

from twsock._enums import DocumentedEnum

__all__ = [
    "BrokenError",
    "BusyError",
    "ClosedError",
    "LocalProtocolError",
    "OperationNotSupported",
    "ProtocolError",
    "RemoteProtocolError",
    "SocketError",
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

    ``documented_name`` is the spelling of the WinRT documentation, ``meaning`` a line for people.
    """

    UNKNOWN = 0, "None of the reasons in this list, or none that could be recognised."
    OPERATION_ABORTED = 1, "The operation was called off, or its socket closed, before it was done."
    HTTP_INVALID_SERVER_RESPONSE = 2, "A proxy or server answered with something that is no HTTP."
    CONNECTION_TIMED_OUT = 3, "Nothing came back within the time allowed."
    ADDRESS_FAMILY_NOT_SUPPORTED = 4, "Addresses of this kind do not work with this socket."
    SOCKET_TYPE_NOT_SUPPORTED = 5, "This machine has no sockets of this type."
    HOST_NOT_FOUND = 6, "There is no host of this name."
    NO_DATA_RECORD_OF_REQUESTED_TYPE = 7, "The name is known, but not with a record of this type."
    NON_AUTHORITATIVE_HOST_NOT_FOUND = 8, "The name could not be looked up now; later it may."
    CLASS_TYPE_NOT_FOUND = 9, "There is no service of this name."
    ADDRESS_ALREADY_IN_USE = 10, "The local address and port belong to another socket."
    CANNOT_ASSIGN_REQUESTED_ADDRESS = 11, "This machine does not have the local address."
    CONNECTION_REFUSED = 12, "Nothing accepts connections on that port, or the peer refused TLS."
    NETWORK_IS_UNREACHABLE = 13, "This machine knows no way to that network."
    UNREACHABLE_HOST = 14, "No way leads to that host."
    NETWORK_IS_DOWN = 15, "The network interface of this machine is down."
    NETWORK_DROPPED_CONNECTION_ON_RESET = 16, "The network ended the connection, not the peer."
    SOFTWARE_CAUSED_CONNECTION_ABORT = (
        17,
        "This machine gave the connection up, or refused its TLS.",
    )
    CONNECTION_RESET_BY_PEER = 18, "The peer broke the connection off, or its port is closed (UDP)."
    HOST_IS_DOWN = 19, "That host is switched off or not answering on its own network."
    NO_ADDRESSES_FOUND = 20, "The name led to no address that could be tried."
    TOO_MANY_OPEN_FILES = 21, "The process or the machine has no file descriptor left."
    MESSAGE_TOO_LONG = (
        22,
        "The datagram is longer than may be sent, or than the space to receive it.",
    )
    CERTIFICATE_EXPIRED = 23, "The certificate is not valid yet, or not any more."
    CERTIFICATE_UNTRUSTED_ROOT = (
        24,
        "The certificate does not lead to an authority that is trusted.",
    )
    CERTIFICATE_COMMON_NAME_IS_INCORRECT = 25, "The certificate belongs to another name."
    CERTIFICATE_WRONG_USAGE = 26, "The certificate was issued for another purpose."
    CERTIFICATE_REVOKED = 27, "The certificate has been withdrawn."
    CERTIFICATE_NO_REVOCATION_CHECK = 28, "There was nothing to check a withdrawal with."
    CERTIFICATE_REVOCATION_SERVER_OFFLINE = 29, "The server that knows of withdrawals is not there."
    CERTIFICATE_IS_INVALID = 30, "The certificate has a fault that no other status names."


class WebErrorStatus(_Status):
    """
    Why a WebSocket or HTTP operation failed; ``Windows.Web.WebErrorStatus``.

    From 300 on the values are those of HTTP status codes (:rfc:`9110` section 15).
    ``documented_name`` and ``meaning`` are as in `SocketErrorStatus`.
    """

    UNKNOWN = 0, "None of the reasons in this list, or none that could be recognised."
    CERTIFICATE_COMMON_NAME_IS_INCORRECT = 1, "The certificate of the server is for another name."
    CERTIFICATE_EXPIRED = 2, "The certificate of the server is not valid yet, or not any more."
    CERTIFICATE_CONTAINS_ERRORS = 3, "The certificate of the server is faulty."
    CERTIFICATE_REVOKED = 4, "The certificate of the server has been withdrawn."
    CERTIFICATE_IS_INVALID = 5, "The certificate of the server cannot be relied on."
    SERVER_UNREACHABLE = 6, "The server does not answer."
    TIMEOUT = 7, "Nothing came back within the time allowed."
    ERROR_HTTP_INVALID_SERVER_RESPONSE = 8, "What the server answered is no HTTP."
    CONNECTION_ABORTED = 9, "The connection was broken off."
    CONNECTION_RESET = 10, "The peer reset the connection."
    DISCONNECTED = 11, "The connection is over."
    HTTP_TO_HTTPS_ON_REDIRECTION = 12, "A redirection left plain HTTP for TLS."
    HTTPS_TO_HTTP_ON_REDIRECTION = 13, "A redirection left TLS for plain HTTP."
    CANNOT_CONNECT = 14, "The server could not be connected to."
    HOST_NAME_NOT_RESOLVED = 15, "There is no address for the name of the server."
    OPERATION_CANCELED = 16, "The operation was called off, or its socket closed under it."
    REDIRECT_FAILED = 17, "A redirection led nowhere."
    UNEXPECTED_STATUS_CODE = 18, "The status code is a failure that has no place here."
    UNEXPECTED_REDIRECTION = 19, "The server redirects where it should answer."
    UNEXPECTED_CLIENT_ERROR = 20, "The server blames the request, in a way that has no place here."
    UNEXPECTED_SERVER_ERROR = 21, "The server blames itself, in a way that has no place here."
    INSUFFICIENT_RANGE_SUPPORT = 22, "The server cannot send parts of a resource."
    MISSING_CONTENT_LENGTH_SUPPORT = 23, "The server does not say how long the content is."
    MULTIPLE_CHOICES = 300, "There are several representations to choose from."
    MOVED_PERMANENTLY = 301, "The resource has a new address for good."
    FOUND = 302, "The resource has another address for now."
    SEE_OTHER = 303, "The answer is at another address, to be fetched with GET."
    NOT_MODIFIED = 304, "The copy at hand is still the current one."
    USE_PROXY = 305, "The resource is to be had through a proxy only."
    TEMPORARY_REDIRECT = 307, "Repeat the same request at another address, for now."
    BAD_REQUEST = 400, "The server cannot make sense of the request."
    UNAUTHORIZED = 401, "The server wants to know who asks."
    PAYMENT_REQUIRED = 402, "Set aside for payments."
    FORBIDDEN = 403, "The server knows what is asked, and will not."
    NOT_FOUND = 404, "There is nothing at this address."
    METHOD_NOT_ALLOWED = 405, "The resource is there, but not for this method."
    NOT_ACCEPTABLE = 406, "No representation suits what the request accepts."
    PROXY_AUTHENTICATION_REQUIRED = 407, "The proxy wants to know who asks."
    REQUEST_TIMEOUT = 408, "The request did not arrive whole in time."
    CONFLICT = 409, "The request does not go with the state of the resource."
    GONE = 410, "What was at this address is not coming back."
    LENGTH_REQUIRED = 411, "The request has to say how long its content is."
    PRECONDITION_FAILED = 412, "A condition that the request makes is not met."
    REQUEST_ENTITY_TOO_LARGE = 413, "The content is more than the server takes."
    REQUEST_URI_TOO_LONG = 414, "The address is longer than the server reads."
    UNSUPPORTED_MEDIA_TYPE = 415, "The server has no use for content of this type."
    REQUESTED_RANGE_NOT_SATISFIABLE = 416, "The resource does not have the part asked for."
    EXPECTATION_FAILED = 417, "The server cannot do what the Expect header wants."
    INTERNAL_SERVER_ERROR = 500, "Something in the server failed."
    NOT_IMPLEMENTED = 501, "The server does not know this method."
    BAD_GATEWAY = 502, "A server behind the server gave an answer of no use."
    SERVICE_UNAVAILABLE = 503, "The server cannot serve at the moment."
    GATEWAY_TIMEOUT = 504, "A server behind the server did not answer in time."
    HTTP_VERSION_NOT_SUPPORTED = 505, "The server does not speak this version of HTTP."


_S = SocketErrorStatus

# HRESULT_FROM_WIN32: the facility of Win32, with the failure bit, before a number of Win32.
_WIN32: Final = 0x8007_0000
_E_FAIL: Final = 0x8000_4005  # an unspecified failure
_RO_E_CLOSED: Final = 0x8000_0013  # the object was closed
_E_ILLEGAL_METHOD_CALL: Final = 0x8000_000E  # called at a time when it must not be
_INVALID_DATA: Final = _WIN32 | 13  # ERROR_INVALID_DATA
_E_INVALIDARG: Final = _WIN32 | 87  # a parameter that is not acceptable
_INVALID_OPERATION: Final = _WIN32 | 4317  # ERROR_INVALID_OPERATION
_NOT_SUPPORTED: Final = _WIN32 | 10045  # WSAEOPNOTSUPP

# The HRESULT that Windows would give for each status.
_HRESULTS: Final[Mapping[SocketErrorStatus, int]] = {
    _S.OPERATION_ABORTED: _WIN32 | 995,  # WSA_OPERATION_ABORTED
    _S.HTTP_INVALID_SERVER_RESPONSE: _WIN32 | 12152,  # WinINet
    _S.CONNECTION_TIMED_OUT: _WIN32 | 10060,
    _S.ADDRESS_FAMILY_NOT_SUPPORTED: _WIN32 | 10047,
    _S.SOCKET_TYPE_NOT_SUPPORTED: _WIN32 | 10044,
    _S.HOST_NOT_FOUND: _WIN32 | 11001,
    _S.NO_DATA_RECORD_OF_REQUESTED_TYPE: _WIN32 | 11004,
    _S.NON_AUTHORITATIVE_HOST_NOT_FOUND: _WIN32 | 11002,
    _S.CLASS_TYPE_NOT_FOUND: _WIN32 | 10109,
    _S.ADDRESS_ALREADY_IN_USE: _WIN32 | 10048,
    _S.CANNOT_ASSIGN_REQUESTED_ADDRESS: _WIN32 | 10049,
    _S.CONNECTION_REFUSED: _WIN32 | 10061,
    _S.NETWORK_IS_UNREACHABLE: _WIN32 | 10051,
    _S.UNREACHABLE_HOST: _WIN32 | 10065,
    _S.NETWORK_IS_DOWN: _WIN32 | 10050,
    _S.NETWORK_DROPPED_CONNECTION_ON_RESET: _WIN32 | 10052,
    _S.SOFTWARE_CAUSED_CONNECTION_ABORT: _WIN32 | 10053,
    _S.CONNECTION_RESET_BY_PEER: _WIN32 | 10054,
    _S.HOST_IS_DOWN: _WIN32 | 10064,
    _S.NO_ADDRESSES_FOUND: _WIN32 | 232,  # ERROR_NO_DATA
    _S.TOO_MANY_OPEN_FILES: _WIN32 | 10024,
    _S.MESSAGE_TOO_LONG: _WIN32 | 10040,
    _S.CERTIFICATE_EXPIRED: 0x800B_0101,
    _S.CERTIFICATE_UNTRUSTED_ROOT: 0x800B_0109,
    _S.CERTIFICATE_COMMON_NAME_IS_INCORRECT: 0x800B_010F,
    _S.CERTIFICATE_WRONG_USAGE: 0x800B_0110,
    _S.CERTIFICATE_REVOKED: 0x800B_010C,
    _S.CERTIFICATE_NO_REVOCATION_CHECK: 0x8009_2012,
    _S.CERTIFICATE_REVOCATION_SERVER_OFFLINE: 0x8009_2013,
    _S.CERTIFICATE_IS_INVALID: 0x800B_0103,  # CERT_E_ROLE, for want of a general one
}

# Other HRESULTs with the same statuses, read but not given.
_STATUS_OF_HRESULT: Final[Mapping[int, SocketErrorStatus]] = {
    **{hresult: status for status, hresult in _HRESULTS.items()},
    _RO_E_CLOSED: _S.OPERATION_ABORTED,
    0x8000_4004: _S.OPERATION_ABORTED,  # E_ABORT
    _WIN32 | 10058: _S.OPERATION_ABORTED,  # WSAESHUTDOWN
    0x800B_0102: _S.CERTIFICATE_EXPIRED,  # CERT_E_VALIDITYPERIODNESTING
    0x800B_010A: _S.CERTIFICATE_UNTRUSTED_ROOT,  # CERT_E_CHAINING
    0x800B_010E: _S.CERTIFICATE_REVOCATION_SERVER_OFFLINE,  # CERT_E_REVOCATION_FAILURE
    0x8009_2010: _S.CERTIFICATE_REVOKED,  # CRYPT_E_REVOKED
}

# Where Winsock's own numbers lie. No errno of a POSIX system is as high, so the two don't collide.
_WINSOCK: Final = range(10_000, 12_000)


def _present(
    numbers: object, table: Mapping[str, SocketErrorStatus]
) -> dict[int, SocketErrorStatus]:
    """Look the names of a table up in a module; not every system has every name."""
    return {getattr(numbers, name): table[name] for name in table if hasattr(numbers, name)}


_STATUS_OF_ERRNO: Final = _present(
    errno,
    {
        "ECANCELED": _S.OPERATION_ABORTED,
        "ETIMEDOUT": _S.CONNECTION_TIMED_OUT,
        "EAFNOSUPPORT": _S.ADDRESS_FAMILY_NOT_SUPPORTED,
        "ESOCKTNOSUPPORT": _S.SOCKET_TYPE_NOT_SUPPORTED,
        "EADDRINUSE": _S.ADDRESS_ALREADY_IN_USE,
        "EADDRNOTAVAIL": _S.CANNOT_ASSIGN_REQUESTED_ADDRESS,
        "ECONNREFUSED": _S.CONNECTION_REFUSED,
        "ENETUNREACH": _S.NETWORK_IS_UNREACHABLE,
        "EHOSTUNREACH": _S.UNREACHABLE_HOST,
        "ENETDOWN": _S.NETWORK_IS_DOWN,
        "ENETRESET": _S.NETWORK_DROPPED_CONNECTION_ON_RESET,
        "ECONNABORTED": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
        "ECONNRESET": _S.CONNECTION_RESET_BY_PEER,
        "EHOSTDOWN": _S.HOST_IS_DOWN,
        "EMFILE": _S.TOO_MANY_OPEN_FILES,
        "ENFILE": _S.TOO_MANY_OPEN_FILES,
        "EMSGSIZE": _S.MESSAGE_TOO_LONG,
        # Two without a status of their own: a write to a connection that the peer has closed, and
        # one after this end has ended its output.
        "EPIPE": _S.CONNECTION_RESET_BY_PEER,
        "ESHUTDOWN": _S.OPERATION_ABORTED,
    },
)

# What no status names has an HRESULT of its own all the same.
_HRESULT_OF_ERRNO: Final[Mapping[int, int]] = {
    errno.ENOENT: _WIN32 | 2,
    errno.ENOMEM: _WIN32 | 14,
    errno.EINVAL: _E_INVALIDARG,
    errno.EACCES: _WIN32 | 10013,
    errno.EPERM: _WIN32 | 10013,
    errno.EOPNOTSUPP: _NOT_SUPPORTED,
    errno.ENOBUFS: _WIN32 | 10055,
    errno.ENOTCONN: _WIN32 | 10057,
}

_STATUS_OF_EAI: Final = _present(
    socket,
    {
        # Before EAI_NONAME: some systems have one number for both, and that is the plainer answer.
        "EAI_NODATA": _S.NO_DATA_RECORD_OF_REQUESTED_TYPE,
        "EAI_ADDRFAMILY": _S.NO_DATA_RECORD_OF_REQUESTED_TYPE,
        "EAI_NONAME": _S.HOST_NOT_FOUND,
        "EAI_AGAIN": _S.NON_AUTHORITATIVE_HOST_NOT_FOUND,
        "EAI_SERVICE": _S.CLASS_TYPE_NOT_FOUND,
        "EAI_FAMILY": _S.ADDRESS_FAMILY_NOT_SUPPORTED,
        "EAI_SOCKTYPE": _S.SOCKET_TYPE_NOT_SUPPORTED,
    },
)

# The values of h_errno in <netdb.h>, which Python does not name.
_STATUS_OF_H_ERRNO: Final[Mapping[int, SocketErrorStatus]] = {
    1: _S.HOST_NOT_FOUND,
    2: _S.NON_AUTHORITATIVE_HOST_NOT_FOUND,
    4: _S.NO_DATA_RECORD_OF_REQUESTED_TYPE,
}

# X509_V_ERR_… in OpenSSL's <x509_vfy.h>; what is not here is CERTIFICATE_IS_INVALID.
_STATUS_OF_VERIFY_CODE: Final[Mapping[int, SocketErrorStatus]] = {
    2: _S.CERTIFICATE_UNTRUSTED_ROOT,  # the certificate of an issuer is missing
    3: _S.CERTIFICATE_NO_REVOCATION_CHECK,  # no revocation list
    9: _S.CERTIFICATE_EXPIRED,  # not valid yet
    10: _S.CERTIFICATE_EXPIRED,
    18: _S.CERTIFICATE_UNTRUSTED_ROOT,  # self-signed
    19: _S.CERTIFICATE_UNTRUSTED_ROOT,  # self-signed, further up the chain
    20: _S.CERTIFICATE_UNTRUSTED_ROOT,  # the issuer is not among those trusted
    21: _S.CERTIFICATE_UNTRUSTED_ROOT,  # the chain is one certificate long
    23: _S.CERTIFICATE_REVOKED,
    26: _S.CERTIFICATE_WRONG_USAGE,
    27: _S.CERTIFICATE_UNTRUSTED_ROOT,  # marked as not trusted for this
    62: _S.CERTIFICATE_COMMON_NAME_IS_INCORRECT,  # host name
    63: _S.CERTIFICATE_COMMON_NAME_IS_INCORRECT,  # e-mail address
    64: _S.CERTIFICATE_COMMON_NAME_IS_INCORRECT,  # IP address
}

# Reasons in OpenSSL's error queue why this end refused its peer.
_STATUS_OF_REASON: Final[Mapping[str, SocketErrorStatus]] = {
    "certificate verify failed": _S.CERTIFICATE_IS_INVALID,
    "peer did not return a certificate": _S.CERTIFICATE_IS_INVALID,
    "no application protocol": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    "no protocols available": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    "no shared cipher": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    "unsupported protocol": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    "wrong ssl version": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
}

# Alerts by which the peer refused this end (RFC 8446 section 6.2), as they stand in such a reason
# behind "tlsv1 alert" or "sslv3 alert"; the prefix differs between versions of OpenSSL. Any other
# alert counts as a reset by the peer.
_STATUS_OF_ALERT: Final[Mapping[str, SocketErrorStatus]] = {
    "bad certificate": _S.CERTIFICATE_IS_INVALID,
    "certificate expired": _S.CERTIFICATE_EXPIRED,
    "certificate required": _S.CERTIFICATE_IS_INVALID,
    "certificate revoked": _S.CERTIFICATE_REVOKED,
    "certificate unknown": _S.CERTIFICATE_IS_INVALID,
    "no certificate": _S.CERTIFICATE_IS_INVALID,
    "unknown ca": _S.CERTIFICATE_UNTRUSTED_ROOT,
    # What OpenSSL answers to a certificate that was issued for another purpose.
    "unsupported certificate": _S.CERTIFICATE_WRONG_USAGE,
    "access denied": _S.CONNECTION_REFUSED,
    # No cipher in common or, before TLS 1.3, no certificate of this end.
    "handshake failure": _S.CONNECTION_REFUSED,
    "inappropriate fallback": _S.CONNECTION_REFUSED,
    "insufficient security": _S.CONNECTION_REFUSED,
    "no application protocol": _S.CONNECTION_REFUSED,
    "protocol version": _S.CONNECTION_REFUSED,
    "unrecognized name": _S.CONNECTION_REFUSED,
}


def _number(exception: Any) -> int | None:
    """Find the number of an exception: ``errno``, Twisted's ``osError``, or what comes first."""
    fields = (getattr(exception, "errno", None), getattr(exception, "osError", None))
    for field in (*fields, *exception.args[:1]):
        if isinstance(field, int):
            return field
    return None


def _reasons(exception: Any) -> list[str]:
    """
    Read OpenSSL's error queue.

    pyOpenSSL keeps a list of ``(library, function, reason)``, `ssl` the constant of one reason.
    """
    reason = getattr(exception, "reason", None)
    if isinstance(reason, str):
        return [reason.replace("_", " ").lower()]
    queue = exception.args[0] if exception.args else ()
    if not isinstance(queue, (list, tuple)):
        return []
    return [str(entry[-1]) for entry in queue if isinstance(entry, tuple) and entry]


_Evidence = Callable[[Any], SocketErrorStatus | None]


def _numbered(table: Mapping[int, SocketErrorStatus]) -> _Evidence:
    def read(exception: Any) -> SocketErrorStatus | None:
        number = _number(exception)
        return None if number is None else table.get(number)

    return read


def _by_verify_code(exception: Any) -> SocketErrorStatus | None:
    return _STATUS_OF_VERIFY_CODE.get(getattr(exception, "verify_code", None) or 0)


def _by_reason(exception: Any) -> SocketErrorStatus | None:
    for reason in _reasons(exception):
        _, is_alert, alert = reason.rpartition(" alert ")
        if is_alert:
            return _STATUS_OF_ALERT.get(alert, _S.CONNECTION_RESET_BY_PEER)
        if reason in _STATUS_OF_REASON:
            return _STATUS_OF_REASON[reason]
    return None


_by_errno: Final = _numbered(_STATUS_OF_ERRNO)
_by_eai: Final = _numbered(_STATUS_OF_EAI)
_by_h_errno: Final = _numbered(_STATUS_OF_H_ERRNO)


class _Rule(NamedTuple):  # a dataclass would double the time to import this module
    """What a class of exceptions says about the status."""

    status: SocketErrorStatus = _S.UNKNOWN  # where the evidence says nothing
    evidence: _Evidence | None = None
    is_vague: bool = False  # a cause that says more goes first
    hresult: int | None = None  # where neither the status nor an ``errno`` brings one

    def read(self, exception: object) -> SocketErrorStatus:
        found = self.evidence(exception) if self.evidence else None
        return self.status if found is None else found


_FAILURE: Final = "twisted.python.failure.Failure"
_MISMATCH: Final = "service_identity.exceptions.VerificationError"
_ABORTED: Final = _Rule(_S.OPERATION_ABORTED)
# Without evidence: the number in Twisted's `TimeoutError(30, "Deferred")` is of seconds.
_TIMED_OUT: Final = _Rule(_S.CONNECTION_TIMED_OUT)
_WRONG_NAME: Final = _Rule(_S.CERTIFICATE_COMMON_NAME_IS_INCORRECT)
# WinRT has an HRESULT for a bad parameter of a call, and no status.
_BAD_PARAMETER: Final = _Rule(hresult=_E_INVALIDARG)
_NO_RULE: Final = _Rule()

# By module and name, since those modules are not to be imported. A subclass falls under the rule of
# its nearest base.
_RULES: Final[Mapping[str, _Rule]] = {
    "builtins.OSError": _Rule(evidence=_by_errno),
    "builtins.BrokenPipeError": _Rule(_S.CONNECTION_RESET_BY_PEER, _by_errno),
    "builtins.ConnectionAbortedError": _Rule(_S.SOFTWARE_CAUSED_CONNECTION_ABORT, _by_errno),
    "builtins.ConnectionRefusedError": _Rule(_S.CONNECTION_REFUSED, _by_errno),
    "builtins.ConnectionResetError": _Rule(_S.CONNECTION_RESET_BY_PEER, _by_errno),
    "builtins.TimeoutError": _TIMED_OUT,
    "builtins.TypeError": _BAD_PARAMETER,
    "builtins.ValueError": _BAD_PARAMETER,
    "asyncio.exceptions.CancelledError": _ABORTED,
    "asyncio.exceptions.TimeoutError": _TIMED_OUT,  # until Python 3.10 no alias of the built-in
    "concurrent.futures._base.CancelledError": _ABORTED,
    "concurrent.futures._base.TimeoutError": _TIMED_OUT,  # as above
    "socket.gaierror": _Rule(evidence=_by_eai),
    "socket.herror": _Rule(evidence=_by_h_errno),
    # The errno of these is not the operating system's, but a result of OpenSSL's.
    "ssl.SSLError": _Rule(evidence=_by_reason, is_vague=True),
    "ssl.SSLCertVerificationError": _Rule(_S.CERTIFICATE_IS_INVALID, _by_verify_code),
    "ssl.SSLEOFError": _Rule(_S.CONNECTION_RESET_BY_PEER),
    "ssl.SSLZeroReturnError": _ABORTED,
    "OpenSSL.SSL.Error": _Rule(evidence=_by_reason, is_vague=True),
    # Without an errno: the peer was gone in the middle of TLS.
    "OpenSSL.SSL.SysCallError": _Rule(_S.CONNECTION_RESET_BY_PEER, _by_errno),
    "OpenSSL.SSL.ZeroReturnError": _ABORTED,
    _MISMATCH: _WRONG_NAME,
    "service_identity.exceptions.CertificateError": _WRONG_NAME,
    "service_identity.exceptions.Mismatch": _WRONG_NAME,
    "twisted.internet._sslverify.SimpleVerificationError": _WRONG_NAME,
    "twisted.internet.defer.CancelledError": _ABORTED,
    "twisted.internet.defer.TimeoutError": _TIMED_OUT,
    "twisted.internet.error.CertificateError": _Rule(_S.CERTIFICATE_IS_INVALID),
    "twisted.internet.error.ConnectError": _Rule(evidence=_by_errno),
    "twisted.internet.error.ConnectingCancelledError": _ABORTED,
    "twisted.internet.error.ConnectionAborted": _ABORTED,
    "twisted.internet.error.ConnectionDone": _Rule(_S.OPERATION_ABORTED, is_vague=True),
    # Twisted says no more, whatever the kernel had said.
    "twisted.internet.error.ConnectionLost": _Rule(_S.CONNECTION_RESET_BY_PEER, is_vague=True),
    "twisted.internet.error.ConnectionRefusedError": _Rule(_S.CONNECTION_REFUSED, _by_errno),
    "twisted.internet.error.DNSLookupError": _Rule(_S.HOST_NOT_FOUND, _by_eai, is_vague=True),
    "twisted.internet.error.MessageLengthError": _Rule(_S.MESSAGE_TOO_LONG),
    "twisted.internet.error.NoRouteError": _Rule(_S.UNREACHABLE_HOST, _by_errno),
    "twisted.internet.error.NotConnectingError": _ABORTED,
    "twisted.internet.error.ServiceNameUnknownError": _Rule(_S.CLASS_TYPE_NOT_FOUND),
    "twisted.internet.error.TCPTimedOutError": _TIMED_OUT,
    "twisted.internet.error.TimeoutError": _TIMED_OUT,
    "twisted.internet.error.UnknownHostError": _Rule(_S.HOST_NOT_FOUND, _by_eai, is_vague=True),
    "twisted.internet.error.UnsupportedAddressFamily": _Rule(_S.ADDRESS_FAMILY_NOT_SUPPORTED),
    "twisted.internet.error.UnsupportedSocketType": _Rule(_S.SOCKET_TYPE_NOT_SUPPORTED),
    "twisted.internet.error.UserError": _ABORTED,
    "twisted.internet.error.VerifyError": _Rule(_S.CERTIFICATE_IS_INVALID),
    "twisted.names.error.AuthoritativeDomainError": _Rule(_S.NO_DATA_RECORD_OF_REQUESTED_TYPE),
    "twisted.names.error.DomainError": _Rule(_S.NO_DATA_RECORD_OF_REQUESTED_TYPE),
    "twisted.names.error.DNSNameError": _Rule(_S.HOST_NOT_FOUND),
    "twisted.names.error.DNSServerError": _Rule(_S.NON_AUTHORITATIVE_HOST_NOT_FOUND),
    # Subclasses of DomainError that say nothing about records.
    "twisted.names.error.DNSFormatError": _NO_RULE,
    "twisted.names.error.DNSNotImplementedError": _NO_RULE,
    "twisted.names.error.DNSQueryRefusedError": _NO_RULE,
    "twisted.names.error.DNSUnknownError": _NO_RULE,
}


def _class_names(thing: object) -> list[str]:
    return [f"{base.__module__}.{base.__qualname__}" for base in type(thing).__mro__]


def _rule_of(thing: object) -> _Rule:
    return next((_RULES[name] for name in _class_names(thing) if name in _RULES), _NO_RULE)


def _is_failure(thing: object) -> bool:
    return _FAILURE in _class_names(thing)


def _held(exception: BaseException) -> list[Any]:
    """List the exceptions among the arguments: Twisted's ``CannotListenError`` has one there."""
    return [arg for arg in exception.args if isinstance(arg, BaseException) or _is_failure(arg)]


def _inside(thing: Any) -> list[Any]:
    """List what an exception stands for, nearest first: what it holds, then its cause."""
    if _is_failure(thing):
        return [thing.value]
    if not isinstance(thing, BaseException):
        return []
    if thing.__cause__ is not None:
        return [*_held(thing), thing.__cause__]
    # A bad parameter may be passed while another error is handled; that error is not its cause.
    has_context = thing.__context__ is not None and not thing.__suppress_context__
    if has_context and _rule_of(thing) is not _BAD_PARAMETER:
        return [*_held(thing), thing.__context__]
    return _held(thing)


def _chain(first: object) -> Iterator[Any]:
    """Give a thing and all inside it, outer before inner, each once: causes can go round."""
    waiting, seen = [first], set()
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen:
            seen.add(id(thing))
            yield thing
            waiting.extend(reversed(_inside(thing)))


def _diagnose(thing: object) -> tuple[SocketErrorStatus, object]:
    """Give the status and what knew it, which is None where nothing did."""
    vague: tuple[SocketErrorStatus, object] = (_S.UNKNOWN, None)
    for found in _chain(thing):
        if isinstance(found, SocketError):
            return found.status, found
        rule = _rule_of(found)
        status = rule.read(found)
        if status is not _S.UNKNOWN and not rule.is_vague:
            return status, found
        if vague[0] is _S.UNKNOWN and status is not _S.UNKNOWN:
            vague = status, found
    return vague


def _status_of_number(number: int) -> SocketErrorStatus:
    if number in _STATUS_OF_ERRNO:
        return _STATUS_OF_ERRNO[number]
    if number in _WINSOCK:
        number |= _WIN32
    if not -0x8000_0000 <= number <= 0xFFFF_FFFF:
        return _S.UNKNOWN
    return _STATUS_OF_HRESULT.get(number & 0xFFFF_FFFF, _S.UNKNOWN)


def _errno_of(thing: object) -> int | None:
    # The numbers of the resolver, of OpenSSL and of a timeout only look like one.
    return _number(thing) if _rule_of(thing).evidence is _by_errno else None


def _hresult_of(thing: object) -> int | None:
    number = _errno_of(thing)
    return _rule_of(thing).hresult if number is None else _HRESULT_OF_ERRNO.get(number)


def _hresult_without_status(exception: object) -> int | None:
    """Find an HRESULT for what has no status: an ``errno`` without one, or a bad parameter."""
    hresults = map(_hresult_of, _chain(exception))
    return next((hresult for hresult in hresults if hresult is not None), None)


def _first_words(exception: object) -> str:
    """Give the outermost words there are, or else the name of the class."""
    texts = (_own_words(found) for found in _chain(exception) if isinstance(found, BaseException))
    heading = getattr(exception, "MESSAGE", type(exception).__name__)
    return next((text for text in texts if text), str(heading))


def _own_words(exception: Any) -> str:
    """Give what an exception itself has to say; empty if nothing, or what it holds says more."""
    if isinstance(exception, SocketError):
        return str(exception)
    if getattr(exception, "verify_message", None):
        return f"certificate verify failed: {exception.verify_message}"
    if _MISMATCH in _class_names(exception):
        return f"the certificate does not name {_wanted_names(exception.errors)}"
    is_tls = _rule_of(exception).evidence is _by_reason
    if is_tls and _reasons(exception):
        return "; ".join(_reasons(exception))
    if isinstance(exception, OSError) and exception.strerror:
        return ": ".join([exception.strerror, *_files(exception)])
    return "" if is_tls or _held(exception) else _argument_words(exception)


def _files(error: OSError) -> list[str]:
    names = [name for name in (error.filename, error.filename2) if name is not None]
    texts = [os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in names]
    return [" -> ".join(texts)] if texts else []


def _argument_words(exception: Any) -> str:
    """Make a sentence out of the arguments of an exception, of which Twisted's have a heading."""
    texts = [arg for arg in exception.args if isinstance(arg, str) and arg]
    sentences = [text for text in texts if " " in text]
    if sentences:
        return sentences[0]
    number = _errno_of(exception)
    if number is not None and number in errno.errorcode:
        return os.strerror(number)
    if texts and hasattr(exception, "MESSAGE"):
        return f"{exception.MESSAGE.strip()}: {texts[0]}"
    # Where the class alone says why, its status is clearer than one word, as in Twisted's
    # `TimeoutError(30, "Deferred")`.
    return texts[0] if texts and _rule_of(exception).status is _S.UNKNOWN else ""


def _wanted_names(mismatches: Any) -> str:
    """Name the hosts that the certificate should have been for, as service-identity tells them."""
    wanted = [getattr(mismatch, "mismatched_id", None) for mismatch in mismatches]
    names = [getattr(host, "hostname", None) or getattr(host, "ip", None) for host in wanted]
    texts = [os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in names if name]
    return ", ".join(texts) or "this host"


_E = TypeVar("_E", bound="SocketError")


class SocketError(Exception):
    """
    An operation failed. Every failure that twsock reports is one of these.

    :ivar status: why, as far as it is known.
    :ivar hresult: the number Windows would give, unsigned, so 0x80000000 or more.
    :param message: what happened, for people.
    :param status: left out, it follows from ``hresult``, or else from the class.
    :param hresult: signed or unsigned; left out, it follows from ``status``, or else from the
        class.
    """

    status: SocketErrorStatus
    hresult: int

    _class_status: ClassVar[SocketErrorStatus] = SocketErrorStatus.UNKNOWN
    _class_hresult: ClassVar[int] = _E_FAIL

    def __init__(
        self,
        message: str,
        *,
        status: SocketErrorStatus | None = None,
        hresult: int | None = None,
    ) -> None:
        super().__init__(message)
        if hresult is None:
            hresult = self._class_hresult
            if status is not None and status is not self._class_status:
                hresult = _HRESULTS.get(status, hresult)
        self.hresult = hresult & 0xFFFF_FFFF
        if status is None:
            status = _STATUS_OF_HRESULT.get(self.hresult, self._class_status)
        self.status = status

    @property
    def summary(self) -> str:
        """One line for the users of command line tools: ``ConnectionRefused (12): …``."""
        return f"{self.status.documented_name} ({self.status.value}): {' '.join(str(self).split())}"

    @classmethod
    def from_exception(cls: type[_E], exception: BaseException, message: str | None = None) -> _E:
        """
        Tell any failure as an error of this class, with the failure as its ``__cause__``.

        :param exception: of the operating system, of Twisted, of TLS…, a ``Failure`` included. A
            `SocketError` hands its status and HRESULT on.
        :param message: left out, it is what the operating system or the library had to say.
        """
        failed: Any = exception
        cause = failed.value if _is_failure(failed) else failed
        status, knower = _diagnose(cause)
        if knower is None:
            words, hresult = _first_words(cause), _hresult_without_status(cause)
            error = cls(words if message is None else message, hresult=hresult)
        else:
            # Not the words of what is around it, which would repeat the status or not fit it.
            words = _own_words(knower) or status.name.replace("_", " ").capitalize()
            hresult = knower.hresult if isinstance(knower, SocketError) else None
            error = cls(words if message is None else message, status=status, hresult=hresult)
        error.__cause__ = cause
        return error

    def copy(self: _E) -> _E:
        """
        Return an equal error that was never raised: same class, text, attributes and cause.

        Use it to report one failure to several waiters, or to keep it. An exception that was raised
        holds the frames of its traceback and all their variables.
        """
        made = type(self).__new__(type(self), *self.args)
        made.__dict__.update(self.__dict__)
        made.__cause__ = self.__cause__
        return made

    @staticmethod
    def get_status(thing: object) -> SocketErrorStatus:
        """
        Find the status of any failure.

        :param thing: an exception, a ``Failure``, an HRESULT (signed or unsigned), or an ``errno``.
        :returns: `SocketErrorStatus.UNKNOWN` for what says nothing.
        """
        if isinstance(thing, SocketErrorStatus):
            return thing
        if isinstance(thing, int):
            return _status_of_number(thing)
        return _diagnose(thing)[0]


class ProtocolError(SocketError):
    """A rule of the wire format was broken."""

    _class_hresult = _INVALID_DATA


class LocalProtocolError(ProtocolError):
    """By this side: the calling code is wrong."""

    _class_hresult = _E_ILLEGAL_METHOD_CALL


class RemoteProtocolError(ProtocolError):
    """By the peer: the connection is not to be trusted any more."""


class ClosedError(SocketError):
    """The application closed this end."""

    _class_status = SocketErrorStatus.OPERATION_ABORTED
    _class_hresult = _RO_E_CLOSED


class BrokenError(SocketError):
    """The connection died; the reason is in ``__cause__``. See `SocketError.from_exception`."""


class BusyError(SocketError):
    """A second read or write, while one is pending; the pending one goes on undisturbed."""

    _class_hresult = _INVALID_OPERATION


class OperationNotSupported(SocketError):  # noqa: N818 - the name is documented
    """The operation exists, but not here: not on such a stream, machine or OpenSSL."""

    _class_hresult = _NOT_SUPPORTED
