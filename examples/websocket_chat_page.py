"""
A chat room with a page: a web site and its WebSockets on one port.

Run it:        python examples/websocket_chat_page.py
You will see:  the chat room is open at http://127.0.0.1:8080/
Open this address in two windows of a browser, choose a name in each, and talk. Ctrl-C closes the
room: each page shows that the server has ended.

Another port may follow; 0 is a free one. The browser may use ``127.0.0.1`` or ``localhost``, and
only the page of this site may join: ``WebSocketFactory`` has these rules about ``Host`` and
``Origin`` by default.

The messages between the page and the server:

- the first text of a page is a name, and each later one goes to all members;
- the server sends JSON: ``{"joined": name}``, ``{"from": name, "text": text}``, ``{"left": name}``.

If a member does not read, its messages are queued, at most ``MAX_UNSENT`` bytes of them. Then the
member is dropped, and the others learn that it left.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.server import Site

from twsock import SocketError
from twsock.protocols import WebSocketFactory, WebSocketProtocol, WebSocketResource, broadcast

SUBPROTOCOL = "chat.example"  # a name for the messages above: other clients are refused
MAX_UNSENT = 256 * 1024  # bytes that are queued for a member that does not read
NAME_IS_REFUSED = 4000  # a close code of this application; 4000 to 4999 are for private use

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Chat</title>
<link rel="icon" href="data:,">
<script src="chat.js" defer></script>
<h1>Chat</h1>
<form id="enter"><input name="name" maxlength="20" placeholder="your name" required>
<button>Enter</button></form>
<form id="say" hidden><input name="text" maxlength="300" autocomplete="off" required>
<button>Say</button></form>
<ul id="log" aria-live="polite"></ul>
"""

# The texts of other members are shown with textContent: HTML in them has no effect.
SCRIPT = """\
const [enter, say, log] = ["enter", "say", "log"].map((id) => document.getElementById(id));
let socket;

function show(text) {
  const line = document.createElement("li");
  line.textContent = text;
  log.prepend(line);
  if (log.children.length > 200) log.lastChild.remove();
}

function setInside(isInside) {
  enter.hidden = isInside;
  say.hidden = !isInside;
  const field = isInside ? say.text : enter.elements.name;
  field.focus();
  field.select();
}

function join(name) {
  enter.hidden = true;
  const url = new URL("ws", location);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url, "SUBPROTOCOL");
  socket.onopen = () => socket.send(name);
  socket.onmessage = (event) => {
    const { joined, left, from, text } = JSON.parse(event.data);
    if (joined === name) setInside(true);
    if (joined) show(`${joined} has joined`);
    else if (left) show(`${left} has left`);
    else show(`${from}: ${text}`);
  };
  socket.onclose = (event) => {
    show(`You are not in the room: ${event.reason || `close code ${event.code}`}`);
    setInside(false);
  };
}

enter.onsubmit = (event) => {
  event.preventDefault();
  join(enter.elements.name.value.trim());
};
say.onsubmit = (event) => {
  event.preventDefault();
  socket.send(say.text.value);
  say.text.value = "";
};
setInside(false);
""".replace("SUBPROTOCOL", SUBPROTOCOL)

#: Name → member.
members: dict[str, Member] = {}


def tell_all(**message: str) -> None:
    """Send a message to all members."""
    broadcast(members.values(), json.dumps(message))


class Member(WebSocketProtocol):
    """One page in the room."""

    max_payload = 1000  # bytes in a text; a larger one closes the WebSocket with the code 1009
    name: str | None = None

    def text_received(self, text: str) -> None:
        """Take the first text as the name, and send each later one to all."""
        if self.name is not None:
            tell_all(**{"from": self.name, "text": text})
        elif not text.isprintable() or not 0 < len(text) <= 20:
            self.close(NAME_IS_REFUSED, "a name has 1 to 20 printable characters")
        elif text in members:
            self.close(NAME_IS_REFUSED, "the name is taken")
        else:
            self.name = text
            members[text] = self
            tell_all(joined=text)

    def connection_lost(self, error: SocketError | None) -> None:
        """Leave the room; also called if the page is closed, loaded again, or does not read."""
        if self.name is not None:
            del members[self.name]
            tell_all(left=self.name)


class Page(Resource):
    """Serves a text."""

    def __init__(self, content_type: str, text: str) -> None:
        super().__init__()
        self.content_type = f"{content_type}; charset=utf-8"
        self.body = text.encode()

    def render_GET(self, request: Any) -> bytes:  # noqa: N802 - called by twisted.web
        """Return the text."""
        request.setHeader("Content-Type", self.content_type)
        return self.body


def make_room(reactor: Any) -> WebSocketFactory:
    """Return the server of the members."""
    return WebSocketFactory(
        reactor,
        Member,
        subprotocols=[SUBPROTOCOL],
        max_connections=1000,
        max_unsent=MAX_UNSENT,
    )


async def main(reactor: Any, port: str = "8080") -> None:
    """Serve until Ctrl-C."""
    room = make_room(reactor)
    root = Resource()
    root.putChild(b"", Page("text/html", PAGE))
    root.putChild(b"chat.js", Page("text/javascript", SCRIPT))
    root.putChild(b"ws", WebSocketResource(room))
    try:
        endpoint = TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1")
        opened: Any = await endpoint.listen(Site(root))
    except Exception as error:  # noqa: BLE001 - printed for the user
        reason = SocketError.from_exception(error).summary
        sys.exit(f"websocket_chat_page: cannot listen on port {port}: {reason}")
    print(f"the chat room is open at http://127.0.0.1:{opened.getHost().port}/", flush=True)

    async def close() -> None:
        await opened.stopListening()
        await room.drain(timeout=5)

    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(close()))
    await Deferred()


if __name__ == "__main__":
    given = sys.argv[1:]
    if len(given) > 1 or not all(each.isdecimal() and int(each) < 65536 for each in given):
        sys.exit(f"usage: {sys.argv[0]} [PORT], a number from 0 to 65535")
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), given)
