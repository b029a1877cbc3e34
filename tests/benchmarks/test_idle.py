"""Tests of `benchmarks.idle`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.idle import BENCHMARK
from tests.benchmarks.commands import run_small


class IdleTests(SynchronousTestCase):
    """``python -m benchmarks idle``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_idle_connections_are_measured(self) -> None:
        """Each server gets a row with its growth."""
        servers = run_small(
            self, BENCHMARK, "--connections", "20", "--servers", "echo,asyncio-streams"
        )
        self.assertEqual(list(servers), ["echo", "asyncio-streams"])
        for name, server in servers.items():
            figures = server["cases"]["idle"]
            self.assertGreaterEqual(figures["echoed"], figures["connected"], name)
