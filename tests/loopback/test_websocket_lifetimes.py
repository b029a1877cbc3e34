"""Nothing of a WebSocket outlives its connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint

from tests.loopback.reactors import on_every_reactor
from tests.loopback.test_lifetimes import MIB, LifetimeTests, all_ended
from tests.websocket.connections import END, REQUEST, binary, close, ping, text
from twsock.protocols import WebSocketFactory, WebSocketProtocol
from twsock.websocket import Request, refuse

#: The request of these tests, which arrive on a loopback address.
OPENING = REQUEST.replace(b"example.com", b"localhost") + END
REFUSED = OPENING.replace(b"/chat", b"/refused")
WAITING = OPENING.replace(b"/chat", b"/waiting")


class Messages(WebSocketProtocol):
    """Handles messages in several ways, and keeps nothing."""

    async def accept(self, request: Request) -> Any:
        """Accept, refuse, or wait to be cancelled."""
        if request.path == "/waiting":
            await Deferred()
        return refuse(403, "no") if request.path == "/refused" else None

    async def text_received(self, text: str) -> None:
        """Raise, close, ping, or wait to be cancelled."""
        if text == "raise":
            raise ValueError("wrong")
        if text == "close":
            self.close(4000)
        if text == "ping":
            self.ping().addErrback(lambda _: None)
        if text == "wait":
            await Deferred()

    def binary_received(self, data: bytes) -> None:
        """Send it back."""
        self.send_binary(data)


@asynccontextmanager
async def serve(reactor: Any) -> Any:
    """Serve `Messages`."""
    factory = WebSocketFactory(reactor, Messages)
    port: Any = await factory.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
    serving.ended = lambda: all_ended(reactor, factory.group)
    yield port.getHost().port
    await factory.drain(1)
    await port.stopListening()


serving: Any = serve


class WebSocketLifetimes(LifetimeTests):
    """Connections of `WebSocketProtocol`."""

    @on_every_reactor
    def test_loss_in_the_middle_of_a_message_leaves_nothing(self) -> None:
        """A reset or an end, with most of a message received."""
        for ending in ("abort", "close"):
            partial = binary(bytes(MIB))[:-1]
            self.check(serve, self.sends(OPENING, partial, ending=ending))

    def test_loss_in_a_handshake_leaves_nothing(self) -> None:
        """Half a request, a refused one, one that waits, and none."""
        for sent in (OPENING[:50], REFUSED, WAITING, b"\x16\x03\x01"):
            self.check(serve, self.sends(sent))

    def test_closes_leave_nothing(self) -> None:
        """Of the peer, of this end, and after a violation."""
        for sent in (close(), text("close"), text("close") + close(), b"\x81\x00"):
            for ending in ("abort", "close"):
                self.check(serve, self.sends(OPENING + sent, ending=ending))

    def test_handlers_and_pings_leave_nothing(self) -> None:
        """A handler that is cancelled, one that raises, and a ping without its pong."""
        for sent in (text("wait"), text("ping") + ping(), text("raise")):
            self.check(serve, self.sends(OPENING + sent))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 4)


globals().update(WebSocketLifetimes.makeTestCaseClasses())
