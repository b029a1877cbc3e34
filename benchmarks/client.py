"""
The load: a process that keeps frames in flight and reads the server's meters before and after.

Started by `benchmarks.stream` for each measurement; talks to one server, in plaintext or through
`benchmarks.secure`, and prints one line of JSON. In memory is a piece of the byte stream, long
enough to send and to compare from any point. `benchmarks.datagram_client` measures the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import ssl
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.cases import CASES, Case
from benchmarks.kernel import cpu_time, resident_memory
from benchmarks.secure import SecureConnection, make_client_context

__all__ = [
    "MAX_FRAMES",
    "STALLED",
    "EchoError",
    "Echoes",
    "Load",
    "Measurement",
    "encode_frame",
    "main",
    "measure",
]

#: Seconds without any answer after which a server counts as stuck.
STALLED: Final = 10.0
#: Frames after which a run ends, whatever the time; far above what a core can do in a minute.
MAX_FRAMES: Final = 200_000_000
#: Different frames that a stream is made of, at least.
_MIN_DIFFERENT: Final = 4
#: Seconds that a server which has answered everything is given to fall asleep.
_SETTLE: Final = 0.005
#: The part of a measurement that is run before it, to warm up.
_WARM_UP: Final = 1 / 3


class EchoError(Exception):
    """The server did not send back what it was sent; what was measured is not an echo."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """
    What one server did in one case.

    :ivar cpu: processor time of the server, in nanoseconds.
    :ivar wall: time that passed, in nanoseconds.
    :ivar memory: resident memory of the server at the end, its connections still open, in bytes.
    """

    frames: int
    cpu: int
    wall: int
    memory: int

    @property
    def cpu_per_frame(self) -> float:
        """Microseconds of the server's processor time."""
        return self.cpu / self.frames / 1000

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames * 1e9 / self.wall

    @property
    def busy(self) -> float:
        """The share of the time that the server's tasks ran, 0 to 1 for a single thread."""
        return self.cpu / self.wall


def encode_frame(payload: bytes) -> bytes:
    """Put the length in front."""
    return len(payload).to_bytes(4, "big") + payload


class _Connection:
    __slots__ = (
        "is_blocked",
        "owed",
        "partial",
        "receive_into",
        "send",
        "sent",
        "socket",
        "verified",
    )

    receive_into: Callable[[memoryview], int]
    send: Callable[[memoryview], int]

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext | None) -> None:
        self.socket = socket.create_connection(address, STALLED)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            self.socket.setblocking(False)
            self.receive_into = self.socket.recv_into
            self.send = self.socket.send
        else:
            try:
                secure = SecureConnection(self.socket, context)
            except BaseException:
                self.socket.close()
                raise
            self.receive_into = secure.receive_into
            self.send = secure.send
        #: Bytes still to be sent.
        self.owed = 0
        #: Whether some of them wait for room in the kernel.
        self.is_blocked = False
        #: Bytes received of a frame that is not whole yet.
        self.partial = 0
        #: Where in the repeating stream the next byte to send, and the next to arrive, are.
        self.sent = 0
        self.verified = 0


