"""
Echoes WebSocket messages on Twisted: by autobahn, or by Twisted's own ``twisted.web.websocket``.

autobahn runs with its defaults and accepts compression; Twisted's own has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.python.failure import Failure

from benchmarks.programs.serving import install, make_parser, serve

__all__ = ["main"]


def _make_autobahn() -> Any:
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
    from autobahn.websocket.compress import (
        PerMessageDeflateOffer,
        PerMessageDeflateOfferAccept,
    )

    class Echo(WebSocketServerProtocol):
        # Called by autobahn.
        def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N802, N803
            self.sendMessage(payload, isBinary)

    def accept(offers: Sequence[Any]) -> Any:
        for offer in offers:
            if isinstance(offer, PerMessageDeflateOffer):
                return PerMessageDeflateOfferAccept(offer)
        return None

    factory = WebSocketServerFactory()
    factory.protocol = Echo
    factory.setProtocolOptions(perMessageCompressionAccept=accept, tcpNoDelay=True)
    return factory


def _make_twisted() -> Any:
    from twisted.web.resource import Resource
    from twisted.web.server import Request, Site
    from twisted.web.websocket import WebSocketResource, WebSocketTransport

    class Echo:
        def negotiationStarted(self, transport: WebSocketTransport) -> None:  # noqa: N802
            self._transport = transport

        def negotiationFinished(self) -> None:  # noqa: N802
            pass

        def textMessageReceived(self, message: str) -> None:  # noqa: N802
            self._transport.sendTextMessage(message)

        def bytesMessageReceived(self, data: bytes | bytearray) -> None:  # noqa: N802
            self._transport.sendBytesMessage(bytes(data))

        def pongReceived(self, payload: bytes) -> None:  # noqa: N802
            pass

        def connectionLost(self, reason: Failure) -> None:
            pass

    class EchoFactory:
        def buildProtocol(self, request: Request) -> Echo:
            return Echo()

    root = Resource()
    root.putChild(b"", WebSocketResource(EchoFactory()))
    return Site(root)


_FACTORIES = {"autobahn": _make_autobahn, "twisted": _make_twisted}


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = make_parser()
    parser.add_argument("library", choices=tuple(_FACTORIES))
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    serve(reactor, _FACTORIES[options.library]())
