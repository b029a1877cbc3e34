"""
Every server of WebSockets under every stream endpoint: TCP, UNIX sockets, TLS, PROXY headers.

The servers are the factory of protocols, the listener, the resource of a Site, and the service with
and without ``--site``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.loopback.contract import OnEveryReactor, failure_of, turns
from tests.loopback.reactors import VARIANT_REACTORS
from tests.loopback.test_tls import root
from tests.sockets.websocket.accepted import text
from tests.sockets.websocket.test_server import echo
from tests.tls.peer import SERVER, twisted_options
from tests.websocket.pages import Page
from twsock import MessageWebSocket, StreamSocket, WebSocketListener
from twsock.protocols import WebSocketEcho, WebSocketFactory, WebSocketResource
from twsock.services.stream import StreamService
from twsock.services.websocket import SiteService
from twsock.stream import ProxyEndpoint

PEM = SERVER.private_key_and_cert_chain_pem.bytes()

#: What a proxy writes in front of a connection, and the addresses of client and server in it.
PROXIED = b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 80\r\n"
#: A header without addresses: those of the connection are used.
UNKNOWN = b"PROXY UNKNOWN\r\n"

PAGE = b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

#: Ends a server; returns when its last connection has ended.
Stop = Callable[[], Awaitable[Any]]


class Headed(Factory):
    """Writes a header in front of the bytes of a protocol, as a proxy does."""

    noisy = False

    def __init__(self, factory: Any, header: bytes) -> None:
        self._factory = factory
        self._header = header

    def buildProtocol(self, addr: Any) -> Any:
        built = self._factory.buildProtocol(addr)
        connect = built.makeConnection

        def write_header(transport: Any) -> None:
            transport.write(self._header)
            connect(transport)

        built.makeConnection = write_header
        return built


class ProxyingEndpoint:
    """Connects through another endpoint, with a PROXY header."""

    def __init__(self, endpoint: Any, header: bytes) -> None:
        self._endpoint = endpoint
        self._header = header

    def connect(self, factory: Any) -> Any:
        return self._endpoint.connect(Headed(factory, self._header))


class EveryEndpoint(OnEveryReactor):
    """The claims about a server under each endpoint."""

    # What differs between reactors is below the endpoints.
    _reactors = VARIANT_REACTORS

    #: Whether the server has a page beside its WebSockets.
    has_page = False

    async def serve(self, reactor: Any, endpoint: Any) -> tuple[Any, Stop]:
        """Listen; return the port and the end."""
        raise NotImplementedError

    def use(
        self,
        make_server: Callable[[Any], Any],
        make_client: Callable[[Any, int], Any],
        work: Callable[[Any, Any], Awaitable[None]],
    ) -> None:
        """
        Serve while a coroutine runs.

        :param make_server: is called with the reactor; returns the endpoint to listen on.
        :param make_client: is called with the reactor and the number of the port, which is 0 for a
            UNIX socket; returns the endpoint to connect to.
        :param work: is called with the reactor and that endpoint.
        """

        async def run(reactor: Any) -> None:
            port, stop = await self.serve(reactor, make_server(reactor))
            number = getattr(port.getHost(), "port", 0)
            try:
                await work(reactor, make_client(reactor, number))
            finally:
                await stop()
                await turns(reactor)

        self.conduct(run)

    async def converse(self, reactor: Any, endpoint: Any, scheme: str = "ws") -> None:
        """Exchange messages, and close in order; read a page if there is one."""
        async with MessageWebSocket(reactor) as websocket:
            websocket.control.trust_roots = [root()]
            await websocket.connect_endpoint(endpoint, f"{scheme}://localhost/ws")
            for message in ("Hello", b"", b"\0" * 200_000):
                await websocket.send(message)
                self.assertEqual(await websocket.receive(timeout=30), message)
            await websocket.close(4000, "enough")
        if scheme == "ws":
            await self.check_raw(reactor, endpoint)

    async def check_raw(self, reactor: Any, endpoint: Any) -> None:
        """Check that a peer that ends its output gets every answer, and the page."""
        answers = await exchange(reactor, endpoint, REQUEST + text("a") + text("b" * 100))
        self.assertIn(b"\r\n\r\n\x81\x01a\x81\x64" + b"b" * 100, answers)
        if self.has_page:
            self.assertIn(b"the page", await exchange(reactor, endpoint, PAGE, ends=False))

    def test_tcp(self) -> None:
        """On 127.0.0.1."""
        self.use(on_tcp, to_tcp, self.converse)

    def test_unix_socket(self) -> None:
        """By its path."""
        with TemporaryDirectory() as folder:
            path = str(Path(folder, "socket"))
            self.use(
                lambda reactor: UNIXServerEndpoint(reactor, path),
                lambda reactor, _: UNIXClientEndpoint(reactor, path),
                self.converse,
            )

    def test_tls(self) -> None:
        """TLS of the endpoint."""

        async def work(reactor: Any, endpoint: Any) -> None:
            await self.converse(reactor, endpoint, "wss")

        self.use(on_tls, to_tcp, work)

    def test_proxy_header(self) -> None:
        """In front of the request."""

        async def work(reactor: Any, endpoint: Any) -> None:
            for header in (PROXIED, UNKNOWN):
                await self.converse(reactor, ProxyingEndpoint(endpoint, header))

        self.use(lambda reactor: ProxyEndpoint(reactor, on_tcp(reactor)), to_tcp, work)

    def test_proxy_header_on_a_unix_socket(self) -> None:
        """As a proxy on the same machine connects."""

        async def work(reactor: Any, endpoint: Any) -> None:
            await self.converse(reactor, ProxyingEndpoint(endpoint, PROXIED))

        with TemporaryDirectory() as folder:
            path = str(Path(folder, "socket"))
            self.use(
                lambda reactor: ProxyEndpoint(reactor, UNIXServerEndpoint(reactor, path)),
                lambda reactor, _: UNIXClientEndpoint(reactor, path),
                work,
            )

    def test_rule_for_loopback_goes_by_the_address_in_the_header(self) -> None:
        """A name is refused where the client has connected to a loopback address."""

        async def work(reactor: Any, endpoint: Any) -> None:
            websocket = MessageWebSocket(reactor)
            uri = "ws://server.example/ws"
            unknown: Any = ProxyingEndpoint(endpoint, UNKNOWN)
            error = await failure_of(websocket.connect_endpoint(unknown, uri))
            self.assertIn("421", str(error))
            proxied: Any = ProxyingEndpoint(endpoint, PROXIED)
            await websocket.connect_endpoint(proxied, uri)
            await websocket.close()

        self.use(lambda reactor: ProxyEndpoint(reactor, on_tcp(reactor)), to_tcp, work)


def on_tcp(reactor: Any) -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")


def on_tls(reactor: Any) -> SSL4ServerEndpoint:
    return SSL4ServerEndpoint(reactor, 0, twisted_options(PEM), interface="127.0.0.1")


def to_tcp(reactor: Any, port: int) -> TCP4ClientEndpoint:
    return TCP4ClientEndpoint(reactor, "127.0.0.1", port)


async def exchange(reactor: Any, endpoint: Any, sent: bytes, *, ends: bool = True) -> bytes:
    """Send bytes, and end the output unless told otherwise; return what the server sends."""
    async with StreamSocket(reactor) as raw:
        await raw.connect_endpoint(endpoint)
        await raw.output_stream.write(sent)
        if ends:
            await raw.output_stream.close()
        return b"".join([chunk async for chunk in raw.input_stream])


class FactoryEndpoints(EveryEndpoint):
    """`WebSocketFactory` with a protocol."""

    async def serve(self, reactor: Any, endpoint: Any) -> tuple[Any, Stop]:
        factory = WebSocketFactory(reactor, WebSocketEcho)
        port: Any = await factory.listen(endpoint)

        async def stop() -> None:
            await factory.drain(5)
            await port.stopListening()

        return port, stop


class ListenerEndpoints(EveryEndpoint):
    """`WebSocketListener` with a handler."""

    async def serve(self, reactor: Any, endpoint: Any) -> tuple[Any, Stop]:
        listener = WebSocketListener(reactor)
        listener.connection_received.add(echo)
        opened: list[Any] = []

        class Recording:
            """Records the port, whose number a listener of any endpoint does not have."""

            async def listen(self, factory: Any) -> Any:
                opened.append(await endpoint.listen(factory))
                return opened[0]

        recording: Any = Recording()
        await listener.listen(recording)
        return opened[0], lambda: listener.close_all(5)


class ResourceEndpoints(EveryEndpoint):
    """`WebSocketResource` in a Site."""

    has_page = True

    async def serve(self, reactor: Any, endpoint: Any) -> tuple[Any, Stop]:
        factory = WebSocketFactory(reactor, WebSocketEcho)
        tree = Resource()
        tree.putChild(b"ws", WebSocketResource(factory))
        tree.putChild(b"page", Page(b"the page", "text/plain"))
        port = await endpoint.listen(Site(tree, reactor=reactor))

        async def stop() -> None:
            await factory.drain(5)
            await port.stopListening()

        return port, stop


class ServiceEndpoints(EveryEndpoint):
    """``twistd twsock-websocket``."""

    async def serve(self, reactor: Any, endpoint: Any) -> tuple[Any, Stop]:
        factory = WebSocketFactory(reactor, WebSocketEcho)
        service = StreamService(reactor, factory, [("an endpoint", endpoint)])
        return await started(service, reactor)


class SiteEndpoints(EveryEndpoint):
    """``twistd twsock-websocket --site``."""

    has_page = True

    async def serve(self, reactor: Any, endpoint: Any) -> tuple[Any, Stop]:
        factory = WebSocketFactory(reactor, WebSocketEcho, path="/ws")
        named = [("an endpoint", endpoint)]
        service = SiteService(reactor, factory, named, folder=folder_with_page(self.mktemp()))
        return await started(service, reactor)


def folder_with_page(path: str) -> Path:
    folder = Path(path)
    folder.mkdir(parents=True)
    (folder / "page").write_bytes(b"the page")
    return folder


async def started(service: StreamService, reactor: Any) -> tuple[Any, Stop]:
    """Start a service."""
    service.startService()
    while not service.ports:
        await turns(reactor, 1)
    return service.ports[0], service.stopService


for case in (
    FactoryEndpoints,
    ListenerEndpoints,
    ResourceEndpoints,
    ServiceEndpoints,
    SiteEndpoints,
):
    globals().update(case.makeTestCaseClasses())
