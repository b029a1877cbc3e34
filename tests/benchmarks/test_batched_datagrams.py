"""Tests of `benchmarks.batched_datagrams`: the whole command, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import benchmarks
from benchmarks.sending import SEND_CASES, WAYS

_ROOT = Path(benchmarks.__file__).parent.parent


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.batched_datagrams", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=100)


class BatchedDatagramsTests(SynchronousTestCase):
    """``python -m benchmarks.batched_datagrams``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_every_way_sends_every_case(self) -> None:
        """Nothing is lost, and the loop has a ratio of 1 to itself."""
        file = self.mktemp()
        done = _run(
            *("--rounds", "1", "--batches", "3", "--no-calls"),
            *("--json", str(Path(file).absolute())),
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        document = json.loads(Path(file).read_text())
        self.assertEqual((list(document["ways"]), document["lost"]), (list(WAYS), 0))
        self.assertEqual(list(document["cases"]), list(SEND_CASES))
        self.assertEqual(document["ways"]["loop"]["cases"]["unequal"]["ratio"], 1)

    def test_unknown_way_is_named(self) -> None:
        """The message says which ones there are, and nothing is sent."""
        done = _run("--ways", "fastest")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'fastest' is none of socket, port, loop", done.stderr.splitlines()[-1])

    def test_unknown_case_is_named(self) -> None:
        """The message says which ones there are."""
        done = _run("--cases", "huge")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'huge' is none of small, large", done.stderr.splitlines()[-1])
