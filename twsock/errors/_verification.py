"""
Results of a verification: OpenSSL's verification code → **result** → status.

Used by `twsock.errors.diagnosis`, and by `twsock.tls.validation`, which exports the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from twsock._enums import DocumentedEnum
from twsock.errors.statuses import SocketErrorStatus

__all__ = ["STATUS_OF_RESULT", "ChainValidationResult", "classify"]


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


_R = ChainValidationResult
_S = SocketErrorStatus

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

# The status with which a connection fails; with several errors, the first in this order.
STATUS_OF_RESULT: Final[Mapping[ChainValidationResult, SocketErrorStatus]] = {
    _R.REVOKED: _S.CERTIFICATE_REVOKED,
    _R.INVALID_SIGNATURE: _S.CERTIFICATE_IS_INVALID,
    _R.OTHER_ERRORS: _S.CERTIFICATE_IS_INVALID,
    _R.UNKNOWN_CRITICAL_EXTENSION: _S.CERTIFICATE_IS_INVALID,
    _R.BASIC_CONSTRAINTS_ERROR: _S.CERTIFICATE_IS_INVALID,
    _R.INVALID_CERTIFICATE_AUTHORITY_POLICY: _S.CERTIFICATE_IS_INVALID,
    _R.UNTRUSTED: _S.CERTIFICATE_UNTRUSTED_ROOT,
    _R.INCOMPLETE_CHAIN: _S.CERTIFICATE_UNTRUSTED_ROOT,
    _R.INVALID_NAME: _S.CERTIFICATE_COMMON_NAME_IS_INCORRECT,
    _R.EXPIRED: _S.CERTIFICATE_EXPIRED,
    _R.WRONG_USAGE: _S.CERTIFICATE_WRONG_USAGE,
    _R.REVOCATION_INFORMATION_MISSING: _S.CERTIFICATE_NO_REVOCATION_CHECK,
    _R.REVOCATION_FAILURE: _S.CERTIFICATE_REVOCATION_SERVER_OFFLINE,
}


def classify(code: int) -> ChainValidationResult:
    """Return the result for a verification code of OpenSSL; 0 is success."""
    return _RESULTS.get(code, ChainValidationResult.OTHER_ERRORS)
