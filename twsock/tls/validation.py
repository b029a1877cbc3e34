"""
Results of verifying a certificate: OpenSSL's codes → **results** → errors and their severity.

A handshake collects them and decides by them; applications read them to learn why it failed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from twsock._enums import DocumentedEnum
from twsock.errors import SocketErrorStatus
from twsock.errors._verification import STATUS_OF_RESULT, ChainValidationResult, classify

__all__ = [
    "NAME_MISMATCH",
    "ChainValidationResult",
    "Findings",
    "SocketSslErrorSeverity",
    "are_forgiven",
    "classify",
    "severity_of",
    "status_of",
]


class SocketSslErrorSeverity(DocumentedEnum):
    """
    The severity of an error; ``Windows.Networking.Sockets.SocketSslErrorSeverity``.

    Only ``IGNORABLE`` errors can be ignored.
    """

    NONE = 0
    IGNORABLE = 1
    FATAL = 2


_R = ChainValidationResult

#: X509_V_ERR_HOSTNAME_MISMATCH: set in OpenSSL when ``service_identity`` finds another name.
NAME_MISMATCH: Final = 62

_IGNORABLE: Final = frozenset(
    {
        _R.UNTRUSTED,
        _R.EXPIRED,
        _R.INCOMPLETE_CHAIN,
        _R.WRONG_USAGE,
        _R.INVALID_NAME,
        _R.REVOCATION_INFORMATION_MISSING,
        _R.REVOCATION_FAILURE,
    }
)

# Windows calls both "Untrusted" as a rule, so that a program made for it lists only that.
_TWINS: Final = frozenset({_R.UNTRUSTED, _R.INCOMPLETE_CHAIN})


def severity_of(errors: Iterable[ChainValidationResult]) -> SocketSslErrorSeverity:
    """Return the severity of the worst error."""
    found = set(errors) - {ChainValidationResult.SUCCESS}
    if not found:
        return SocketSslErrorSeverity.NONE
    return SocketSslErrorSeverity.IGNORABLE if found <= _IGNORABLE else SocketSslErrorSeverity.FATAL


def are_forgiven(
    errors: Iterable[ChainValidationResult], ignorable: Collection[ChainValidationResult]
) -> bool:
    """
    Return whether all errors can be ignored.

    :param errors: the errors of the verification.
    :param ignorable: the errors that the application ignores. Each error has to be among them, but
        ``UNTRUSTED`` and ``INCOMPLETE_CHAIN`` stand for each other. Fatal errors never can be
        ignored.
    """
    return set(errors) <= _forgiven_by(ignorable)


def _forgiven_by(ignorable: Collection[ChainValidationResult]) -> set[ChainValidationResult]:
    forgiven = set(ignorable)
    if forgiven & _TWINS:
        forgiven |= _TWINS
    return (forgiven & _IGNORABLE) | {ChainValidationResult.SUCCESS}


class Findings:
    """
    Collects the errors of one verification by OpenSSL, which continues after each error.

    :ivar errors: results, each once, in the order in which they were found.
    """

    __slots__ = ("_codes", "errors")

    def __init__(self) -> None:
        self.errors: tuple[ChainValidationResult, ...] = ()
        self._codes: dict[ChainValidationResult, int] = {}

    def add(self, code: int) -> None:
        """Add an error by OpenSSL's verification code."""
        result = classify(code)
        if result not in self._codes:
            self._codes[result] = code
            self.errors = (*self.errors, result)

    def worst_code(self, ignorable: Collection[ChainValidationResult] = ()) -> int:
        """
        Return the verification code of the worst error; 0 if there is none.

        :param ignorable: ignored errors; they count only if there is no other error.
        """
        forgiven = _forgiven_by(ignorable)
        ranked = [result for result in STATUS_OF_RESULT if result in self._codes]
        ranked.sort(key=lambda result: result in forgiven)
        return self._codes[ranked[0]] if ranked else 0


def status_of(errors: Iterable[ChainValidationResult]) -> SocketErrorStatus:
    """Return the status of the worst error; ``UNKNOWN`` if there is none."""
    found = set(errors)
    return next(
        (status for result, status in STATUS_OF_RESULT.items() if result in found),
        SocketErrorStatus.UNKNOWN,
    )
