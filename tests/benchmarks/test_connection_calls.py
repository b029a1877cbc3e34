"""Tests of `benchmarks.connection_calls`, over loopback."""

from __future__ import annotations

import shutil
import subprocess
import sys
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.connection_calls import BENCHMARK
from tests import THOROUGH
from tests.benchmarks.commands import run_small


def _may_trace() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None
        and not subprocess.run([strace, "-c", "true"], capture_output=True).returncode
    )


class ConnectionCallsTests(SynchronousTestCase):
    """``python -m benchmarks connection-calls``."""

    if sys.platform != "linux" or not _may_trace():
        skip = "strace is not installed, or not allowed to trace"

    @skipIf(not THOROUGH, "strace takes ten seconds: runs with TWSOCK_TESTS=thorough")
    def test_calls_of_a_connection_are_counted(self) -> None:
        """
        An echo closes its socket at the end of the peer, and needs fewer calls than Twisted.

        Twisted accepts once more at every second wake-up, so some numbers end with a half.
        """
        servers = run_small(self, BENCHMARK, "--servers", "echo,int32")
        calls = {name: server["cases"]["short"]["calls"] for name, server in servers.items()}
        self.assertLessEqual(calls["echo"], 15)
        self.assertGreater(calls["int32"], calls["echo"])
