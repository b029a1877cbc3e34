"""
The counters of a server of your own, as JSON on a second endpoint.

Run it:        python examples/counters.py tcp:1337:interface=127.0.0.1 tcp:9100:interface=127.0.0.1
You will see:  echo on tcp:127.0.0.1:1337, counters on tcp:127.0.0.1:9100
Then run:      twsock echo tcp:127.0.0.1:1337 Hello
               nc 127.0.0.1 9100
You will see:  {"accepted": 1, "open": 0, "messages": 1, "bytes_received": 9, "bytes_sent": 9}

The counters are read only when a client connects to the second endpoint.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from typing_extensions import override

from twsock.protocols import FrameEcho, StreamServerFactory


def describe(server: StreamServerFactory) -> str:
    """Return some of the counters; `twsock.protocols.Counters` has all."""
    counters = server.counters
    numbers = {
        "accepted": counters.accepted,
        "open": counters.accepted - counters.ended,
        "messages": counters.messages,
        "bytes_received": counters.bytes_received,
        "bytes_sent": counters.bytes_sent,
    }
    return json.dumps(numbers)


class Page(Protocol):
    """Sends the counters, and ends the connection."""

    def __init__(self, server: StreamServerFactory) -> None:
        self._server = server

    @override
    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(f"{describe(self._server)}\n".encode())
        transport.loseConnection()


async def main(reactor: Any, echo: str, page: str) -> None:
    """Serve both endpoints until the program is stopped."""
    server = StreamServerFactory(reactor, FrameEcho)
    first = await server.listen(serverFromString(reactor, echo))
    pages = Factory.forProtocol(lambda: Page(server))
    second = await serverFromString(reactor, page).listen(pages)
    ports: list[Any] = [port.getHost() for port in (first, second)]
    print("echo on tcp:{0.host}:{0.port}, counters on tcp:{1.host}:{1.port}".format(*ports))
    sys.stdout.flush()
    await Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
