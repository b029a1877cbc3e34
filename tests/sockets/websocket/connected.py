"""A client's WebSocket that is connected in memory, to a server that the test plays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from tests.sockets.test_resolving import FakeNameResolver
from twsock import MessageWebSocket, StreamWebSocket
from twsock.websocket.close_frame import encode_close
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.handshake import accept_key
from twsock.websocket.http import ServerHttp
from twsock.websocket.http_message import Request
from twsock.websocket.messages import MessageDecoder

W = TypeVar("W", MessageWebSocket, StreamWebSocket)

URI = "ws://127.0.0.1:1338/chat?a=b"


def text(payload: str, **options: Any) -> bytes:
    """Return a text message of a server."""
    return encode_frame(Opcode.TEXT, payload.encode(), **options)


def binary(payload: bytes, **options: Any) -> bytes:
    """Return a binary message of a server."""
    return encode_frame(Opcode.BINARY, payload, **options)


def close(code: int = 1000, reason: str = "") -> bytes:
    """Return a close frame of a server."""
    return encode_frame(Opcode.CLOSE, encode_close(code, reason))


def ping(payload: bytes = b"") -> bytes:
    """Return a ping of a server."""
    return encode_frame(Opcode.PING, payload)


def pong(payload: bytes = b"") -> bytes:
    """Return a pong of a server."""
    return encode_frame(Opcode.PONG, payload)


class Aborting(StringTransport):
    """Notes an abort as Twisted's transports do: its loss is reported later."""

    is_aborted = False

    def abortConnection(self) -> None:
        self.is_aborted = True


class Served(Generic[W]):
    """
    A WebSocket, and the server's end of its connection.

    :param kind: the class of the WebSocket.
    """

    def __init__(self, kind: type[W], **options: Any) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.reactor.installNameResolver(FakeNameResolver())
        self.socket: W = kind(self.reactor, **options)
        self.closed: list[tuple[int, str]] = []
        self.socket.closed.add(lambda _, args: self.closed.append((args.code, args.reason)))
        self.decoder = MessageDecoder(is_server=True, max_message_size=1 << 30)
        self.raw = b""

    def connect(self, uri: str = URI, **options: Any) -> Deferred[None]:
        """Start a connect."""
        return self.socket.connect(uri, **options)

    def answer_tcp(self) -> None:
        """Let the newest attempt succeed."""
        host, port, factory, _timeout, _bind = self.reactor.tcpClients[-1]
        self.protocol = factory.buildProtocol(None)
        self.transport: Any = Aborting(
            peerAddress=IPv4Address("TCP", host, port),
            hostAddress=IPv4Address("TCP", "127.0.0.1", 50_000),
        )
        self.protocol.makeConnection(self.transport)

    def request(self) -> Request:
        """Return the request that was sent."""
        found = ServerHttp().feed(self.sent())
        assert isinstance(found, Request), found
        return found

    def response(self, request: Request, *added: str) -> bytes:
        """Return the response that accepts a request."""
        key = request.only("Sec-WebSocket-Key")
        assert key is not None
        lines: list[str] = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_key(key)}",
            *added,
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    def accept(self, *added: str, behind: bytes = b"") -> Request:
        """Accept the connection and the WebSocket; return the request."""
        self.answer_tcp()
        request = self.request()
        self.receive(self.response(request, *added) + behind)
        return request

    @property
    def receiver(self) -> Any:
        """What the transport delivers to: the protocol, or an engine of TLS."""
        return getattr(self.transport, "protocol", self.protocol)

    def receive(self, data: bytes, step: int = 0) -> None:
        """Deliver bytes to the client, in pieces of ``step`` bytes unless that is 0."""
        for start in range(0, len(data), step or len(data) or 1):
            self.receiver.dataReceived(data[start : start + (step or len(data))])

    def sent(self) -> bytes:
        """Return the bytes that were sent since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def turn(self) -> None:
        """Let the reactor run one turn: queued writes leave."""
        self.reactor.advance(0)

    def frames(self) -> list[tuple[str, str | bytes]]:
        """Return the messages and control frames that were sent since the last call."""
        self.turn()
        self.raw = self.sent()
        self.decoder.feed(self.raw)
        return list(self._named_frames())

    def _named_frames(self) -> Iterator[tuple[str, str | bytes]]:
        for opcode, payload, _ in self.decoder.messages():
            yield opcode.name.lower(), payload

    @property
    def is_reading(self) -> bool:
        """Whether the transport is read from."""
        return bool(self.transport.producerState == "producing")

    @property
    def is_aborted(self) -> bool:
        """Whether this end has aborted the transport."""
        return bool(self.transport.is_aborted)

    def end(self) -> None:
        """Deliver the server's FIN."""
        self.receiver.readConnectionLost()

    def lose(self, error: Exception | None = None) -> None:
        """Report a lost connection."""
        self.receiver.connectionLost(Failure(error or ConnectionDone()))

    def reset(self) -> None:
        """Report a reset by the server."""
        self.lose(ConnectionLost())


def served(kind: type[W], *added: str, **options: Any) -> Served[W]:
    """Return a connected WebSocket; its request was read, and its pings are off."""
    made = Served(kind, **options)
    made.socket.control.ping_interval = None
    made.connect()
    made.accept(*added)
    return made
