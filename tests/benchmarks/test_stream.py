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

    def test_figures_over_tls_are_written(self) -> None:
        """The same cases, and the libraries that encrypted are named."""
        file = self.mktemp()
        done = _run(
            *("--tls", "--rounds", "1", "--seconds", "0.01", "--cases", "A,E"),
            *("--servers", "sockets,int32", "--json", str(Path(file).absolute())),
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        document = json.loads(Path(file).read_text())
        self.assertGreater(document["servers"]["sockets"]["cases"]["E"]["frames_per_second"], 0)
        self.assertEqual(document["servers"]["int32"]["cases"]["A"]["ratio"], 1)
        self.assertIn("TLS 1.3", document["method"])
        self.assertIn("OpenSSL", document["machine"]["pyOpenSSL on"])

    def test_servers_without_tls_are_named(self) -> None:
        """The message says which ones there are, and nothing is started."""
        done = _run("--tls", "--servers", "values,echo,c")
        self.assertEqual(done.returncode, 2)
        self.assertIn(
            "no TLS for values, c, only for echo, echo-lean, sockets", done.stderr.splitlines()[-1]
        )

    def test_idle_connections_have_no_tls(self) -> None:
        """The two options exclude each other."""
        done = _run("--tls", "--idle", "20")
        self.assertEqual(done.returncode, 2)
        self.assertIn("without TLS", done.stderr.splitlines()[-1])

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
