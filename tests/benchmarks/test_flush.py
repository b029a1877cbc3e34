"""Tests of `benchmarks.flush`: the whole command, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import benchmarks
from benchmarks.flush import WAYS

_ROOT = Path(benchmarks.__file__).parent.parent


class FlushTests(SynchronousTestCase):
    """``python -m benchmarks.flush``."""

    def test_every_way_is_measured(self) -> None:
        """And the baseline has a ratio of 1 to itself."""
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.flush", "--rounds", "1", "--mebibytes", "1"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = [line for line in done.stdout.splitlines() if line.startswith(tuple(WAYS))]
        self.assertEqual(len(rows), len(WAYS))
        (baseline,) = [row.split() for row in rows if row.startswith("Twisted, transport.write")]
        self.assertEqual((baseline[-3], baseline[-1]), ("1.00", "1.00"))
