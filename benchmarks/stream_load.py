"""
The load of `benchmarks.stream`: frames that are kept in flight on connections to one server.

In memory is a piece of the byte stream, long enough to send and to compare from any point.
`measure` also serves `benchmarks.datagram_load`.
"""

from __future__ import annotations

import random
import select
import ssl
import time
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.connections import STALLED, connect, encode_frame
from benchmarks.kernel import cpu_time, resident_memory
from benchmarks.processes import MeasurementError
from benchmarks.tls_client import TlsClient

__all__ = ["MAX_FRAMES", "Case", "Load", "StreamLoad", "measure"]

#: A run ends after this many frames: far more than a core can send in a minute.
MAX_FRAMES: Final = 200_000_000
#: Different frames that a stream is made of, at least.
_MIN_DIFFERENT: Final = 4
#: Seconds to wait until a server that has answered everything sleeps.
_SETTLE: Final = 0.005
#: The duration of the warm-up, as a part of that of the measurement.
_WARM_UP: Final = 1 / 3


@dataclass(frozen=True, slots=True)
class Case:
    """
    Equal frames in flight.

    :ivar payload: bytes in a frame, without the length in front.
    :ivar window: frames in flight on each connection.
    """

    payload: int
    window: int
    connections: int = 1

    @property
    def title(self) -> str:
        """What is in flight, for people."""
        size = f"{self.payload} B" if self.payload < 1024 else f"{self.payload // 1024} KiB"
        title = f"{self.window} x {size}"
        return title if self.connections == 1 else f"{title} on each of {self.connections}"


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

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self.socket = connect(port)
        if context is None:
            self.socket.setblocking(False)
            self.receive_into = self.socket.recv_into
            self.send = self.socket.send
        else:
            try:
                secure = TlsClient(self.socket, context)
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


class StreamLoad:
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
        port: int,
        case: Case,
        *,
        sleeps: bool,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._sleeps = sleeps
        self._frame = 4 + case.payload
        self._window = case.window * self._frame
        count = max(case.window, _MIN_DIFFERENT)
        chance = random.Random(0)
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
                connection = _Connection(port, context)
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
        :raises MeasurementError: when the server sent something else or too much, nothing for
            `STALLED` seconds, or hung up.
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
                    raise MeasurementError(
                        f"no answer for {STALLED:g} s, {in_flight} bytes are due"
                    )
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
            raise MeasurementError("more came back than was sent")
        return received // self._frame

    def _receive(self, connection: _Connection) -> tuple[int, int]:
        """Receive and compare; return the size, and that of the frames completed by it."""
        try:
            size = connection.receive_into(self._incoming)
        except BlockingIOError:
            return 0, 0  # A part of a record, or one that carries no data.
        if not size:
            raise MeasurementError("the server hung up")
        at = connection.verified
        # The one comparison of bytes in Python that copies nothing and runs at memory speed.
        if not self._stream.startswith(self._incoming[:size], at):
            raise MeasurementError("the answer differs from what was sent")
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


class Load(typing.Protocol):
    """What `measure` runs."""

    def run(self, seconds: float) -> int:
        """Keep the server busy, and return how many messages came back."""

    def close(self) -> None:
        """End it."""


def measure(load: Load, pid: int, seconds: float) -> dict[str, float]:
    """
    Warm a server up, then measure what it costs.

    :param seconds: how long the windows are kept full; letting them run empty comes on top.
    :returns: ``cpu``, the server's processor time for a message in microseconds; ``rate``, thousand
        messages a second; ``memory`` of the server at the end, its connections still open, in MiB.
    :raises MeasurementError: when the server does not echo.
    """
    try:
        load.run(seconds * _WARM_UP)
        time.sleep(_SETTLE)
        before = cpu_time(pid)
        start = time.perf_counter_ns()
        count = load.run(seconds)
        wall = time.perf_counter_ns() - start
        time.sleep(_SETTLE)
        return {
            "cpu": (cpu_time(pid) - before) / count / 1000,
            "rate": count * 1e6 / wall,
            "memory": resident_memory(pid) / 1024 / 1024,
        }
    finally:
        load.close()
