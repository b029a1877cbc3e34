"""
Servers as processes of their own, and the client that measures one of them.

Used by `benchmarks.stream`, `benchmarks.datagram`, `benchmarks.idle` and `benchmarks.handshakes`.
Whatever happens, what is started here is ended here, by its handle.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.cases import Case
from benchmarks.client import STALLED, Measurement
from benchmarks.datagram_cases import DatagramCase
from benchmarks.datagram_client import DatagramMeasurement
from benchmarks.servers import Server

__all__ = ["Running", "ServerError", "measure", "measure_datagrams", "start"]

#: Where both packages, `benchmarks` and `twsock`, are: the checkout.
_ROOT: Final = Path(__file__).parent.parent
#: Seconds that a server has to announce its port; one of them is compiled first.
_START: Final = 30.0
#: Seconds that it has to end once it is told to.
_END: Final = 5.0


class ServerError(Exception):
    """A server did not start, or did not do what is measured."""


@dataclass(frozen=True, slots=True)
class Running:
    """
    A server that listens on a port of 127.0.0.1.

    :ivar certificate: what it shows in its handshakes; None when it speaks plaintext.
    """

    server: Server
    pid: int
    port: int
    certificate: Path | None = None


@contextmanager
def start(
    server: Server, core: int | None, *, certificate: Path | None = None
) -> Iterator[Running]:
    """
    Run a server for as long as the block.

    :param core: where it may run; None for anywhere.
    :param certificate: the file of the key and the certificate for TLS; None for plaintext.
    :raises ServerError: when it does not announce a port.
    """
    process = subprocess.Popen(
        [sys.executable, *server.arguments, *_tls_option(certificate)],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Ctrl-C is for us: we end the servers.
        start_new_session=True,
    )
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        assert process.stdout is not None
        yield Running(server, process.pid, _read_port(server, process.stdout), certificate)
    finally:
        _end(process)


def measure(
    running: Running, case: Case, seconds: float, *, core: int | None, sleeps: bool
) -> Measurement:
    """
    Let a client put load on a server.

    :param core: where the client may run; None for anywhere.
    :param sleeps: whether the client sleeps until something arrives; see `benchmarks.client`.
    :raises ServerError: when the server does not echo.
    """
    command = ["benchmarks.client", *_load_arguments(running, case.key, seconds, core, sleeps)]
    command += _tls_option(running.certificate)
    return Measurement(**_run_client(command, running, case.key, seconds))


def measure_datagrams(
    running: Running, case: DatagramCase, seconds: float, *, core: int | None, sleeps: bool
) -> DatagramMeasurement:
    """Do the same with datagrams."""
    arguments = _load_arguments(running, case.key, seconds, core, sleeps)
    command = ["benchmarks.datagram_client", *arguments]
    return DatagramMeasurement(**_run_client(command, running, case.key, seconds))


def _load_arguments(
    running: Running, case: str, seconds: float, core: int | None, sleeps: bool
) -> list[str]:
    arguments = [str(running.port), str(running.pid), case, str(seconds)]
    if core is not None:
        arguments += ["--core", str(core)]
    if sleeps:
        arguments += ["--sleep"]
    return arguments


def _run_client(
    command: Sequence[str], running: Running, case: str, seconds: float
) -> dict[str, Any]:
    """Give what a client printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=2 * seconds + 4 * STALLED,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"{running.server.title}, case {case}: the client hangs") from error
    if done.returncode:
        raise ServerError(f"{running.server.title}, case {case}: {done.stderr.strip()}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _tls_option(certificate: Path | None) -> list[str]:
    return [] if certificate is None else ["--tls", str(certificate)]


def _read_port(server: Server, output: IO[bytes]) -> int:
    ready, _, _ = select.select([output], [], [], _START)
    line = output.readline() if ready else b""
    if not line:
        raise ServerError(f"{server.title} does not start")
    return int(line)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
