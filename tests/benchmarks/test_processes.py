"""Tests of `benchmarks.processes`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.processes import MeasurementError, Program, Subject, run_program, start

#: A decoder that says one thing: which checkout it is of.
_DECODER = """
import sys
from pathlib import Path
Path(__file__).with_name("used").touch()
def encode_frame(payload): return bytes(4) + payload
class FrameDecoder:
    delivered = 1
    def __init__(self, max_payload): pass
    def feed(self, data): self.data = data
    def frames(self): return [self.data[4:]]
"""


def _make_checkout(case: SynchronousTestCase, wire: str) -> Path:
    folder = Path(case.mktemp()).absolute() / "twsock"
    folder.mkdir(parents=True)
    folder.joinpath("__init__.py").write_text("")
    folder.joinpath("wire.py").write_text(wire)
    return folder.parent


class RunProgramTests(SynchronousTestCase):
    """A program runs until it ends, and reports."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    program = Program("decoder", "twsock decoder", "decoding", ("68", "64", "frames"))

    def test_program_runs_on_the_other_checkout(self) -> None:
        """Its twsock is imported from there, the program itself from here."""
        checkout = _make_checkout(self, _DECODER)
        figures = run_program(Subject(self.program, checkout), None, "64")
        self.assertEqual(list(figures), ["decoding"])
        self.assertTrue(checkout.joinpath("twsock", "used").exists())

    def test_failed_program_is_refused(self) -> None:
        """As on a checkout that lacks what it imports; its own output says why."""
        subject = Subject(self.program, _make_checkout(self, "raise SystemExit(3)"))
        with self.assertRaisesRegex(MeasurementError, r"^twsock decoder \(baseline\) fails .* 3$"):
            run_program(subject, None, "64")


class StartTests(SynchronousTestCase):
    """A server runs for as long as a block."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_server_ends_with_the_block(self) -> None:
        """Whatever ends the block."""
        server = Subject(Program("asyncio", "asyncio", "asyncio_echo", ("streams",)))
        pids = []

        def fail() -> None:
            with start(server, None) as running:
                pids.append(running.pid)
                raise MeasurementError

        self.assertRaises(MeasurementError, fail)
        self.assertRaises(ProcessLookupError, os.kill, pids[0], 0)

    def test_server_that_announces_no_port_is_refused(self) -> None:
        """As one that ends at once."""
        subject = Subject(
            Program("decoder", "twsock decoder", "decoding"), _make_checkout(self, "exit(3)")
        )
        with (
            self.assertRaisesRegex(MeasurementError, "does not start"),
            start(subject, None),
        ):
            pass


class ProgramTests(SynchronousTestCase):
    """What a program needs."""

    def test_missing_requirement_is_named(self) -> None:
        """A package that is not installed, or a program that is not on the search path."""
        self.patch(os, "environ", {"PATH": ""})
        self.assertEqual(
            Program("x", "X", "x", executable="cc").why_not(),
            "the program cc is not installed",
        )
        self.assertEqual(
            Program("x", "X", "x", packages=("no_such_package",)).why_not(),
            "the package no_such_package is not installed "
            "(pip install --editable '.[benchmarks]' installs it)",
        )
        self.assertIsNone(Program("x", "X", "x", packages=("twisted",)).why_not())
