"""
The names of the benchmarks, and the command that runs one of them: ``python -m benchmarks NAME``.

Each name is that of a module of this package. It has a `benchmarks.rounds.Benchmark`, or a ``main``
that takes the rest of the command line.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

__all__ = ["COMMANDS", "end_in_order", "main"]

#: In the order of docs/benchmarks.md.
COMMANDS: Final = {
    "stream": "what an echoed frame costs a server",
    "stream-tls": "what an echoed frame costs a server over TLS",
    "short-connections": "what a connection with one echo costs a server",
    "connection-calls": "how many system calls such a connection takes",
    "handshakes": "what full and resumed TLS handshakes cost a server",
    "pending": "how long a round trip takes beside stalled handshakes",
    "datagrams": "what an echoed datagram costs a server",
    "sending": "what it costs to send a batch of datagrams",
    "system-calls": "how many system calls a batch of datagrams takes",
    "idle": "how much memory an idle connection needs",
    "idle-tls": "how much memory an idle connection over TLS needs",
    "flush": "what a long stream in small writes costs",
    "relay": "what a proxy costs that passes bytes on in both directions",
    "handover": "how long a connection pauses that moves to another process",
    "framing": "what it costs to decode frames, for each byte",
    "websocket": "what an echoed WebSocket message costs a server",
    "websocket-idle": "how much memory an idle WebSocket needs",
    "broadcast": "what each receiver of a broadcast to WebSockets costs a server",
    "websocket-core": "what it costs to decode and to encode a WebSocket message",
    "operations": "what metrics and a log of connections cost the stream service",
    "rolling": "how many requests fail while instances behind HAProxy are replaced",
    "values": "what it costs to read and to write a record of four values",
    "structure": "modules, lines and imports of twsock, and what it costs to import it",
    "paths": "which modules of twsock an event passes, and how many calls it takes",
}


def main(argv: Sequence[str]) -> None:
    """Run one command, or list them; a wrong name ends with status 2, Ctrl-C with 130."""
    if not argv or argv[0] in {"-h", "--help"}:
        width = max(map(len, COMMANDS))
        print("\n".join(f"{name:{width}}  {summary}" for name, summary in COMMANDS.items()))
        return
    name, *rest = argv
    if name not in COMMANDS:
        print(f"python -m benchmarks: {name!r} is none of {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    end_in_order()
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    try:
        if hasattr(module, "BENCHMARK"):
            importlib.import_module("benchmarks.rounds").run(module.BENCHMARK, rest)
        else:
            module.main(rest)
    except KeyboardInterrupt:
        print(f"python -m benchmarks {name}: stopped", file=sys.stderr)
        sys.exit(130)


def end_in_order() -> None:
    """Turn SIGTERM into an exit that runs every ``finally``, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
