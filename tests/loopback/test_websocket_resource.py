"""A WebSocket beside a web site on real connections, over HTTP and HTTPS."""

from __future__ import annotations

import asyncio
import http.client
from typing import Any

from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site
from websockets.asyncio.client import connect as connect_asyncio
from websockets.sync.client import connect as connect_websocket

from tests.loopback.reactors import EveryReactor, connect, receive_all
from tests.tls.peer import SERVER, client_context, twisted_options
from tests.websocket.connections import END, REQUEST, close, text
from tests.websocket.pages import Page
from twsock.protocols import WebSocketEcho, WebSocketFactory, WebSocketResource

PEM = SERVER.private_key_and_cert_chain_pem.bytes()
MIB = 1024 * 1024
Address = tuple[str, int]


class BesideSite:
    """An endpoint that serves a Site, with a page and the WebSockets of a factory."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def listen(self, factory: WebSocketFactory) -> Any:
        root = Resource()
        root.putChild(b"chat", WebSocketResource(factory))
        root.putChild(b"page", Page(b"the page", "text/plain"))
        return self._endpoint.listen(Site(root))


def over_tcp(reactor: Any) -> BesideSite:
    return BesideSite(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))


def over_tls(reactor: Any) -> BesideSite:
    return BesideSite(SSL4ServerEndpoint(reactor, 0, twisted_options(PEM), interface="127.0.0.1"))


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

    def test_web_sockets_run_over_https(self) -> None:
        """TLS is that of the Site's endpoint; messages and the close are the same."""

        async def converse(port: int) -> None:
            # With asyncio: the client with threads uses one TLS session in two threads.
            uri = f"wss://127.0.0.1:{port}/chat"
            async with connect_asyncio(
                uri, ssl=client_context(), compression=None, max_size=None
            ) as client:
                for message in ("Hello", "", b"\0" * MIB):
                    await client.send(message)
                    self.assertEqual(await client.recv(), message)
                await client.close(3000, "done")
            self.assertEqual(client.close_code, 3000)

        self.serve(WebSocketEcho, lambda address: asyncio.run(converse(address[1])), over_tls)

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
