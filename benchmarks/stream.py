"""
``python -m benchmarks stream``: what an echoed frame costs a server.

`benchmarks.stream_load` makes the load; the docstring of `benchmarks` has the method.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import Subject, start
from benchmarks.programs import REFERENCE, STREAM_SERVERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting
from benchmarks.stream_load import Case, StreamLoad, measure
from benchmarks.tls_client import make_client_context

__all__ = ["BENCHMARK", "CASES", "add_seconds"]

CASES: Final = {
    "A": Case(payload=64, window=1),
    "B": Case(payload=64, window=64),
    "C": Case(payload=64, window=16, connections=50),
    "D": Case(payload=1024, window=64),
    "E": Case(payload=64 * 1024, window=4),
}


def add_seconds(parser: argparse.ArgumentParser) -> None:
    """Add the duration of a load to the options."""
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.6,
        metavar="S",
        help="of load for each server, case and round (default 0.6)",
    )


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    certificate = setting.certificate
    context = None if certificate is None else make_client_context(certificate)
    with start(subject, setting.server_core, certificate=certificate) as running:

        def measure_case(case: str) -> Mapping[str, float]:
            sleeps = setting.client_sleeps
            load = StreamLoad(running.port, CASES[case], sleeps=sleeps, context=context)
            return measure(load, running.pid, setting.options.seconds)

        yield measure_case


BENCHMARK: Final = Benchmark(
    name="stream",
    programs=STREAM_SERVERS,
    cases={key: case.title for key, case in CASES.items()},
    figures=(
        Figure("cpu", "Server CPU per echoed frame in µs"),
        Figure("rate", "Thousand frames a second", has_ratios=False),
        Figure("memory", "Resident memory of the server in MiB after each case", has_ratios=False),
    ),
    open=_open,
    references=(REFERENCE,),
    add_options=add_seconds,
)
