"""
The status of a failed WebSocket: exception or HRESULT → `WebErrorStatus`.

Failures of WebSockets are `SocketError` exceptions. This module has the tables from their HRESULTs
and statuses to the statuses of the Web, as in WinRT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twsock.errors.diagnosis import is_failure
from twsock.errors.socket_error import SocketError
from twsock.errors.statuses import WIN32, SocketErrorStatus, WebErrorStatus

__all__ = ["CONNECTION_ABORTED", "INET_E_SECURITY_PROBLEM", "WebSocketError"]

#: WININET_E_CONNECTION_ABORTED: the connection of a WebSocket was lost.
CONNECTION_ABORTED: Final = WIN32 | 12030
#: The application refused the certificate of the server.
INET_E_SECURITY_PROBLEM: Final = 0x800C_000E

#: Added to an HTTP status, this is the HRESULT: the failure bit and the facility of HTTP.
_HTTP: Final = 0x8019_0000

_S, _W = SocketErrorStatus, WebErrorStatus

#: HRESULTs of WinINet and of HTTP.
_STATUS_OF_HRESULT: Final[Mapping[int, WebErrorStatus]] = {
    WIN32 | 12002: _W.TIMEOUT,
    WIN32 | 12007: _W.HOST_NAME_NOT_RESOLVED,
    WIN32 | 12017: _W.OPERATION_CANCELED,
    WIN32 | 12029: _W.CANNOT_CONNECT,
    CONNECTION_ABORTED: _W.CONNECTION_ABORTED,
    WIN32 | 12031: _W.CONNECTION_RESET,
    WIN32 | 12037: _W.CERTIFICATE_EXPIRED,
    WIN32 | 12038: _W.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
    WIN32 | 12039: _W.HTTP_TO_HTTPS_ON_REDIRECTION,
    WIN32 | 12040: _W.HTTPS_TO_HTTP_ON_REDIRECTION,
    WIN32 | 12045: _W.CERTIFICATE_IS_INVALID,
    WIN32 | 12055: _W.CERTIFICATE_CONTAINS_ERRORS,
    WIN32 | 12152: _W.ERROR_HTTP_INVALID_SERVER_RESPONSE,
    WIN32 | 12156: _W.REDIRECT_FAILED,
    WIN32 | 12163: _W.DISCONNECTED,
    WIN32 | 12164: _W.SERVER_UNREACHABLE,
    WIN32 | 12169: _W.CERTIFICATE_IS_INVALID,
    WIN32 | 12170: _W.CERTIFICATE_REVOKED,
    _HTTP | 1: _W.UNEXPECTED_STATUS_CODE,
    _HTTP | 3: _W.UNEXPECTED_REDIRECTION,
    _HTTP | 4: _W.UNEXPECTED_CLIENT_ERROR,
    _HTTP | 5: _W.UNEXPECTED_SERVER_ERROR,
    **{_HTTP | status: status for status in WebErrorStatus if status >= 300},
}

#: A status without an entry is ``UNKNOWN``.
_STATUS_OF_STATUS: Final[Mapping[SocketErrorStatus, WebErrorStatus]] = {
    _S.OPERATION_ABORTED: _W.OPERATION_CANCELED,
    _S.HTTP_INVALID_SERVER_RESPONSE: _W.ERROR_HTTP_INVALID_SERVER_RESPONSE,
    _S.CONNECTION_TIMED_OUT: _W.TIMEOUT,
    _S.HOST_NOT_FOUND: _W.HOST_NAME_NOT_RESOLVED,
    _S.NO_DATA_RECORD_OF_REQUESTED_TYPE: _W.HOST_NAME_NOT_RESOLVED,
    _S.NON_AUTHORITATIVE_HOST_NOT_FOUND: _W.HOST_NAME_NOT_RESOLVED,
    _S.NO_ADDRESSES_FOUND: _W.HOST_NAME_NOT_RESOLVED,
    _S.CONNECTION_REFUSED: _W.CANNOT_CONNECT,
    _S.NETWORK_IS_UNREACHABLE: _W.CANNOT_CONNECT,
    _S.UNREACHABLE_HOST: _W.CANNOT_CONNECT,
    _S.NETWORK_IS_DOWN: _W.CANNOT_CONNECT,
    _S.HOST_IS_DOWN: _W.CANNOT_CONNECT,
    _S.NETWORK_DROPPED_CONNECTION_ON_RESET: _W.CONNECTION_ABORTED,
    _S.SOFTWARE_CAUSED_CONNECTION_ABORT: _W.CONNECTION_ABORTED,
    _S.CONNECTION_RESET_BY_PEER: _W.CONNECTION_RESET,
    _S.CERTIFICATE_EXPIRED: _W.CERTIFICATE_EXPIRED,
    _S.CERTIFICATE_UNTRUSTED_ROOT: _W.CERTIFICATE_IS_INVALID,
    _S.CERTIFICATE_COMMON_NAME_IS_INCORRECT: _W.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
    _S.CERTIFICATE_WRONG_USAGE: _W.CERTIFICATE_CONTAINS_ERRORS,
    _S.CERTIFICATE_REVOKED: _W.CERTIFICATE_REVOKED,
    _S.CERTIFICATE_NO_REVOCATION_CHECK: _W.CERTIFICATE_CONTAINS_ERRORS,
    _S.CERTIFICATE_REVOCATION_SERVER_OFFLINE: _W.CERTIFICATE_CONTAINS_ERRORS,
    _S.CERTIFICATE_IS_INVALID: _W.CERTIFICATE_IS_INVALID,
}


class WebSocketError:
    """
    Returns the status of a failed WebSocket; ``Windows.Networking.Sockets.WebSocketError``.

    This class is no exception: WebSockets raise `SocketError` and its subclasses.
    """

    @staticmethod
    def get_status(thing: object) -> WebErrorStatus:
        """
        Return the status of any failure.

        :param thing: an exception, a ``Failure``, or an HRESULT (signed or unsigned).
        :returns: the HTTP status if a server refused and there is a member for its status;
            `WebErrorStatus.UNKNOWN` if the failure does not show its reason.
        """
        if isinstance(thing, WebErrorStatus):
            return thing
        hresult = thing
        if not isinstance(thing, int):
            error = getattr(thing, "value", None) if is_failure(thing) else thing
            status = getattr(error, "web_status", None)
            if isinstance(status, WebErrorStatus):
                return status
            hresult = getattr(error, "hresult", None)
        if isinstance(hresult, int):
            found = _STATUS_OF_HRESULT.get(hresult & 0xFFFF_FFFF)
            if found is not None:
                return found
        return _STATUS_OF_STATUS.get(SocketError.get_status(thing), WebErrorStatus.UNKNOWN)
