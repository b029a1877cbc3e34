"""Tests of `benchmarks.websocket_core`: the whole command, in small."""

from __future__ import annotations

import importlib.util
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.programs.websocket_core import SHAPES, WAYS, echo_with_twsock, reads_of
from benchmarks.websocket_core import BENCHMARK
from tests.benchmarks.commands import run_small
from twsock.websocket.frames import encode_frame


class WebSocketCoreTests(SynchronousTestCase):
    """``python -m benchmarks websocket-core``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_each_core_is_measured(self) -> None:
        """Each installed core echoes all messages, and takes some time."""
        cores = run_small(self, BENCHMARK, "--cases", "B,E")
        self.assertLessEqual({"twsock", "python"}, set(cores))
        for key, result in cores.items():
            for case in ("B", "E"):
                self.assertGreater(result["cases"][case]["message"], 0, f"{key=}, {case=}")

    def test_the_cases_are_those_that_are_listed(self) -> None:
        """Each has a shape."""
        self.assertEqual(list(BENCHMARK.cases), list(SHAPES))

    def test_each_way_sends_the_same_back(self) -> None:
        """Ways that are not installed are left out; ``wsproto`` divides some messages."""
        for case, shape in SHAPES.items():
            expected = encode_frame(shape.opcode, b"x" * shape.size) * shape.number
            for name in ("twsock", "websockets", "wsproto"):
                is_divided = name == "wsproto" and len(reads_of(shape)) > 1
                if is_divided or (name != "twsock" and importlib.util.find_spec(name) is None):
                    continue
                echo = WAYS[name]()
                answers = [echo(data) for data in reads_of(shape)]
                self.assertEqual(b"".join(sent for sent, _ in answers), expected, f"{name} {case}")
                self.assertEqual(sum(count for _, count in answers), shape.number, f"{name} {case}")

    def test_an_unfinished_message_is_not_echoed(self) -> None:
        """A message is counted when its last byte has arrived."""
        echo = echo_with_twsock()
        (data,) = reads_of(SHAPES["A"])
        self.assertEqual(echo(data[:9]), (b"", 0))
        self.assertEqual(echo(data[9:])[1], 1)
