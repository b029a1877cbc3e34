"""Clients that offer protocols (ALPN) to WebSockets under a TLS endpoint of Twisted."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.threads import deferToThreadPool

from tests.loopback.contract import OnEveryReactor
from tests.loopback.reactors import connect, on_every_reactor
from tests.sockets.websocket.accepted import REQUEST
from tests.sockets.websocket.test_server import echo
from tests.tls.peer import SERVER, client_context, twisted_options
from twsock import WebSocketListener
from twsock.protocols import WebSocketEcho, WebSocketFactory
from twsock.stream.listening.proxy_endpoint import ProxyEndpoint

PEM = SERVER.private_key_and_cert_chain_pem.bytes()
#: What browsers offer.
OFFERED = ("h2", "http/1.1")


class OfferedProtocolBuilder(OnEveryReactor):
    """A client that offers HTTP/2 and HTTP/1.1, as browsers do, gets HTTP/1.1."""

    def request(self, port: int, before: bytes = b"") -> None:
        """Shake hands, and ask for a WebSocket."""
        context = client_context()
        context.set_alpn_protocols(OFFERED)
        with (
            connect(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            self.assertEqual(secure.selected_alpn_protocol(), "http/1.1")
            secure.sendall(before + REQUEST)
            self.assertEqual(secure.recv(12), b"HTTP/1.1 101")

    async def ask(self, reactor: Any, port: int, before: bytes = b"") -> None:
        await deferToThreadPool(reactor, reactor.getThreadPool(), self.request, port, before)

    def secure(self, reactor: Any) -> SSL4ServerEndpoint:
        return SSL4ServerEndpoint(reactor, 0, twisted_options(PEM), interface="127.0.0.1")

    @on_every_reactor
    def test_a_factory_is_reached(self) -> None:
        """Also through an endpoint that expects a PROXY header."""

        async def work(reactor: Any) -> None:
            plain = self.secure(reactor)
            for endpoint, header in (
                (plain, b""),
                (ProxyEndpoint(reactor, plain), b"PROXY UNKNOWN\r\n"),
            ):
                factory = WebSocketFactory(reactor, WebSocketEcho)
                port: Any = await factory.listen(endpoint)
                await self.ask(reactor, port.getHost().port, header)
                await port.stopListening()
                await factory.drain(30)

        self.conduct(work)

    @on_every_reactor
    def test_a_listener_is_reached(self) -> None:
        """It listens on the endpoint."""

        async def work(reactor: Any) -> None:
            listener = WebSocketListener(reactor)
            listener.connection_received.add(echo)
            await listener.listen(self.secure(reactor))
            await self.ask(reactor, int(listener.information.local_port))
            await listener.close_all(30)

        self.conduct(work)


globals().update(OfferedProtocolBuilder.makeTestCaseClasses())
