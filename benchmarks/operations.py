"""
``python -m benchmarks operations``: what the options for operations cost the stream service.

The subjects are one service with different options: metrics that are scraped each second, a log
line for each connection, and two workers, whose processor time is that of all three processes.
Frames are those of ``python -m benchmarks stream``, connections those of ``short-connections``. The
processor time is that of the server and includes its answers to the scraper, which runs in a thread
of the client. All subjects take turns in a random order.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import MeasurementError, Subject, start
from benchmarks.programs import OPERATIONS, PLAIN_SERVICE
from benchmarks.programs.twsock_service import page_of
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive
from benchmarks.short_connections import measure_connections
from benchmarks.stream_load import Case, StreamLoad, measure

__all__ = ["BENCHMARK", "CASES", "INTERVAL", "scraped"]

CASES: Final = {
    "A": Case(payload=64, window=1),
    "B": Case(payload=64, window=64),
    "C": Case(payload=64, window=16, connections=50),
}

_SHORT: Final = "short"

#: Seconds between two scrapes.
INTERVAL: Final = 1.0

_REQUEST: Final = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@contextmanager
def scraped(address: str, interval: float = INTERVAL) -> Iterator[list[int]]:
    """
    Read a page again and again during the block.

    :param address: of the UNIX socket.
    :param interval: seconds between two requests; the first one is sent at once.
    :returns: the sizes of the answers so far, in bytes.
    :raises MeasurementError: at the end of the block, when a request was not answered.
    """
    sizes: list[int] = []
    problems: list[str] = []
    ended = threading.Event()

    def scrape() -> None:
        try:
            while not ended.is_set():
                sizes.append(_read_page(address))
                ended.wait(interval)
        except (OSError, MeasurementError) as error:
            problems.append(str(error))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield sizes
    finally:
        ended.set()
        thread.join()
    if problems:
        raise MeasurementError(f"the page cannot be read: {problems[0]}")


def _read_page(address: str) -> int:
    """Return the size of the answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(address)
        connection.sendall(_REQUEST)
        answer = bytearray()
        while data := connection.recv(65536):
            answer += data
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise MeasurementError(f"it answered {bytes(answer[:40])!r}")
    return len(answer)


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    options, sleeps = setting.options, setting.client_sleeps
    has_page = "--metrics" in subject.program.arguments
    with start(subject, setting.server_core) as running:

        def measure_case(case: str) -> Mapping[str, float]:
            page = scraped(page_of(running.pid)) if has_page else contextlib.nullcontext()
            with page:
                if case == _SHORT:
                    count = options.connections
                    return measure_connections(running.port, running.pid, count, sleeps=sleeps)
                load = StreamLoad(running.port, CASES[case], sleeps=sleeps)
                return {"cpu": measure(load, running.pid, options.seconds)["cpu"]}

        yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--seconds",
        type=float,
        default=2.0,
        metavar="S",
        help="of load for each server, case and round: two scrapes or more (default 2)",
    )
    add(
        "--connections",
        type=positive,
        default=2000,
        metavar="N",
        help="short connections for each server and round (default 2000)",
    )


BENCHMARK: Final = Benchmark(
    name="operations",
    programs=OPERATIONS,
    cases={
        **{key: case.title for key, case in CASES.items()},
        _SHORT: "connect, one echo of 64 bytes, close",
    },
    figures=(Figure("cpu", "Server CPU per frame, or per short connection, in µs"),),
    open=_open,
    references=(PLAIN_SERVICE,),
    rounds=9,
    add_options=_add_options,
)
