"""Exceptions that tests of errors need."""

from __future__ import annotations

import os
import ssl

from OpenSSL import SSL


def tls_error(reason: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason)])


def verification_error(code: int) -> ssl.SSLCertVerificationError:
    failed = ssl.SSLCertVerificationError(1, "certificate verify failed")
    failed.verify_code = code
    return failed


def caused(outer: BaseException, cause: BaseException) -> BaseException:
    outer.__cause__ = cause
    return outer


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
