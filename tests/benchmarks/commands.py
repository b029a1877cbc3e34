"""Runs a whole benchmark, in small."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.rounds import Benchmark, run

__all__ = ["assert_refused", "run_small"]


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
