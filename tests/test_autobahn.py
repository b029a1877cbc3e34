"""`WebSocketEcho` and `MessageWebSocket` pass the test suite of Autobahn, where it is installed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.autobahn import FAST, find_wstest, render, run_client_suite, run_suite, wrong_cases

OUTCOMES = {
    "1.1.1": ("OK", "OK"),
    "1.1.2": ("OK", "OK"),
    "10.1.1": ("NON-STRICT", "OK"),
    "7.1.6": ("INFORMATIONAL", "INFORMATIONAL"),
    "7.1.7": ("OK", "UNCLEAN"),
}


class SuiteTests(SynchronousTestCase):
    """The suite itself."""

    def test_fast_sections_are_all_right(self) -> None:
        """Every case is strict, and closes as it should."""
        wstest = find_wstest()
        if wstest is None:
            self.skipTest("there is no wstest, which needs Python 2.7: see tests/autobahn.py")
        outcomes = run_suite(wstest, FAST)
        self.assertEqual(len(outcomes), 247)
        self.assertEqual(wrong_cases(outcomes), [])

    def test_fast_sections_of_clients_are_all_right(self) -> None:
        """The same, where this end is the client."""
        wstest = find_wstest()
        if wstest is None:
            self.skipTest("there is no wstest, which needs Python 2.7: see tests/autobahn.py")
        outcomes = run_client_suite(wstest, FAST)
        self.assertEqual(len(outcomes), 247)
        self.assertEqual(wrong_cases(outcomes), [])


class OutcomeTests(SynchronousTestCase):
    """What the suite has found."""

    def test_sections_are_counted(self) -> None:
        """One line each, in their order."""
        lines = ["      1  2 OK", "      7  1 INFORMATIONAL, 1 OK", "     10  1 NON-STRICT"]
        self.assertEqual(render(OUTCOMES).splitlines(), lines)

    def test_wrong_cases_are_named(self) -> None:
        """A case is wrong if its messages or its close are, or if they were not strict."""
        wrong = ["10.1.1: NON-STRICT, close OK", "7.1.7: OK, close UNCLEAN"]
        self.assertEqual(wrong_cases(OUTCOMES), wrong)
