"""
Batched datagrams: a loop of ``socket.send``, writes awaited one by one, and writes with one flush.

Run it:        python examples/batched_datagrams.py
You will see:  loop      64 datagrams of 100 bytes: 64 system calls, … µs of CPU for each datagram
               awaited   64 datagrams of 100 bytes: 64 system calls, … µs of CPU for each datagram
               flushed   64 datagrams of 100 bytes: 1 system call, … µs of CPU for each datagram

The receiver gets the same 64 datagrams each time. ``strace`` counts the calls: it runs this program
again for each way. If ``strace`` cannot run, a line says so. With the name of a way
and a number of batches, the program sends only these, and counts nothing:
``strace -c -e trace=sendto,sendmsg python examples/batched_datagrams.py flushed 1000``.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import DatagramSocket, SocketError

COUNT = 64
MESSAGE = bytes(100)

#: Batches to measure the time of, and batches to count the calls of.
BATCHES = 2000
COUNTED_BATCHES = 10


async def loop(plain: socket.socket, _sender: DatagramSocket) -> None:
    """Send each datagram by itself, without twsock."""
    for _ in range(COUNT):
        plain.send(MESSAGE)


async def awaited(_plain: socket.socket, sender: DatagramSocket) -> None:
    """Await each write before the next: one system call for each."""
    for _ in range(COUNT):
        await sender.output_stream.write(MESSAGE)


async def flushed(_plain: socket.socket, sender: DatagramSocket) -> None:
    """Write all, then flush: one system call, where the kernel can split it."""
    for _ in range(COUNT):
        sender.output_stream.write(MESSAGE)
    await sender.output_stream.flush()


WAYS: dict[str, Callable[[socket.socket, DatagramSocket], Awaitable[None]]] = {
    "loop": loop,
    "awaited": awaited,
    "flushed": flushed,
}


async def measure(reactor: Any, name: str, batches: int) -> float:
    """Send a number of batches; return the µs of CPU for each datagram."""
    spent = 0.0
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        plain.connect(receiver.getsockname())
        async with DatagramSocket(reactor) as sender:
            await sender.connect("127.0.0.1", receiver.getsockname()[1])
            for _ in range(batches):
                before = time.process_time()
                await WAYS[name](plain, sender)
                spent += time.process_time() - before
                for _ in range(COUNT):
                    receiver.recv(len(MESSAGE))
    return spent / (batches or 1) / COUNT * 1e6


def count_calls(name: str) -> int | None:
    """Count the system calls of one batch; return None if strace cannot run."""
    command = [sys.executable, __file__, name]
    trace = ["strace", "-f", "-qq", "-e", "trace=sendto,sendmsg,sendmmsg", "-e", "signal=none"]
    counts = []
    for batches in (0, COUNTED_BATCHES):
        try:
            traced = subprocess.run(
                [*trace, *command, str(batches)], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        counts.append(traced.stderr.count("\n"))
    # Calls of a run without batches are subtracted.
    return round((counts[1] - counts[0]) / COUNTED_BATCHES)


async def main(reactor: Any, name: str = "", batches: str = str(BATCHES)) -> None:
    """Measure one way; or all ways, and count their calls."""
    is_counted = not name
    for each in [name] if name else WAYS:
        try:
            spent = await measure(reactor, each, int(batches))
        except (SocketError, OSError) as error:
            sys.exit(f"batched_datagrams: {getattr(error, 'summary', error)}")
        calls = count_calls(each) if is_counted else None
        counted = "" if calls is None else f"{calls} system call{'s'[: calls != 1]}, "
        sent = f"{COUNT} datagrams of {len(MESSAGE)} bytes"
        print(f"{each:9} {sent}: {counted}{spent:.2f} µs of CPU for each datagram")
        if is_counted and calls is None:
            is_counted = False
            print("          (system calls are not counted: that takes strace)")


if __name__ == "__main__":
    words = sys.argv[1:]
    if len(words) > 2 or (words and words[0] not in WAYS) or (words[1:] and not words[1].isdigit()):
        sys.exit(f"usage: {sys.argv[0]} [{' | '.join(WAYS)} [BATCHES]]")
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), words)
