"""Tests of ``python -m tests.rows``, which removes rows of a table."""

from __future__ import annotations

from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

from twisted.trial.unittest import SynchronousTestCase

from tests.rows import Outcome, judge_rows, main, run_tests

_EXAMPLE = "tests.rows_example"


class RowsTests(SynchronousTestCase):
    """A small table, in processes of their own."""

    def test_rows_that_no_test_needs_are_printed(self) -> None:
        """No test looks one row up, and none fails without another."""
        with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as progress:
            status = main([_EXAMPLE, "TABLE", f"{_EXAMPLE}.ExampleTests"])
        self.assertEqual(status, 1)
        self.assertEqual(
            printed.getvalue().splitlines(),
            [
                "2 of 5 rows: a test fails without them",
                "GREEN, 1: no test fails",
                "BLUE, 1: no test looks it up",
                "GREEN, 2: no test looks it up",
            ],
        )
        self.assertEqual(progress.getvalue().splitlines()[0], "1/5 RED, 1: a test fails")

    def test_test_of_the_whole_table_uses_each_row(self) -> None:
        """Whichever row is removed, it runs."""
        with redirect_stderr(StringIO()):
            judged = judge_rows(_EXAMPLE, "TABLE", [f"{_EXAMPLE}.WholeTests"])
        outcomes = [outcome for _, outcome in judged]
        self.assertEqual(outcomes.count(Outcome.UNUSED), 0)
        self.assertIs(outcomes[-1], Outcome.NOTICED)

    def test_tests_that_look_up_no_row_are_refused(self) -> None:
        """Such tests belong to another table."""
        other = "tests.test_pairing.PairingTests.test_listed_exceptions_exist"
        with self.assertRaisesRegex(ValueError, r"no test looks up a row of tests\.rows_example"):
            judge_rows(_EXAMPLE, "TABLE", [other])

    def test_missing_tests_are_refused(self) -> None:
        """A wrong name raises an error."""
        with self.assertRaisesRegex(ValueError, "fails with the whole table"):
            judge_rows(_EXAMPLE, "TABLE", [f"{_EXAMPLE}.MissingTests"])

    def test_tests_that_do_not_end_are_stopped(self) -> None:
        """Their process is killed at the limit."""
        self.assertIs(run_tests(_EXAMPLE, "TABLE", [_EXAMPLE], 0, 0.0)[0], Outcome.STOPPED)
