"""
Who is sent to: a process that takes datagrams, drops them, and counts.

Started by `benchmarks.batched_datagrams`, which waits for it between two batches, so that its
buffer never fills. What is shared with it is one number.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from benchmarks.segmentation import LARGEST_RUN, receive_run, receive_runs

__all__ = ["Receiver", "start_receiver"]

#: Room for many batches, in bytes; the kernel grants less where ``net.core.rmem_max`` is below it.
_BUFFER: Final = 4 * 1024 * 1024
#: Seconds without any datagram after which those that have not come are lost.
_LATE: Final = 1.0
#: How often, in looks for a datagram, and how long, in seconds, a receiver that sleeps does.
_LOOKS: Final = 10_000
_CHECK: Final = 0.0001
#: An aligned number of 8 bytes, which is written and read in one piece.
_COUNT: Final = struct.Struct("=Q")


class Receiver:
    """The sender's view of it."""

    def __init__(self, port: int, shared: mmap.mmap) -> None:
        self.port = port
        self._shared = shared

    @property
    def received(self) -> int:
        """Datagrams that have come so far."""
        count: int = _COUNT.unpack_from(self._shared)[0]
        return count

    def wait_for(self, count: int, late: float = _LATE) -> int:
        """
        Look again and again until so many have come.

        :param count: since the beginning.
        :param late: seconds to wait for the next one.
        :returns: how many are missing.
        """
        seen = self.received
        deadline = time.monotonic() + late
        while seen < count and time.monotonic() < deadline:
            if (received := self.received) != seen:
                seen = received
                deadline = time.monotonic() + late
        return max(0, count - seen)


@contextmanager
def start_receiver(core: int | None) -> Iterator[Receiver]:
    """
    Run it for as long as the block.

    :param core: where it runs, without ever sleeping, so that a sender never has to wake it; None
        to let it sleep, anywhere.
    """
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        mmap.mmap(-1, _COUNT.size) as shared,
    ):
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        receive_runs(sink)
        sink.bind(("127.0.0.1", 0))
        sender = os.getpid()
        process = os.fork()
        if not process:
            _receive(sink, shared, core, sender)
        try:
            yield Receiver(sink.getsockname()[1], shared)
        finally:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def _receive(sink: socket.socket, shared: mmap.mmap, core: int | None, sender: int) -> NoReturn:
    """Be the process, as long as the sender is there: even one that was killed ends this one."""
    try:
        # Ctrl-C is for the sender.
        os.setsid()
        if core is not None:
            os.sched_setaffinity(0, {core})
        sink.settimeout(_CHECK if core is None else 0)
        buffer = memoryview(bytearray(LARGEST_RUN))
        count = 0
        while os.getppid() == sender:
            for _ in range(_LOOKS):
                try:
                    size, segment = receive_run(sink, buffer)
                except (BlockingIOError, TimeoutError):
                    continue
                count += 1 if size <= segment else -(-size // segment)
                _COUNT.pack_into(shared, 0, count)
    finally:
        os._exit(1)
