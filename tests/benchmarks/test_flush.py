"""Tests of `benchmarks.flush`: the whole command, in small."""

from __future__ import annotations

import socket
import sys

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from benchmarks.flush import BENCHMARK
from benchmarks.programs import FLUSH_WAYS
from benchmarks.programs.stream_sender import WAYS
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

    async def test_every_way_sends_the_whole_stream(self) -> None:
        """More than the buffers of the kernel hold; and each way of the command is there."""
        self.assertEqual(list(WAYS), [program.key for program in FLUSH_WAYS])
        for name, send in WAYS.items():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                received = deferToThread(_receive_all, listener)
                await send(reactor, listener.getsockname()[1], 500)
                self.assertEqual(await received, 500 * 16 * 1024, name)


def _receive_all(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        return sum(map(len, iter(lambda: connection.recv(1 << 20), b"")))
