"""
The command: ``python -m benchmarks.flush``; a long stream in small writes, beside Twisted's.

Each way sends 100 MiB in writes of 16 KiB to a process that only reads, and is charged its own
processor time and the time until the last byte is with the kernel. The ways take turns; medians are
printed, and ratios to Twisted's ``transport.write``.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from zope.interface import implementer

from benchmarks.tables import Table
from twsock import StreamSocket

__all__ = ["WAYS", "main"]

_WRITE: Final = 16 * 1024
_HOST: Final = "127.0.0.1"


async def write_all_then_flush(reactor: Any, port: int, count: int) -> None:
    """Begin every write, then flush once."""
    piece = bytes(_WRITE)
    async with StreamSocket(reactor) as sender:
        await sender.connect(_HOST, port)
        for _ in range(count):
            sender.output_stream.write(piece)
        await sender.output_stream.flush()


async def flush_when_full(reactor: Any, port: int, count: int) -> None:
    """Write until the stream is full, flush, go on: 64 KiB are in memory."""
    piece = bytes(_WRITE)
    async with StreamSocket(reactor) as sender:
        await sender.connect(_HOST, port)
        output = sender.output_stream
        for _ in range(count):
            output.write(piece)
            if output.is_full:
                await output.flush()
        await output.flush()


async def flush_each(reactor: Any, port: int, count: int) -> None:
    """Flush after each write: at least a system call for each."""
    piece = bytes(_WRITE)
    async with StreamSocket(reactor) as sender:
        await sender.connect(_HOST, port)
        for _ in range(count):
            sender.output_stream.write(piece)
            await sender.output_stream.flush()


@implementer(IPullProducer)
class _Pulled:
    """Writes one piece whenever Twisted asks for more."""

    def __init__(self, transport: Any, count: int) -> None:
        self.done: Deferred[None] = Deferred()
        self._transport = transport
        self._left = count
        self._piece = bytes(_WRITE)
        # The call at registration comes whatever the queue holds.
        self._is_registering = True
        transport.registerProducer(self, False)
        self._is_registering = False

    # Called by Twisted.

    def resumeProducing(self) -> None:
        """Write the next piece, or tell that the last one is with the kernel."""
        if self._left:
            self._left -= 1
            self._transport.write(self._piece)
        elif not self._is_registering:
            self._transport.unregisterProducer()
            self.done.callback(None)

    def stopProducing(self) -> None:
        """Give up."""
        self.done.errback(ConnectionError("lost"))


async def _connect(reactor: Any, port: int) -> Any:
    from twisted.internet.endpoints import TCP4ClientEndpoint

    endpoint = TCP4ClientEndpoint(reactor, _HOST, port)
    connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Protocol))
    transport = (await connecting).transport
    transport.setTcpNoDelay(True)
    return transport


async def twisted_write(reactor: Any, port: int, count: int) -> None:
    """Give all to ``transport.write``, and wait until its queue is empty."""
    transport = await _connect(reactor, port)
    piece = bytes(_WRITE)
    for _ in range(count):
        transport.write(piece)
    await _Pulled(transport, 0).done
    transport.loseConnection()


async def twisted_producer(reactor: Any, port: int, count: int) -> None:
    """Write a piece whenever ``transport`` asks its pull producer for one."""
    transport = await _connect(reactor, port)
    await _Pulled(transport, count).done
    transport.loseConnection()


WAYS: Final[dict[str, Callable[[Any, int, int], Awaitable[None]]]] = {
    "twsock, all writes, one flush": write_all_then_flush,
    "twsock, a flush when full": flush_when_full,
    "twsock, a flush per write": flush_each,
    "Twisted, transport.write": twisted_write,
    "Twisted, a pull producer": twisted_producer,
}

#: What ratios refer to.
_BASELINE: Final = "Twisted, transport.write"


def _start_reader() -> tuple[int, int]:
    """Fork a process that reads and drops whatever is sent to it; give its id and port."""
    listener = socket.create_server((_HOST, 0))
    process = os.fork()
    if process:
        port: int = listener.getsockname()[1]
        listener.close()
        return process, port
    buffer = bytearray(1 << 20)
    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv_into(buffer):
                pass


async def _measure(
    reactor: Any, port: int, rounds: int, mebibytes: int
) -> dict[str, list[tuple[float, float]]]:
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, send in WAYS.items():
            cpu, clock = time.process_time(), time.perf_counter()
            await send(reactor, port, mebibytes * 1024 * 1024 // _WRITE)
            figures[name].append((time.process_time() - cpu, time.perf_counter() - clock))
    return figures


def _table(figures: dict[str, list[tuple[float, float]]]) -> Table:
    rows = []
    for name, measured in figures.items():
        row = [name]
        for place in (0, 1):
            ratios = [
                one[place] / base[place]
                for one, base in zip(measured, figures[_BASELINE], strict=True)
            ]
            median = statistics.median(one[place] for one in measured)
            row += [f"{median * 1000:.0f}", f"{statistics.median(ratios):.2f}"]
        rows.append(tuple(row))
    return Table("A long stream in writes of 16 KiB", _COLUMNS, rows)


_COLUMNS: Final = ("way", "CPU, ms", "ratio", "until flushed, ms", "ratio")


def main() -> None:
    """Measure and print what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flush")
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many (default 5)")
    parser.add_argument("--mebibytes", type=int, default=100, help="sent each time (default 100)")
    options = parser.parse_args()
    process, port = _start_reader()

    async def run(reactor: Any) -> None:
        figures = await _measure(reactor, port, options.rounds, options.mebibytes)
        print(_table(figures).to_text())

    try:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor)))
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


if __name__ == "__main__":
    main()
