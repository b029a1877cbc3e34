"""Tests of `benchmarks.sending`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.sending import BENCHMARK
from tests.benchmarks.commands import assert_refused, run_small


class SendingTests(SynchronousTestCase):
    """``python -m benchmarks sending``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_batch_is_measured(self) -> None:
        """Nothing is lost."""
        ways = run_small(self, BENCHMARK, "--batches", "3", "--cases", "small", "--servers", "port")
        figures = ways["port"]["cases"]["small"]
        self.assertGreater(figures["cpu"], 0)
        self.assertEqual(figures["lost"], 0)

    def test_unknown_way_is_refused(self) -> None:
        """The message says which ones there are."""
        message = "'fastest' is none of socket, port, loop"
        assert_refused(self, BENCHMARK, message, "--servers", "fastest")

    def test_unknown_case_is_refused(self) -> None:
        """The message says which ones there are."""
        assert_refused(self, BENCHMARK, "'huge' is none of small, large", "--cases", "huge")
