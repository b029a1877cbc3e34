"""A failure carries its line and its exit status."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.failure import CommandError, UsageError


class FailureTests(SynchronousTestCase):
    """What scripts see."""

    def test_a_failure_exits_with_1(self) -> None:
        """Unless it says otherwise."""
        self.assertEqual(CommandError("it failed").exit_code, 1)
        self.assertEqual(CommandError("", 141).exit_code, 141)

    def test_a_failure_may_have_details(self) -> None:
        """Below its line; usually there are none."""
        self.assertEqual(CommandError("it failed").details, ())
        self.assertEqual(CommandError("it failed", details=["a", "b"]).details, ("a", "b"))

    def test_bad_usage_exits_with_2(self) -> None:
        """As with every program that reads its command line by argparse."""
        self.assertEqual(UsageError("no such option").exit_code, 2)
        self.assertEqual(UsageError("no such option").line, "no such option")
