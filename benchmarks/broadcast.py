"""
``python -m benchmarks broadcast``: what each receiver of a broadcast to WebSockets costs a server.

Some WebSockets only receive, and one more sends a message. The server sends that message to all
others, and when the last receiver has it, the next message follows. So nothing waits at the server,
and no receiver is slow. The processor time of a broadcast is divided by the number of receivers.

The servers run with the defaults of their libraries, and allow compression. The clients of the last
two cases offer it, without context takeover. ``websockets`` then compresses each message once for
each receiver. twsock compresses once for all receivers, and sends messages below 256 bytes as they
are. The loop around ``socket.send`` makes the system calls and does nothing else: its figure is the
least that a ratio can be. It compresses nothing.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.connections import STALLED
from benchmarks.kernel import SPARE_DESCRIPTORS, raise_descriptor_limit
from benchmarks.processes import MeasurementError, Subject, start
from benchmarks.programs import BROADCAST_REFERENCES, BROADCASTERS, WITHOUT_DEFLATE
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting, positive
from benchmarks.stream import add_seconds
from benchmarks.stream_load import measure
from benchmarks.websocket_client import (
    BINARY,
    decompress,
    encode,
    open_web_socket,
    read_frame,
)
from benchmarks.websocket_load import WebSocketCase, make_payloads

__all__ = ["BENCHMARK", "CASES", "BroadcastLoad"]

CASES: Final = {
    "small": WebSocketCase(payload=64, window=1),
    "large": WebSocketCase(payload=1024, window=1),
    "small-deflated": WebSocketCase(payload=64, window=1, is_deflated=True),
    "large-deflated": WebSocketCase(payload=1024, window=1, is_deflated=True),
}


class BroadcastLoad:
    """
    One WebSocket that sends, and some that receive what it sends.

    Each different message is sent once at first: the first receiver decodes it, and from then on
    all receivers expect equal bytes.

    :param receivers: how many.
    :param sleeps: whether to sleep until a message arrives; otherwise the client asks the kernel
        again and again.
    :raises MeasurementError: when a receiver gets something else than was sent.
    """

    def __init__(self, port: int, case: WebSocketCase, receivers: int, *, sleeps: bool) -> None:
        self._stack = ExitStack()
        try:
            # The sender is the last one: the server then has all receivers.
            *self._receivers, self._sender = [
                self._stack.enter_context(open_web_socket(port, deflate=case.is_deflated))
                for _ in range(receivers + 1)
            ]
            payloads = make_payloads(case)
            self._frames = [(encode(BINARY, one), self._expected(one)) for one in payloads]
        except BaseException:
            self.close()
            raise
        for receiver in () if sleeps else self._receivers:
            receiver.setblocking(False)
        self._number = 0

    def _expected(self, payload: bytes) -> bytes:
        """Broadcast a message; return its bytes on the wire."""
        self._sender.sendall(encode(BINARY, payload))
        first, *others = self._receivers
        frame = read_frame(first)
        is_compressed = bool(frame.first & 0x40)
        data = decompress(frame.payload) if is_compressed else frame.payload
        if (frame.opcode, frame.is_final, data) != (BINARY, True, payload):
            raise MeasurementError("a receiver gets something else than was sent")
        for receiver in others:
            self._receive(receiver, frame.wire)
        return frame.wire

    def close(self) -> None:
        """End all connections."""
        self._stack.close()

    def run(self, seconds: float) -> int:
        """
        Broadcast for some time, at least once.

        :returns: how many messages arrived: those of each receiver count.
        :raises MeasurementError: when a receiver gets something else, or nothing for `STALLED`
            seconds.
        """
        end = time.monotonic() + seconds
        received = 0
        while not received or time.monotonic() < end:
            sent, expected = self._frames[self._number % len(self._frames)]
            self._number += 1
            self._sender.sendall(sent)
            for receiver in self._receivers:
                self._receive(receiver, expected)
            received += len(self._receivers)
        return received

    def _receive(self, receiver: socket.socket, expected: bytes) -> None:
        data = b""
        stalled = time.monotonic() + STALLED
        while len(data) < len(expected):
            try:
                piece = receiver.recv(len(expected) - len(data))
            except BlockingIOError:
                if time.monotonic() > stalled:
                    raise MeasurementError("a receiver gets nothing") from None
                continue
            except TimeoutError:
                raise MeasurementError("a receiver gets nothing") from None
            if not piece:
                raise MeasurementError("the server hung up")
            data += piece
        if data != expected:
            raise MeasurementError("a receiver gets something else than was sent")


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    options = setting.options
    raise_descriptor_limit(options.receivers + SPARE_DESCRIPTORS)
    with start(subject, setting.server_core) as running:

        def measure_case(key: str) -> Mapping[str, float]:
            case = CASES[key]
            if case.is_deflated and subject.program.key in WITHOUT_DEFLATE:
                return {}
            sleeps = setting.client_sleeps
            load = BroadcastLoad(running.port, case, options.receivers, sleeps=sleeps)
            return measure(load, running.pid, options.seconds)

        yield measure_case


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_seconds(parser)
    parser.add_argument(
        "--receivers", type=positive, default=1000, metavar="N", help="default 1000"
    )


BENCHMARK: Final = Benchmark(
    name="broadcast",
    programs=BROADCASTERS,
    cases={
        "small": "64 B",
        "large": "1 KiB",
        "small-deflated": "64 B, compression agreed",
        "large-deflated": "1 KiB, compression agreed",
    },
    figures=(
        Figure("cpu", "Server CPU per receiver of a broadcast in µs"),
        Figure("rate", "Thousand receivers a second", has_ratios=False),
    ),
    open=_open,
    references=BROADCAST_REFERENCES,
    add_options=_add_options,
)
