"""Tests of `benchmarks.system_calls`."""

from __future__ import annotations

import shutil
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.sending import SEND_CASES, WAYS
from benchmarks.system_calls import TraceError, count_sends


class CountSendsTests(SynchronousTestCase):
    """What the kernel is asked to do for a batch of datagrams."""

    if sys.platform != "linux" or shutil.which("strace") is None:
        skip = "strace is not installed"

    def count(self, way: str, case: str) -> float:
        """Count, where tracing is allowed."""
        try:
            return count_sends(WAYS[way], SEND_CASES[case])
        except TraceError as error:
            if "Operation not permitted" in str(error):
                self.skipTest(str(error))
            raise

    def test_loop_makes_a_call_for_each_datagram(self) -> None:
        """That is what others are compared with."""
        self.assertEqual(self.count("loop", "small"), 64)

    def test_equal_datagrams_and_a_flush_are_one_call(self) -> None:
        """Small ones, and as many large ones as fit."""
        for case in ("small", "large"):
            self.assertEqual(self.count("socket", case), 1)

    def test_what_makes_no_run_is_a_call_each(self) -> None:
        """No call is wasted on runs that the kernel has refused before."""
        for case in ("unequal", "refused"):
            self.assertEqual(self.count("socket", case), 64)


class WithoutStraceTests(SynchronousTestCase):
    """Where there is no ``strace``."""

    def test_absence_is_told(self) -> None:
        """The figures of the processor time do not need it."""
        self.patch(shutil, "which", lambda _name: None)
        with self.assertRaisesRegex(TraceError, "strace is not installed"):
            count_sends(WAYS["loop"], SEND_CASES["small"])
