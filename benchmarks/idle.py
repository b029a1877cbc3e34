"""
``python -m benchmarks idle``: what a connection that does nothing costs a server.

Each server is started anew, and this process holds the client's ends of all connections.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.connections import FRAME, connect
from benchmarks.kernel import SPARE_DESCRIPTORS, raise_descriptor_limit, resident_memory
from benchmarks.processes import MeasurementError, Running, Subject, start
from benchmarks.programs import IDLE_SERVERS, STREAM_SERVERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive

__all__ = ["BENCHMARK"]


def _measure(running: Running, count: int) -> dict[str, float]:
    """Return KiB for each connection that was ``connected``, and after it has ``echoed``."""
    with ExitStack() as stack:
        # The first connection makes the server import and allocate what all share.
        _echo(stack.enter_context(connect(running.port)))
        before = resident_memory(running.pid)
        connections = [stack.enter_context(connect(running.port)) for _ in range(count)]
        # Connections are accepted in order: when the last answers, all the others have been.
        _echo(stack.enter_context(connect(running.port)))
        connected = resident_memory(running.pid)
        for connection in connections:
            _echo(connection)
        echoed = resident_memory(running.pid)
    each = count * 1024
    return {"connected": (connected - before) / each, "echoed": (echoed - before) / each}


def _echo(connection: socket.socket) -> None:
    connection.sendall(FRAME)
    answer = b""
    while len(answer) < len(FRAME) and (piece := connection.recv(len(FRAME))):
        answer += piece
    if answer != FRAME:
        raise MeasurementError("the server does not echo")


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    count = setting.options.connections
    raise_descriptor_limit(count + SPARE_DESCRIPTORS)

    def measure_case(_case: str) -> Mapping[str, float]:
        with start(subject, setting.server_core) as running:
            return _measure(running, count)

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connections",
        type=positive,
        default=9000,
        metavar="N",
        help="to each server; both sides need a descriptor for each (default 9000)",
    )


BENCHMARK: Final = Benchmark(
    name="idle",
    programs=STREAM_SERVERS,
    cases={"idle": "an echo is one frame of 64 bytes"},
    figures=(
        Figure("connected", "Resident memory of the server for each idle connection in KiB"),
        Figure("echoed", "and after an echo on each"),
    ),
    open=_open,
    unasked=[program.key for program in STREAM_SERVERS if program not in IDLE_SERVERS],
    rounds=1,
    add_options=_add_options,
)
