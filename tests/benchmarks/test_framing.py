"""Tests of `benchmarks.framing`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.framing import BENCHMARK
from tests.benchmarks.commands import run_small


class FramingTests(SynchronousTestCase):
    """``python -m benchmarks framing``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_decoding_is_measured(self) -> None:
        """No byte is lost, and each costs something."""
        pieces = run_small(self, BENCHMARK, "--servers", "64KiB", "--cases", "64MiB")
        self.assertGreater(pieces["64KiB"]["cases"]["64MiB"]["decoding"], 0)

    def test_decoding_of_websockets_is_measured(self) -> None:
        """Messages in one frame each, from a client, which masks them."""
        options = ("--servers", "websocket-64KiB", "--cases", "1MiB")
        pieces = run_small(self, BENCHMARK, *options)
        self.assertGreater(pieces["websocket-64KiB"]["cases"]["1MiB"]["decoding"], 0)

    def test_decoding_of_fragments_is_measured(self) -> None:
        """A message of 1 KiB has fragments of at most two bytes."""
        options = ("--servers", "fragments-64KiB", "--cases", "1KiB")
        pieces = run_small(self, BENCHMARK, *options)
        self.assertGreater(pieces["fragments-64KiB"]["cases"]["1KiB"]["decoding"], 0)
