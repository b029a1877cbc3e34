"""WebSockets on a transport in memory, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twsock.errors import SocketError
from twsock.websocket.close_frame import encode_close
from twsock.websocket.factory import WebSocketFactory
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.messages import MessageDecoder
from twsock.websocket.protocol import WebSocketProtocol

P = TypeVar("P", bound=WebSocketProtocol)

KEY = b"\x11\x22\x33\x44"

#: A request that every server of these tests accepts.
REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
END = b"\r\n"


def text(payload: str, **options: Any) -> bytes:
    """Return a text message of a client."""
    return encode_frame(Opcode.TEXT, payload.encode(), key=KEY, **options)


def binary(payload: bytes, **options: Any) -> bytes:
    """Return a binary message of a client."""
    return encode_frame(Opcode.BINARY, payload, key=KEY, **options)


def ping(payload: bytes = b"") -> bytes:
    """Return a ping of a client."""
    return encode_frame(Opcode.PING, payload, key=KEY)


def pong(payload: bytes = b"") -> bytes:
    """Return a pong of a client."""
    return encode_frame(Opcode.PONG, payload, key=KEY)


def close(code: int = 1000, reason: str = "") -> bytes:
    """Return a close frame of a client."""
    return encode_frame(Opcode.CLOSE, encode_close(code, reason), key=KEY)


class Recorder(WebSocketProtocol):
    """Records what the protocol is called with; echoes messages."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.lost: list[SocketError | None] = []

    def connection_made(self) -> None:
        self.events.append("made")

    def text_received(self, text: str) -> Any:
        self.events.append(text)
        self.send_text(text)

    def binary_received(self, data: bytes) -> Any:
        self.events.append(data)
        self.send_binary(data)

    def writing_paused(self) -> None:
        self.events.append("paused")

    def writing_resumed(self) -> None:
        self.events.append("resumed")

    def closed(self, code: int, reason: str) -> None:
        self.events.append((code, reason))

    def connection_lost(self, error: SocketError | None) -> None:
        self.lost.append(error)


class Connected(Generic[P]):
    """
    One server connection on a transport in memory.

    :param host: the address of this end.
    :param factory: that of another connection, whose ``clock`` it has; None to make one.
    """

    def __init__(
        self,
        protocol: type[P],
        host: str = "192.0.2.1",
        clock: Clock | None = None,
        factory: WebSocketFactory | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.factory = factory or WebSocketFactory(self.clock, protocol, **settings)
        self.transport: Any = StringTransport(hostAddress=IPv4Address("TCP", host, 1338))
        built = self.factory.buildProtocol(None)
        assert isinstance(built, protocol)
        self.protocol: P = built
        self.protocol.makeConnection(self.transport)
        self.decoder = MessageDecoder(is_server=False, max_message_size=1 << 30)

    def receive(self, data: bytes, step: int = 0) -> None:
        """Deliver bytes to the connection, in pieces of ``step`` bytes unless that is 0."""
        for start in range(0, len(data), step or len(data) or 1):
            self.protocol.dataReceived(data[start : start + (step or len(data))])

    def sent(self) -> bytes:
        """Return the bytes that were sent since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def frames(self) -> list[tuple[str, str | bytes]]:
        """Return the frames that were sent since the last call."""
        self.decoder.feed(self.sent())
        return list(self._named_frames())

    def _named_frames(self) -> Iterator[tuple[str, str | bytes]]:
        for opcode, payload, _ in self.decoder.messages():
            yield opcode.name.lower(), payload

    @property
    def is_ending(self) -> bool:
        """Whether this end has closed the transport, in order."""
        return bool(self.transport.disconnecting)

    @property
    def is_aborted(self) -> bool:
        """Whether this end has aborted the transport."""
        return bool(self.transport.disconnected)

    def end(self) -> None:
        """Deliver the peer's FIN."""
        self.protocol.readConnectionLost()

    def lose(self, error: Exception | None = None) -> None:
        """Report a lost connection."""
        self.protocol.connectionLost(Failure(error or ConnectionDone()))

    def reset(self) -> None:
        """Report a reset by the peer."""
        self.lose(ConnectionLost())


def connected(protocol: type[P], **settings: Any) -> Connected[P]:
    """Return a connection whose handshake is done, and the response read."""
    made = Connected(protocol, **settings)
    made.receive(REQUEST + END)
    response = made.sent()
    assert response.startswith(b"HTTP/1.1 101 "), response
    return made
