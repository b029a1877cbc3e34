"""
``python -m benchmarks flush``: a long stream in small writes, beside Twisted's.

Each way sends it in writes of 16 KiB to a process that only reads, and is charged its own processor
time and the time until the last byte is with the kernel.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import Subject, run_program
from benchmarks.programs import FLUSH_WAYS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive

__all__ = ["BENCHMARK"]


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    def measure_case(_case: str) -> Mapping[str, float]:
        arguments = [str(setting.options.mebibytes)]
        if setting.client_core is not None:
            arguments += ["--reader-core", str(setting.client_core)]
        return run_program(subject, setting.server_core, *arguments)

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--mebibytes", type=positive, default=100, metavar="N", help="sent (default 100)")


BENCHMARK: Final = Benchmark(
    name="flush",
    programs=FLUSH_WAYS,
    cases={"flush": "writes of 16 KiB"},
    figures=(
        Figure("cpu", "Processor time of the sender in ms"),
        Figure("flushed", "time until all is with the kernel in ms"),
    ),
    open=_open,
    references=("write",),
    rounds=5,
    add_options=_add_options,
)
