"""
A moving listener: a new process takes the listening socket, and no client is refused.

Run it:        python examples/moving_listener.py
You will see:  the first process answers
               the second process answers
               nobody was refused

The first process starts the second one, and passes the socket to it (see docs/handover.rst).
Clients that connect in between wait in the queue of the kernel.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import react
from twisted.python.failure import Failure
from typing_extensions import override

from twsock import StreamSocket, StreamSocketListener
from twsock.handover import DetachedListener
from twsock.handover.channel import give, take


def make_listener(reactor: Any, name: bytes) -> StreamSocketListener:
    """Make a listener that sends its name to each client."""
    listener = StreamSocketListener(reactor)

    @listener.connection_received.add
    async def answer(_: StreamSocketListener, args: Any) -> None:
        async with args.socket as client:
            await client.output_stream.write(b"the %s process answers" % name)

    return listener


async def connect(reactor: Any, port: str) -> StreamSocket:
    """Connect to the listener."""
    client = StreamSocket(reactor)
    await client.connect("127.0.0.1", port)
    return client


async def show(client: StreamSocket) -> None:
    """Print what the listener sends."""
    async with client:
        print((await client.input_stream.receive_some()).decode(), flush=True)


async def first(reactor: Any) -> None:
    """Serve a client, then give the socket to the second process, which serves the next client."""
    listener = make_listener(reactor, b"first")
    await listener.bind_endpoint("127.0.0.1", "")
    port = listener.information.local_port
    await show(await connect(reactor, port))
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other = SecondProcess()
    words = [sys.executable, __file__, "3"]
    descriptors = {0: 0, 1: 1, 2: 2, 3: there.fileno()}
    reactor.spawnProcess(other, sys.executable, words, env=os.environ, childFDs=descriptors)
    there.close()
    detached = listener.detach()
    early = await connect(reactor, port)  # No process accepts now, but the socket listens.
    await give(reactor, here, detached, timeout=60)
    await show(early)
    await listener.close_all(timeout=5)
    await other.ended
    print("nobody was refused")


class SecondProcess(ProcessProtocol):
    """
    The process that takes the socket.

    :ivar ended: fires when the process has ended.
    """

    def __init__(self) -> None:
        self.ended: Deferred[object] = Deferred()

    @override
    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


async def second(reactor: Any, channel: str) -> None:
    """Take the socket, serve the client that waits, and end."""
    detached, _ = await take(
        reactor, socket.socket(fileno=int(channel)), kind=DetachedListener, timeout=60
    )
    listener = make_listener(reactor, b"second")
    await listener.bind_socket(detached)
    await listener.close_all(timeout=60)


if __name__ == "__main__":
    react(second if len(sys.argv) > 1 else first, sys.argv[1:])
