"""Tests of `benchmarks.system_calls`."""

from __future__ import annotations

import shutil
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.processes import MeasurementError, Subject
from benchmarks.programs import SENDERS
from benchmarks.system_calls import count_sends

_WAYS = {program.key: Subject(program) for program in SENDERS}


class CountSendsTests(SynchronousTestCase):
    """What the kernel is asked to do for a batch of datagrams."""

    if sys.platform != "linux" or shutil.which("strace") is None:
        skip = "strace is not installed"

    def count(self, way: str, case: str) -> float:
        """Count, where tracing is allowed."""
        try:
            return count_sends(_WAYS[way], case)
        except MeasurementError as error:
            if "Operation not permitted" in str(error):
                self.skipTest(str(error))
            raise

    def test_loop_makes_a_call_for_each_datagram(self) -> None:
        """That is what others are compared with."""
        self.assertEqual(self.count("loop", "small"), 64)

    def test_equal_datagrams_and_a_flush_are_one_call(self) -> None:
        """Small ones, and as many large ones as fit."""
        for case in ("small", "large"):
            self.assertEqual(self.count("socket", case), 1, f"{case=}")

    def test_what_makes_no_run_is_a_call_each(self) -> None:
        """No call is wasted on runs that the kernel has refused before."""
        for case in ("unequal", "refused"):
            self.assertEqual(self.count("socket", case), 64, f"{case=}")


class WithoutStraceTests(SynchronousTestCase):
    """Where there is no ``strace``."""

    def test_absence_is_reported(self) -> None:
        """The figures of the processor time do not need it."""
        self.patch(shutil, "which", lambda _name: None)
        with self.assertRaisesRegex(MeasurementError, "strace is not installed"):
            count_sends(_WAYS["loop"], "small")
