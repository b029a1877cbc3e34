"""
``python -m benchmarks paths``: the modules of twsock that an event passes, and the calls it takes.

`benchmarks.programs.path_counts` follows the events, on the twsock of this checkout or of the one
that ``--checkout`` names. Nothing is timed: the figures are the same in every run.

*Modules* are those in the folders of twsock that have a Python function called. Modules in no
folder, such as `twsock.operation`, are left out: they serve all others.

*Returns* are the calls into another module than that of the call before, minus the number of
modules. So one return of a path is free, such as the last one to the module where it began. The
module of the caller is not compared, and the return from a call is no call.

*Calls* are those of Python functions: in twsock, and in all code (Twisted, pyOpenSSL and the
application as well). A coroutine or generator that continues counts as a call. From Python 3.12 on
there are fewer calls, as list comprehensions are no functions there.

Today's maxima are in ``tests/test_paths.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from benchmarks.processes import Program, Subject, run_program
from benchmarks.tables import Table

__all__ = ["PATHS", "Passed", "follow_paths", "main"]

#: Name of a path → its title in the table.
PATHS: Final = {
    "frame": "echoed frame",
    "handler": "frame answered by a handler",
    "upgraded": "echoed frame after STARTTLS",
    "websocket": "echoed message of a WebSocket",
    "datagram": "echoed datagram",
    "run": "run of 8 datagrams echoed",
    "socket": "StreamSocket: read, four writes, flush",
}

_PROGRAM: Final = Program("paths", "twsock", "path_counts")


@dataclass(frozen=True, slots=True)
class Passed:
    """
    The calls and modules of one event.

    :ivar calls: the number of calls of Python functions in twsock.
    :ivar all_calls: the number of calls of all Python functions.
    :ivar sequence: modules in the order in which they are called, without ``twsock.``.
    """

    calls: int
    all_calls: int
    sequence: tuple[str, ...]

    @property
    def modules(self) -> int:
        """How many modules are called."""
        return len(set(self._counted))

    @property
    def returns(self) -> int:
        """How many calls go to another module than the call before, minus the number of modules."""
        return max(0, len(self._counted) - 1 - self.modules)

    @property
    def _counted(self) -> list[str]:
        in_folders = (module for module in self.sequence if "." in module)
        return [module for module, _ in groupby(in_folders)]


def follow_paths(checkout: Path | None = None) -> dict[str, Passed]:
    """
    Follow all paths; a kernel without runs of datagrams has no path ``run``.

    :param checkout: whose twsock to follow; None for this one.
    :raises MeasurementError: when the program fails.
    """
    followed = run_program(Subject(_PROGRAM, checkout), None)
    return {
        name: Passed(calls, all_calls, tuple(sequence))
        for name, (calls, all_calls, sequence) in followed.items()
    }


def _make_table(paths: dict[str, Passed]) -> Table:
    rows = [
        (title, *map(str, (path.modules, path.returns, path.calls, path.all_calls)))
        for name, title in PATHS.items()
        if (path := paths.get(name)) is not None
    ]
    header = ("path", "modules", "returns", "calls in twsock", "calls in all")
    return Table("Modules of twsock that one event passes", header, rows)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks paths",
        description="Follow events through the modules of twsock, and count calls.",
    )
    add = parser.add_argument
    add("--checkout", type=Path, metavar="PATH", help="default: this one")
    add("--verbose", action="store_true", help="also print the modules in the order of the calls")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    options = _make_parser().parse_args(argv)
    checkout = None if options.checkout is None else options.checkout.resolve()
    paths = follow_paths(checkout)
    print(_make_table(paths).to_text())
    if options.verbose:
        for name, path in paths.items():
            print(f"\n{PATHS[name]}:\n  " + "\n  ".join(path.sequence))
