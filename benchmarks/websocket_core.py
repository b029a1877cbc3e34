"""
``python -m benchmarks websocket-core``: what it costs to decode a WebSocket message and to answer.

There is no connection: the bytes of clients are in memory. So the figures are those of the formats
alone. The cores of ``websockets`` and ``wsproto``, which do no I/O either, are measured beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import Subject, run_program
from benchmarks.programs import WEBSOCKET_CORES
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting

__all__ = ["BENCHMARK"]

_CASES: Final = {
    "A": "one message of 64 bytes",
    "B": "64 messages of 64 bytes in one read",
    "T": "the same as text",
    "C": "16 messages of 64 bytes on each of 50 connections",
    "D": "64 messages of 1 KiB",
    "E": "4 messages of 64 KiB",
}


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    yield lambda case: run_program(subject, setting.server_core, case)


BENCHMARK: Final = Benchmark(
    name="websocket-core",
    programs=WEBSOCKET_CORES,
    cases=_CASES,
    figures=(Figure("message", "Microseconds of processor time for each message"),),
    open=_open,
    references=("websockets", "wsproto"),
    rounds=9,
)
