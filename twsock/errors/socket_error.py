"""
The exceptions of twsock: `SocketError` and its subclasses.

Every failure (of the operating system, Twisted, OpenSSL or the wire format) becomes a `SocketError`
with a `SocketErrorStatus`; `twsock.errors.diagnosis` finds out which.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from twsock.errors.diagnosis import (
    diagnose,
    hresult_without_status,
    is_failure,
    outermost_text,
    own_text,
    status_of_number,
)
from twsock.errors.statuses import (
    E_FAIL,
    E_ILLEGAL_METHOD_CALL,
    HRESULTS,
    INVALID_DATA,
    INVALID_OPERATION,
    NOT_SUPPORTED,
    RO_E_CLOSED,
    STATUS_OF_HRESULT,
    SocketErrorStatus,
)

__all__ = [
    "BrokenError",
    "BusyError",
    "ClosedError",
    "LocalProtocolError",
    "OperationNotSupported",
    "ProtocolError",
    "RemoteProtocolError",
    "SocketError",
]

_E = TypeVar("_E", bound="SocketError")


class SocketError(Exception):
    """
    An operation failed. Every failure that twsock reports is one of these.

    :ivar status: the reason, as far as it is known.
    :ivar hresult: the number that Windows returns, unsigned: 0x80000000 or more.
    :param message: a sentence that says what happened.
    :param status: None for the status of ``hresult``, or else of the class.
    :param hresult: signed or unsigned; None for the HRESULT of ``status``, or else of the class.
    """

    status: SocketErrorStatus
    hresult: int

    _class_status: ClassVar[SocketErrorStatus] = SocketErrorStatus.UNKNOWN
    _class_hresult: ClassVar[int] = E_FAIL

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
                hresult = HRESULTS.get(status, hresult)
        self.hresult = hresult & 0xFFFF_FFFF
        if status is None:
            status = STATUS_OF_HRESULT.get(self.hresult, self._class_status)
        self.status = status

    @property
    def summary(self) -> str:
        """One line for users of command line tools: ``ConnectionRefused (12): …``."""
        return f"{self.status.documented_name} ({self.status.value}): {' '.join(str(self).split())}"

    @classmethod
    def from_exception(cls: type[_E], exception: BaseException, message: str | None = None) -> _E:
        """
        Return an error of this class for any failure, with that failure as its ``__cause__``.

        :param exception: an exception of the operating system, of Twisted or of TLS, for example,
            or a ``Failure``. The new error has the status and HRESULT of a `SocketError`.
        :param message: None for the text of the operating system or the library.
        """
        failed: Any = exception
        cause = failed.value if is_failure(failed) else failed
        status, source = diagnose(cause)
        if source is None:
            words, hresult = outermost_text(cause), hresult_without_status(cause)
            error = cls(words if message is None else message, hresult=hresult)
        else:
            # Not the text of the exceptions around it, which would repeat the status or not fit it.
            words = own_text(source) or status.name.replace("_", " ").capitalize()
            hresult = source.hresult if isinstance(source, SocketError) else None
            error = cls(words if message is None else message, status=status, hresult=hresult)
        error.__cause__ = cause
        return error

    def copy(self: _E) -> _E:
        """
        Return an equal error that was never raised: same class, text, attributes and cause.

        Use it to report one failure to several waiters, or to keep it: a raised exception holds the
        frames of its traceback and all their variables.
        """
        made = type(self).__new__(type(self), *self.args)
        made.__dict__.update(self.__dict__)
        made.__cause__ = self.__cause__
        return made

    @staticmethod
    def get_status(thing: object) -> SocketErrorStatus:
        """
        Return the status of any failure.

        :param thing: an exception, a ``Failure``, an HRESULT (signed or unsigned), or an ``errno``.
        :returns: `SocketErrorStatus.UNKNOWN` if the failure does not show its reason.
        """
        if isinstance(thing, SocketErrorStatus):
            return thing
        if isinstance(thing, int):
            return status_of_number(thing)
        return diagnose(thing)[0]


class ProtocolError(SocketError):
    """A rule of the wire format was broken."""

    _class_hresult = INVALID_DATA


class LocalProtocolError(ProtocolError):
    """Our side broke a rule: the calling code is wrong."""

    _class_hresult = E_ILLEGAL_METHOD_CALL


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule: drop the connection."""


class ClosedError(SocketError):
    """The application closed this end."""

    _class_status = SocketErrorStatus.OPERATION_ABORTED
    _class_hresult = RO_E_CLOSED


class BrokenError(SocketError):
    """The connection broke; the reason is in ``__cause__``. See `SocketError.from_exception`."""


class BusyError(SocketError):
    """A second read or write while one is pending; the pending one continues."""

    _class_hresult = INVALID_OPERATION


class OperationNotSupported(SocketError):  # noqa: N818 - the name is documented
    """The stream, the machine or its OpenSSL does not support the operation."""

    _class_hresult = NOT_SUPPORTED
