"""
Removes each row of a table in turn, and runs tests: ``python -m tests.rows MODULE TABLE TEST ...``.

Prints the rows that no test needs: no test fails without them. ``TABLE`` is the name of a
dictionary in the module, ``TEST`` a test module, class or method, as for ``trial``. Leave out tests
that check the table itself, for example that every state has all its events: they fail for each
row.

Each run is a process of its own. The first run removes nothing, and records which tests look up
which rows. A later run removes one row, and runs only the tests that look up this row, until the
first fails. If these tests take much longer than before, the run is ended and the row is printed.
"""

from __future__ import annotations

import argparse
import enum
import importlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.trial.reporter import MinimalReporter
from twisted.trial.runner import TestLoader, TrialRunner
from typing_extensions import override

__all__ = ["Outcome", "Recorded", "judge_rows", "main", "record_lookups", "run_tests"]

_ROOT: Final = Path(__file__).resolve().parent.parent

#: Seconds that a run may take beyond three times the earlier duration of its tests. They cover the
#: start of the process, and the timeout of one test that waits for an event that never comes.
_PATIENCE: Final = 60.0

#: The status of a process with a failed test. 1 is Python's for an exception.
_FAILED: Final = 3


class Outcome(enum.Enum):
    """The effect of removing a row."""

    NOTICED = "a test fails"
    STOPPED = "the tests do not end"
    SURVIVED = "no test fails"
    UNUSED = "no test looks it up"


@dataclass(frozen=True, slots=True)
class Recorded:
    """
    The result of a run with the whole table.

    :ivar rows: the keys, as text, in the order of the table.
    :ivar users: number of a row → the tests that look it up.
    :ivar seconds: test → its duration, in seconds.
    """

    rows: list[str]
    users: dict[int, list[str]]
    seconds: dict[str, float]


# In the process that runs the tests.


