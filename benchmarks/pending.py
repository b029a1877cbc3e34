"""
What handshakes that do not go on cost those who are connected: the time of a round trip.

Called by `benchmarks.handshakes` with a server that `benchmarks.processes` has started. Half of the
silent peers send nothing at all, and the others half a ClientHello, so that the server has begun.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.handshaking import connect, round_trip
from benchmarks.processes import Running, ServerError
from benchmarks.secure import SecureConnection, encode_client_hello

__all__ = ["PendingCost", "measure_pending"]

#: The part of the round trips that comes first and is not looked at, to warm up.
_WARM_UP: Final = 1 / 4
#: Seconds after which round trips end, however many there were: twsock, which ends a handshake
#: that is silent for 10 seconds, must not have done so.
_LONGEST: Final = 4.0


@dataclass(frozen=True, slots=True)
class PendingCost:
    """
    Round trips of one frame of 64 bytes on an established connection, medians in nanoseconds.

    :ivar pending: silent handshakes.
    :ivar alone: the median without them.
    :ivar beside: the median with them.
    """

    pending: int
    alone: float
    beside: float

    @property
    def ratio(self) -> float:
        """How many times longer a round trip takes."""
        return self.beside / self.alone


def measure_pending(
    running: Running, context: ssl.SSLContext, pending: int, round_trips: int, *, sleeps: bool
) -> PendingCost:
    """
    Time round trips, open connections that are silent in their handshakes, time again.

    :param pending: how many; both processes need a descriptor for each.
    :param round_trips: how many to make, at most, without the silent ones and again beside them.
    :raises ServerError: when the server does not echo, or ends one of the silent connections.
    """
    with ExitStack() as stack:
        try:
            connection = SecureConnection(stack.enter_context(connect(running)), context)
            alone = _time_round_trips(running, connection, round_trips, sleeps=sleeps)
            hello = encode_client_hello(context)
            silent = [stack.enter_context(connect(running)) for _ in range(pending)]
            for each in silent[::2]:
                each.sendall(hello[: len(hello) // 2])
            # Connections are accepted in order: when the last answers, all the others have been.
            last = SecureConnection(stack.enter_context(connect(running)), context)
            round_trip(running, last, sleeps=sleeps)
            beside = _time_round_trips(running, connection, round_trips, sleeps=sleeps)
        except OSError as error:
            raise ServerError(f"{running.server.title}: {error}") from error
        ended = _count_ended(silent)
        if ended:
            raise ServerError(f"{running.server.title} ended {ended} silent handshakes meanwhile")
    return PendingCost(pending, alone, beside)


def _time_round_trips(
    running: Running, connection: SecureConnection, count: int, *, sleeps: bool
) -> float:
    """Give the median, in nanoseconds."""
    taken: list[int] = []
    end = time.monotonic() + _LONGEST
    while len(taken) < count and time.monotonic() < end:
        start = time.perf_counter_ns()
        round_trip(running, connection, sleeps=sleeps)
        taken.append(time.perf_counter_ns() - start)
    return float(median(taken[int(len(taken) * _WARM_UP) :]))


def _count_ended(connections: list[socket.socket]) -> int:
    poll = select.poll()
    for connection in connections:
        poll.register(connection, select.POLLIN)
    return len(poll.poll(0))
