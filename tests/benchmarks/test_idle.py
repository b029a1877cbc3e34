"""Tests of `benchmarks.idle` and its two variants: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import idle_tls, websocket_idle
from benchmarks.idle import BENCHMARK
from tests.benchmarks.commands import run_small


class IdleTests(SynchronousTestCase):
    """``python -m benchmarks idle``, ``idle-tls`` and ``websocket-idle``."""

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

    def test_idle_connections_over_tls_are_measured(self) -> None:
        """Each server gets a row; ratios refer to OpenSSL alone."""
        servers = run_small(self, idle_tls.BENCHMARK, "--connections", "20")
        self.assertEqual(list(servers), ["echo", "sockets", "int32", "bare"])
        for name, server in servers.items():
            self.assertGreater(server["cases"]["idle"]["echoed"], 0, name)

    def test_idle_web_sockets_are_measured(self) -> None:
        """A server gets a row with its growth; here with compression."""
        servers = run_small(
            self,
            websocket_idle.BENCHMARK,
            *("--connections", "20", "--servers", "echo", "--cases", "deflated"),
        )
        figures = servers["echo"]["cases"]["deflated"]
        self.assertGreaterEqual(figures["echoed"], figures["connected"])
        self.assertGreater(figures["connected"], 0)
