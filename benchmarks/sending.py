"""
Ways to send a batch of datagrams to one peer, and what a batch costs the process that sends it.

Called by `benchmarks.batched_datagrams` beside a receiver, and run by `benchmarks.system_calls`
under ``strace``: ``python -m benchmarks.sending WAY CASE BATCHES`` sends that many and ends.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
import typing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater, react

from benchmarks.datagram_receiver import Receiver
from twsock import DatagramSocket
from twsock.datagram.port import listen_datagrams
from twsock.datagram.udp_socket import DatagramOptions

__all__ = [
    "LOOP",
    "MARK",
    "SEND_CASES",
    "WAYS",
    "SendCase",
    "SendMeasurement",
    "Sender",
    "Way",
    "main",
    "measure_sends",
]

_HOST: Final = "127.0.0.1"
#: What the datagrams begin with that count; those of a warm-up begin otherwise, and are as long.
MARK: Final = b"datagram"
_WARM_UP: Final = b"warm-up."
#: Batches that come first and are not looked at.
_WARM_UP_BATCHES: Final = 8
#: Batches after which the reactor has its turn, as it has in any program, to tidy up its timers.
_BATCHES_PER_TURN: Final = 64
#: <asm-generic/socket.h>. Without checksums, the kernel refuses to cut a run: with EINVAL.
_SO_NO_CHECK: Final = 11


@dataclass(frozen=True, slots=True)
class SendCase:
    """
    What is sent in one go.

    :ivar sizes: of the datagrams, in bytes.
    :ivar is_refused: whether the kernel refuses to send runs.
    :ivar aim: what a `twsock.DatagramSocket` may cost at most beside a loop.
    """

    key: str
    title: str
    sizes: tuple[int, ...]
    aim: float
    is_refused: bool = False

    def make(self, mark: bytes) -> list[bytes]:
        """Make a batch of which each datagram begins with the mark."""
        return [mark.ljust(size, b".") for size in self.sizes]


SEND_CASES: Final = {
    case.key: case
    for case in (
        SendCase("small", "64 x 100 B", (100,) * 64, aim=0.3),
        # As many as one call takes: 64,800 bytes of 65,507.
        SendCase("large", "54 x 1200 B", (1200,) * 54, aim=0.3),
        # Each longer than the one before, so that no two of them make a run.
        SendCase("unequal", "64 of 69 to 132 B, none equal", tuple(range(69, 133)), aim=1.2),
        SendCase("refused", "64 x 100 B, runs refused", (100,) * 64, aim=1.2, is_refused=True),
    )
}


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
        options = DatagramOptions(segmentation=not case.is_refused)
        self._port = listen_datagrams(reactor, DatagramProtocol(), 0, _HOST, options)
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


@dataclass(frozen=True, slots=True)
class Way:
    """
    One way to send.

    :ivar key: what the command line calls it.
    :ivar open: is given the reactor, the port of 127.0.0.1 to connect to, and what will be sent.
    """

    key: str
    title: str
    open: Callable[[Any, int, SendCase], Awaitable[Sender]]


#: What ratios refer to.
LOOP: Final = "loop"

WAYS: Final = {
    way.key: way
    for way in (
        Way("socket", "twsock DatagramSocket, writes and a flush", _open_socket),
        Way("port", "twsock DatagramPort, sent together", _open_port),
        Way(LOOP, "a loop around socket.send", _open_loop),
    )
}


@dataclass(frozen=True, slots=True)
class SendMeasurement:
    """
    What one way cost in one case.

    :ivar datagrams: how many were sent.
    :ivar lost: those of them that did not arrive.
    :ivar cpu: processor time of the sender, in nanoseconds.
    """

    datagrams: int
    lost: int
    cpu: int

    @property
    def cpu_per_datagram(self) -> float:
        """Microseconds of the sender's processor time."""
        return self.cpu / self.datagrams / 1000


async def measure_sends(
    reactor: Any, way: Way, case: SendCase, receiver: Receiver, batches: int
) -> SendMeasurement:
    """
    Send batch by batch, and wait for each to arrive; waiting is not counted.

    :param receiver: whom to send to.
    """
    batch = case.make(MARK)
    sender = await way.open(reactor, receiver.port, case)
    due, lost, cpu = receiver.received, 0, 0
    try:
        for number in range(-_WARM_UP_BATCHES, batches):
            start = time.process_time_ns()
            await sender.send(batch)
            if not number % _BATCHES_PER_TURN:
                await _take_turn(reactor)
            if number >= 0:
                cpu += time.process_time_ns() - start
            due += len(batch)
            if missing := receiver.wait_for(due):
                lost += missing
                due -= missing
    finally:
        sender.close()
    return SendMeasurement(batches * len(batch), lost, cpu)


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


def main(argv: Sequence[str] | None = None) -> None:
    """Send as the command line says, to a socket that nobody reads."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sending")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("case", choices=SEND_CASES)
    parser.add_argument("batches", type=int)
    options = parser.parse_args(argv)
    case = SEND_CASES[options.case]

    async def run(reactor: Any) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind((_HOST, 0))
            sender = await WAYS[options.way].open(reactor, sink.getsockname()[1], case)
            # What the kernel refuses at first is not what a batch takes.
            await sender.send(case.make(_WARM_UP))
            for _ in range(options.batches):
                await sender.send(case.make(MARK))
            sender.close()

    react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
