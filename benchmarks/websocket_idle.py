"""
``python -m benchmarks websocket-idle``: how much memory an idle WebSocket takes in a server.

Measured as in `benchmarks.idle`, with the servers of `benchmarks.websocket`. In the case
``deflated`` the client offers compression without context takeover, and the message is large enough
that each server compresses its answer.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.kernel import SPARE_DESCRIPTORS, raise_descriptor_limit, resident_memory
from benchmarks.processes import MeasurementError, Running, Subject, start
from benchmarks.programs import WEBSOCKET_REFERENCES, WEBSOCKET_SERVERS, WITHOUT_DEFLATE
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive
from benchmarks.websocket_client import PING, TEXT, open_web_socket, read_message
from benchmarks.websocket_load import WebSocketCase, encode_message, make_payloads

__all__ = ["BENCHMARK"]

_CASES: Final = {
    "plain": WebSocketCase(payload=64, window=1, is_text=True),
    "deflated": WebSocketCase(payload=1024, window=1, is_text=True, is_deflated=True),
}


def _measure(running: Running, case: WebSocketCase, count: int) -> dict[str, float]:
    """Return KiB for each WebSocket after the handshake, and after an echo."""
    message = encode_message(case, TEXT, make_payloads(case)[0])
    with ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(open_web_socket(running.port, deflate=case.is_deflated))

        # The first WebSocket makes the server load and allocate what all WebSockets share.
        _echo(connect(), message)
        before = resident_memory(running.pid)
        connections = [connect() for _ in range(count)]
        connected = resident_memory(running.pid)
        for connection in connections:
            _echo(connection, message)
        echoed = resident_memory(running.pid)
    each = count * 1024
    return {"connected": (connected - before) / each, "echoed": (echoed - before) / each}


def _echo(connection: socket.socket, message: bytes) -> None:
    """
    Send a message, and receive the answer.

    :raises MeasurementError: when the server closes.
    """
    connection.sendall(message)
    while (opcode := read_message(connection)[0].opcode) != TEXT:
        if opcode != PING:  # A server on a slow machine sends pings meanwhile.
            raise MeasurementError(f"the server answers with opcode {opcode}")


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    count = setting.options.connections
    raise_descriptor_limit(count + SPARE_DESCRIPTORS)

    def measure_case(key: str) -> Mapping[str, float]:
        case = _CASES[key]
        if case.is_deflated and subject.program.key in WITHOUT_DEFLATE:
            return {}
        with start(subject, setting.server_core) as running:
            return _measure(running, case, count)

    yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connections",
        type=positive,
        default=4000,
        metavar="N",
        help="to each server; each takes a descriptor on both sides (default 4000)",
    )


BENCHMARK: Final = Benchmark(
    name="websocket-idle",
    programs=WEBSOCKET_SERVERS,
    cases={
        "plain": "an echo is a text of 64 bytes",
        "deflated": "an echo is a text of 1 KiB, compressed in both directions",
    },
    figures=(
        Figure("connected", "Resident memory of the server for each idle WebSocket in KiB"),
        Figure("echoed", "and after an echo on each"),
    ),
    open=_open,
    references=WEBSOCKET_REFERENCES,
    # Masks in Python make no difference here.
    unasked=[program.key for program in WEBSOCKET_SERVERS if program.key.endswith("-python")],
    rounds=1,
    add_options=_add_options,
)
