"""Tests of `benchmarks.flush`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from benchmarks.flush import BENCHMARK
from benchmarks.programs import FLUSH_WAYS
from benchmarks.programs.stream_sender import WAYS, start_reader
from tests.benchmarks.commands import run_small


class FlushTests(SynchronousTestCase):
    """``python -m benchmarks flush``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_stream_is_measured(self) -> None:
        """With its processor time and the time until all is with the kernel."""
        ways = run_small(self, BENCHMARK, "--mebibytes", "1", "--servers", "full")
        figures = ways["full"]["cases"]["flush"]
        self.assertGreater(min(figures["cpu"], figures["flushed"]), 0)


class WaysTests(TestCase):
    """Ways to send a long stream."""

    async def test_every_way_sends(self) -> None:
        """More than the buffers of the kernel hold, and each way of the command is there."""
        self.assertEqual(list(WAYS), [program.key for program in FLUSH_WAYS])
        with start_reader(None) as port:
            for send in WAYS.values():
                await send(reactor, port, 500)
