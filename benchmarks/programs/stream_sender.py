"""
Sends a long stream in small writes, in one of several ways, to a process that only reads.

It starts the reader itself, and reports its own processor time and the time until the last byte is
with the kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from zope.interface import implementer

from benchmarks.commands import end_in_order
from twsock import StreamSocket

__all__ = ["WAYS", "main"]

_WRITE: Final = 16 * 1024
_HOST: Final = "127.0.0.1"
#: Seconds after which a reader without a connection checks that the sender still runs.
_CHECK: Final = 1.0


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
        # Twisted calls once at registration, even while its queue holds data.
        self._is_registering = True
        transport.registerProducer(self, False)
        self._is_registering = False

    # Called by Twisted.

    def resumeProducing(self) -> None:
        """Write the next piece, or fire `done` when the last one is with the kernel."""
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
    "once": write_all_then_flush,
    "full": flush_when_full,
    "each": flush_each,
    "write": twisted_write,
    "producer": twisted_producer,
}


@contextmanager
def _start_reader(core: int | None) -> Iterator[int]:
    """Run the reader, on a core or anywhere, for as long as the block, and give its port."""
    with socket.create_server((_HOST, 0)) as listener:
        sender = os.getpid()
        process = os.fork()
        if not process:
            _read(listener, core, sender)
        try:
            yield listener.getsockname()[1]
        finally:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _read(listener: socket.socket, core: int | None, sender: int) -> NoReturn:
    """Be the reader, as long as the sender is there: even one that was killed ends this one."""
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        listener.settimeout(_CHECK)
        buffer = bytearray(1 << 20)
        while os.getppid() == sender:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.setblocking(True)
                while connection.recv_into(buffer):
                    pass
    finally:
        os._exit(1)


def main(argv: Sequence[str]) -> None:
    """Send as the command line says, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("mebibytes", type=int)
    parser.add_argument("--reader-core", type=int)
    options = parser.parse_args(argv)

    async def run(reactor: Any, port: int) -> None:
        # Imports and allocates what is needed once, and is not counted.
        await WAYS[options.way](reactor, port, 1)
        cpu, clock = time.process_time(), time.perf_counter()
        await WAYS[options.way](reactor, port, options.mebibytes * 1024 * 1024 // _WRITE)
        spent, passed = time.process_time() - cpu, time.perf_counter() - clock
        print(json.dumps({"cpu": spent * 1000, "flushed": passed * 1000}))

    end_in_order()
    with _start_reader(options.reader_core) as port:
        react(lambda reactor: Deferred.fromCoroutine(run(reactor, port)))
