"""
A chat room on WebSockets: each text goes to all members.

Run it:        python examples/websocket_chat.py tcp:1341:interface=127.0.0.1
You will see:  the chat room is open at ws://127.0.0.1:1341
Then, in a terminal for each member:  python examples/websocket_chat.py ws://127.0.0.1:1341/
The first line that a member types is the name. Ctrl-D leaves the room. Ctrl-C on the server closes
the room: each member receives the close code 1001.

`broadcast` does not wait for slow members. While a member does not read, its messages are queued,
at most ``max_unsent`` bytes of them. Then the member is dropped, and the others learn that it left.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from twsock import MessageWebSocket, SocketError
from twsock.protocols import WebSocketFactory, WebSocketProtocol, broadcast

NAME_IS_TAKEN = 4000  # a close code of this application; 4000 to 4999 are for private use

#: Name → member.
members: dict[str, Member] = {}


def tell_all(text: str) -> None:
    """Send a text to all members."""
    broadcast(members.values(), text)


class Member(WebSocketProtocol):
    """One member of the room."""

    max_payload = 1000  # bytes in a text; a larger one closes the WebSocket with the code 1009
    name: str | None = None

    def connection_made(self) -> None:
        """Ask for the name."""
        self.send_text("What is your name?")

    def text_received(self, text: str) -> None:
        """Take the first text as the name, and send each later one to all."""
        text = text.strip()
        if self.name is not None:
            tell_all(f"{self.name}: {text}")
        elif not text.isprintable() or not 0 < len(text) <= 20:
            self.send_text("A name has 1 to 20 characters.")
        elif text in members:
            self.close(NAME_IS_TAKEN, "the name is taken")
        else:
            self.name = text
            members[text] = self
            tell_all(f"* {text} has joined")

    def connection_lost(self, error: SocketError | None) -> None:
        """Leave the room."""
        if self.name is not None:
            del members[self.name]
            tell_all(f"* {self.name} has left")


async def serve(reactor: Any, endpoint: str) -> None:
    """Serve until Ctrl-C."""
    factory = WebSocketFactory(reactor, Member, max_connections=1000, max_unsent=256 * 1024)
    try:
        port: Any = await factory.listen(serverFromString(reactor, endpoint))
    except Exception as error:  # noqa: BLE001 - printed for the user
        reason = SocketError.from_exception(error).summary
        sys.exit(f"websocket_chat: cannot listen on {endpoint}: {reason}")
    address = port.getHost()
    place = endpoint
    if not isinstance(address, UNIXAddress):
        host = f"[{address.host}]" if ":" in address.host else address.host
        place = f"ws://{host}:{address.port}"
    print(f"the chat room is open at {place}", flush=True)

    async def close() -> None:
        await port.stopListening()
        await factory.drain(timeout=5)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(close()))
    await Deferred()


class Keyboard(LineOnlyReceiver):
    """Sends each line of standard input to the room."""

    delimiter = b"\n"

    def __init__(self, websocket: MessageWebSocket) -> None:
        self.websocket = websocket

    def lineReceived(self, line: bytes) -> None:
        """Send a line; a lost connection is reported where messages are received."""
        sending = self.websocket.send(line.decode(errors="replace"))
        sending.addErrback(lambda failure: failure.trap(SocketError))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Leave the room at the end of the input."""
        self.websocket.close(1000)


async def join(reactor: Any, uri: str) -> None:
    """Be a member until the end of standard input, or of the room."""
    try:
        async with MessageWebSocket(reactor) as websocket:
            await websocket.connect(uri)
            StandardIO(Keyboard(websocket), reactor=reactor)
            async for message in websocket:
                print(message, flush=True)
    except ValueError as error:  # A malformed URI.
        sys.exit(f"websocket_chat: {error}")
    except SocketError as error:
        sys.exit(f"websocket_chat: {error.summary}")


async def main(reactor: Any, place: str) -> None:
    """Serve an endpoint, or join a room."""
    await (join if place.startswith(("ws:", "wss:")) else serve)(reactor, place)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} ENDPOINT|URI, such as tcp:1341:interface=127.0.0.1")
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, sys.argv[1])))
