"""
Errors of bind and connect: failure → **status and message**.

All code that binds or connects uses it. The operating system's error numbers for paths and
permissions have no status in general, since they mean something else for a file. Here the call was
about an address, so they get a status.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet.error import ConnectBindError, ConnectError
from twisted.python.failure import Failure

from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.zones import describe_missing_zone

__all__ = ["EndpointError", "connecting_error", "listening_error", "missing_zone_error"]

#: Lower ports need a privilege on most systems; on Linux ``net.ipv4.ip_unprivileged_port_start``.
_FIRST_UNPRIVILEGED_PORT: Final = 1024

_NO_ADDRESS: Final = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
_UNREACHABLE: Final = SocketErrorStatus.UNREACHABLE_HOST

_NO_ZONE: Final = "a link-local address (fe80::/10) needs its interface, as in fe80::1%eth0"

_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})
_NO_PATH: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_UNUSABLE: Final = _DENIED | _NO_PATH | {errno.EROFS, errno.ENAMETOOLONG, errno.EISDIR}


class EndpointError(SocketError, ValueError):
    """
    A string is not an endpoint.

    Its status is ``CANNOT_ASSIGN_REQUESTED_ADDRESS``, unless the caller passes another.
    """

    _class_status = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
    _class_hresult = 0x8007_0057  # E_INVALIDARG


def listening_error(failure: BaseException | Failure, message: str | None = None) -> SocketError:
    """
    Describe why a local address could not be listened on or bound.

    :param message: None for the text of the operating system, with advice where there is some.
    :returns: an error with status ``CANNOT_ASSIGN_REQUESTED_ADDRESS`` for a missing path, a missing
        permission or a link-local address without a zone. Otherwise the result of
        `SocketError.from_exception`.
    """
    found = SocketError.from_exception(_exception(failure), message)
    number = _errno(failure)
    interface = getattr(_exception(failure), "interface", None)
    if number == errno.EINVAL and isinstance(interface, str):
        invalid = OSError(number, os.strerror(number))
        return describe_missing_zone(interface, invalid, _NO_ADDRESS) or found
    if (
        found.status is not SocketErrorStatus.UNKNOWN
        or number not in _DENIED | _NO_PATH | _UNUSABLE
    ):
        return found
    text = str(found) if message is not None else _text_with_advice(failure, found, number)
    return _with_status(found, text, _NO_ADDRESS)


def connecting_error(failure: BaseException | Failure) -> SocketError:
    """
    Describe why a remote address could not be connected to.

    :returns: an error with one of these statuses, otherwise the result of
        `SocketError.from_exception`. A missing path of a UNIX socket has ``HOST_NOT_FOUND``. A
        missing permission, and a remote link-local address without a zone, have
        ``UNREACHABLE_HOST``. A local one has ``CANNOT_ASSIGN_REQUESTED_ADDRESS``.
    """
    found = SocketError.from_exception(_exception(failure))
    number = _errno(failure)
    if found.status is not SocketErrorStatus.UNKNOWN:
        return found
    missing_zone = missing_zone_error(failure)
    if missing_zone is not None:
        return missing_zone
    if number in _NO_PATH:
        return _with_status(found, str(found), SocketErrorStatus.HOST_NOT_FOUND)
    if number in _DENIED:
        return _with_status(found, str(found), _UNREACHABLE)
    return found


def missing_zone_error(failure: BaseException | Failure) -> SocketError | None:
    """
    Explain a connect that failed because its address has no zone.

    connect(2), and bind(2) before it, return EINVAL for no other reason. The failure does not
    contain the address.

    :returns: None if a missing zone is not the reason.
    """
    exception = _exception(failure)
    if not isinstance(exception, ConnectError) or exception.osError != errno.EINVAL:
        return None
    is_local = isinstance(exception, ConnectBindError)
    error = SocketError(_NO_ZONE, status=_NO_ADDRESS if is_local else _UNREACHABLE)
    error.__cause__ = exception
    return error


def _with_status(found: SocketError, text: str, status: SocketErrorStatus) -> SocketError:
    # The HRESULT of the error number is more precise than that of the status.
    error = SocketError(text, status=status, hresult=found.hresult)
    error.__cause__ = found.__cause__
    return error


def _text_with_advice(
    failure: BaseException | Failure, found: SocketError, number: int | None
) -> str:
    where = getattr(_exception(failure), "port", None)
    if isinstance(where, int) and 0 < where < _FIRST_UNPRIVILEGED_PORT and number in _DENIED:
        return f"{found}: port {where} needs root or CAP_NET_BIND_SERVICE"
    if isinstance(where, (str, bytes)) and number in _NO_PATH:
        return f"{found}: its folder does not exist"
    return str(found)


def _exception(failure: BaseException | Failure) -> BaseException:
    if not isinstance(failure, Failure):
        return failure
    assert failure.value is not None
    return failure.value


def _errno(failure: BaseException | Failure) -> int | None:
    """Return the operating system's error number behind an exception; None if there is none."""
    for found in _chain(_exception(failure)):
        number = found.errno if isinstance(found, OSError) else getattr(found, "osError", None)
        if isinstance(number, int):
            return number
    return None


def _chain(error: Any) -> Iterator[Any]:
    seen: set[int] = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        yield error
        # Twisted's CannotListenError keeps the error as an attribute.
        error = getattr(error, "socketError", None) or error.__cause__
