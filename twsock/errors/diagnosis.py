"""
The diagnosis of an exception: its status, its HRESULT, and its text.

Used by ``SocketError.from_exception`` and ``SocketError.get_status``. Imports the standard library
only: exceptions of other libraries are recognised by the names of their classes.

How an exception gets its status: its classes, from the most derived to the base, are looked up in
one table of rules. A rule reads the most precise evidence there is (an ``errno``, OpenSSL's
verification code, the reason in OpenSSL's error queue), and has a status in case there is none. If
an exception has no status, or a vague one, the exceptions that it wraps and its cause are asked.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from twsock.errors._verification import STATUS_OF_RESULT, classify
from twsock.errors.statuses import (
    E_INVALIDARG,
    NOT_SUPPORTED,
    STATUS_OF_HRESULT,
    WIN32,
    SocketErrorStatus,
)

__all__ = [
    "diagnose",
    "hresult_without_status",
    "is_failure",
    "outermost_text",
    "own_text",
    "status_of_number",
]

_S = SocketErrorStatus

# The range of Winsock's numbers. No errno of a POSIX system is as high, so the two do not collide.
_WINSOCK: Final = range(10_000, 12_000)


def _present(
    numbers: object, table: Mapping[str, SocketErrorStatus]
) -> dict[int, SocketErrorStatus]:
    """Return the part of a table whose names this system has, by number."""
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
        # These two have no status of their own: a write to a connection that the peer has closed,
        # and a write after this end closed its output.
        "EPIPE": _S.CONNECTION_RESET_BY_PEER,
        "ESHUTDOWN": _S.OPERATION_ABORTED,
    },
)

# HRESULTs of errors without a status.
_HRESULT_OF_ERRNO: Final[Mapping[int, int]] = {
    errno.ENOENT: WIN32 | 2,
    errno.ENOMEM: WIN32 | 14,
    errno.EINVAL: E_INVALIDARG,
    errno.EACCES: WIN32 | 10013,
    errno.EPERM: WIN32 | 10013,
    errno.EOPNOTSUPP: NOT_SUPPORTED,
    errno.ENOBUFS: WIN32 | 10055,
    errno.ENOTCONN: WIN32 | 10057,
}

_STATUS_OF_EAI: Final = _present(
    socket,
    {
        # Before EAI_NONAME: some systems have one number for both, and the later entry is kept.
        "EAI_NODATA": _S.NO_DATA_RECORD_OF_REQUESTED_TYPE,
        "EAI_ADDRFAMILY": _S.NO_DATA_RECORD_OF_REQUESTED_TYPE,
        "EAI_NONAME": _S.HOST_NOT_FOUND,
        "EAI_AGAIN": _S.NON_AUTHORITATIVE_HOST_NOT_FOUND,
        "EAI_SERVICE": _S.CLASS_TYPE_NOT_FOUND,
        "EAI_FAMILY": _S.ADDRESS_FAMILY_NOT_SUPPORTED,
        "EAI_SOCKTYPE": _S.SOCKET_TYPE_NOT_SUPPORTED,
    },
)

# The values of h_errno in <netdb.h>; Python has no names for them.
_STATUS_OF_H_ERRNO: Final[Mapping[int, SocketErrorStatus]] = {
    1: _S.HOST_NOT_FOUND,
    2: _S.NON_AUTHORITATIVE_HOST_NOT_FOUND,
    4: _S.NO_DATA_RECORD_OF_REQUESTED_TYPE,
}

# Reasons in OpenSSL's error queue for which this end refused its peer.
_STATUS_OF_REASON: Final[Mapping[str, SocketErrorStatus]] = {
    "certificate verify failed": _S.CERTIFICATE_IS_INVALID,
    "peer did not return a certificate": _S.CERTIFICATE_IS_INVALID,
    "no application protocol": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    "no protocols available": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    "no shared cipher": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    "unsupported protocol": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
    "wrong ssl version": _S.SOFTWARE_CAUSED_CONNECTION_ABORT,
}

# Alerts with which the peer refused this end (RFC 8446 section 6.2). In the reason they follow
# "tlsv1 alert" or "sslv3 alert": the prefix differs between versions of OpenSSL. Any other alert
# counts as a reset by the peer.
_STATUS_OF_ALERT: Final[Mapping[str, SocketErrorStatus]] = {
    "bad certificate": _S.CERTIFICATE_IS_INVALID,
    "certificate expired": _S.CERTIFICATE_EXPIRED,
    "certificate required": _S.CERTIFICATE_IS_INVALID,
    "certificate revoked": _S.CERTIFICATE_REVOKED,
    "certificate unknown": _S.CERTIFICATE_IS_INVALID,
    "no certificate": _S.CERTIFICATE_IS_INVALID,
    "unknown ca": _S.CERTIFICATE_UNTRUSTED_ROOT,
    # OpenSSL sends it for a certificate that was issued for another purpose.
    "unsupported certificate": _S.CERTIFICATE_WRONG_USAGE,
    "access denied": _S.CONNECTION_REFUSED,
    # No common cipher, or, before TLS 1.3, no certificate from this end.
    "handshake failure": _S.CONNECTION_REFUSED,
    "inappropriate fallback": _S.CONNECTION_REFUSED,
    "insufficient security": _S.CONNECTION_REFUSED,
    "no application protocol": _S.CONNECTION_REFUSED,
    "protocol version": _S.CONNECTION_REFUSED,
    "unrecognized name": _S.CONNECTION_REFUSED,
}


def _number(exception: Any) -> int | None:
    """Return the number of an exception: ``errno``, Twisted's ``osError`` or the first argument."""
    fields = (getattr(exception, "errno", None), getattr(exception, "osError", None))
    for field in (*fields, *exception.args[:1]):
        if isinstance(field, int):
            return field
    return None


