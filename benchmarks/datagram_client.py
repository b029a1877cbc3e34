"""
The load: a process that keeps datagrams in flight and reads the server's meters before and after.

Started by `benchmarks.datagram` for each measurement; talks to one server, and prints one line of
JSON. In memory are a few windows of datagrams, no two of them the same, which are sent in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.client import EchoError, Measurement, measure
from benchmarks.datagram_cases import DATAGRAM_CASES, DatagramCase
from benchmarks.segmentation import LARGEST_RUN, receive_run, receive_runs, send_run

__all__ = ["LATE", "MAX_DATAGRAMS", "DatagramLoad", "DatagramMeasurement", "main"]

#: Seconds after the last answer at which the datagrams that have not come back are lost. Far more
#: than an echo takes, so that one that comes even later is nearly certainly an error of the server.
LATE: Final = 1.0
#: Datagrams after which a run ends, whatever the time; far above what a core can do in a minute.
MAX_DATAGRAMS: Final = 100_000_000
#: Different windows, so that an answer to the one before is not taken for one to this one.
_WINDOWS: Final = 4


@dataclass(frozen=True, slots=True)
class DatagramMeasurement(Measurement):
    """
    What one server did in one case; its frames are datagrams that came back.

    :ivar lost: datagrams that did not, warm-up included.
    """

    lost: int = 0


class DatagramLoad:
    """
    A connected socket on which windows of datagrams come and go.

    :param sleeps: whether to sleep until something arrives; see `benchmarks.client.Load`.
    :param late: seconds after which datagrams are lost.
    :ivar lost: datagrams that have not come back in time, in all runs.
    """

    def __init__(
        self, address: tuple[str, int], case: DatagramCase, *, sleeps: bool, late: float = LATE
    ) -> None:
        self.lost = 0
        self._case = case
        self._sleeps = sleeps
        self._late = late
        chance = random.Random(case.key)
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
            self._socket.connect(address)
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
        Let windows come and go for some time.

        :returns: how many datagrams came back.
        :raises EchoError: when the server sent something else, something twice, or nothing at all.
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
            raise EchoError(f"no answer for {self._late:g} s, {self.lost} datagrams are lost")
        return returned

    def _exchange(self) -> int:
        """Send a window, wait until it is back, and give how many datagrams are missing."""
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
        """Strike off what has come back."""
        # An empty datagram is none of ours, and steps of 0 bytes lead nowhere.
        for start in range(0, max(size, 1), max(segment, 1)):
            datagram = bytes(self._buffer[start : min(start + segment, size)])
            if datagram in due:
                due.remove(datagram)
            elif datagram not in self._known:
                raise EchoError("what came back differs from what was sent")
            elif not self.lost:
                raise EchoError("a datagram came back twice")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure once, as the command line says, and print the `DatagramMeasurement` as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datagram_client")
    parser.add_argument("port", type=int, help="where on 127.0.0.1 the server listens")
    parser.add_argument("pid", type=int, help="the server's process")
    parser.add_argument("case", choices=sorted(DATAGRAM_CASES))
    parser.add_argument("seconds", type=float)
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--sleep", action="store_true", help="sleep until something arrives")
    options = parser.parse_args(argv)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    case = DATAGRAM_CASES[options.case]
    try:
        load = DatagramLoad(("127.0.0.1", options.port), case, sleeps=options.sleep)
        result = measure(load, options.pid, options.seconds)
    except (EchoError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(json.dumps(asdict(DatagramMeasurement(**asdict(result), lost=load.lost))))


if __name__ == "__main__":
    main()
