"""Tests of `benchmarks.paths`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.paths import PATHS, Passed, follow_paths, main
from benchmarks.processes import ROOT


def pass_modules(*sequence: str) -> Passed:
    """A path with these modules."""
    return Passed(0, 0, sequence)


class PassedTests(SynchronousTestCase):
    """The definitions of a module and of a return."""

    def test_way_back_to_the_first_module_is_no_return(self) -> None:
        """The first return is free; only a second one counts."""
        self.assertEqual(pass_modules("a.a", "a.b", "a.a").returns, 0)
        self.assertEqual(pass_modules("a.a", "a.b", "a.a", "a.b", "a.a").returns, 2)

    def test_path_without_a_way_back_has_no_returns(self) -> None:
        """The number of returns is never negative."""
        for sequence in ((), ("a.a",), ("a.a", "a.b")):
            path = pass_modules(*sequence)
            self.assertEqual((path.modules, path.returns), (len(sequence), 0), f"{sequence=}")

    def test_modules_in_no_folder_do_not_count(self) -> None:
        """A call of such a module does not leave the module that calls it."""
        path = pass_modules("a.a", "top", "a.a", "a.b", "top", "a.a", "top")
        self.assertEqual((path.modules, path.returns), (2, 0))


class FollowTests(SynchronousTestCase):
    """``python -m benchmarks paths``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_paths_are_the_same_in_every_run(self) -> None:
        """Each path begins where Twisted enters; every kernel has all paths but the run."""
        first = follow_paths()
        self.assertEqual(first, follow_paths(Path(ROOT)))
        self.assertEqual(first.keys() | {"run"}, PATHS.keys())
        for name, entered in {
            "frame": "stream.protocol",
            "upgraded": "tls.engine",
            "datagram": "datagram.port",
            "socket": "sockets.stream.connection",
        }.items():
            self.assertEqual(first[name].sequence[0], entered, f"{name=}")

    def test_table_has_a_row_for_each_path(self) -> None:
        """With ``--verbose``, the modules of each path follow the table."""
        with redirect_stdout(StringIO()) as printed:
            main(["--verbose", "--checkout", str(ROOT)])
        table, *sequences = printed.getvalue().split("\n\n")[1:]
        self.assertEqual(len(table.splitlines()), 1 + len(sequences))
        self.assertIn("\n  stream.protocol\n", sequences[0])
