"""
``python -m benchmarks websocket``: what an echoed WebSocket message costs a server.

Measured as ``stream``, with messages instead of frames; `benchmarks.websocket_load` makes the load.
The servers run with the defaults of their libraries, but for two things: compression is allowed,
and the client offers it in the case Z only; and messages of 64 KiB are allowed.

In Z each message is compressed by itself: the client asks for no context takeover. The windows and
the levels are the servers' own: twsock and ``websockets`` choose a window of 4 KiB, the others one
of 32 KiB. A server without compression has no figure there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from benchmarks.processes import Subject, start
from benchmarks.programs import FRAMES, WEBSOCKET_REFERENCES, WEBSOCKET_SERVERS, WITHOUT_DEFLATE
from benchmarks.results import Figure
from benchmarks.rounds import Benchmark, Measure, Setting
from benchmarks.stream import add_seconds
from benchmarks.stream_load import Load, StreamLoad, measure
from benchmarks.websocket_load import WebSocketCase, WebSocketLoad

__all__ = ["BENCHMARK", "CASES"]

CASES: Final = {
    "A": WebSocketCase(payload=64, window=1),
    "B": WebSocketCase(payload=64, window=64),
    "C": WebSocketCase(payload=64, window=16, connections=50),
    "D": WebSocketCase(payload=1024, window=64),
    "E": WebSocketCase(payload=64 * 1024, window=4),
    "T": WebSocketCase(payload=64, window=64, is_text=True),
    "Z": WebSocketCase(payload=1024, window=64, is_deflated=True),
}


@contextmanager
def _open(subject: Subject, setting: Setting) -> Iterator[Measure]:
    with start(subject, setting.server_core) as running:

        def measure_case(key: str) -> Mapping[str, float]:
            case = CASES[key]
            if subject.program.key == FRAMES:
                if case.is_deflated or case.is_text:
                    return {}
                load: Load = StreamLoad(running.port, case, sleeps=setting.client_sleeps)
            elif case.is_deflated and subject.program.key in WITHOUT_DEFLATE:
                return {}
            else:
                load = WebSocketLoad(running.port, case, sleeps=setting.client_sleeps)
            return measure(load, running.pid, setting.options.seconds)

        yield measure_case


BENCHMARK: Final = Benchmark(
    name="websocket",
    programs=WEBSOCKET_SERVERS,
    cases={key: case.title for key, case in CASES.items()},
    figures=(
        Figure("cpu", "Server CPU per echoed message in µs"),
        Figure("rate", "Thousand messages a second", has_ratios=False),
    ),
    open=_open,
    references=WEBSOCKET_REFERENCES,
    add_options=add_seconds,
)
