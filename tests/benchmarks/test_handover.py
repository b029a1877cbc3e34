"""Tests of `benchmarks.handover`: the whole command, in small, and its peer."""

from __future__ import annotations

import socket
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.handover import BENCHMARK
from benchmarks.processes import MeasurementError
from benchmarks.programs.twsock_handover import Peer, Traffic
from tests.benchmarks.commands import run_small


class HandoverTests(SynchronousTestCase):
    """``python -m benchmarks handover``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_connections_move(self) -> None:
        """With frames under way, and many at once."""
        options = ("--moves", "3", "--connections", "70", "--servers", "echo")
        cases = run_small(self, BENCHMARK, *options)["echo"]["cases"]
        for case in ("small", "large"):
            self.assertGreater(cases[case]["pause"], 0, case)
        self.assertGreater(min(cases["many"]["cpu"], cases["many"]["beside"]), 0)


class PeerTests(SynchronousTestCase):
    """What comes back is compared with what was sent."""

    def exchange(self, change: bytes) -> list[int]:
        """Answer the first frame, and change its end; return how many frames had come back."""
        counts: list[int] = []

        def is_done(frames: int) -> bool:
            counts.append(frames)
            return frames > 0

        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            peer = Peer(near, Traffic(payload=3, window=1))
            peer.exchange(lambda _: True)
            peer.send()
            far.sendall(far.recv(7)[: 7 - len(change)] + change)
            peer.exchange(is_done)
        return counts

    def test_the_same_bytes_are_accepted(self) -> None:
        """They end the exchange."""
        self.assertEqual(self.exchange(b"")[-1], 1)

    def test_other_bytes_are_an_error(self) -> None:
        """A byte was lost, doubled or changed."""
        self.assertRaises(MeasurementError, self.exchange, b"????")
