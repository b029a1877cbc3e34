"""Tests of `benchmarks.values`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.values import BENCHMARK
from tests.benchmarks.commands import run_small


class ValuesTests(SynchronousTestCase):
    """``python -m benchmarks values``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_each_way_is_measured(self) -> None:
        """Each way reads and writes the same bytes, and its figure is above 0."""
        ways = run_small(self, BENCHMARK)
        self.assertEqual(sorted(ways), ["hand", "struct", "values"])
        for way, result in ways.items():
            for case in ("read", "write"):
                self.assertGreater(result["cases"][case]["record"], 0, f"{way=}, {case=}")
