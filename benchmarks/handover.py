"""
``python -m benchmarks handover``: connections that move between two servers.

Two servers on one machine give each other a connection, while its peer keeps frames under way and
compares every byte that comes back. A pause is the longest time without an answer, as the peer sees
it, from the command to move until twenty answers after the acknowledgement. Beside it is the
longest time without an answer in twenty answers without a move. In the last case many silent
connections move once, and the processor time of both servers together is counted for each of them.
Then they move back, and a connection that moves last is busy meanwhile.

Three processes take turns. On a machine with fewer free cores, their scheduler adds to the pauses.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import Subject, run_program
from benchmarks.programs import HANDOVERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive

__all__ = ["BENCHMARK"]


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    def measure_case(case: str) -> Mapping[str, float]:
        options = setting.options
        count = options.connections if case == "many" else options.moves
        return run_program(subject, None, case, str(count))

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--moves", type=positive, default=200, metavar="N", help="of a connection (default 200)")
    add(
        "--connections",
        type=positive,
        default=1000,
        metavar="N",
        help="that move once in the case many (default 1000)",
    )


BENCHMARK: Final = Benchmark(
    name="handover",
    programs=HANDOVERS,
    cases={
        "small": "8 frames of 64 bytes under way",
        "large": "4 frames of 64 KiB under way",
        "many": "silent connections",
    },
    figures=(
        Figure("pause", "Median pause of a connection that moves in ms", has_ratios=False),
        Figure("slow", "99th percentile of the pauses in ms", has_ratios=False),
        Figure("undisturbed", "Longest time between answers without a move in ms", False),
        Figure("cpu", "Processor time of both servers for one connection in µs"),
        Figure("all", "Time until all connections have moved in ms", has_ratios=False),
        Figure("beside", "Longest time between answers meanwhile, in ms", has_ratios=False),
    ),
    open=_open,
    rounds=3,
    add_options=_add_options,
)
