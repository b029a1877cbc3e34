"""
How many system calls a batch of datagrams takes, counted from outside by ``strace``.

Called by `benchmarks.batched_datagrams`; what is traced is `benchmarks.sending`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.sending import MARK, SendCase, Way

__all__ = ["TraceError", "count_sends"]

#: Where `benchmarks` and `twsock` are: the checkout.
_ROOT: Final = Path(__file__).parent.parent
_BATCHES: Final = 4
#: Seconds for a program of a second.
_LONGEST: Final = 60.0


class TraceError(Exception):
    """There is no ``strace`` here, or it may not trace."""


def count_sends(way: Way, case: SendCase) -> float:
    """
    Give the calls for each batch.

    :raises TraceError: when they cannot be counted.
    """
    strace = shutil.which("strace")
    if strace is None:
        raise TraceError("the program strace is not installed")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        trace = Path(folder, "trace")
        command = [strace, "-f", "-s", "20", "-o", str(trace)]
        command += ["-e", "trace=sendto,sendmsg,sendmmsg,write,writev"]
        command += [sys.executable, "-m", "benchmarks.sending", way.key, case.key, str(_BATCHES)]
        try:
            traced = subprocess.run(
                command,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LONGEST,
            )
        except subprocess.TimeoutExpired as error:
            raise TraceError(f"{way.title}: it hangs under strace") from error
        if traced.returncode or not trace.exists():
            reason = traced.stderr.strip().rpartition("\n")[2]
            raise TraceError(f"strace cannot trace {way.title}: {reason}")
        # A call is a line, however many datagrams it carries.
        calls = [line for line in trace.read_text().splitlines() if f'"{MARK.decode()}' in line]
    return len(calls) / _BATCHES