def _reasons(exception: Any) -> list[str]:
    """
    Return the reasons in OpenSSL's error queue.

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
    return STATUS_OF_RESULT.get(classify(getattr(exception, "verify_code", None) or 0))


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


class _Rule(NamedTuple):  # A dataclass would double the time to import this module.
    """How to find the status of one class of exceptions."""

    status: SocketErrorStatus = _S.UNKNOWN  # if the evidence has no status
    evidence: _Evidence | None = None
    is_vague: bool = False  # a cause with a precise status takes precedence
    hresult: int | None = None  # if neither the status nor an ``errno`` has one

    def read(self, exception: object) -> SocketErrorStatus:
        found = self.evidence(exception) if self.evidence else None
        return self.status if found is None else found


_FAILURE: Final = "twisted.python.failure.Failure"
# By name as well: its module imports this one.
_SOCKET_ERROR: Final = "twsock.errors.socket_error.SocketError"
_MISMATCH: Final = "service_identity.exceptions.VerificationError"
_ABORTED: Final = _Rule(_S.OPERATION_ABORTED)
# Without evidence: the number in Twisted's `TimeoutError(30, "Deferred")` is a number of seconds.
_TIMED_OUT: Final = _Rule(_S.CONNECTION_TIMED_OUT)
_WRONG_NAME: Final = _Rule(_S.CERTIFICATE_COMMON_NAME_IS_INCORRECT)
# WinRT has an HRESULT for a bad parameter of a call, and no status.
_BAD_PARAMETER: Final = _Rule(hresult=E_INVALIDARG)
_NO_RULE: Final = _Rule()

# By module and name, so that those modules need not be imported. The rule of the nearest base class
# applies to a subclass.
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
    "asyncio.exceptions.TimeoutError": _TIMED_OUT,  # from Python 3.11 on the built-in class
    "concurrent.futures._base.CancelledError": _ABORTED,
    "concurrent.futures._base.TimeoutError": _TIMED_OUT,  # as above
    "socket.gaierror": _Rule(evidence=_by_eai),
    "socket.herror": _Rule(evidence=_by_h_errno),
    # The errno of these is a result of OpenSSL, not of the operating system.
    "ssl.SSLError": _Rule(evidence=_by_reason, is_vague=True),
    "ssl.SSLCertVerificationError": _Rule(_S.CERTIFICATE_IS_INVALID, _by_verify_code),
    "ssl.SSLEOFError": _Rule(_S.CONNECTION_RESET_BY_PEER),
    "ssl.SSLZeroReturnError": _ABORTED,
    "OpenSSL.SSL.Error": _Rule(evidence=_by_reason, is_vague=True),
    # Without an errno: the peer closed the connection without close_notify.
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
    # Twisted does not keep the error of the kernel.
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
    # Subclasses of DomainError that do not mean that a record is missing.
    "twisted.names.error.DNSFormatError": _NO_RULE,
    "twisted.names.error.DNSNotImplementedError": _NO_RULE,
    "twisted.names.error.DNSQueryRefusedError": _NO_RULE,
    "twisted.names.error.DNSUnknownError": _NO_RULE,
}


def _class_names(thing: object) -> list[str]:
    return [f"{base.__module__}.{base.__qualname__}" for base in type(thing).__mro__]


def _rule_of(thing: object) -> _Rule:
    return next((_RULES[name] for name in _class_names(thing) if name in _RULES), _NO_RULE)


def is_failure(thing: object) -> bool:
    """Return whether this is a ``Failure`` of Twisted."""
    return _FAILURE in _class_names(thing)


def _is_socket_error(thing: object) -> bool:
    return _SOCKET_ERROR in _class_names(thing)


def _held(exception: BaseException) -> list[Any]:
    """Return the exceptions among the arguments: Twisted's ``CannotListenError`` has one there."""
    return [arg for arg in exception.args if isinstance(arg, BaseException) or is_failure(arg)]


