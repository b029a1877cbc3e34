"""
``python -m benchmarks datagrams``: what an echoed datagram costs a server.

The cases
    A: one datagram of 64 bytes in flight. B: 32 of 100 bytes; C: 32 of 1,200. The client sends 32
    together, waits until all are back, and sends the next ones. Each has other contents, and every
    answer is compared. The kernel delivers several as one run only when they were sent in one call,
    so B and C are such runs; in B-single and C-single the client makes a call for each.

The load
    A plain socket, which takes runs in one call, as it has to be cheap beside the servers. What has
    not come back 5 seconds after the last answer counts as lost. The buffers of both sockets are
    the kernel's defaults; 32 datagrams fit in them many times. The server sleeps between one window
    and the next, so each window also pays for one wake-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.datagram_load import DatagramCase, DatagramLoad
from benchmarks.processes import Subject, start
from benchmarks.programs import DATAGRAM_SERVERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting
from benchmarks.stream import add_seconds
from benchmarks.stream_load import measure

__all__ = ["BENCHMARK", "CASES"]

CASES: Final = {
    "A": DatagramCase(payload=64, window=1),
    "B": DatagramCase(payload=100, window=32, is_run=True),
    "B-single": DatagramCase(payload=100, window=32),
    "C": DatagramCase(payload=1200, window=32, is_run=True),
    "C-single": DatagramCase(payload=1200, window=32),
}


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    with start(subject, setting.server_core) as running:

        def measure_case(case: str) -> Mapping[str, float]:
            load = DatagramLoad(running.port, CASES[case], sleeps=setting.client_sleeps)
            figures = measure(load, running.pid, setting.options.seconds)
            return {**figures, "lost": load.lost}

        yield measure_case


BENCHMARK: Final = Benchmark(
    name="datagrams",
    programs=DATAGRAM_SERVERS,
    cases={key: case.title for key, case in CASES.items()},
    figures=(
        Figure("cpu", "Server CPU per echoed datagram in µs"),
        Figure("rate", "Thousand datagrams a second", has_ratios=False),
        Figure("lost", "Datagrams lost, to be 0", has_ratios=False, is_sum=True),
    ),
    open=_open,
    references=("asyncio", "twisted", "c"),
    # The figures of Twisted's port say nothing about twsock's.
    unasked=("echo-plain",),
    add_options=add_seconds,
)
