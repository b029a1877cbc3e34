"""
WebSockets, tested by the browser Chromium; see docs/websockets.rst.

A page of a Site connects to five ports in turn: those of a Site with a `WebSocketResource` and of a
`WebSocketFactory` without a Site, both with and without an endpoint of TLS, and of a factory with
TLS of its own. It posts what it has seen to the Site.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import skipIf

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site
from typing_extensions import override

from tests.loopback.reactors import VARIANT_REACTORS, EveryReactor
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

_CHROMIUM: Final = shutil.which("chromium")

#: Seconds for the browser; many times what it needs.
_PATIENCE: Final = 60

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
  const bytes = Uint8Array.from({ length: MIB }, (_, index) => (index * index) >> 3);
  seen.binary = sameBytes(await echo(socket, bytes), bytes);
  const long = "x\u{1F600}".repeat(10000);
  seen.compressible = (await echo(socket, long)) === long;
  const burst = Array.from({ length: 5000 }, (_, index) => `message ${index}`);
  burst.forEach((message) => socket.send(message));
  const echoes = await receive(socket, burst.length);
  seen.burst = echoes.filter((message, index) => message === burst[index]).length;
  socket.close(4001, "by the page \u{1F600}");
  seen.closedByPage = await socket.closed;
  const other = await open(url);
  other.send("close");
  seen.closedByServer = await other.closed;
  return seen;
};
(async () => {
  const all = {};
  for (const [name, url] of Object.entries(URLS)) {
    try { all[name] = await converse(url); } catch (error) { all[name] = String(error); }
  }
  await fetch("/result", { method: "POST", body: JSON.stringify(all) });
})();
</script>
"""

#: What the page sees at each of the addresses.
_SEEN: Final = {
    "protocol": "echo",
    "extension": "permessage-deflate",
    "text": "héllo \N{GRINNING FACE}",
    "empty": "",
    "binary": True,
    "compressible": True,
    "burst": 5000,
    "closedByPage": [4001, "by the page \N{GRINNING FACE}", True],
    "closedByServer": [4002, "by the server \N{GRINNING FACE}", True],
}

#: The closes that the server sees at each of the addresses.
_CLOSED: Final = [tuple(_SEEN[end][:2]) for end in ("closedByPage", "closedByServer")]  # type: ignore[index]


class _Result(Resource):
    """Takes what the page posts."""

    isLeaf = True  # noqa: N815 - Twisted reads it

    def __init__(self, posted: queue.SimpleQueue[bytes]) -> None:
        super().__init__()
        self._posted = posted

    def render_POST(self, request: Any) -> bytes:  # noqa: N802 - Twisted calls it
        self._posted.put(request.content.read())
        return b""


class _Ports:
    """Both kinds of servers, with and without TLS; an endpoint and a port for the tests."""

    def __init__(
        self, reactor: Any, protocol: type[WebSocketEcho], posted: queue.SimpleQueue[bytes]
    ) -> None:
        self._reactor = reactor
        self._secure = WebSocketFactory(reactor, protocol, upgrade=_IMPLICIT, **_SETTINGS)
        self._root = Resource()
        self._root.putChild(b"result", _Result(posted))
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
        page = _PAGE.replace("URLS", json.dumps(urls)).encode()
        self._root.putChild(b"", Page(page, "text/html; charset=utf-8"))
        return self

    def getHost(self) -> Any:
        return self._ports[0].getHost()

    def stopListening(self) -> Any:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._secure.drain(5.0)
        for port in self._ports:
            await port.stopListening()


@contextlib.contextmanager
def _browser(url: str) -> Iterator[Path]:
    """
    Open a page in Chromium, whose files are in a folder of its own; yields what it prints.

    At the end it is asked to exit: it ends its processes, also those in groups of their own.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        printed = Path(folder, "printed")
        command = [
            str(_CHROMIUM),
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--disable-breakpad", "--disable-background-networking", "--no-first-run"),
            *("--ignore-certificate-errors", f"--user-data-dir={folder}/profile", url),
        ]
        with printed.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            yield printed
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@skipIf(_CHROMIUM is None, "chromium is not installed")
class ChromiumBuilder(EveryReactor):
    """Opens a page with WebSockets in Chromium."""

    _reactors = VARIANT_REACTORS
    make_factory = WebSocketFactory

    def test_page_talks_to_every_kind_of_server(self) -> None:
        """Messages, compression, a burst and both closes are as the page expects."""
        closed: list[tuple[int, str]] = []
        posted: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        class Echo(WebSocketEcho):
            @override
            def text_received(self, text: str) -> None:
                if text == "close":
                    self.close(4002, "by the server \N{GRINNING FACE}")
                else:
                    super().text_received(text)

            @override
            def closed(self, code: int, reason: str) -> None:
                closed.append((code, reason))

        def peer(address: tuple[str, int]) -> None:
            with _browser(f"http://127.0.0.1:{address[1]}/") as printed:
                try:
                    seen = json.loads(posted.get(timeout=_PATIENCE))
                except queue.Empty:
                    self.fail(f"the page posted nothing: {printed.read_text(errors='replace')}")
            self.assertEqual(seen, dict.fromkeys(_TRIED, _SEEN))

        self.serve(
            Echo,
            peer,
            lambda reactor: _Ports(reactor, Echo, posted),
            **_SETTINGS,
        )
        self.assertEqual(sorted(closed), sorted(_CLOSED * len(_TRIED)))


globals().update(ChromiumBuilder.makeTestCaseClasses())
