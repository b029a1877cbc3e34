"""Tests of `benchmarks.commands`."""

from __future__ import annotations

import importlib
import os
import select
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.commands import COMMANDS, main
from benchmarks.processes import ROOT

#: Seconds within which a process does what it is about to do, on the slowest machine.
_PATIENCE = 60


class MainTests(SynchronousTestCase):
    """``python -m benchmarks``."""

    def test_without_a_name_all_are_listed(self) -> None:
        """A line for each."""
        with redirect_stdout(StringIO()) as printed:
            main([])
        lines = printed.getvalue().splitlines()
        self.assertEqual([line.split()[0] for line in lines], list(COMMANDS))

    def test_wrong_name_ends_with_status_2(self) -> None:
        """One line names the right ones."""
        with redirect_stderr(StringIO()) as errors, self.assertRaises(SystemExit) as raised:
            main(["fastest"])
        self.assertEqual(raised.exception.code, 2)
        (line,) = errors.getvalue().splitlines()
        self.assertIn("'fastest' is none of stream, stream-tls", line)

    def test_benchmark_has_the_name_of_its_command(self) -> None:
        """So its help names the command."""
        for name in set(COMMANDS) - {"paths", "rolling", "structure"}:
            module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
            self.assertEqual(module.BENCHMARK.name, name, f"{name=}")


class StopTests(SynchronousTestCase):
    """A signal ends a benchmark while one of its servers runs."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal to a benchmark; return its status and its error output."""
        checkout = Path(self.mktemp()).absolute()
        checkout.joinpath("twsock").mkdir(parents=True)
        os.mkfifo(checkout / "pid")
        # The server never announces a port.
        checkout.joinpath("twsock", "__init__.py").write_text(
            "import os, signal, pathlib\n"
            "with open(pathlib.Path(__file__).parents[1] / 'pid', 'w') as pipe:\n"
            "    print(os.getpid(), file=pipe)\n"
            "signal.pause()\n"
        )
        pipe = os.open(checkout / "pid", os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, pipe)
        command = [sys.executable, "-m", "benchmarks", "stream"]
        options = ["--servers", "sockets", "--baseline", str(checkout)]
        process = subprocess.Popen(
            [*command, *options], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        try:
            self.assertTrue(select.select([pipe], [], [], _PATIENCE)[0], "no server was started")
            process.send_signal(number)
            _, errors = process.communicate(timeout=_PATIENCE)
        finally:
            process.kill()
            process.wait()
        self.assertRaises(ProcessLookupError, os.kill, int(os.read(pipe, 100)), 0)
        return process.returncode, errors

    def test_interrupt_ends_it_and_its_servers(self) -> None:
        """One line says so, and the status is that of a program that Ctrl-C has ended."""
        self.assertEqual(self.stop(signal.SIGINT), (130, "python -m benchmarks stream: stopped\n"))

    def test_termination_ends_it_and_its_servers(self) -> None:
        """The status names the signal, as that of a shell does."""
        self.assertEqual(self.stop(signal.SIGTERM), (128 + signal.SIGTERM, ""))
