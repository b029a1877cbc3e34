"""
A guest book: a server with a protocol of its own, on length-prefixed frames.

Run it:        python examples/guestbook_server.py tcp:1338:interface=127.0.0.1
You will see:  guest book is open on 127.0.0.1:1338
Then, in a second terminal:  python examples/guestbook_client.py tcp:127.0.0.1:1338 Ada
Ctrl-C closes the book: names that have arrived are answered first.

Each frame is a name; the answer has the number of guests before. Looking up a name takes time, as
in a real program: the handler is a coroutine, and the next frame of that peer waits for it.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import deferLater, react

from twsock import RemoteProtocolError, SocketError
from twsock.protocols import FrameProtocol, StreamServerFactory


class GuestBook(FrameProtocol):
    """Answers each name with a greeting."""

    max_payload = 200  # bytes in a name; a longer one ends the connection
    guests: list[str] = []  # noqa: RUF012 - one book for all connections

    async def frame_received(self, payload: bytes) -> None:
        """Add a guest, and answer with a greeting."""
        try:
            name = payload.decode()
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("a name has to be UTF-8") from error
        await look_up(self.clock, name)
        before = len(self.guests)
        self.guests.append(name)
        self.send_frame(f"Welcome, {name}! {before} came before you.".encode())


async def look_up(clock: Any, name: str) -> None:
    """Simulate a database that takes longer for longer names."""
    await deferLater(clock, 0.001 * len(name))


async def main(reactor: Any, endpoint: str) -> None:
    """Serve until Ctrl-C."""
    factory = StreamServerFactory(reactor, GuestBook, max_connections=100, idle_timeout=60)
    try:
        port: Any = await factory.listen(serverFromString(reactor, endpoint))
    except Exception as error:  # noqa: BLE001 - printed for the user
        reason = SocketError.from_exception(error).summary
        sys.exit(f"guestbook_server: cannot listen on {endpoint}: {reason}")
    host = port.getHost()
    place = f"{host.host}:{host.port}" if hasattr(host, "host") else endpoint
    print(f"guest book is open on {place}", flush=True)

    async def close() -> None:
        await port.stopListening()
        await factory.drain(timeout=5)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(close()))
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} ENDPOINT, such as tcp:1338:interface=127.0.0.1")
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))
