"""
Why an address could not be listened on or connected to: failure → **status and line**.

Used by whatever binds or connects. The errors of the operating system for paths and rights have no
status of their own, as the same number means something else for a file: what they mean for an
address is known only here, where it is known that an address was asked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet.error import ConnectBindError, ConnectError
from twisted.python.failure import Failure

from twsock.errors import SocketError, SocketErrorStatus
from twsock.transport.zones import describe_missing_zone

__all__ = ["EndpointError", "connecting_error", "listening_error", "missing_zone_error"]

#: Ports below need a right of their own on most systems; Linux lets an administrator change it.
_FIRST_FREE_PORT: Final = 1024

_NO_ADDRESS: Final = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
_NO_WAY: Final = SocketErrorStatus.UNREACHABLE_HOST

_NO_ZONE: Final = "an address of one link (fe80::/10) needs its interface, as in fe80::1%eth0"

_DENIED: Final = frozenset({errno.EACCES, errno.EPERM})
_NO_PATH: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_UNUSABLE: Final = _DENIED | _NO_PATH | {errno.EROFS, errno.ENAMETOOLONG, errno.EISDIR}


class EndpointError(SocketError, ValueError):
    """
    A string names no endpoint.

    Its status is ``CANNOT_ASSIGN_REQUESTED_ADDRESS`` unless a better one is given.
    """

    _class_status = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
    _class_hresult = 0x8007_0057  # E_INVALIDARG


def listening_error(failure: BaseException | Failure, message: str | None = None) -> SocketError:
    """
    Describe why a local address could not be listened on or bound.

    :param message: left out, it is what the operating system had to say, with what to do about it.
    :returns: with status ``CANNOT_ASSIGN_REQUESTED_ADDRESS`` for a path that is not there, a right
        that is missing or a link-local address without a zone; else as
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
    words = str(found) if message is not None else _words(failure, found, number)
    return _with_status(found, words, _NO_ADDRESS)


def connecting_error(failure: BaseException | Failure) -> SocketError:
    """
    Describe why a remote address could not be connected to.

    :returns: with status ``HOST_NOT_FOUND`` for the path of a UNIX socket that is not there,
        ``UNREACHABLE_HOST`` where a right is missing, and for a link-local address without a zone;
        ``CANNOT_ASSIGN_REQUESTED_ADDRESS`` where that is the local address; else as
        `SocketError.from_exception`.
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
        return _with_status(found, str(found), _NO_WAY)
    return found


def missing_zone_error(failure: BaseException | Failure) -> SocketError | None:
    """
    Explain a connect that failed for want of an interface; None where that is not the reason.

    connect(2) and, before it, bind(2) call nothing else an invalid argument. Which address it was
    is not in the failure.
    """
    exception = _exception(failure)
    if not isinstance(exception, ConnectError) or exception.osError != errno.EINVAL:
        return None
    is_local = isinstance(exception, ConnectBindError)
    error = SocketError(_NO_ZONE, status=_NO_ADDRESS if is_local else _NO_WAY)
    error.__cause__ = exception
    return error


def _with_status(found: SocketError, words: str, status: SocketErrorStatus) -> SocketError:
    # The HRESULT says more than the status where there is one for the error.
    error = SocketError(words, status=status, hresult=found.hresult)
    error.__cause__ = found.__cause__
    return error


def _words(failure: BaseException | Failure, found: SocketError, number: int | None) -> str:
    where = getattr(_exception(failure), "port", None)
    if isinstance(where, int) and 0 < where < _FIRST_FREE_PORT and number in _DENIED:
        return f"{found}: port {where} is for root, or takes CAP_NET_BIND_SERVICE"
    if isinstance(where, (str, bytes)) and number in _NO_PATH:
        return f"{found}: its folder is missing"
    return str(found)


def _exception(failure: BaseException | Failure) -> BaseException:
    if not isinstance(failure, Failure):
        return failure
    assert failure.value is not None
    return failure.value


def _errno(failure: BaseException | Failure) -> int | None:
    """Find the number of the operating system's error in what stands for it."""
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
