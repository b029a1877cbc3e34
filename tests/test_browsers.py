"""
WebSockets, tested by the browser Chromium; see docs/websockets.rst.

A page of a Site connects to five ports in turn: those of a Site with a `WebSocketResource` and of a
`WebSocketFactory` without a Site, both with and without an endpoint of TLS, and of a factory with
TLS of its own. Then two pages talk in the chat room of examples/websocket_chat_page.py.
"""

from __future__ import annotations

import json
import signal
from typing import Any, Final
from unittest import skipIf

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from typing_extensions import override

from tests.chromium import CHROMIUM, Tab, run_browser
from tests.loopback.reactors import VARIANT_REACTORS, EveryReactor
from tests.test_examples import EXAMPLES, running
from tests.tls.peer import SERVER, twisted_options
from tests.websocket.pages import Page
from twsock.protocols import (
    UpgradePolicy,
    UpgradeToSsl,
    WebSocketEcho,
    WebSocketFactory,
    WebSocketResource,
)
from twsock.tls import Certificate, ServerOptions, ServerTls
from twsock.websocket import DeflateSettings

_PEM: Final = SERVER.private_key_and_cert_chain_pem.bytes()

_IMPLICIT: Final = UpgradeToSsl(
    ServerTls(ServerOptions([Certificate.from_pem(_PEM)])), UpgradePolicy.IMPLICIT
)
_SETTINGS: Final[dict[str, Any]] = {"subprotocols": ["echo"], "compression": DeflateSettings()}

#: The addresses that the page tries, in this order, with the place of their port.
_TRIED: Final = ("ws /chat", "ws /", "wss /chat", "wss /", "wss /upgrade")

_PAGE: Final = r"""<!DOCTYPE html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>WebSockets</title>
<script>
const MIB = 1024 * 1024;
const open = (url) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url, ["unknown", "echo"]);
  socket.binaryType = "arraybuffer";
  socket.received = [];
  socket.wake = () => {};
  socket.onmessage = (event) => { socket.received.push(event.data); socket.wake(); };
  socket.closed = new Promise((done) => {
    socket.onclose = (event) => {
      done([event.code, event.reason, event.wasClean]);
      reject(new Error(`${url} closed: ${event.code}`));
    };
  });
  socket.onopen = () => resolve(socket);
});
const receive = async (socket, count) => {
  while (socket.received.length < count && socket.readyState === WebSocket.OPEN) {
    await new Promise((resolve) => {
      socket.wake = resolve;
      socket.closed.then(resolve);
    });
  }
  return socket.received.splice(0);
};
const echo = async (socket, message) => {
  socket.send(message);
  return (await receive(socket, 1))[0];
};
const sameBytes = (one, other) =>
  one instanceof ArrayBuffer && one.byteLength === other.length &&
  new Uint8Array(one).every((byte, index) => byte === other[index]);
const converse = async (url) => {
  const socket = await open(url);
  const seen = { protocol: socket.protocol, extension: socket.extensions.split(";")[0] };
  seen.text = await echo(socket, "h\u00e9llo \u{1F600}");
  seen.empty = await echo(socket, "");
  seen.emptyBinary = sameBytes(await echo(socket, new Uint8Array(0)), []);
  const bytes = Uint8Array.from({ length: MIB }, (_, index) => (index * index) >> 3);
  seen.binary = sameBytes(await echo(socket, bytes), bytes);
  const long = "x\u{1F600}".repeat(10000);
  seen.compressible = (await echo(socket, long)) === long;
  const burst = Array.from({ length: 5000 }, (_, index) => `message ${index}`);
  burst.forEach((message) => socket.send(message));
  const echoes = await receive(socket, burst.length);
  seen.burst = echoes.filter((message, index) => message === burst[index]).length;
  seen.closedByPage = [];
  for (const close of [[], [1000], [3000, ""], [4999, "by the page \u{1F600}"]]) {
    const other = await open(url);
    other.close(...close);
    seen.closedByPage.push(await other.closed);
  }
  seen.closedByServer = [];
  for (const code of CODES) {
    const other = await open(url);
    other.send(`close ${code}`);
    seen.closedByServer.push(await other.closed);
  }
  socket.send(new Uint8Array(MIB + 1));
  // Not whether it is clean: the server may end TCP before it has the close frame of the page.
  seen.tooLarge = (await socket.closed).slice(0, 2);
  const foreign = await open(url.replace("127.0.0.1", "localhost")).catch(String);
  seen.foreignOrigin = foreign.split(" ").slice(-2).join(" ");
  return seen;
};
const result = (async () => {
  const all = {};
  for (const [name, url] of Object.entries(URLS)) {
    try { all[name] = await converse(url); } catch (error) { all[name] = String(error); }
  }
  return all;
})();
</script>
"""

#: A promise that is fulfilled when the chat page shows a line.
_SHOWS: Final = r"""
new Promise((done) => {
  const look = () => {
    if ([...log.children].some((shown) => shown.textContent === LINE)) done(true);
  };
  new MutationObserver(look).observe(log, { childList: true });
  look();
})
"""

#: The close codes that the page asks the servers for.
_CODES: Final = (1000, 1001, 1003, 1008, 1011, 3000, 4999)

_BY_PAGE: Final = "by the page \N{GRINNING FACE}"
_BY_SERVER: Final = "by the server \N{GRINNING FACE}"

