"""
``python -m benchmarks framing``: what decoding costs for each byte.

A decoder whose time per byte grows with the frame, or with the number of pieces of a frame, would
show it in the last columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import Subject, run_program
from benchmarks.programs import FRAMINGS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting

__all__ = ["BENCHMARK"]

_SIZES: Final = {"64B": 64, "1KiB": 1024, "64KiB": 65_536, "1MiB": 1_048_576, "64MiB": 67_108_864}


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    yield lambda case: run_program(subject, setting.server_core, str(_SIZES[case]))


BENCHMARK: Final = Benchmark(
    name="framing",
    programs=FRAMINGS,
    cases={key: f"frames of {size:,} bytes" for key, size in _SIZES.items()},
    figures=(Figure("decoding", "Nanoseconds of processor time for each byte"),),
    open=_open,
)
