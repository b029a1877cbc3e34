"""Tests of `benchmarks.stream`: the whole command, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import benchmarks

_ROOT = Path(benchmarks.__file__).parent.parent


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.stream", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60)


class StreamTests(SynchronousTestCase):
    """``python -m benchmarks.stream``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_run_writes_the_figures(self) -> None:
        """Both servers echo, and the baseline has a ratio of 1 to itself."""
        file = self.mktemp()
        done = _run(
            *("--rounds", "1", "--seconds", "0.01", "--cases", "A,E"),
            *("--servers", "echo,int32", "--json", str(Path(file).absolute())),
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        servers = json.loads(Path(file).read_text())["servers"]
        self.assertGreater(servers["echo"]["cases"]["E"]["frames_per_second"], 0)
        self.assertEqual(servers["int32"]["cases"]["A"]["ratio"], 1)

    def test_idle_connections_are_measured(self) -> None:
        """Each server gets a row with the number of its connections."""
        done = _run("--idle", "20", "--servers", "echo,asyncio-streams")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("asyncio streams", done.stdout)

    def test_unknown_server_is_named(self) -> None:
        """The message says which ones there are, and nothing is started."""
        done = _run("--servers", "fastest")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'fastest' is none of echo, handler", done.stderr)
