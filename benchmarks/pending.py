"""
``python -m benchmarks pending``: a round trip beside stalled handshakes.

Round trips of one frame of 64 bytes on an established connection are timed, alone and beside silent
peers. Half of those send nothing at all, and the others half a ClientHello, so that the server has
begun. On a virtual machine round trips may take twice as long for a while, whatever the server
does: believe a ratio only when several rounds agree on it.
"""

from __future__ import annotations

import argparse
import select
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Final

from benchmarks.connections import connect, round_trip
from benchmarks.kernel import SPARE_DESCRIPTORS, raise_descriptor_limit
from benchmarks.processes import MeasurementError, Subject, start
from benchmarks.programs import TLS_SERVERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive
from benchmarks.tls_client import TlsClient, encode_client_hello, make_client_context

__all__ = ["BENCHMARK", "measure_pending"]

#: The part of the round trips that warms up and is left out.
_WARM_UP: Final = 1 / 4
#: Seconds after which round trips end, however many there were: twsock, which ends a handshake
#: that is silent for 10 seconds, must not have done so.
_LONGEST: Final = 4.0


def measure_pending(
    port: int, context: ssl.SSLContext, pending: int, round_trips: int, *, sleeps: bool
) -> dict[str, float]:
    """
    Time round trips, open connections that are silent in their handshakes, time again.

    :param pending: how many; both processes need a descriptor for each.
    :param round_trips: how many to make, at most, without the silent ones and again beside them.
    :returns: the medians ``alone`` and ``beside`` in microseconds, and their ``ratio``.
    :raises MeasurementError: when the server does not echo, or ends one of the silent connections.
    """
    with ExitStack() as stack:
        connection = TlsClient(stack.enter_context(connect(port)), context)
        alone = _time_round_trips(connection, round_trips, sleeps=sleeps)
        hello = encode_client_hello(context)
        silent = [stack.enter_context(connect(port)) for _ in range(pending)]
        for each in silent[::2]:
            each.sendall(hello[: len(hello) // 2])
        # Connections are accepted in order: when the last answers, all the others have been.
        last = TlsClient(stack.enter_context(connect(port)), context)
        round_trip(last, sleeps=sleeps)
        beside = _time_round_trips(connection, round_trips, sleeps=sleeps)
        if ended := _count_ended(silent):
            raise MeasurementError(f"{ended} silent handshakes were ended meanwhile")
    return {"alone": alone / 1000, "beside": beside / 1000, "ratio": beside / alone}


def _time_round_trips(connection: TlsClient, count: int, *, sleeps: bool) -> float:
    """Return the median, in nanoseconds."""
    taken: list[int] = []
    end = time.monotonic() + _LONGEST
    while len(taken) < count and time.monotonic() < end:
        start_time = time.perf_counter_ns()
        round_trip(connection, sleeps=sleeps)
        taken.append(time.perf_counter_ns() - start_time)
    return float(median(taken[int(len(taken) * _WARM_UP) :]))


def _count_ended(connections: list[socket.socket]) -> int:
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    return len(poll.poll(0))


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    assert setting.certificate is not None
    context = make_client_context(setting.certificate)
    options = setting.options
    raise_descriptor_limit(options.pending + SPARE_DESCRIPTORS)

    def measure_case(_case: str) -> Mapping[str, float]:
        with start(subject, setting.server_core, certificate=setting.certificate) as running:
            return measure_pending(
                running.port,
                context,
                options.pending,
                options.round_trips,
                sleeps=setting.client_sleeps,
            )

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--pending", type=positive, default=1000, metavar="N", help="silent peers (default 1000)")
    add("--round-trips", type=positive, default=2000, metavar="N", help="each time (default 2000)")


BENCHMARK: Final = Benchmark(
    name="pending",
    programs=TLS_SERVERS,
    cases={"pending": "half of the silent peers sent nothing, the others half a ClientHello"},
    figures=(
        Figure("alone", "Round trip of an established connection in µs, alone"),
        Figure("beside", "beside silent handshakes"),
        Figure("ratio", "and how many times longer", has_ratios=False),
    ),
    open=_open,
    is_secure=True,
    add_options=_add_options,
)
