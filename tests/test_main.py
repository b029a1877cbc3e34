"""``python -m twsock`` is the command."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import run


class MainModuleTests(SynchronousTestCase):
    """The module that Python runs."""

    def test_it_runs_the_command(self) -> None:
        """With the same words, output and exit status."""
        result = run("--version")
        self.assertRegex(result.stdout.decode(), r"\Atwsock \S+")
        self.assertEqual(result.returncode, 0)

    def test_help_names_the_command_and_not_the_module(self) -> None:
        """Users read what they type."""
        self.assertIn(b"usage: twsock echo ", run("echo", "--help").stdout)
