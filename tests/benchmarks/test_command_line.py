"""Tests of `benchmarks.command_line`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

import benchmarks
from benchmarks.command_line import (
    add_outputs,
    choose,
    positive,
    publish,
    show_progress,
    some_of,
)
from benchmarks.servers import SERVERS
from benchmarks.tables import Table

_ROOT = Path(benchmarks.__file__).parent.parent


class OptionTests(SynchronousTestCase):
    """Texts of a command line become values, or are refused."""

    def assert_refused(self, parse: Callable[[str], object], text: str, message: str) -> None:
        """The error is one that argparse shows."""
        with self.assertRaisesRegex(argparse.ArgumentTypeError, message):
            parse(text)

    def test_counts_are_whole_and_positive(self) -> None:
        """Nothing else is."""
        self.assertEqual(positive("12"), 12)
        for text in ("0", "-1", "1.5", "x", ""):
            self.assert_refused(positive, text, f"^'{text}' is not a whole number of 1 or more")

    def test_names_keep_their_order(self) -> None:
        """Blanks around them don't matter, and none comes twice."""
        self.assertEqual(some_of(["a", "b", "c"])("c, a,c"), ("c", "a"))

    def test_unknown_name_is_refused(self) -> None:
        """The message says which ones there are; no name is one that is not known."""
        self.assert_refused(some_of(["a", "b", "c"]), "a,d", "^'d' is none of a, b, c$")
        self.assert_refused(some_of(["a", "b", "c"]), "", "^'' is none of a, b, c$")


class ChooseTests(SynchronousTestCase):
    """Of the servers, those that can run here."""

    def test_server_that_lacks_a_program_is_skipped(self) -> None:
        """It is said why; the others keep their order."""
        self.patch(os, "environ", {"PATH": ""})
        self.assertEqual(
            choose(["int32", "c", "echo"]),
            ([SERVERS["int32"], SERVERS["echo"]], {"c": "the program cc is not installed"}),
        )


class _Terminal(StringIO):
    @override
    def isatty(self) -> bool:
        return True


class ShowProgressTests(SynchronousTestCase):
    """One line for whoever looks on."""

    def test_terminal_sees_the_last_line_only(self) -> None:
        """Each goes back to the beginning, and wipes out the one before."""
        with redirect_stderr(_Terminal()) as terminal:
            show_progress("first")
            show_progress("second")
        self.assertEqual(terminal.getvalue(), "\r\x1b[Kfirst\r\x1b[Ksecond")

    def test_file_gets_nothing(self) -> None:
        """There, nobody looks on."""
        with redirect_stderr(StringIO()) as file:
            show_progress("first")
        self.assertEqual(file.getvalue(), "")


class EndInOrderTests(SynchronousTestCase):
    """A process that is told to end."""

    def test_signal_goes_through_every_finally(self) -> None:
        """The status tells which signal it was, as a shell would."""
        program = (
            "import signal; from benchmarks.command_line import end_in_order; end_in_order()\n"
            "try: signal.raise_signal(signal.SIGTERM)\n"
            "finally: print('cleaned up')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, timeout=60
        )
        self.assertEqual((done.returncode, done.stderr), (128 + signal.SIGTERM, ""))
        self.assertEqual(done.stdout, "cleaned up\n")


class _Report:
    """Two tables of one cell each."""

    def tables(self) -> Sequence[Table]:
        return [Table("One", ["server"], [["first"]]), Table("Two", ["server"], [["second"]])]

    def legend(self) -> str:
        return "A: a letter."

    def to_json(self) -> dict[str, Any]:
        return {"servers": ["first", "second"]}


class PublishTests(SynchronousTestCase):
    """What was measured is printed, and written where it was asked for."""

    def publish(self, *arguments: str) -> str:
        """Publish a report, and give what is printed."""
        parser = argparse.ArgumentParser()
        add_outputs(parser)
        with redirect_stdout(StringIO()) as printed:
            publish(
                _Report(),
                "by guess",
                machine={"cores": "2", "kernel": "Linux"},
                skipped={"c": "the program cc is not installed"},
                options=parser.parse_args(arguments),
            )
        return printed.getvalue()

    def test_tables_and_notes_are_printed(self) -> None:
        """The notes say what the figures mean, and what they hold for."""
        self.assertEqual(
            self.publish(),
            "One\n\nserver\nfirst\n\n"
            "Two\n\nserver\nsecond\n\n"
            "Skipped: C, epoll, whole frames, as the program cc is not installed.\n"
            "A: a letter.\n"
            "Method: by guess.\n"
            "Machine: cores 2, kernel Linux.\n",
        )

    def test_markdown_has_the_same(self) -> None:
        """Tables and notes are paragraphs."""
        file = Path(self.mktemp())
        self.publish("--markdown", str(file))
        paragraphs = file.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
        self.assertEqual(paragraphs[:2], ["One:", "| server |\n| --- |\n| first |"])
        self.assertEqual(paragraphs[-2:], ["Method: by guess.", "Machine: cores 2, kernel Linux."])

    def test_json_has_the_figures_and_what_they_hold_for(self) -> None:
        """One document for programs."""
        file = Path(self.mktemp())
        self.publish("--json", str(file))
        self.assertEqual(
            json.loads(file.read_text(encoding="utf-8")),
            {
                "machine": {"cores": "2", "kernel": "Linux"},
                "method": "by guess",
                "skipped": {"c": "the program cc is not installed"},
                "servers": ["first", "second"],
            },
        )
