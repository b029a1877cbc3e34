"""
A feed on WebSockets: each tick goes to all subscribers, and none of them delays the others.

Run it:        python examples/websocket_feed.py serve 1341 0.5
You will see:  the feed is open at ws://127.0.0.1:1341/, with a tick each 0.5 s
Then:          python examples/websocket_feed.py follow ws://127.0.0.1:1341/ 3
You will see:  tick 1: 100.25
               tick 2: 100.5
               tick 3: 100.75
Without the number of ticks at the end, ``follow`` goes on until the server ends, or until Ctrl-C.

`broadcast` encodes a tick once for all subscribers, and waits for none of them. If a subscriber
does not read, its ticks are first held by the kernel, and then queued in the server: at most
``MAX_UNSENT`` bytes of them. At this limit the subscriber is dropped, and the server prints a line.
A new subscriber gets the last tick at once. There may be thousands of subscribers, if the limit on
open files (``ulimit -n``) allows it.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall, react

from twsock import MessageWebSocket, SocketError
from twsock.protocols import WebSocketFactory, WebSocketProtocol, broadcast

#: Bytes that are queued for a subscriber that does not read: some 6,000 ticks.
MAX_UNSENT = 256 * 1024


class Subscriber(WebSocketProtocol):
    """
    One subscriber.

    A subscriber sends nothing: as ``text_received`` and ``binary_received`` are not overridden, a
    message closes its WebSocket with the code 1003.
    """

    everybody: ClassVar[set[Subscriber]] = set()
    last_tick: ClassVar[str | None] = None

    def connection_made(self) -> None:
        """Begin with the last tick."""
        self.everybody.add(self)
        if self.last_tick is not None:
            self.send_text(self.last_tick)

    def connection_lost(self, error: SocketError | None) -> None:
        """Leave; ``error`` is None after a close in order."""
        self.everybody.discard(self)
        if error is not None:
            print(f"lost {self.peer}: {error}", flush=True)


class Feed:
    """Makes the ticks."""

    number = 0

    def tick(self) -> int:
        """Send the next tick to all subscribers; return how many took it."""
        self.number += 1
        tick = json.dumps({"number": self.number, "price": 100 + self.number / 4})
        Subscriber.last_tick = tick
        return broadcast(Subscriber.everybody, tick)


def make_factory(reactor: Any) -> WebSocketFactory:
    """Return the server of the subscribers."""
    return WebSocketFactory(reactor, Subscriber, max_connections=10_000, max_unsent=MAX_UNSENT)


async def serve(reactor: Any, port: int, interval: float) -> None:
    """Send a tick at each interval, in seconds, until Ctrl-C."""
    factory = make_factory(reactor)
    endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
    try:
        opened: Any = await factory.listen(endpoint)
    except CannotListenError as error:
        reason = SocketError.from_exception(error).summary
        sys.exit(f"websocket_feed: cannot listen on port {port}: {reason}")
    uri = f"ws://127.0.0.1:{opened.getHost().port}/"
    print(f"the feed is open at {uri}, with a tick each {interval:g} s", flush=True)
    loop = LoopingCall(Feed().tick)

    async def close() -> None:
        loop.stop()
        await opened.stopListening()
        await factory.drain(timeout=5)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(close()))
    await loop.start(interval)


async def follow(reactor: Any, uri: str, wanted: int | None) -> None:
    """Print as many ticks as wanted, or all until the server closes the WebSocket."""
    async with MessageWebSocket(reactor) as websocket:
        await websocket.connect(uri)
        # On Ctrl-C, twisted.internet.task.react would end the connection without a close frame.
        reactor.addSystemEventTrigger("before", "shutdown", lambda: websocket.close(1000))
        received = 0
        async for message in websocket:
            tick = json.loads(message)
            print(f"tick {tick['number']}: {tick['price']}", flush=True)
            received += 1
            if received == wanted:
                return
    print("the WebSocket is closed")


def port(word: str) -> int:
    """Return the number of a port; 0 is a free one."""
    if not 0 <= (number := int(word)) <= 65535:
        raise ValueError(word)
    return number


def seconds(word: str) -> float:
    """Return a time."""
    if not 0 < (time := float(word)) <= 3600:
        raise ValueError(word)
    return time


def count(word: str) -> int:
    """Return a number of ticks."""
    if (number := int(word)) < 1:
        raise ValueError(word)
    return number


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line; exit with one line after the usage if it is wrong."""
    parser = argparse.ArgumentParser(description="A feed on WebSockets.")
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve", help="send ticks to all subscribers")
    server.add_argument("port", type=port, help="where to listen on 127.0.0.1; 0: a free port")
    server.add_argument("seconds", type=seconds, help="time between two ticks, at most 3600")
    client = commands.add_parser("follow", help="print the ticks of a server")
    client.add_argument("uri", help="such as ws://127.0.0.1:1341/")
    client.add_argument("count", type=count, nargs="?", help="end after so many ticks")
    return parser.parse_args(words)


async def main(reactor: Any, options: argparse.Namespace) -> None:
    """Run one of the two commands; exit with one line if it fails."""
    try:
        if options.command == "serve":
            await serve(reactor, options.port, options.seconds)
        else:
            await follow(reactor, options.uri, options.count)
    except ValueError as error:  # A malformed URI, or a tick that is none.
        sys.exit(f"websocket_feed: {error}")
    except SocketError as error:
        sys.exit(f"websocket_feed: {error.summary}")


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, options)))
