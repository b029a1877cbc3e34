"""
Results of verifying a certificate: OpenSSL's codes → **results** → errors and their severity.

A handshake collects them and decides by them; applications read them to learn why it failed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from twsock._enums import DocumentedEnum
from twsock.errors import SocketErrorStatus

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


class ChainValidationResult(DocumentedEnum):
    """
    An error of a certificate, or success.

    ``Windows.Security.Cryptography.Certificates.ChainValidationResult``.
    """

    SUCCESS = 0
    UNTRUSTED = 1
    REVOKED = 2
    EXPIRED = 3
    INCOMPLETE_CHAIN = 4
    INVALID_SIGNATURE = 5
    WRONG_USAGE = 6
    INVALID_NAME = 7
    INVALID_CERTIFICATE_AUTHORITY_POLICY = 8
    BASIC_CONSTRAINTS_ERROR = 9
    UNKNOWN_CRITICAL_EXTENSION = 10
    REVOCATION_INFORMATION_MISSING = 11
    REVOCATION_FAILURE = 12
    OTHER_ERRORS = 13


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

# X509_V_ERR_… in OpenSSL's <x509_vfy.h>; all other codes are OTHER_ERRORS.
_RESULTS: Final[Mapping[int, ChainValidationResult]] = {
    0: _R.SUCCESS,
    2: _R.INCOMPLETE_CHAIN,  # the issuer of an issuer is missing
    3: _R.REVOCATION_INFORMATION_MISSING,  # no revocation list
    7: _R.INVALID_SIGNATURE,
    9: _R.EXPIRED,  # not valid yet
    10: _R.EXPIRED,
    18: _R.UNTRUSTED,  # self-signed
    19: _R.UNTRUSTED,  # self-signed, further up the chain
    20: _R.INCOMPLETE_CHAIN,  # the issuer is not among those trusted
    21: _R.INCOMPLETE_CHAIN,  # the chain is one certificate long
    23: _R.REVOKED,
    24: _R.BASIC_CONSTRAINTS_ERROR,  # no authority (OpenSSL 1.1.1)
    25: _R.BASIC_CONSTRAINTS_ERROR,  # the path is too long
    26: _R.WRONG_USAGE,
    27: _R.UNTRUSTED,  # marked as not trusted for this
    34: _R.UNKNOWN_CRITICAL_EXTENSION,
    62: _R.INVALID_NAME,  # host name
    63: _R.INVALID_NAME,  # e-mail address
    64: _R.INVALID_NAME,  # IP address
    79: _R.BASIC_CONSTRAINTS_ERROR,  # no authority
}

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

# The status with which a connection fails; with several errors, the first in this order.
_STATUSES: Final[Mapping[ChainValidationResult, SocketErrorStatus]] = {
    _R.REVOKED: SocketErrorStatus.CERTIFICATE_REVOKED,
    _R.INVALID_SIGNATURE: SocketErrorStatus.CERTIFICATE_IS_INVALID,
    _R.OTHER_ERRORS: SocketErrorStatus.CERTIFICATE_IS_INVALID,
    _R.UNKNOWN_CRITICAL_EXTENSION: SocketErrorStatus.CERTIFICATE_IS_INVALID,
    _R.BASIC_CONSTRAINTS_ERROR: SocketErrorStatus.CERTIFICATE_IS_INVALID,
    _R.INVALID_CERTIFICATE_AUTHORITY_POLICY: SocketErrorStatus.CERTIFICATE_IS_INVALID,
    _R.UNTRUSTED: SocketErrorStatus.CERTIFICATE_UNTRUSTED_ROOT,
    _R.INCOMPLETE_CHAIN: SocketErrorStatus.CERTIFICATE_UNTRUSTED_ROOT,
    _R.INVALID_NAME: SocketErrorStatus.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
    _R.EXPIRED: SocketErrorStatus.CERTIFICATE_EXPIRED,
    _R.WRONG_USAGE: SocketErrorStatus.CERTIFICATE_WRONG_USAGE,
    _R.REVOCATION_INFORMATION_MISSING: SocketErrorStatus.CERTIFICATE_NO_REVOCATION_CHECK,
    _R.REVOCATION_FAILURE: SocketErrorStatus.CERTIFICATE_REVOCATION_SERVER_OFFLINE,
}


def classify(code: int) -> ChainValidationResult:
    """Return the result for a verification code of OpenSSL; 0 is success."""
    return _RESULTS.get(code, ChainValidationResult.OTHER_ERRORS)


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
        ranked = [result for result in _STATUSES if result in self._codes]
        ranked.sort(key=lambda result: result in forgiven)
        return self._codes[ranked[0]] if ranked else 0


def status_of(errors: Iterable[ChainValidationResult]) -> SocketErrorStatus:
    """Return the status of the worst error; ``UNKNOWN`` if there is none."""
    found = set(errors)
    return next(
        (status for result, status in _STATUSES.items() if result in found),
        SocketErrorStatus.UNKNOWN,
    )
