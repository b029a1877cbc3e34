"""Tests of `benchmarks.stream` and `benchmarks.stream_tls`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import stream, stream_tls
from tests.benchmarks.commands import assert_refused, run_small


class StreamTests(SynchronousTestCase):
    """``python -m benchmarks stream``, plain and over TLS."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_frames_are_measured(self) -> None:
        """Both kinds of our servers, and the one that ratios refer to, echo all frames."""
        options = ("--seconds", "0.01", "--cases", "A,E", "--servers", "handler,values,int32")
        for name, server in run_small(self, stream.BENCHMARK, *options).items():
            for case in ("A", "E"):
                figures = server["cases"][case]
                self.assertGreater(min(figures["cpu"], figures["rate"], figures["memory"]), 0, name)

    def test_frames_over_tls_are_measured(self) -> None:
        """The same cases."""
        options = (
            "--seconds",
            "0.01",
            "--cases",
            "A,E",
            "--servers",
            "echo,sockets,asyncio-streams",
        )
        servers = run_small(self, stream_tls.BENCHMARK, *options)
        self.assertEqual(list(servers), ["echo", "sockets", "asyncio-streams"])
        for name, server in servers.items():
            self.assertGreater(server["cases"]["E"]["rate"], 0, name)

    def test_server_without_tls_is_refused(self) -> None:
        """The message says which ones there are."""
        message = "'c' is none of echo, echo-lean, sockets"
        assert_refused(self, stream_tls.BENCHMARK, message, "--servers", "echo,c")
