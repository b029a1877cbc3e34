"""
The load of `benchmarks.stream`: frames that are kept in flight on connections to one server.

In memory is a piece of the byte stream in each direction, long enough to send and to compare from
any point. `EchoLoad` also serves `benchmarks.websocket_load`, whose answers differ from what is
sent; `measure` also serves `benchmarks.datagram_load`.
"""

from __future__ import annotations

import random
import select
import socket
import ssl
import time
import typing
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from benchmarks.connections import STALLED, Client, connect, encode_frame
from benchmarks.kernel import cpu_time, resident_memory
from benchmarks.processes import MeasurementError
from benchmarks.tls_client import TlsClient

__all__ = [
    "MAX_FRAMES",
    "MIN_DIFFERENT",
    "Case",
    "EchoLoad",
    "Load",
    "LoadClient",
    "PlainClient",
    "Repeated",
    "StreamLoad",
    "measure",
    "open_all",
]

#: A run ends after this many frames: far more than a core can send in a minute.
MAX_FRAMES: Final = 200_000_000
#: Different frames that a stream is made of, at least.
MIN_DIFFERENT: Final = 4
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


class Repeated:
    """
    Messages that repeat for ever, and the bytes of any window of them.

    :param messages: as they are on the wire.
    :param window: how many of them are sent or received at once, at most.

    :ivar period: bytes until the messages repeat.
    :ivar stream: the bytes of one period, and of a window behind it.
    """

    def __init__(self, messages: Sequence[bytes], window: int) -> None:
        self._ends = list(accumulate(map(len, messages)))
        self._count = len(messages)
        self.period = self._ends[-1]
        rounds = -(-window // self._count)
        self.stream = b"".join(messages) * (1 + rounds)

    def offset(self, number: int) -> int:
        """Return how many bytes the first ``number`` messages have."""
        rounds, rest = divmod(number, self._count)
        return rounds * self.period + (self._ends[rest - 1] if rest else 0)

    def count(self, offset: int) -> int:
        """Return how many messages are complete after ``offset`` bytes."""
        rounds, rest = divmod(offset, self.period)
        return rounds * self._count + bisect_right(self._ends, rest)


class PlainClient:
    """A non-blocking connection in plaintext."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.fileno = connection.fileno
        self.send: Callable[[memoryview], int] = connection.send
        self.receive_into: Callable[[memoryview], int] = connection.recv_into
        self.close = connection.close


class LoadClient(Client, typing.Protocol):
    """A client that can be closed."""

    def close(self) -> object:
        """Close the socket."""


class _Connection:
    __slots__ = (
        "client", "is_blocked", "owed", "receive_into", "received", "send", "sent", "started",
        "whole",
    )  # fmt: skip

    def __init__(self, client: LoadClient) -> None:
        self.client = client
        self.receive_into = client.receive_into
        self.send = client.send
        #: Messages of which the sending has begun, or is due.
        self.started = 0
        #: Bytes still to be sent.
        self.owed = 0
        #: Whether some of them wait for room in the kernel.
        self.is_blocked = False
        #: Bytes sent and received so far.
        self.sent = 0
        self.received = 0
        #: Messages that came back completely.
        self.whole = 0


class EchoLoad:
    """
    Connections on which a fixed number of messages is under way.

    A case has a few different messages that repeat. So the whole stream repeats in each direction,
    and both what to send and what to expect are slices of one piece of it.

    :param clients: the connections, which `close` closes.
    :param outgoing: what is sent on each connection.
    :param incoming: the answers; the same object if the server sends back what it received.
    :param window: messages in flight on each connection.
    :param sleeps: whether to sleep until something arrives. Otherwise it asks the kernel again and
        again, so that the server's core does not have to wake this one: on a virtual machine that
        is dear, and a server is charged for it though it is no work of its own.
    """

    def __init__(
        self,
        clients: Iterable[LoadClient],
        outgoing: Repeated,
        incoming: Repeated,
        window: int,
        *,
        sleeps: bool,
    ) -> None:
        self._sleeps = sleeps
        self._window = window
        self._outgoing = outgoing
        self._outgoing_view = memoryview(outgoing.stream)
        self._incoming = incoming
        # No more than a window arrives at once.
        self._buffer = memoryview(bytearray(len(incoming.stream) - incoming.period))
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        for client in clients:
            self._connections[client.fileno()] = _Connection(client)
            self._epoll.register(client.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """End the connections."""
        self._epoll.close()
        for connection in self._connections.values():
            connection.client.close()

    def run(self, seconds: float) -> int:
        """
        Keep the windows full for some time, then let them run empty.

        :returns: how many messages came back; all that were sent did.
        :raises MeasurementError: when the server sent something else or too much, nothing for
            `STALLED` seconds, or hung up.
        """
        for connection in self._connections.values():
            self._send_more(connection, self._window)
        in_flight = self._window * len(self._connections)
        returned = 0
        wait = STALLED if self._sleeps else 0
        now = answered = time.monotonic()
        end = now + seconds
        while in_flight > 0:
            events = self._epoll.poll(wait)
            now = time.monotonic()
            if not events:
                if now - answered >= STALLED:
                    raise MeasurementError(f"no answer for {STALLED:g} s, {in_flight} are due")
                continue
            answered = now
            is_over = now >= end or returned >= MAX_FRAMES
            for descriptor, mask in events:
                connection = self._connections[descriptor]
                if mask & ~select.EPOLLOUT:
                    count = self._receive(connection)
                    returned += count
                    if is_over:
                        in_flight -= count
                    elif count:
                        self._send_more(connection, count)
                        continue
                if connection.owed:
                    self._send(connection)
        for connection in self._connections.values():
            if connection.received != self._incoming.offset(connection.started):
                raise MeasurementError("more came back than was sent")
        return returned

    def _receive(self, connection: _Connection) -> int:
        """Receive and compare; return how many messages are complete now that were not before."""
        try:
            size = connection.receive_into(self._buffer)
        except BlockingIOError:
            return 0  # A part of a record, or one that carries no data.
        if not size:
            raise MeasurementError("the server hung up")
        at = connection.received
        # The one comparison of bytes in Python that copies nothing and runs at memory speed.
        if not self._incoming.stream.startswith(self._buffer[:size], at % self._incoming.period):
            raise MeasurementError("the answer differs from what was sent")
        connection.received = at + size
        whole = self._incoming.count(at + size)
        before, connection.whole = connection.whole, whole
        return whole - before

    def _send_more(self, connection: _Connection, count: int) -> None:
        connection.started += count
        connection.owed = self._outgoing.offset(connection.started) - connection.sent
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        at = connection.sent % self._outgoing.period
        try:
            size = connection.send(self._outgoing_view[at : at + connection.owed])
        except BlockingIOError:
            size = 0
        connection.sent += size
        connection.owed -= size
        if connection.is_blocked != (connection.owed > 0):
            connection.is_blocked = not connection.is_blocked
            events = select.EPOLLIN | (select.EPOLLOUT if connection.is_blocked else 0)
            self._epoll.modify(connection.client.fileno(), events)


class StreamLoad(EchoLoad):
    """
    Frames in flight, with random contents.

    :param sleeps: see `EchoLoad`.
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
        chance = random.Random(0)
        count = max(case.window, MIN_DIFFERENT)
        frames = [encode_frame(chance.randbytes(case.payload)) for _ in range(count)]
        stream = Repeated(frames, case.window)
        clients = open_all(lambda: _open(port, context), case.connections)
        super().__init__(clients, stream, stream, case.window, sleeps=sleeps)


def _open(port: int, context: ssl.SSLContext | None) -> LoadClient:
    connection = connect(port)
    if context is None:
        return PlainClient(connection)
    try:
        return TlsClient(connection, context)
    except BaseException:
        connection.close()
        raise


def open_all(open_one: Callable[[], LoadClient], count: int) -> list[LoadClient]:
    """Open connections; close all of them if one fails."""
    clients: list[LoadClient] = []
    try:
        clients.extend(open_one() for _ in range(count))
    except BaseException:
        for client in clients:
            client.close()
        raise
    return clients


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
