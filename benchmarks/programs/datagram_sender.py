"""
Sends batches of datagrams to one peer, in one of three ways, and reports what a datagram costs.

The peer is another socket of this process, which is emptied between two batches. Only the sending
counts, with the processor time that the kernel counts for this process. What the kernel does to
deliver the datagrams to the other socket is part of it, for all ways alike. With ``--untimed``,
nothing is received, for `benchmarks.system_calls`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
import typing
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater, react

from benchmarks.programs.serving import import_first
from benchmarks.segmentation import LARGEST_RUN, receive_run, receive_runs
from benchmarks.sending import CASES, MARK, SendCase
from twsock import DatagramSocket

__all__ = ["WAYS", "Sender", "count_received", "main", "measure_sends", "open_sink"]

_HOST: Final = "127.0.0.1"
#: Room for some batches, in bytes; the kernel grants less where ``net.core.rmem_max`` is below it.
_BUFFER: Final = 4 * 1024 * 1024
#: Seconds without any datagram after which those that have not come are lost.
_LATE: Final = 5.0
#: The first bytes of the datagrams of a warm-up; as many as `MARK` has.
_WARM_UP: Final = b"warm-up."
#: Batches that warm up and are left out.
_WARM_UP_BATCHES: Final = 64
#: Batches between two turns of the reactor, which removes cancelled timers in its turn.
_BATCHES_PER_TURN: Final = 64
#: <asm-generic/socket.h>. Without checksums, the kernel refuses to cut a run: with EINVAL.
_SO_NO_CHECK: Final = 11


class Sender(typing.Protocol):
    """Is connected, and sends."""

    async def send(self, datagrams: Sequence[bytes]) -> None:
        """Send a batch: all are with the kernel when it is done."""

    def close(self) -> None:
        """End it."""


class _Loop:
    """A loop in Python around ``socket.send``: what ratios refer to."""

    def __init__(self, port: int, case: SendCase) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect((_HOST, port))
        if case.is_refused:
            _refuse_runs(self._socket)

    async def send(self, datagrams: Sequence[bytes]) -> None:
        """Send each."""
        send = self._socket.send
        for datagram in datagrams:
            send(datagram)

    def close(self) -> None:
        """End it."""
        self._socket.close()


class _Socket:
    """twsock's socket: writes that nobody awaits, and a flush."""

    def __init__(self, connected: DatagramSocket) -> None:
        self._socket = connected
        self._output = connected.output_stream

    async def send(self, datagrams: Sequence[bytes]) -> None:
        """Write each, and flush."""
        write = self._output.write
        for datagram in datagrams:
            write(datagram)
        await self._output.flush()

    def close(self) -> None:
        """End it."""
        self._socket.close()


class _Port:
    """twsock's port, without a socket above it."""

    def __init__(self, reactor: Any, port: int, case: SendCase) -> None:
        sockets = import_first("twsock.datagram.udp_socket", "twsock.transport.udp_socket")
        ports = import_first("twsock.datagram.port", "twsock.transport.datagrams")
        options = sockets.DatagramOptions(segmentation=not case.is_refused)
        self._port = ports.listen_datagrams(reactor, DatagramProtocol(), 0, _HOST, options)
        self._port.connect(_HOST, port)

    async def send(self, datagrams: Sequence[bytes]) -> None:
        """Send each, to leave together."""
        send = self._port.send
        with self._port.together():
            for datagram in datagrams:
                send(datagram)

    def close(self) -> None:
        """End it."""
        self._port.stopListening()


async def _open_loop(_reactor: Any, port: int, case: SendCase) -> Sender:
    return _Loop(port, case)


async def _open_socket(reactor: Any, port: int, case: SendCase) -> Sender:
    connected = DatagramSocket(reactor)
    await connected.connect(_HOST, port)
    if case.is_refused:
        # As no option turns runs off, the kernel has to refuse them.
        with _find_socket(int(connected.information.local_port)) as same:
            _refuse_runs(same)
    return _Socket(connected)


async def _open_port(reactor: Any, port: int, case: SendCase) -> Sender:
    return _Port(reactor, port, case)


#: By name: opens a sender with the reactor, to a port of 127.0.0.1, for a case.
WAYS: Final[dict[str, Callable[[Any, int, SendCase], Awaitable[Sender]]]] = {
    "socket": _open_socket,
    "port": _open_port,
    "loop": _open_loop,
}


async def measure_sends(reactor: Any, way: str, case: SendCase, batches: int) -> dict[str, float]:
    """
    Send batch by batch, and receive each before the next; receiving is not counted.

    :returns: ``cpu``, the processor time of this process for a datagram in microseconds; ``lost``,
        how many datagrams did not arrive.
    """
    batch = case.make(MARK)
    lost, cpu = 0, 0
    with open_sink() as sink:
        sender = await WAYS[way](reactor, sink.getsockname()[1], case)
        try:
            for number in range(-_WARM_UP_BATCHES, batches):
                start = time.process_time_ns()
                await sender.send(batch)
                if not number % _BATCHES_PER_TURN:
                    await _take_turn(reactor)
                spent = time.process_time_ns() - start
                missing = len(batch) - count_received(sink, len(batch))
                if number >= 0:
                    cpu += spent
                    lost += missing
        finally:
            sender.close()
    return {"cpu": cpu / batches / len(batch) / 1000, "lost": lost}


def open_sink() -> socket.socket:
    """Open a socket that can be sent to, with room for a batch."""
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    receive_runs(sink)
    sink.bind((_HOST, 0))
    return sink


def count_received(sink: socket.socket, expected: int, late: float = _LATE) -> int:
    """
    Receive datagrams and drop them.

    :param late: seconds to wait for each, when there is none.
    :returns: how many have come, at most as many as are expected.
    """
    sink.settimeout(late)
    buffer = memoryview(bytearray(LARGEST_RUN))
    count = 0
    while count < expected:
        try:
            size, segment = receive_run(sink, buffer)
        except TimeoutError:
            break
        count += 1 if size <= segment else -(-size // segment)
    return count


async def _send_untimed(reactor: Any, way: str, case: SendCase, batches: int) -> None:
    with open_sink() as sink:
        sender = await WAYS[way](reactor, sink.getsockname()[1], case)
        # Where the kernel refuses runs, it refuses the first batch only.
        await sender.send(case.make(_WARM_UP))
        for _ in range(batches):
            await sender.send(case.make(MARK))
        sender.close()


async def _take_turn(reactor: Any) -> None:
    await deferLater(reactor, 0)


def _find_socket(port: int) -> socket.socket:
    """Give this process's UDP socket of a port, under another descriptor."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            found = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue  # No socket, or the descriptor by which the folder was read.
        if found.type == socket.SOCK_DGRAM and found.getsockname()[1:2] == (port,):
            return found
        found.close()
    raise LookupError(f"no socket of this process has the port {port}")


def _refuse_runs(connected: socket.socket) -> None:
    connected.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)


def main(argv: Sequence[str]) -> None:
    """Send as the command line says, and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("batches", type=int)
    parser.add_argument("--untimed", action="store_true", help="only send")
    options = parser.parse_args(argv)
    case = CASES[options.case]

    async def send(reactor: Any) -> None:
        if options.untimed:
            await _send_untimed(reactor, options.way, case, options.batches)
        else:
            print(json.dumps(await measure_sends(reactor, options.way, case, options.batches)))

    react(lambda reactor: Deferred.fromCoroutine(send(reactor)))
