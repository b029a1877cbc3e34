"""Tests of `benchmarks.datagram`: the whole command, in small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import benchmarks
from benchmarks.command_line import choose
from benchmarks.servers import DATAGRAM_SERVERS

_ROOT = Path(benchmarks.__file__).parent.parent


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.datagram", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=60)


class DatagramTests(SynchronousTestCase):
    """``python -m benchmarks.datagram``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_every_server_echoes(self) -> None:
        """Runs and single datagrams, without a loss; Twisted has a ratio of 1 to itself."""
        file = self.mktemp()
        chosen, _ = choose(tuple(DATAGRAM_SERVERS), DATAGRAM_SERVERS)
        keys = [server.key for server in chosen]
        done = _run(
            *("--rounds", "1", "--seconds", "0.003", "--servers", ",".join(keys)),
            *("--json", str(Path(file).absolute())),
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        servers = json.loads(Path(file).read_text())["servers"]
        self.assertEqual(list(servers), keys)
        self.assertEqual({server["lost"] for server in servers.values()}, {0})
        self.assertEqual(servers["twisted"]["cases"]["C"]["ratios"]["twisted"], 1)

    def test_unknown_server_is_named(self) -> None:
        """The message says which ones there are, and nothing is started."""
        done = _run("--servers", "fastest")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'fastest' is none of echo, echo-lean", done.stderr.splitlines()[-1])

    def test_unknown_case_is_named(self) -> None:
        """The message says which ones there are."""
        done = _run("--cases", "A,D")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'D' is none of A, B, B-single, C", done.stderr.splitlines()[-1])

    def test_rounds_are_a_count(self) -> None:
        """Anything else is refused in one line."""
        done = _run("--rounds", "0")
        self.assertEqual(done.returncode, 2)
        self.assertIn("'0' is not a whole number", done.stderr.splitlines()[-1])
