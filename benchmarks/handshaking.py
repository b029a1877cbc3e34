"""
What a handshake costs a server: connect → **handshake** → one echo → close, one after the other.

Called by `benchmarks.handshakes` with a server that `benchmarks.processes` has started. Only one
connection is open at a time, and the next begins when the server has closed the last, so that the
processor time in between belongs to exactly the handshakes counted. It includes what goes with
them: to accept, to echo one frame of 64 bytes, which proves that the server has done its part, and
to close.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.client import STALLED, encode_frame
from benchmarks.kernel import cpu_time
from benchmarks.processes import Running, ServerError
from benchmarks.secure import SecureConnection

__all__ = ["HandshakeCost", "connect", "measure_handshakes", "round_trip"]

#: Seconds after which a measurement is given up, whatever its count.
_LONGEST: Final = 120.0
#: Seconds that a server which has closed a connection is given to fall asleep.
_SETTLE: Final = 0.005
#: Handshakes before those that are counted, to warm up; no more of them than are counted.
_WARM_UP: Final = 20

_FRAME: Final = encode_frame(bytes(range(64)))


@dataclass(frozen=True, slots=True)
class HandshakeCost:
    """
    What one server did in a number of handshakes.

    :ivar cpu: processor time of the server, in nanoseconds.
    :ivar resumed: how many of them took up an earlier session.
    :ivar cipher: what the server and the client agreed on.
    """

    handshakes: int
    cpu: int
    resumed: int
    cipher: str

    @property
    def rate(self) -> float:
        """Handshakes for each second of the server's processor time."""
        return self.handshakes * 1e9 / self.cpu


def measure_handshakes(
    running: Running, context: ssl.SSLContext, count: int, *, resumes: bool, sleeps: bool
) -> HandshakeCost:
    """
    Go through handshakes.

    :param resumes: whether each that is counted offers the last ticket of the one before. A server
        may decline, which is no error: the result tells how many were resumed.
    :param sleeps: whether the client sleeps until an echo comes; see `benchmarks.client`.
    :raises ServerError: when the server fails in one, or all together take too long.
    """
    end = time.monotonic() + _LONGEST
    session: ssl.SSLSession | None = None
    try:
        for _ in range(min(count, _WARM_UP)):
            warm = _converse(running, context, session, sleeps=sleeps)
            session = warm.session if resumes else None
        time.sleep(_SETTLE)
        resumed = 0
        cipher = ""
        before = cpu_time(running.pid)
        for _ in range(count):
            connection = _converse(running, context, session, sleeps=sleeps)
            session = connection.session if resumes else None
            resumed += connection.is_resumed
            cipher = connection.cipher
            if time.monotonic() >= end:
                raise ServerError(f"{running.server.title}: no end within {_LONGEST:g} s")
        time.sleep(_SETTLE)
        return HandshakeCost(count, cpu_time(running.pid) - before, resumed, cipher)
    except OSError as error:
        raise ServerError(f"{running.server.title}: {error}") from error


def connect(running: Running) -> socket.socket:
    """Open a connection to a server, without a handshake."""
    connection = socket.create_connection(("127.0.0.1", running.port), STALLED)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def round_trip(running: Running, connection: SecureConnection, *, sleeps: bool) -> None:
    """
    Send a frame, and take the answer.

    :param sleeps: whether to sleep until it comes; see `benchmarks.client`.
    :raises ServerError: when it is another, or there is none.
    """
    answer = memoryview(bytearray(len(_FRAME)))
    received = 0
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    wait = STALLED * 1000 if sleeps else 0
    end = time.monotonic() + STALLED
    connection.send(memoryview(_FRAME))
    while received < len(answer):
        if not poll.poll(wait):
            if time.monotonic() >= end:
                raise ServerError(f"{running.server.title}: no answer within {STALLED:g} s")
            continue
        try:
            size = connection.receive_into(answer[received:])
        except BlockingIOError:
            continue  # A ticket, or a part of a record.
        if not size:
            raise ServerError(f"{running.server.title} hung up")
        received += size
    if answer != _FRAME:
        raise ServerError(f"{running.server.title} does not echo")


def _converse(
    running: Running, context: ssl.SSLContext, session: ssl.SSLSession | None, *, sleeps: bool
) -> SecureConnection:
    with connect(running) as plain:
        connection = SecureConnection(plain, context, session)
        round_trip(running, connection, sleeps=sleeps)
        connection.end(STALLED)
        return connection
