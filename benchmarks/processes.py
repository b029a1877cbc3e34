"""
The programs that are measured, as processes: servers that announce a port, senders that report.

Used by every benchmark. A program runs on the twsock of a checkout, this one or another, through
`benchmarks.programs`. Each process that is started here is also ended here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

__all__ = ["ROOT", "MeasurementError", "Program", "Running", "Subject", "run_program", "start"]

#: Where the packages `benchmarks` and `twsock` are: this checkout.
ROOT: Final = Path(__file__).resolve().parent.parent
#: Seconds within which a server prints its port; the one in C is compiled first.
_START: Final = 30.0
#: Seconds within which a program ends after SIGTERM.
_END: Final = 5.0
#: Seconds within which a program prints its figures.
_LONGEST: Final = 120.0


class MeasurementError(Exception):
    """A program did not start, or did not do what is measured."""


@dataclass(frozen=True, slots=True)
class Program:
    """
    A server or a sender.

    :ivar key: its name on the command line.
    :ivar module: its module in `benchmarks.programs`.
    :ivar arguments: its command line.
    :ivar packages: the packages that it needs.
    :ivar executable: a program on the search path that it needs.
    """

    key: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    executable: str | None = None

    @property
    def uses_twsock(self) -> bool:
        """Whether it runs twsock, and so differs between checkouts: the title says so."""
        return self.title.startswith("twsock")

    def why_not(self) -> str | None:
        """Return why it cannot run here; None when it can."""
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                install = "pip install --editable '.[benchmarks]'"
                return f"the package {package} is not installed ({install} installs it)"
        if self.executable is not None and shutil.which(self.executable) is None:
            return f"the program {self.executable} is not installed"
        return None


@dataclass(frozen=True, slots=True)
class Subject:
    """
    What is measured: a program on the twsock of a checkout.

    :ivar baseline: the other checkout; None for this one.
    """

    program: Program
    baseline: Path | None = None

    @property
    def key(self) -> str:
        """Its name in the JSON."""
        return self.program.key if self.baseline is None else f"{self.program.key}@baseline"

    @property
    def title(self) -> str:
        """Its name for people."""
        title = self.program.title
        return title if self.baseline is None else f"{title} (baseline)"

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that starts it."""
        checkout = str(self.baseline or ROOT)
        command = [sys.executable, "-m", "benchmarks.programs", checkout, self.program.module]
        return [*command, *self.program.arguments, *arguments]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that listens on a port of 127.0.0.1."""

    title: str
    pid: int
    port: int


@contextmanager
def start(
    subject: Subject, core: int | None, *, certificate: Path | None = None
) -> Iterator[Running]:
    """
    Run a server for as long as the block.

    :param core: where it may run; None for anywhere.
    :param certificate: the file of the key and the certificate for TLS; None for plaintext.
    :raises MeasurementError: when it prints no port.
    """
    options = [] if certificate is None else ["--tls", str(certificate)]
    with _running(subject.command(*options), core) as process:
        assert process.stdout is not None
        yield Running(subject.title, process.pid, _read_port(subject, process.stdout))


def run_program(subject: Subject, core: int | None, *arguments: str) -> dict[str, Any]:
    """
    Run a program until it ends, and return the figures that it reports.

    :param core: where it may run; None for anywhere.
    :raises MeasurementError: when it fails or does not end.
    """
    with _running(subject.command(*arguments), core) as process:
        try:
            output, _ = process.communicate(timeout=_LONGEST)
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"{subject.title}: no end within {_LONGEST:g} s") from error
        if process.returncode:
            raise MeasurementError(f"{subject.title} fails with status {process.returncode}")
        figures: dict[str, Any] = json.loads(output)
        return figures


@contextmanager
def _running(command: list[str], core: int | None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Ctrl-C is for this process, which then ends the others.
        start_new_session=True,
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield process
    finally:
        _end(process)


def _read_port(subject: Subject, output: IO[bytes]) -> int:
    ready, _, _ = select.select([output], [], [], _START)
    line = output.readline() if ready else b""
    if not line:
        raise MeasurementError(f"{subject.title} does not start")
    return int(line)


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        # It leads the session of what it has started, which ends as well.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
