"""OpenSSL's codes become documented results, and only listed errors are ignored."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import sampled_from, sets
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import SocketErrorStatus
from twsock.tls.validation import (
    ChainValidationResult,
    SocketSslErrorSeverity,
    are_forgiven,
    classify,
    severity_of,
    status_of,
)

R = ChainValidationResult
FATAL = frozenset(
    {
        R.REVOKED,
        R.INVALID_SIGNATURE,
        R.INVALID_CERTIFICATE_AUTHORITY_POLICY,
        R.BASIC_CONSTRAINTS_ERROR,
        R.UNKNOWN_CRITICAL_EXTENSION,
        R.OTHER_ERRORS,
    }
)


class ResultTests(SynchronousTestCase):
    """Results, their severities and their statuses."""

    def test_the_results_have_their_documented_numbers_and_names(self) -> None:
        """E23."""
        names = (
            "Success Untrusted Revoked Expired IncompleteChain InvalidSignature WrongUsage "
            "InvalidName InvalidCertificateAuthorityPolicy BasicConstraintsError "
            "UnknownCriticalExtension RevocationInformationMissing RevocationFailure OtherErrors"
        )
        self.assertEqual(
            [(int(each), each.documented_name) for each in R], list(enumerate(names.split()))
        )

    def test_openssls_codes_map_to_results(self) -> None:
        """For each result that a handshake can have."""
        for code, result in (
            (0, R.SUCCESS),
            (18, R.UNTRUSTED),
            (19, R.UNTRUSTED),
            (20, R.INCOMPLETE_CHAIN),
            (21, R.INCOMPLETE_CHAIN),
            (9, R.EXPIRED),
            (10, R.EXPIRED),
            (23, R.REVOKED),
            (7, R.INVALID_SIGNATURE),
            (26, R.WRONG_USAGE),
            (62, R.INVALID_NAME),
            (64, R.INVALID_NAME),
            (25, R.BASIC_CONSTRAINTS_ERROR),
            (79, R.BASIC_CONSTRAINTS_ERROR),
            (34, R.UNKNOWN_CRITICAL_EXTENSION),
            (3, R.REVOCATION_INFORMATION_MISSING),
            (66, R.OTHER_ERRORS),
            (99_999, R.OTHER_ERRORS),
        ):
            self.assertEqual(classify(code), result, code)

    def test_the_severity_is_that_of_the_worst_error(self) -> None:
        """E17."""
        severity = SocketSslErrorSeverity
        self.assertEqual(
            [(int(each), each.documented_name) for each in severity],
            [(0, "None"), (1, "Ignorable"), (2, "Fatal")],
        )
        self.assertIs(severity_of([]), severity.NONE)
        self.assertIs(severity_of([R.SUCCESS]), severity.NONE)
        for error in (R.EXPIRED, R.INVALID_NAME, R.UNTRUSTED):
            self.assertIs(severity_of([error]), severity.IGNORABLE, f"{error=}")
        for error in FATAL:
            self.assertIs(severity_of([R.EXPIRED, error]), severity.FATAL, f"{error=}")

    def test_the_status_is_that_of_the_worst_error(self) -> None:
        """E21: each error has a status."""
        S = SocketErrorStatus  # noqa: N806 - for a table
        for errors, status in (
            ({R.EXPIRED}, S.CERTIFICATE_EXPIRED),
            ({R.UNTRUSTED}, S.CERTIFICATE_UNTRUSTED_ROOT),
            ({R.INCOMPLETE_CHAIN}, S.CERTIFICATE_UNTRUSTED_ROOT),
            ({R.INVALID_NAME}, S.CERTIFICATE_COMMON_NAME_IS_INCORRECT),
            ({R.WRONG_USAGE}, S.CERTIFICATE_WRONG_USAGE),
            ({R.REVOKED, R.EXPIRED}, S.CERTIFICATE_REVOKED),
            ({R.REVOCATION_INFORMATION_MISSING}, S.CERTIFICATE_NO_REVOCATION_CHECK),
            ({R.REVOCATION_FAILURE}, S.CERTIFICATE_REVOCATION_SERVER_OFFLINE),
            ({R.OTHER_ERRORS}, S.CERTIFICATE_IS_INVALID),
            (set(), S.UNKNOWN),
        ):
            self.assertIs(status_of(errors), status, f"{errors=}")
        self.assertEqual([each for each in R if each and status_of([each]) is S.UNKNOWN], [])


class ForgivenessTests(SynchronousTestCase):
    """E18: errors that the application ignores."""

    def test_all_errors_have_to_be_listed(self) -> None:
        """Ignoring one of two still fails on the other."""
        errors = {R.UNTRUSTED, R.INVALID_NAME}
        self.assertTrue(are_forgiven(errors, errors))
        self.assertFalse(are_forgiven(errors, {R.UNTRUSTED}))
        self.assertFalse(are_forgiven(errors, set()))
        self.assertTrue(are_forgiven(set(), set()))

    def test_two_results_for_an_unknown_issuer_count_as_one(self) -> None:
        """Windows reports only the first."""
        self.assertTrue(are_forgiven({R.INCOMPLETE_CHAIN}, {R.UNTRUSTED}))
        self.assertTrue(are_forgiven({R.UNTRUSTED}, {R.INCOMPLETE_CHAIN}))
        self.assertFalse(are_forgiven({R.UNTRUSTED}, {R.EXPIRED}))

    @given(sets(sampled_from(R)), sets(sampled_from(R)))
    def test_fatal_errors_are_never_ignored(
        self, errors: set[ChainValidationResult], ignorable: set[ChainValidationResult]
    ) -> None:
        """Whatever the application lists."""
        if errors & FATAL:
            self.assertFalse(are_forgiven(errors, ignorable))
