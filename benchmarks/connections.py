"""
Opens connections to a server on 127.0.0.1, and sends a frame there and back.

Used by `benchmarks.stream_load`, `benchmarks.handshakes`, `benchmarks.pending`, `benchmarks.idle`
and `benchmarks.short_connections`.
"""

from __future__ import annotations

import select
import socket
import time
import typing
from typing import Final

from benchmarks.processes import MeasurementError

__all__ = ["FRAME", "STALLED", "Client", "connect", "encode_frame", "round_trip"]

#: Seconds without any answer after which a server counts as stuck.
STALLED: Final = 10.0


def encode_frame(payload: bytes) -> bytes:
    """Return a frame: the length as 4 bytes, then the payload."""
    return len(payload).to_bytes(4, "big") + payload


#: What `round_trip` sends.
FRAME: Final = encode_frame(bytes(range(64)))


def connect(port: int) -> socket.socket:
    """Open a connection that sends each frame at once."""
    connection = socket.create_connection(("127.0.0.1", port), STALLED)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Client(typing.Protocol):
    """A non-blocking connection, encrypted or not."""

    def fileno(self) -> int:
        """Return the descriptor to wait on."""

    def send(self, data: memoryview) -> int:
        """Send bytes; return how many the kernel has."""

    def receive_into(self, buffer: memoryview) -> int:
        """Receive bytes; return how many, 0 at the end."""


def round_trip(connection: Client, *, sleeps: bool) -> None:
    """
    Send `FRAME`, and receive the answer.

    :param sleeps: whether to sleep until the answer comes.
    :raises MeasurementError: when the answer differs or does not come.
    """
    answer = memoryview(bytearray(len(FRAME)))
    received = 0
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    wait = STALLED * 1000 if sleeps else 0
    end = time.monotonic() + STALLED
    connection.send(memoryview(FRAME))
    while received < len(answer):
        if not poll.poll(wait):
            if time.monotonic() >= end:
                raise MeasurementError(f"no answer within {STALLED:g} s")
            continue
        try:
            size = connection.receive_into(answer[received:])
        except BlockingIOError:
            continue  # A ticket, or a part of a record.
        if not size:
            raise MeasurementError("the server hung up")
        received += size
    if answer != FRAME:
        raise MeasurementError("the answer differs from what was sent")
