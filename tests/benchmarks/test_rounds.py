"""Tests of `benchmarks.rounds`."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from benchmarks.processes import MeasurementError, Program, Subject
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive, run, some_of
from tests.benchmarks.commands import assert_refused


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


class _Terminal(StringIO):
    @override
    def isatty(self) -> bool:
        return True


class RunTests(SynchronousTestCase):
    """Rounds over subjects and cases; a measurement is a number that counts up."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def setUp(self) -> None:
        self.measured: list[tuple[str, str]] = []
        self.settings: list[Setting] = []
        self.failure: Exception | None = None
        self.benchmark = Benchmark(
            name="stream",
            programs=(
                Program("ours", "twsock", "x"),
                Program("theirs", "Other", "x"),
                Program("unasked", "Another", "x"),
                Program("c", "In C", "x", executable="no such program"),
            ),
            cases={"A": "first", "B": "second"},
            figures=(Figure("cpu", "CPU in µs"),),
            open=self.open,
            references=("theirs",),
            unasked=("unasked",),
        )

    @contextmanager
    def open(self, subject: Subject, setting: Setting) -> Iterator[Measure]:
        """Note what is measured."""
        self.settings.append(setting)

        def measure(case: str) -> Mapping[str, float]:
            self.measured.append((subject.key, case))
            if self.failure is not None:
                raise self.failure
            return {"cpu": len(self.measured)}

        yield measure

    def run_benchmark(self, *options: str) -> str:
        """Run, and return what is printed."""
        with redirect_stdout(StringIO()) as printed:
            run(self.benchmark, options)
        return printed.getvalue()

    def test_every_subject_is_measured_in_every_case_and_round(self) -> None:
        """Case by case, all subjects in turn."""
        self.run_benchmark("--rounds", "2")
        self.assertEqual([case for _, case in self.measured], ["A", "A", "B", "B"] * 2)
        for start in range(0, 8, 2):
            turn = {key for key, _ in self.measured[start : start + 2]}
            self.assertEqual(turn, {"ours", "theirs"}, start)

    def test_order_is_shuffled_and_rows_are_not(self) -> None:
        """Rows and ratios are those of their subjects, whatever came first."""
        self.patch(random, "sample", lambda subjects, count: list(reversed(subjects)))
        printed = self.run_benchmark("--rounds", "1", "--cases", "A")
        self.assertEqual(self.measured, [("theirs", "A"), ("ours", "A")])
        lines = [line.split() for line in printed.splitlines()]
        self.assertEqual(lines[3:5], [["twsock", "2"], ["Other", "1"]])
        self.assertEqual(lines[9:11], [["twsock", "2.00"], ["Other", "1.00"]])

    def test_other_checkout_is_measured_in_the_same_rounds(self) -> None:
        """Programs that don't use twsock are there once."""
        checkout = Path(self.mktemp())
        checkout.joinpath("twsock").mkdir(parents=True)
        checkout.joinpath("twsock", "__init__.py").touch()
        printed = self.run_benchmark("--rounds", "1", "--cases", "A", "--baseline", str(checkout))
        self.assertEqual({key for key, _ in self.measured}, {"ours", "ours@baseline", "theirs"})
        self.assertIn("as a ratio to the baseline's checkout", printed)

    def test_checkout_without_twsock_is_refused(self) -> None:
        """Before anything is started."""
        message = "there is no twsock in"
        assert_refused(self, self.benchmark, message, "--baseline", self.mktemp())
        self.assertEqual(self.settings, [])

    def test_unknown_server_is_refused(self) -> None:
        """The message says which ones there are, and nothing is started."""
        message = "'fastest' is none of ours, theirs"
        assert_refused(self, self.benchmark, message, "--servers", "fastest")
        self.assertEqual(self.settings, [])

    def test_rounds_are_a_count(self) -> None:
        """Anything else is refused."""
        assert_refused(self, self.benchmark, "'0' is not a whole number", "--rounds", "0")

    def test_libraries_that_encrypt_are_named(self) -> None:
        """Where there is a certificate for TLS."""
        self.benchmark = replace(self.benchmark, is_secure=True)
        machine = self.run_benchmark("--rounds", "1").splitlines()[-1]
        self.assertRegex(machine, r"Python's ssl on OpenSSL .*, pyOpenSSL on OpenSSL ")
        certificate = self.settings[0].certificate
        self.assertIsNotNone(certificate)

    def test_named_servers_are_measured(self) -> None:
        """Also one that is left out otherwise."""
        self.run_benchmark("--servers", "unasked,ours", "--rounds", "1", "--cases", "B")
        self.assertEqual(set(self.measured), {("unasked", "B"), ("ours", "B")})

    def test_client_sleeps_when_asked(self) -> None:
        """Or when there is one core, on which it would starve the server."""
        self.run_benchmark("--client-sleeps", "--rounds", "1")
        self.assertTrue(self.settings[0].client_sleeps)

    def test_one_core_is_not_divided(self) -> None:
        """Nothing is pinned, and the client sleeps."""
        self.patch(os, "sched_getaffinity", lambda _pid: {0})
        printed = self.run_benchmark("--rounds", "1")
        setting = self.settings[0]
        self.assertEqual((setting.server_core, setting.client_core), (None, None))
        self.assertTrue(setting.client_sleeps)
        self.assertIn("client sleeps", printed)

    def test_cores_are_free_again(self) -> None:
        """The process was pinned for the run only."""
        before = os.sched_getaffinity(0)
        self.run_benchmark("--rounds", "1")
        self.assertEqual(os.sched_getaffinity(0), before)

    def test_failed_measurement_ends_the_run_in_one_line(self) -> None:
        """It names the server and the case."""
        self.failure = MeasurementError("the server hung up")
        with redirect_stderr(StringIO()) as errors, self.assertRaises(SystemExit) as raised:
            run(self.benchmark, ["--servers", "ours"])
        self.assertEqual(raised.exception.code, 1)
        self.assertEqual(
            errors.getvalue(), "python -m benchmarks stream: twsock, case A: the server hung up\n"
        )

    def test_notes_say_what_the_figures_hold_for(self) -> None:
        """And which server is missing."""
        notes = self.run_benchmark("--rounds", "1").rpartition("\n\n")[2].splitlines()
        self.assertEqual(
            notes[0], "Skipped: In C, as the program no such program is not installed."
        )
        self.assertEqual(notes[1], "A: first; B: second.")
        self.assertTrue(notes[2].startswith("Method: medians of 1 rounds; "), notes[2])
        self.assertTrue(notes[3].startswith("Machine: processor "), notes[3])

    def test_markdown_has_the_same(self) -> None:
        """Tables and notes are paragraphs."""
        file = Path(self.mktemp())
        self.run_benchmark("--servers", "ours", "--rounds", "1", "--markdown", str(file))
        paragraphs = file.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
        self.assertEqual(
            paragraphs[:3],
            [
                "CPU in µs:",
                "|  | A | B |\n| --- | ---: | ---: |\n| twsock | 1 | 2 |",
                "A: first; B: second.",
            ],
        )

    def test_json_has_the_figures_and_the_notes(self) -> None:
        """One document for programs."""
        file = Path(self.mktemp())
        self.run_benchmark("--servers", "ours", "--rounds", "1", "--json", str(file))
        document = json.loads(file.read_text(encoding="utf-8"))
        self.assertEqual(document["servers"]["ours"]["cases"]["B"]["cpu"], 2)
        self.assertEqual(document["notes"][0], "A: first; B: second.")

    def test_terminal_sees_the_last_line_of_progress_only(self) -> None:
        """Each goes back to the beginning, and wipes out the one before; the last is empty."""
        with redirect_stderr(_Terminal()) as terminal:
            self.run_benchmark("--rounds", "1")
        lines = terminal.getvalue().split("\r\x1b[K")
        self.assertEqual(lines, ["", "round 1 of 1, case A", "round 1 of 1, case B", ""])

    def test_file_gets_no_progress(self) -> None:
        """There, nobody looks on."""
        with redirect_stderr(StringIO()) as file:
            self.run_benchmark("--rounds", "1")
        self.assertEqual(file.getvalue(), "")
