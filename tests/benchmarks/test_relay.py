"""Tests of `benchmarks.relay`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.programs import PROXIES
from benchmarks.programs.proxies import WAYS
from benchmarks.relay import BENCHMARK
from tests.benchmarks.commands import run_small


class RelayTests(SynchronousTestCase):
    """``python -m benchmarks relay``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_every_proxy_is_measured(self) -> None:
        """In both cases, with its processor time; the far ends check the number of bytes."""
        self.assertEqual(list(WAYS), [program.key for program in PROXIES])
        ways = run_small(self, BENCHMARK, "--mebibytes", "1")
        for name in WAYS:
            for case in BENCHMARK.cases:
                self.assertGreater(ways[name]["cases"][case]["cpu"], 0, f"{name}, {case}")