def _inside(thing: Any) -> list[Any]:
    """Return the exceptions behind an exception, nearest first: its arguments, then its cause."""
    if is_failure(thing):
        return [thing.value]
    if not isinstance(thing, BaseException):
        return []
    if thing.__cause__ is not None:
        return [*_held(thing), thing.__cause__]
    # An error of a bad parameter may be raised while another error is handled, which is no cause.
    has_context = thing.__context__ is not None and not thing.__suppress_context__
    if has_context and _rule_of(thing) is not _BAD_PARAMETER:
        return [*_held(thing), thing.__context__]
    return _held(thing)


def _chain(first: object) -> Iterator[Any]:
    """Return an exception and all behind it, outer first, each once: causes can be cyclic."""
    waiting, seen = [first], set()
    while waiting:
        thing = waiting.pop()
        if id(thing) not in seen:
            seen.add(id(thing))
            yield thing
            waiting.extend(reversed(_inside(thing)))


def diagnose(thing: object) -> tuple[SocketErrorStatus, object]:
    """
    Return the status of an exception or ``Failure``.

    :returns: the status, and the exception in the chain of causes that has it; None if none has.
    """
    vague: tuple[SocketErrorStatus, object] = (_S.UNKNOWN, None)
    for found in _chain(thing):
        if _is_socket_error(found):
            return found.status, found
        rule = _rule_of(found)
        status = rule.read(found)
        if status is not _S.UNKNOWN and not rule.is_vague:
            return status, found
        if vague[0] is _S.UNKNOWN and status is not _S.UNKNOWN:
            vague = status, found
    return vague


def status_of_number(number: int) -> SocketErrorStatus:
    """Return the status of an ``errno``, of a number of Winsock, or of an HRESULT."""
    if number in _STATUS_OF_ERRNO:
        return _STATUS_OF_ERRNO[number]
    if number in _WINSOCK:
        number |= WIN32
    if not -0x8000_0000 <= number <= 0xFFFF_FFFF:
        return _S.UNKNOWN
    return STATUS_OF_HRESULT.get(number & 0xFFFF_FFFF, _S.UNKNOWN)


def _errno_of(thing: object) -> int | None:
    # The numbers of the resolver, of OpenSSL and of a timeout are no ``errno``.
    return _number(thing) if _rule_of(thing).evidence is _by_errno else None


def _hresult_of(thing: object) -> int | None:
    number = _errno_of(thing)
    return _rule_of(thing).hresult if number is None else _HRESULT_OF_ERRNO.get(number)


def hresult_without_status(exception: object) -> int | None:
    """Return the HRESULT of an error without a status: of its ``errno``, or of a bad parameter."""
    hresults = map(_hresult_of, _chain(exception))
    return next((hresult for hresult in hresults if hresult is not None), None)


def outermost_text(exception: object) -> str:
    """Return the first text in the chain of causes, or else the name of the class."""
    texts = (own_text(found) for found in _chain(exception) if isinstance(found, BaseException))
    heading = getattr(exception, "MESSAGE", type(exception).__name__)
    return next((text for text in texts if text), str(heading))


def own_text(exception: Any) -> str:
    """Return the text of an exception itself; empty if an exception inside it says more."""
    if _is_socket_error(exception):
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
    return "" if is_tls or _held(exception) else _argument_text(exception)


def _files(error: OSError) -> list[str]:
    names = [name for name in (error.filename, error.filename2) if name is not None]
    texts = [os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in names]
    return [" -> ".join(texts)] if texts else []


def _argument_text(exception: Any) -> str:
    """Return a sentence made of the arguments of an exception; those of Twisted have a heading."""
    texts = [arg for arg in exception.args if isinstance(arg, str) and arg]
    sentences = [text for text in texts if " " in text]
    if sentences:
        return sentences[0]
    number = _errno_of(exception)
    if number is not None and number in errno.errorcode:
        return os.strerror(number)
    if texts and hasattr(exception, "MESSAGE"):
        return f"{exception.MESSAGE.strip()}: {texts[0]}"
    # If the class alone gives the status, that is clearer than one word, as in Twisted's
    # `TimeoutError(30, "Deferred")`.
    return texts[0] if texts and _rule_of(exception).status is _S.UNKNOWN else ""


def _wanted_names(mismatches: Any) -> str:
    """Return the names that the certificate should have, as service-identity reports them."""
    wanted = [getattr(mismatch, "mismatched_id", None) for mismatch in mismatches]
    names = [getattr(host, "hostname", None) or getattr(host, "ip", None) for host in wanted]
    texts = [os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in names if name]
    return ", ".join(texts) or "this host"
