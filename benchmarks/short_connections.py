"""
``python -m benchmarks short-connections``: what a connection with one echo costs a server.

Connect → one echo → close, one connection after the other, in plaintext. The client ends its output
when the echo of 64 bytes has arrived, and begins the next connection when the server has closed. So
the processor time between two readings is that of the counted connections. All subjects take turns,
in batches and in a random order.
"""

from __future__ import annotations

import argparse
import select
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.connections import STALLED, connect, round_trip
from benchmarks.kernel import cpu_time
from benchmarks.processes import MeasurementError, Subject, start
from benchmarks.programs import REFERENCE, STREAM_SERVERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive

__all__ = ["BENCHMARK", "converse", "measure_connections"]

#: Seconds after which a measurement fails.
_LONGEST: Final = 120.0
#: Seconds to wait until a server that has closed a connection sleeps.
_SETTLE: Final = 0.005
#: Connections before the counted ones, to warm up; at most as many as are counted.
_WARM_UP: Final = 50


@dataclass(frozen=True, slots=True)
class _PlainClient:
    """A non-blocking socket with the methods that `round_trip` calls."""

    socket: socket.socket

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, data: memoryview) -> int:
        return self.socket.send(data)

    def receive_into(self, buffer: memoryview) -> int:
        return self.socket.recv_into(buffer)


def measure_connections(port: int, pid: int, count: int, *, sleeps: bool) -> dict[str, float]:
    """
    Open, use and close connections, one after the other.

    :param sleeps: whether the client sleeps until an echo or an end arrives.
    :returns: ``cpu``, the server's processor time for each connection in microseconds.
    :raises MeasurementError: when the server does not echo or close, or all connections together
        take more than two minutes.
    """
    end = time.monotonic() + _LONGEST
    for _ in range(min(count, _WARM_UP)):
        converse(port, sleeps=sleeps)
    time.sleep(_SETTLE)
    before = cpu_time(pid)
    for _ in range(count):
        converse(port, sleeps=sleeps)
        if time.monotonic() >= end:
            raise MeasurementError(f"no end within {_LONGEST:g} s")
    time.sleep(_SETTLE)
    return {"cpu": (cpu_time(pid) - before) / count / 1000}


def converse(port: int, *, sleeps: bool) -> None:
    """
    Open a connection, wait for an echo, end the output, and wait until the server ends.

    :param sleeps: whether the client sleeps until an echo or an end arrives.
    :raises MeasurementError: when the server does not echo or close.
    """
    with connect(port) as connection:
        connection.setblocking(False)
        round_trip(_PlainClient(connection), sleeps=sleeps)
        connection.shutdown(socket.SHUT_WR)
        _await_end(connection, sleeps=sleeps)


def _await_end(connection: socket.socket, *, sleeps: bool) -> None:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    end = time.monotonic() + STALLED
    while not poll.poll(STALLED * 1000 if sleeps else 0):
        if time.monotonic() >= end:
            raise MeasurementError(f"the server does not close within {STALLED:g} s")
    if connection.recv(1):
        raise MeasurementError("the server sends more than an echo")


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    options = setting.options
    with start(subject, setting.server_core) as running:

        def measure_case(_case: str) -> Mapping[str, float]:
            return measure_connections(
                running.port, running.pid, options.connections, sleeps=setting.client_sleeps
            )

        yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connections",
        type=positive,
        default=1000,
        metavar="N",
        help="for each server and round (default 1000)",
    )


BENCHMARK: Final = Benchmark(
    name="short-connections",
    programs=STREAM_SERVERS,
    cases={"short": "connect, one echo of 64 bytes, close"},
    figures=(Figure("cpu", "Server CPU per connection in µs"),),
    open=_open,
    references=(REFERENCE,),
    add_options=_add_options,
)
