"""
Passes bytes on between two connections, in one of several ways, in both directions.

It starts the process with the two far ends, which sends in pieces of a size and checks what
arrives, and reports its own processor time for each MiB that was passed on.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from benchmarks.commands import end_in_order
from benchmarks.programs.serving import install

__all__ = ["WAYS", "main"]

_HOST: Final = "127.0.0.1"
_MIB: Final = 1024 * 1024
#: Seconds after which a far end gives up: its proxy has failed.
_PATIENCE: Final = 60
_Pair = tuple[socket.socket, socket.socket]


async def relay_sockets(reactor: Any, left: socket.socket, right: socket.socket) -> None:
    """Relay two stream sockets."""
    from twsock import StreamSocket
    from twsock.sockets import relay

    near, far = (StreamSocket.from_socket(reactor, each) for each in (left, right))
    await relay(near, far)


async def copy_in_coroutines(reactor: Any, left: socket.socket, right: socket.socket) -> None:
    """Receive and write in a coroutine for each direction."""
    from twsock import StreamSocket

    async def copy(source: StreamSocket, target: StreamSocket) -> None:
        async for chunk in source.input_stream:
            await target.output_stream.write(chunk)
        await target.output_stream.close()

    near, far = (StreamSocket.from_socket(reactor, each) for each in (left, right))
    copies = (copy(near, far), copy(far, near))
    await gatherResults([Deferred.fromCoroutine(each) for each in copies])


@implementer(IHalfCloseableProtocol)
class _Half(Protocol):
    """One connection of a plain proxy of Twisted; each is the producer of the other."""

    other: _Half

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    # Called by Twisted.

    def dataReceived(self, data: bytes) -> None:
        """Pass the bytes on."""
        transport: Any = self.other.transport
        transport.write(data)

    def readConnectionLost(self) -> None:
        """Pass the end on."""
        transport: Any = self.other.transport
        transport.unregisterProducer()
        transport.loseWriteConnection()
        self.ended.callback(None)

    def writeConnectionLost(self) -> None:
        """Do nothing: the kernel has the end."""


async def plain_proxy(reactor: Any, left: socket.socket, right: socket.socket) -> None:
    """Write what is received, with the transports as each other's producers."""
    halves = _Half(), _Half()
    for half, connection in zip(halves, (left, right), strict=True):
        factory = Factory.forProtocol(lambda half=half: half)  # type: ignore[misc]
        with connection:
            reactor.adoptStreamConnection(connection.fileno(), socket.AF_INET, factory)
    for half, other in (halves, halves[::-1]):
        half.other = other
        transport: Any = half.transport
        transport.registerProducer(other.transport, True)
    await gatherResults([half.ended for half in halves])


WAYS: Final[dict[str, Callable[[Any, socket.socket, socket.socket], Awaitable[None]]]] = {
    "relay": relay_sockets,
    "coroutines": copy_in_coroutines,
    "plain": plain_proxy,
}


def _start_peers(core: int | None, count: int, piece: int) -> tuple[int, _Pair]:
    """Start the process with the far ends, on a core or anywhere; return it and both near ends."""
    with socket.create_server((_HOST, 0)) as listener:
        listener.settimeout(_PATIENCE)
        process = os.fork()
        if not process:
            _be_peers(listener.getsockname(), core, count, piece)
        near = [listener.accept()[0] for _ in range(2)]
    for each in near:
        each.setblocking(False)
    return process, (near[0], near[1])


def _be_peers(address: tuple[str, int], core: int | None, count: int, piece: int) -> NoReturn:
    """Send and receive at both far ends, and leave."""
    status = 1
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        ends = [socket.create_connection(address, timeout=_PATIENCE) for _ in range(2)]
        received: list[int] = []
        threads = [threading.Thread(target=_send, args=(end, count, piece)) for end in ends]
        threads += [threading.Thread(target=_receive, args=(end, received)) for end in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        status = 0 if received == [count * piece] * 2 else 1
    finally:
        os._exit(status)


def _send(end: socket.socket, count: int, piece: int) -> None:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = bytes(piece)
    for _ in range(count):
        end.sendall(data)
    end.shutdown(socket.SHUT_WR)


def _receive(end: socket.socket, received: list[int]) -> None:
    buffer = bytearray(_MIB)
    received.append(sum(iter(lambda: end.recv_into(buffer), 0)))


async def _measure(reactor: Any, options: argparse.Namespace, mebibytes: int) -> float:
    """Pass so much on in each direction; return the processor time in µs for each MiB."""
    count = mebibytes * _MIB // options.piece
    process, near = _start_peers(options.peer_core, count, options.piece)
    before = time.process_time()
    await WAYS[options.way](reactor, *near)
    spent = time.process_time() - before
    # In a thread: the reactor may still have to send the last end.
    _, status = await deferToThread(os.waitpid, process, 0)
    if status:
        raise RuntimeError("the far ends did not receive what they had sent")
    passed: int = 2 * count * options.piece
    return spent * 1e6 * _MIB / passed


def main(argv: Sequence[str]) -> None:
    """Pass on as the command line says, and print the figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("piece", type=int)
    parser.add_argument("mebibytes", type=int)
    parser.add_argument("--reactor", choices=("epoll", "twsock"), default="epoll")
    parser.add_argument("--peer-core", type=int)
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    figures: dict[str, float] = {}
    failed: list[Any] = []

    async def run() -> None:
        # The first run imports and allocates what is needed once, and is not counted.
        await _measure(reactor, options, 1)
        figures["cpu"] = await _measure(reactor, options, options.mebibytes)

    def end(failure: Any) -> None:
        reactor.stop()
        if failure is not None:
            failed.append(failure)

    end_in_order()
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()).addBoth(end))
    reactor.run()
    if failed:
        failed[0].raiseException()
    print(json.dumps(figures))
