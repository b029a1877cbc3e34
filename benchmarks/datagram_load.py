"""
The load of `benchmarks.datagrams`: windows of datagrams that are sent and come back.

In memory are a few windows of datagrams, no two of them the same, which are sent in turn.
"""

from __future__ import annotations

import random
import select
import socket
import time
from dataclasses import dataclass
from typing import Final

from benchmarks.processes import MeasurementError
from benchmarks.segmentation import LARGEST_RUN, receive_run, receive_runs, send_run

__all__ = ["LATE", "MAX_DATAGRAMS", "DatagramCase", "DatagramLoad"]

#: Seconds after the last answer at which the datagrams that have not come back are lost. Far more
#: than an echo takes, so that one that comes even later is nearly certainly an error of the server.
LATE: Final = 5.0
#: A run ends after this many datagrams: far more than a core can send in a minute.
MAX_DATAGRAMS: Final = 100_000_000
#: Different windows, so that a late answer is not taken for one to the next window.
_WINDOWS: Final = 4


@dataclass(frozen=True, slots=True)
class DatagramCase:
    """
    Equal datagrams, sent together; the next ones follow when all have come back.

    :ivar payload: bytes in a datagram.
    :ivar window: datagrams in flight.
    :ivar is_run: whether the client sends them in one call, as one run. Only then may the kernel
        hand them over as one: what was sent one by one is received one by one on loopback.
    """

    payload: int
    window: int
    is_run: bool = False

    @property
    def title(self) -> str:
        """What is in flight, for people."""
        title = f"{self.window} x {self.payload} B"
        if self.window == 1:
            return title
        return f"{title}, sent {'as one run' if self.is_run else 'one by one'}"


class DatagramLoad:
    """
    A connected socket that sends windows of datagrams and receives them.

    :param sleeps: whether to sleep until something arrives; see `benchmarks.stream_load`.
    :param late: seconds after which datagrams are lost.
    :ivar lost: datagrams that have not come back in time, in all runs.
    """

    def __init__(self, port: int, case: DatagramCase, *, sleeps: bool, late: float = LATE) -> None:
        self.lost = 0
        self._case = case
        self._sleeps = sleeps
        self._late = late
        chance = random.Random(0)
        self._windows = [
            [chance.randbytes(case.payload) for _ in range(case.window)] for _ in range(_WINDOWS)
        ]
        self._runs = [b"".join(window) for window in self._windows]
        self._known = {datagram for window in self._windows for datagram in window}
        self._turn = 0
        self._buffer = memoryview(bytearray(LARGEST_RUN))
        self._poll = select.poll()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            receive_runs(self._socket)
            self._socket.connect(("127.0.0.1", port))
            self._socket.setblocking(False)
        except BaseException:
            self.close()
            raise
        self._poll.register(self._socket, select.POLLIN)

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def run(self, seconds: float) -> int:
        """
        Send and receive windows for some time.

        :returns: how many datagrams came back.
        :raises MeasurementError: when the server sent something else, something twice, or
            nothing at all.
        :raises ConnectionRefusedError: when there is no server.
        """
        returned = 0
        end = time.monotonic() + seconds
        while True:
            missing = self._exchange()
            returned += self._case.window - missing
            self.lost += missing
            if time.monotonic() >= end or returned >= MAX_DATAGRAMS:
                break
        if not returned:
            raise MeasurementError(
                f"no answer for {self._late:g} s, {self.lost} datagrams are lost"
            )
        return returned

    def _exchange(self) -> int:
        """Send a window, wait until it is back, and return how many datagrams are missing."""
        turn = self._turn
        self._turn = (turn + 1) % _WINDOWS
        window = self._windows[turn]
        if self._case.is_run:
            send_run(self._socket, self._runs[turn], self._case.payload)
        else:
            for datagram in window:
                self._socket.send(datagram)
        due = set(window)
        deadline = time.monotonic() + self._late
        while due:
            try:
                size, segment = receive_run(self._socket, self._buffer)
            except BlockingIOError:
                if self._sleeps:
                    self._poll.poll(self._late * 1000)
                if time.monotonic() >= deadline:
                    break
                continue
            self._check(size, segment, due)
            deadline = time.monotonic() + self._late
        return len(due)

    def _check(self, size: int, segment: int, due: set[bytes]) -> None:
        """Remove the datagrams that were received from those that are due."""
        # No window has an empty datagram, and `range` refuses steps of 0 bytes.
        for start in range(0, max(size, 1), max(segment, 1)):
            datagram = bytes(self._buffer[start : min(start + segment, size)])
            if datagram in due:
                due.remove(datagram)
            elif datagram not in self._known:
                raise MeasurementError("what came back differs from what was sent")
            elif not self.lost:
                raise MeasurementError("a datagram came back twice")
