"""
The client of the guest book: sends names, prints greetings.

Run it:        python examples/guestbook_client.py tcp:127.0.0.1:1338 Ada Grace
You will see:  Welcome, Ada! 0 came before you.
               Welcome, Grace! 1 came before you.

It connects to examples/guestbook_server.py. Its protocol is a `FrameProtocol`, as the server's:
`FrameProtocol` works on both sides.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react

from twsock import SocketError
from twsock.protocols import FrameProtocol


class Guest(FrameProtocol):
    """Collects the answers, and None at the end of the connection."""

    def __init__(self) -> None:
        self.answers: DeferredQueue[bytes | None] = DeferredQueue()

    def frame_received(self, payload: bytes) -> None:
        """Keep an answer."""
        self.answers.put(payload)

    def connection_lost(self, error: SocketError | None) -> None:
        """Add None: there are no more answers."""
        self.answers.put(None)


async def main(reactor: Any, endpoint: str, names: list[str]) -> None:
    """Send all names at once; the answers come in the same order."""
    try:
        guest: Any = await clientFromString(reactor, endpoint).connect(Factory.forProtocol(Guest))
    except Exception as error:  # noqa: BLE001 - printed for the user
        sys.exit(f"cannot connect to {endpoint}: {SocketError.from_exception(error).summary}")
    for name in names:
        guest.send_frame(name.encode())
    for _ in names:
        answer = await guest.answers.get()
        if answer is None:
            sys.exit("the guest book was closed")
        print(answer.decode(), flush=True)
    await guest.close()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} ENDPOINT NAME ...")
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1], sys.argv[2:])))
