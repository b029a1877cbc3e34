"""A WebSocket beside a web site on real connections, over HTTP."""

from __future__ import annotations

import http.client
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data
from websockets.sync.client import connect as connect_websocket

from tests.loopback.reactors import EveryReactor, connect, receive_all
from tests.websocket.connections import END, REQUEST, close, text
from twsock.protocols import WebSocketEcho, WebSocketFactory, WebSocketResource

MIB = 1024 * 1024
Address = tuple[str, int]


class BesideSite:
    """An endpoint that serves a Site, with a page and the WebSockets of a factory."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def listen(self, factory: WebSocketFactory) -> Any:
        root = Resource()
        root.putChild(b"chat", WebSocketResource(factory))
        root.putChild(b"page", Data(b"the page", "text/plain"))
        return self._endpoint.listen(Site(root))


def over_tcp(reactor: Any) -> BesideSite:
    return BesideSite(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))


class SiteBuilder(EveryReactor):
    """Serves a Site."""

    make_factory = WebSocketFactory

    def converse(self, scheme: str, address: Address, **options: Any) -> None:
        """Echo messages, and close in order."""
        url = f"{scheme}://127.0.0.1:{address[1]}/chat"
        with connect_websocket(url, compression=None, max_size=None, **options) as client:
            for message in ("Hello", "", b"\0" * MIB, "x" * 1000):
                client.send(message)
                self.assertEqual(client.recv(30), message)
            client.close(3000, "done")
        self.assertEqual(client.close_code, 3000)

    def test_http_goes_on_beside_web_sockets(self) -> None:
        """A page is served before and after a WebSocket."""

        def peer(address: Address) -> None:
            page = http.client.HTTPConnection("127.0.0.1", address[1], timeout=30)
            for _ in range(2):
                page.request("GET", "/page")
                self.assertEqual(page.getresponse().read(), b"the page")
                self.converse("ws", address)
            page.close()

        self.serve(WebSocketEcho, peer, over_tcp)

    def test_request_and_messages_may_come_together(self) -> None:
        """A page, the request and two frames in one segment; the server ends TCP in order."""

        def peer(address: Address) -> None:
            page = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
            request = REQUEST.replace(b"example.com", b"localhost") + END
            with connect(address) as client:
                client.sendall(page + request + text("a") + close(1001))
                received = receive_all(client)
            self.assertLess(received.index(b"the page"), received.index(b" 101 "))
            self.assertTrue(received.endswith(b"\r\n\r\n\x81\x01a\x88\x02\x03\xe9"), received)

        self.serve(WebSocketEcho, peer, over_tcp)


globals().update(SiteBuilder.makeTestCaseClasses())