#: What the page sees at each of the addresses; a close is a code, a reason and ``wasClean``.
_SEEN: Final = {
    "protocol": "echo",
    "extension": "permessage-deflate",
    "text": "héllo \N{GRINNING FACE}",
    "empty": "",
    "emptyBinary": True,
    "binary": True,
    "compressible": True,
    "burst": 5000,
    "closedByPage": [[1005, "", True], [1000, "", True], [3000, "", True], [4999, _BY_PAGE, True]],
    "closedByServer": [[code, _BY_SERVER, True] for code in _CODES],
    "tooLarge": [1009, "compressed message above 1048576 bytes"],
    "foreignOrigin": "closed: 1006",
}

#: The closes that the server sees at each of the addresses.
_CLOSED: Final = [
    tuple(close[:2])
    for close in (*_SEEN["closedByPage"], *_SEEN["closedByServer"], _SEEN["tooLarge"])  # type: ignore[misc]
]


class _Ports:
    """Both kinds of servers, with and without TLS; an endpoint and a port for the tests."""

    def __init__(self, reactor: Any, protocol: type[WebSocketEcho]) -> None:
        self._reactor = reactor
        self._secure = WebSocketFactory(reactor, protocol, upgrade=_IMPLICIT, **_SETTINGS)
        self._root = Resource()
        self._ports: list[Any] = []

    def listen(self, factory: WebSocketFactory) -> Deferred[_Ports]:
        """
        Listen on all ports.

        :param factory: serves on all ports but the last, whose factory has TLS of its own.
        """
        self._root.putChild(b"chat", WebSocketResource(factory))
        site = Site(self._root)
        local = {"interface": "127.0.0.1"}
        tcp = TCP4ServerEndpoint(self._reactor, 0, **local)
        tls = SSL4ServerEndpoint(self._reactor, 0, twisted_options(_PEM), **local)
        served = (
            (tcp, site),
            (tcp, factory),
            (tls, site),
            (tls, factory),
            (tcp, self._secure),
        )
        listening = [endpoint.listen(each) for endpoint, each in served]
        return gatherResults(listening).addCallback(self._add_page)

    def _add_page(self, ports: list[Any]) -> _Ports:
        self._ports = ports
        urls = {}
        for name, port in zip(_TRIED, ports, strict=True):
            scheme, path = name.split()
            urls[name] = f"{scheme}://127.0.0.1:{port.getHost().port}{path}"
        page = _PAGE.replace("URLS", json.dumps(urls)).replace("CODES", json.dumps(_CODES))
        self._root.putChild(b"", Page(page.encode(), "text/html; charset=utf-8"))
        return self

    def getHost(self) -> Any:
        return self._ports[0].getHost()

    def stopListening(self) -> Any:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._secure.drain(5.0)
        for port in self._ports:
            await port.stopListening()


@skipIf(CHROMIUM is None, "chromium is not installed")
class ChromiumBuilder(EveryReactor):
    """Opens a page with WebSockets in Chromium."""

    # Peers that start faster than a browser test the others.
    _reactors = [name for name in VARIANT_REACTORS if "epoll" in name.lower()]
    make_factory = WebSocketFactory

    def test_page_talks_to_every_kind_of_server(self) -> None:
        """Messages, compression, a burst, closes and refusals are as the page expects."""
        closed: list[tuple[int, str]] = []

        class Echo(WebSocketEcho):
            @override
            def text_received(self, text: str) -> None:
                command, _, code = text.partition(" ")
                if command == "close":
                    self.close(int(code), _BY_SERVER)
                else:
                    super().text_received(text)

            @override
            def closed(self, code: int, reason: str) -> None:
                closed.append((code, reason))

        def peer(address: tuple[str, int]) -> None:
            with run_browser() as browser:
                seen = browser.open(f"http://127.0.0.1:{address[1]}/").evaluate("result")
            self.assertEqual(seen, dict.fromkeys(_TRIED, _SEEN))

        self.serve(Echo, peer, lambda reactor: _Ports(reactor, Echo), **_SETTINGS)
        self.assertEqual(sorted(closed), sorted(_CLOSED * len(_TRIED)))


@skipIf(CHROMIUM is None, "chromium is not installed")
class ChatPageTests(SynchronousTestCase):
    """The page of examples/websocket_chat_page.py, in two tabs."""

    def wait_for(self, tab: Tab, line: str) -> None:
        """Wait until a page shows a line."""
        self.assertTrue(tab.evaluate(_SHOWS.replace("LINE", json.dumps(line))))

    def test_two_pages_talk_to_each_other(self) -> None:
        """HTML in a text has no effect. A reload and a closed tab leave; Ctrl-C ends the room."""
        with (
            running(EXAMPLES / "websocket_chat_page.py", "0") as (server, _opened, port),
            run_browser() as browser,
        ):
            ada = browser.open(f"http://127.0.0.1:{port}/")
            ada.type("Ada")
            self.wait_for(ada, "Ada has joined")
            grace = browser.open(f"http://localhost:{port}/")
            grace.type("Grace")
            self.wait_for(grace, "Grace has joined")
            grace.type("<b>Hello</b> \N{GRINNING FACE}")
            ada.type("Good morning")
            for tab in (ada, grace):
                self.wait_for(tab, "Grace: <b>Hello</b> \N{GRINNING FACE}")
                self.wait_for(tab, "Ada: Good morning")
            grace.reload()
            self.wait_for(ada, "Grace has left")
            grace.type("Ada")
            self.wait_for(grace, "You are not in the room: the name is taken")
            grace.type("Hopper")
            self.wait_for(ada, "Hopper has joined")
            grace.close()
            self.wait_for(ada, "Hopper has left")
            server.send_signal(signal.SIGINT)
            self.wait_for(ada, "You are not in the room: the server ends")
            printed, _ = server.communicate()
        self.assertEqual((printed, server.returncode), ("", 0))


globals().update(ChromiumBuilder.makeTestCaseClasses())
