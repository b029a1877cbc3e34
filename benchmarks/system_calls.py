"""
``python -m benchmarks system-calls``: how many a batch of datagrams takes.

Counted from outside by ``strace``, which has to be installed and allowed to trace.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import sending
from benchmarks.processes import ROOT, MeasurementError, Subject
from benchmarks.results import Figure
from benchmarks.rounds import Measure, Setting
from benchmarks.sending import MARK

__all__ = ["BENCHMARK", "count_sends"]

_BATCHES: Final = 4
#: Seconds within which the sender ends, which takes about one.
_LONGEST: Final = 60.0


def count_sends(subject: Subject, case: str) -> float:
    """
    Return the system calls for each batch.

    :raises MeasurementError: when they cannot be counted.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise MeasurementError("the program strace is not installed")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        trace = Path(folder, "trace")
        command = [strace, "-f", "--seccomp-bpf", "-s", "20", "-o", str(trace)]
        command += ["-e", "trace=sendto,sendmsg,sendmmsg,write,writev"]
        command += subject.command(case, str(_BATCHES), "--untimed")
        try:
            traced = subprocess.run(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LONGEST,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError("the sender hangs under strace") from error
        if traced.returncode or not trace.exists():
            reason = traced.stderr.strip().rpartition("\n")[2]
            raise MeasurementError(f"strace cannot trace the sender: {reason}")
        # Each line is a call, with one datagram or with many.
        calls = [line for line in trace.read_text().splitlines() if f'"{MARK.decode()}' in line]
    return len(calls) / _BATCHES


@contextmanager
def _open(subject: Subject, _setting: Setting) -> Iterator[Measure]:
    def measure_case(case: str) -> Mapping[str, float]:
        return {"calls": count_sends(subject, case)}

    yield measure_case


BENCHMARK: Final = replace(
    sending.BENCHMARK,
    name="system-calls",
    figures=(Figure("calls", "System calls for each batch", has_ratios=False),),
    open=_open,
    rounds=1,
)
