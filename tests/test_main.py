"""``python -m twsock`` runs the command ``twsock``."""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import PATIENCE, command, environment


def run(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run the module."""
    return subprocess.run(
        command(*words), capture_output=True, timeout=PATIENCE, check=False, env=environment()
    )


class MainModuleTests(SynchronousTestCase):
    """``twsock/__main__.py``."""

    def test_the_module_runs_the_command(self) -> None:
        """It takes the same arguments, with the same output and exit status."""
        result = run("--version")
        self.assertRegex(result.stdout.decode(), r"\Atwsock \S+")
        self.assertEqual(result.returncode, 0)

    def test_help_names_the_command_and_not_the_module(self) -> None:
        """The usage line begins with the command."""
        self.assertIn(b"usage: twsock echo ", run("echo", "--help").stdout)
