"""
``python -m benchmarks values``: the cost of reading and of writing a record of four values.

Compares `twsock.DataReader` and `twsock.DataWriter`, with a format for the record and value by
value, to one ``struct.Struct`` that is used by hand. There is no stream: the bytes are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import Subject, run_program
from benchmarks.programs import RECORD_WAYS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting

__all__ = ["BENCHMARK"]


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    yield lambda case: run_program(subject, setting.server_core, case)


BENCHMARK: Final = Benchmark(
    name="values",
    programs=RECORD_WAYS,
    cases={"read": "records are read", "write": "records are written"},
    figures=(Figure("record", "Nanoseconds of processor time for each record"),),
    open=_open,
    references=("hand",),
    rounds=9,
)
