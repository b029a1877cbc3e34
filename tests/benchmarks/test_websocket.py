"""Tests of `benchmarks.websocket`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.programs import FRAMES, WEBSOCKET_SERVERS, WITHOUT_DEFLATE
from benchmarks.websocket import BENCHMARK
from tests.benchmarks.commands import run_small, some_of


class WebSocketTests(SynchronousTestCase):
    """``python -m benchmarks websocket``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_messages_are_measured(self) -> None:
        """Our servers echo binary, text and compressed messages of each size."""
        options = ("--seconds", "0.01", "--cases", "A,E,T,Z", "--servers", "echo-python")
        (server,) = run_small(self, BENCHMARK, *options).values()
        for case, figures in server["cases"].items():
            self.assertGreater(min(figures["cpu"], figures["rate"]), 0, case)

    def test_servers_that_are_installed_echo(self) -> None:
        """A peer that is not installed is left out; one without a feature lacks that figure."""
        keys = some_of(WEBSOCKET_SERVERS)
        options = ("--seconds", "0.01", "--cases", "B,T,Z", "--servers", ",".join(keys))
        servers = run_small(self, BENCHMARK, *options)
        self.assertEqual(list(servers), keys)
        for name, server in servers.items():
            self.assertGreater(server["cases"]["B"]["cpu"], 0, name)
            self.assertEqual(server["cases"]["T"]["cpu"] is None, name == FRAMES, name)
            without = WITHOUT_DEFLATE | {FRAMES}
            self.assertEqual(server["cases"]["Z"]["cpu"] is None, name in without, name)