class _Reporter(MinimalReporter):
    """Records the running test, and the duration of each test."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.seconds: dict[str, float] = {}
        self.current = ""
        self._began = 0.0

    @override
    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.current = test.id()
        self._began = time.monotonic()

    @override
    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        self.seconds[self.current] = time.monotonic() - self._began
        self.current = ""


def _watch(table: dict[Any, Any], looked_up: Callable[[object], None]) -> None:
    """Have a function called with each key that is looked up in a table, in all modules."""

    def of_one(name: str) -> Callable[..., Any]:
        def call(self: Any, key: object, *rest: object) -> Any:
            looked_up(key)
            return getattr(super(watched, self), name)(key, *rest)

        return call

    def of_all(name: str) -> Callable[..., Any]:
        def call(self: Any) -> Any:
            for key in table:
                looked_up(key)
            return getattr(super(watched, self), name)()

        return call

    methods = {name: of_one(name) for name in ("__getitem__", "__contains__", "get")}
    methods.update({name: of_all(name) for name in ("__iter__", "keys", "values", "items")})
    watched: Any = type("Watched", (type(table),), methods)
    replacement = watched(table)
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if value is table:
                setattr(module, name, replacement)


def _trial(tests: Sequence[str], reporters: list[_Reporter]) -> bool:
    """Run tests until the first fails; append the reporter. Return whether all passed."""

    def report(*arguments: Any, **keywords: Any) -> _Reporter:
        reporters.append(_Reporter(*arguments, **keywords))
        return reporters[-1]

    suite = TestLoader().loadByNames(list(tests), recurse=True)
    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        runner = TrialRunner(
            report,
            stream=io.StringIO(),
            workingDirectory=str(Path(folder, "trial")),
            exitFirst=True,
        )
        result: Any = runner.run(suite)
    if not result.testsRun:
        raise ValueError(f"no test is called {' '.join(tests)}")
    return bool(result.wasSuccessful())


def record_lookups(table: dict[Any, Any], tests: Sequence[str]) -> Recorded:
    """
    Run tests with a whole table.

    :raises ValueError: when a test fails.
    """
    numbers = {key: number for number, key in enumerate(table)}
    users: dict[int, dict[str, None]] = {number: {} for number in numbers.values()}
    reporters: list[_Reporter] = []

    def looked_up(key: Any) -> None:
        if key in numbers and reporters and reporters[-1].current:
            users[numbers[key]][reporters[-1].current] = None

    TestLoader().loadByNames(list(tests), recurse=True)  # Imports all modules that have the table.
    _watch(table, looked_up)
    if not _trial(tests, reporters):
        failed = [test.id() for test, _ in (*reporters[-1].failures, *reporters[-1].errors)]
        raise ValueError(f"fails with the whole table: {', '.join(failed)}")
    rows = [_describe(key) for key in table]
    ordered = {number: [*tests_of] for number, tests_of in users.items()}
    return Recorded(rows, ordered, reporters[-1].seconds)


def _describe(key: object) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    return ", ".join(part.name if isinstance(part, enum.Enum) else repr(part) for part in parts)


def _run_here(module: str, name: str, tests: Sequence[str], row: int | None) -> int:
    """Run tests in this process; return its status: 0 if no test failed."""
    table = getattr(importlib.import_module(module), name)
    if row is None:
        recorded = record_lookups(table, tests)
        print(json.dumps([recorded.rows, recorded.users, recorded.seconds]))
        return 0
    del table[list(table)[row]]
    return 0 if _trial(tests, []) else _FAILED


# In the process of the command.


def run_tests(
    module: str, name: str, tests: Sequence[str], row: int | None, seconds: float | None
) -> tuple[Outcome, str]:
    """
    Run tests in a new process.

    :param row: the number of the row that is removed; None for no row.
    :param seconds: seconds after which the process is killed; None for no limit.
    :returns: the outcome, and the output of the process.
    :raises ValueError: when the process neither succeeds nor has a failed test.
    """
    options = [] if row is None else ["--without", str(row)]
    command = [sys.executable, "-m", "tests.rows", "--here", *options, module, name]
    try:
        done = subprocess.run(
            # The names are passed by standard input: a command line may be too short for them.
            command,
            input=json.dumps(list(tests)),
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Outcome.STOPPED, ""
    if done.returncode == 0:
        return Outcome.SURVIVED, done.stdout
    if done.returncode == _FAILED:
        return Outcome.NOTICED, done.stdout
    raise ValueError(done.stderr.strip().rpartition("\n")[2] or f"status {done.returncode}")


def judge_rows(module: str, name: str, tests: Sequence[str]) -> list[tuple[str, Outcome]]:
    """
    Remove each row of a table in turn.

    :returns: each row, with the effect of its removal.
    :raises ValueError: when a test fails with the whole table, or none looks a row up.
    """
    _, printed = run_tests(module, name, tests, None, None)
    rows, users, seconds = json.loads(printed)
    if not any(users.values()):
        raise ValueError(f"no test looks up a row of {module}.{name}")
    judged = []
    for number, row in enumerate(rows):
        users_of_row = sorted(users[str(number)], key=lambda test: float(seconds[test]))
        if users_of_row:
            limit = _PATIENCE + 3 * sum(seconds[test] for test in users_of_row)
            outcome, _ = run_tests(module, name, users_of_row, number, limit)
        else:
            outcome = Outcome.UNUSED
        judged.append((row, outcome))
        print(f"{number + 1}/{len(rows)} {row}: {outcome.value}", file=sys.stderr, flush=True)
    return judged


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.rows",
        description="Print the rows of a table for whose removal no test fails.",
    )
    parser.add_argument("module", metavar="MODULE", help="the module of the table")
    parser.add_argument("table", metavar="TABLE", help="the name of the table in it")
    parser.add_argument("tests", metavar="TEST", nargs="*", help="tests, as for trial")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--without", type=int, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Remove each row in turn; return 0 if a test fails for each of them, otherwise 1."""
    options = _make_parser().parse_args(argv)
    if options.here:
        return _run_here(options.module, options.table, json.load(sys.stdin), options.without)
    judged = judge_rows(options.module, options.table, options.tests)
    left = [(row, outcome) for row, outcome in judged if outcome is not Outcome.NOTICED]
    print(f"{len(judged) - len(left)} of {len(judged)} rows: a test fails without them")
    for row, outcome in left:
        print(f"{row}: {outcome.value}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
