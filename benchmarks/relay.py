"""
``python -m benchmarks relay``: a proxy that passes bytes on in both directions, beside Twisted's.

Each way passes them on between two connections of one other process, which sends and receives on
both, and is charged its own processor time for each MiB.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import Subject, run_program
from benchmarks.programs import PROXIES
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive

__all__ = ["BENCHMARK"]

#: Case → bytes in each write of the far ends.
_PIECES: Final = {"bulk": 1024 * 1024, "small": 1000}


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    def measure_case(case: str) -> Mapping[str, float]:
        arguments = [str(_PIECES[case]), str(setting.options.mebibytes)]
        if setting.client_core is not None:
            arguments += ["--peer-core", str(setting.client_core)]
        return run_program(subject, setting.server_core, *arguments)

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--mebibytes", type=positive, default=64, metavar="N", help="each way (default 64)")


BENCHMARK: Final = Benchmark(
    name="relay",
    programs=PROXIES,
    cases={"bulk": "writes of 1 MiB", "small": "writes of 1,000 bytes"},
    figures=(Figure("cpu", "Processor time of the proxy in µs for each MiB"),),
    open=_open,
    references=("plain",),
    rounds=9,
    add_options=_add_options,
)
