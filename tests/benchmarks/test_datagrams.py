"""Tests of `benchmarks.datagrams`: the whole command, in small."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.datagrams import BENCHMARK, CASES
from benchmarks.programs import DATAGRAM_SERVERS
from tests.benchmarks.commands import assert_refused, run_small, some_of


class DatagramsTests(SynchronousTestCase):
    """``python -m benchmarks datagrams``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_every_server_echoes(self) -> None:
        """Runs and single datagrams, without a loss."""
        keys = some_of(DATAGRAM_SERVERS)
        servers = run_small(self, BENCHMARK, "--seconds", "0.003", "--servers", ",".join(keys))
        self.assertEqual(list(servers), keys)
        for name, server in servers.items():
            self.assertEqual(list(server["cases"]), list(CASES), name)
            self.assertEqual({each["lost"] for each in server["cases"].values()}, {0}, name)

    def test_unknown_case_is_refused(self) -> None:
        """The message says which ones there are."""
        assert_refused(self, BENCHMARK, "'D' is none of A, B, B-single, C", "--cases", "A,D")
