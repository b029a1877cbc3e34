"""
``python -m benchmarks connection-calls``: system calls of a connection with one echo.

The program ``strace`` counts them, and has to be installed and allowed to trace. The connections
are those of `benchmarks.short_connections`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from typing_extensions import override

from benchmarks import short_connections
from benchmarks.processes import MeasurementError, Subject, start
from benchmarks.results import Figure
from benchmarks.rounds import Measure, Setting
from benchmarks.short_connections import converse

__all__ = ["BENCHMARK"]

#: Connections that are counted, and connections before them to warm up.
_COUNTED: Final = 100
_WARM_UP: Final = 20
#: Seconds to wait until strace has written the calls of a server that sleeps.
_SETTLE: Final = 0.2


@dataclass(frozen=True, slots=True)
class _Traced(Subject):
    """A program whose system calls are written to a file, one a line."""

    trace: Path = Path()

    @override
    def command(self, *arguments: str) -> list[str]:
        return ["strace", "-f", "-o", str(self.trace), *Subject.command(self, *arguments)]


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    if shutil.which("strace") is None:
        raise MeasurementError("the program strace is not installed")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        trace = Path(folder, "trace")
        traced = _Traced(subject.program, subject.baseline, trace)
        with start(traced, setting.server_core) as running:

            def measure_case(_case: str) -> Mapping[str, float]:
                for _ in range(_WARM_UP):
                    converse(running.port, sleeps=True)
                before = _count_calls(trace)
                for _ in range(_COUNTED):
                    converse(running.port, sleeps=True)
                return {"calls": (_count_calls(trace) - before) / _COUNTED}

            yield measure_case


def _count_calls(trace: Path) -> int:
    """Count the calls that have returned; the server sleeps in a call that has not."""
    time.sleep(_SETTLE)
    # A call that strace interrupts for that of another thread has a second line, with the result.
    lines = trace.read_text(errors="replace").splitlines()
    return sum(" = " in line for line in lines)


BENCHMARK: Final = replace(
    short_connections.BENCHMARK,
    name="connection-calls",
    figures=(Figure("calls", "System calls for each connection", has_ratios=False),),
    open=_open,
    rounds=1,
    add_options=lambda _parser: None,
)
