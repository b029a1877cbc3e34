"""Runs a whole benchmark, in small."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.processes import Program
from benchmarks.rounds import Benchmark, run
from tests import THOROUGH

__all__ = ["assert_refused", "run_small", "some_of"]


def some_of(programs: Sequence[Program]) -> list[str]:
    """
    Return the keys of the programs that are installed.

    In the daily profile a module with several programs, which differ in their arguments, has only
    the first.
    """
    found = [program for program in programs if program.why_not() is None]
    firsts = {program.module: program for program in reversed(found)}
    return [each.key for each in found if THOROUGH or each is firsts[each.module]]


def run_small(case: SynchronousTestCase, benchmark: Benchmark, *options: str) -> dict[str, Any]:
    """Run one round with a client that sleeps, and return what it wrote about the servers."""
    file = Path(case.mktemp())
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        run(benchmark, ["--rounds", "1", "--client-sleeps", "--json", str(file), *options])
    case.assertEqual(errors.getvalue(), "")
    servers: dict[str, Any] = json.loads(file.read_text())["servers"]
    return servers


def assert_refused(
    case: SynchronousTestCase, benchmark: Benchmark, message: str, *options: str
) -> None:
    """The command line is wrong; the last line that is printed says why."""
    with redirect_stderr(StringIO()) as errors, case.assertRaises(SystemExit) as raised:
        run(benchmark, options)
    case.assertEqual(raised.exception.code, 2)
    case.assertIn(message, errors.getvalue().splitlines()[-1])
