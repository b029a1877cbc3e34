"""Tests of `benchmarks.handshakes`: the whole command, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import benchmarks

_ROOT = Path(benchmarks.__file__).parent.parent


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.handshakes", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60)


class HandshakesTests(SynchronousTestCase):
    """``python -m benchmarks.handshakes``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_run_writes_the_figures(self) -> None:
        """All servers shake hands, and the baseline has a ratio of 1 to itself."""
        file = self.mktemp()
        done = _run(
            *("--rounds", "1", "--handshakes", "3", "--pending", "4", "--round-trips", "5"),
            *("--servers", "int32,sockets,asyncio-streams", "--json", str(Path(file).absolute())),
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        servers = json.loads(Path(file).read_text())["servers"]
        self.assertEqual(list(servers), ["int32", "sockets", "asyncio-streams"])
        for figures in servers.values():
            self.assertGreater(figures["full_per_cpu_second"], 0)
            self.assertEqual(figures["rounds"][0]["pending"]["pending"], 4)
        self.assertEqual(servers["int32"]["full_ratio"], 1)
        self.assertEqual(servers["int32"]["resumed_ratio"], 1)

    def test_server_without_tls_is_named(self) -> None:
        """The message says which ones there are, and nothing is started."""
        done = _run("--servers", "echo,c")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'c' is none of echo, echo-lean, sockets", done.stderr.splitlines()[-1])
