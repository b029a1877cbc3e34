"""A server's WebSocket that is connected in memory, to a client that the test plays."""

from __future__ import annotations

import copy
import typing
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from tests.sockets.websocket.connected import Aborting
from twsock import WebSocketListener
from twsock.websocket.close_frame import encode_close
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.messages import MessageDecoder

KEY = b"\x01\x02\x03\x04"
REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(opcode: Opcode, payload: bytes) -> bytes:
    """Return a frame of a client."""
    return encode_frame(opcode, payload, key=KEY)


def text(payload: str) -> bytes:
    """Return a text message of a client."""
    return masked(Opcode.TEXT, payload.encode())


def binary(payload: bytes) -> bytes:
    """Return a binary message of a client."""
    return masked(Opcode.BINARY, payload)


def close(code: int = 1000) -> bytes:
    """Return a close frame of a client."""
    return masked(Opcode.CLOSE, encode_close(code, ""))


class Accepted:
    """A listener in memory, one connection, and what the application has got."""

    def __init__(self, handler: Any = None, **options: Any) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.listener = WebSocketListener(self.reactor, **options)
        self.sockets: list[Any] = []

        def note(listener: Any, args: Any) -> Any:
            self.sockets.append(args.socket)
            return None if handler is None else handler(listener, args)

        self.listener.connection_received.add(note)
        self.listener.bind_endpoint("127.0.0.1", 1338)
        self._connect()

    def _connect(self) -> None:
        factory = self.reactor.tcpServers[-1][1]
        peer = IPv4Address("TCP", "127.0.0.1", 50_000)
        self.protocol = typing.cast(Any, factory.buildProtocol(peer))
        self.transport: Any = Aborting(
            peerAddress=peer, hostAddress=IPv4Address("TCP", "127.0.0.1", 1338)
        )
        self.protocol.makeConnection(self.transport)
        self.decoder = MessageDecoder(is_server=False, max_message_size=1 << 30)

    def accept_another(self) -> Accepted:
        """Return another connection of the same listener."""
        other = copy.copy(self)
        other._connect()
        return other

    @property
    def socket(self) -> Any:
        """The WebSocket that the application has got."""
        (found,) = self.sockets
        return found

    def receive(self, data: bytes) -> None:
        """Deliver bytes of the client."""
        self.protocol.dataReceived(data)

    def sent(self) -> bytes:
        """Return what was sent since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def open(self, behind: bytes = b"") -> Any:
        """Send the request; return the WebSocket."""
        self.receive(REQUEST + behind)
        head, _, rest = self.sent().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        self.decoder.feed(rest)
        return self.socket

    def frames(self) -> list[tuple[Opcode, Any]]:
        """Return the messages and control frames that were sent since the last call."""
        self.decoder.feed(self.sent())
        return [(opcode, payload) for opcode, payload, _ in self.decoder.messages()]

    def lose(self, *, is_clean: bool = False) -> None:
        """Report the loss of the connection."""
        reason = ConnectionDone() if is_clean else ConnectionLost()
        self.protocol.connectionLost(Failure(reason))