class Load:
    """
    Connections on which a fixed number of frames is under way.

    All frames of a case have the same size, and a few different contents that repeat. So the whole
    stream repeats, and both what to send and what to expect are slices of one piece of it.

    :param sleeps: whether to sleep until something arrives. Otherwise it asks the kernel again and
        again, so that the server's core does not have to wake this one: on a virtual machine that
        is dear, and a server is charged for it though it is no work of its own.
    :param context: the settings of TLS; None for plaintext.
    """

    def __init__(
        self,
        address: tuple[str, int],
        case: Case,
        *,
        sleeps: bool,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._sleeps = sleeps
        self._frame = 4 + case.payload
        self._window = case.window * self._frame
        count = max(case.window, _MIN_DIFFERENT)
        chance = random.Random(case.key)
        frames = b"".join(encode_frame(chance.randbytes(case.payload)) for _ in range(count))
        self._period = len(frames)
        # No more than a window is ever sent or received at once, from anywhere in the period.
        self._stream = frames + (frames * 2)[: self._window]
        self._outgoing = memoryview(self._stream)
        self._incoming = memoryview(bytearray(self._window))
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        try:
            for _ in range(case.connections):
                connection = _Connection(address, context)
                self._connections[connection.socket.fileno()] = connection
                self._epoll.register(connection.socket, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the connections."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.socket.close()

    def run(self, seconds: float) -> int:
        """
        Keep the windows full for some time, then let them run empty.

        :returns: how many frames came back; all that were sent did.
        :raises EchoError: when the server sent something else or too much, nothing for `STALLED`
            seconds, or hung up.
        """
        for connection in self._connections.values():
            connection.owed = self._window
            self._send(connection)
        in_flight = self._window * len(self._connections)
        to_send = MAX_FRAMES * self._frame
        received = 0
        wait = STALLED if self._sleeps else 0
        now = answered = time.monotonic()
        end = now + seconds
        while in_flight > 0:
            events = self._epoll.poll(wait)
            now = time.monotonic()
            if not events:
                if now - answered >= STALLED:
                    raise EchoError(f"no answer for {STALLED:g} s, {in_flight} bytes are due")
                continue
            answered = now
            is_over = now >= end or received >= to_send
            for descriptor, mask in events:
                connection = self._connections[descriptor]
                if mask & ~select.EPOLLOUT:
                    size, whole = self._receive(connection)
                    received += size
                    if is_over:
                        in_flight -= size
                    else:
                        # Bytes of a frame not yet whole are due again once it is.
                        in_flight += whole - size
                        connection.owed += whole
                if connection.owed:
                    self._send(connection)
        if in_flight:
            raise EchoError("more came back than was sent")
        return received // self._frame

    def _receive(self, connection: _Connection) -> tuple[int, int]:
        """Take and compare what came; tell its size, and that of the frames thereby whole."""
        try:
            size = connection.receive_into(self._incoming)
        except BlockingIOError:
            return 0, 0  # A part of a record, or one that carries no data.
        if not size:
            raise EchoError("the server hung up")
        at = connection.verified
        # The one comparison of bytes in Python that copies nothing and runs at memory speed.
        if not self._stream.startswith(self._incoming[:size], at):
            raise EchoError("the answer differs from what was sent")
        connection.verified = (at + size) % self._period
        size_so_far = connection.partial + size
        connection.partial = size_so_far % self._frame
        return size, size_so_far - connection.partial

    def _send(self, connection: _Connection) -> None:
        at = connection.sent
        try:
            size = connection.send(self._outgoing[at : at + connection.owed])
        except BlockingIOError:
            size = 0
        connection.sent = (at + size) % self._period
        connection.owed -= size
        if connection.is_blocked != (connection.owed > 0):
            connection.is_blocked = not connection.is_blocked
            events = select.EPOLLIN | (select.EPOLLOUT if connection.is_blocked else 0)
            self._epoll.modify(connection.socket, events)


class Echoes(typing.Protocol):
    """What `measure` runs: a `Load`, or one of datagrams."""

    def run(self, seconds: float) -> int:
        """Keep the server busy, and give how many frames came back."""

    def close(self) -> None:
        """End it."""


def measure(load: Echoes, pid: int, seconds: float) -> Measurement:
    """
    Warm a server up, then see what it costs.

    :param seconds: how long the windows are kept full; letting them run empty comes on top.
    :raises EchoError: when the server does not echo.
    """
    try:
        load.run(seconds * _WARM_UP)
        time.sleep(_SETTLE)
        cpu = cpu_time(pid)
        start = time.perf_counter_ns()
        frames = load.run(seconds)
        wall = time.perf_counter_ns() - start
        time.sleep(_SETTLE)
        return Measurement(frames, cpu_time(pid) - cpu, wall, resident_memory(pid))
    finally:
        load.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure once, as the command line says, and print the `Measurement` as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client")
    parser.add_argument("port", type=int, help="where on 127.0.0.1 the server listens")
    parser.add_argument("pid", type=int, help="the server's process")
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("seconds", type=float)
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--sleep", action="store_true", help="sleep until something arrives")
    parser.add_argument("--tls", type=Path, metavar="FILE", help="the certificate to trust")
    options = parser.parse_args(argv)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    context = None if options.tls is None else make_client_context(options.tls)
    try:
        load = Load(
            ("127.0.0.1", options.port),
            CASES[options.case],
            sleeps=options.sleep,
            context=context,
        )
        result = measure(load, options.pid, options.seconds)
    except (EchoError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
