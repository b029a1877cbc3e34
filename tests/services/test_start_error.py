"""The error of a service that cannot start."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from twsock.services.start_error import StartError


class StartErrorTests(SynchronousTestCase):
    """Ends a program in one line."""

    def test_python_prints_the_line_and_ends_with_status_1(self) -> None:
        """Without a traceback."""
        program = "from twsock.services.start_error import StartError; raise StartError('no port')"
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        self.assertEqual((ended.returncode, ended.stderr), (1, "no port\n"))

    def test_it_is_caught_as_an_exception(self) -> None:
        """``twistd`` cleans up in an ``except Exception``."""
        self.assertIsInstance(StartError("no port"), Exception)
