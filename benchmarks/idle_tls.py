"""
``python -m benchmarks idle-tls``: how much memory an idle TLS connection takes in a server.

Measured as in `benchmarks.idle`. After a handshake and one echo, the client keeps only the socket,
so that its own memory does not limit the number of connections.
"""

from __future__ import annotations

import argparse
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.connections import connect, round_trip
from benchmarks.kernel import SPARE_DESCRIPTORS, raise_descriptor_limit, resident_memory
from benchmarks.processes import Running, Subject, start
from benchmarks.programs import BARE_TLS, IDLE_TLS_SERVERS
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive
from benchmarks.tls_client import TlsClient, make_client_context

__all__ = ["BENCHMARK"]


def _open_connection(port: int, context: ssl.SSLContext) -> socket.socket:
    """Return the socket of a connection that has echoed one frame."""
    plain = connect(port)
    round_trip(TlsClient(plain, context), sleeps=True)
    return plain


def _measure(running: Running, count: int, context: ssl.SSLContext) -> dict[str, float]:
    with ExitStack() as stack:
        # The first connection makes the server load and allocate what all connections share.
        stack.enter_context(_open_connection(running.port, context))
        before = resident_memory(running.pid)
        for _ in range(count):
            stack.enter_context(_open_connection(running.port, context))
        return {"echoed": (resident_memory(running.pid) - before) / (count * 1024)}


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    assert setting.certificate is not None
    count = setting.options.connections
    context = make_client_context(setting.certificate)
    raise_descriptor_limit(count + SPARE_DESCRIPTORS)

    def measure_case(_case: str) -> Mapping[str, float]:
        with start(subject, setting.server_core, certificate=setting.certificate) as running:
            return _measure(running, count, context)

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connections",
        type=positive,
        default=2000,
        metavar="N",
        help="connections to each server; each takes a descriptor on both sides (default 2000)",
    )


BENCHMARK: Final = Benchmark(
    name="idle-tls",
    programs=IDLE_TLS_SERVERS,
    cases={"idle": "after a handshake and an echo of 64 bytes"},
    figures=(Figure("echoed", "Resident memory of the server for each idle connection in KiB"),),
    open=_open,
    references=(BARE_TLS,),
    is_secure=True,
    rounds=1,
    add_options=_add_options,
)
