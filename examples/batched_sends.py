"""
Batched sends: five small writes, awaited one by one, awaited together, or flushed.

Run it:        python examples/batched_sends.py
You will see:  awaited   5 writes of 13 bytes, … µs of CPU each time
               together  …
               flushed   …
Count the system calls:
    strace -f -e trace=sendto,sendmsg python examples/batched_sends.py awaited 1

The first way makes five system calls each time, the others one: writes that are awaited or flushed
together leave in one piece. The receiver gets the same 65 bytes each time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import StreamSocket, StreamSocketListener
from twsock.sockets import OutputStream

MESSAGE = b"Hello, World!"
COUNT = 5


async def awaited(output: OutputStream) -> None:
    """Await each write before the next: one system call for each."""
    for _ in range(COUNT):
        await output.write(MESSAGE)


async def together(output: OutputStream) -> None:
    """Write all, then await all: one system call."""
    writes = [output.write(MESSAGE) for _ in range(COUNT)]
    for write in writes:
        await write


async def flushed(output: OutputStream) -> None:
    """Write all, then flush: one system call."""
    for _ in range(COUNT):
        output.write(MESSAGE)
    await output.flush()


WAYS: dict[str, Callable[[OutputStream], Awaitable[None]]] = {
    "awaited": awaited,
    "together": together,
    "flushed": flushed,
}


async def measure(reactor: Any, name: str, times: int) -> None:
    """Send in one way a number of times; print the CPU time of this process, receiver included."""
    async with StreamSocketListener(reactor) as listener, StreamSocket(reactor) as sender:
        await listener.bind_endpoint("127.0.0.1", "")
        await sender.connect("127.0.0.1", listener.information.local_port)
        async with await listener.accept() as receiver:
            before = time.process_time()
            for _ in range(times):
                await WAYS[name](sender.output_stream)
                await receiver.input_stream.receive_exactly(COUNT * len(MESSAGE))
            spent = (time.process_time() - before) / times
    print(f"{name:9} {COUNT} writes of {len(MESSAGE)} bytes, {spent * 1e6:.1f} µs of CPU each time")


async def main(reactor: Any, name: str = "", times: str = "2000") -> None:
    """Measure one way, or all ways."""
    for each in [name] if name else WAYS:
        await measure(reactor, each, int(times))


if __name__ == "__main__":
    words = sys.argv[1:]
    if len(words) > 2 or (words and words[0] not in WAYS) or (words[1:] and not words[1].isdigit()):
        sys.exit(f"usage: {sys.argv[0]} [{' | '.join(WAYS)} [TIMES]]")
    react(lambda reactor, *names: Deferred.fromCoroutine(main(reactor, *names)), words)
