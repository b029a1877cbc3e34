"""
WebSockets whose messages are one stream of bytes: connection → **input stream** → application.

The boundaries of messages are not visible. Pieces of messages are passed on as they arrive, so a
message may have any size. (A compressed message is collected, and has at most 16 MiB.) The input
stream holds the bytes that were received and not read.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from twsock.errors import SocketError
from twsock.sockets.stream.input import READ_AHEAD_LIMIT, InputStream
from twsock.sockets.websocket.client import RESPONSE_TIMEOUT, WebSocketClient
from twsock.sockets.websocket.closed import WebSocketClosedError
from twsock.sockets.websocket.control import StreamWebSocketControl
from twsock.sockets.websocket.opening import Opening
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.receiving import MessageSource
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.websocket.client_handshake import ClientHandshake
from twsock.websocket.frames import Opcode

__all__ = ["StreamWebSocket"]


class _StreamReceiver:
    """
    Feeds the payload of messages to an input stream, which pauses and resumes reading itself.

    :ivar input_stream: the stream.
    """

    __slots__ = ("input_stream",)

    def __init__(self, clock: IReactorTime) -> None:
        self.input_stream = InputStream(clock)

    @property
    def is_full(self) -> bool:
        """Return False: the bytes of one read are taken, and then reading stops."""
        return False

    @property
    def may_read(self) -> bool:
        """Whether a read is pending, or little is buffered."""
        stream = self.input_stream
        return stream.is_pending or stream.buffered < READ_AHEAD_LIMIT

    @property
    def held_bytes(self) -> int:
        """Bytes that were received and not read."""
        return self.input_stream.buffered

    def opened(self, source: MessageSource, _owner: object) -> None:
        """Open the stream: the handshake is done."""
        self.input_stream.opened(source.stream)

    def take(self, _opcode: Opcode, payload: bytes, _is_complete: bool) -> bool:
        """Add a piece of a message; a text is passed through as its bytes."""
        self.input_stream.feed(payload)
        return True

    def end(self, error: SocketError) -> None:
        """End the input stream: in order after a normal close frame, else with the error."""
        if isinstance(error, WebSocketClosedError) and error.is_in_order:
            self.input_stream.ended()
        else:
            self.input_stream.failed(error)

    def drop(self, _error: SocketError) -> None:
        """Drop the bytes that were not read: this end was closed."""
        self.input_stream.close()


class StreamWebSocket(WebSocketClient):
    """
    A WebSocket client of a byte stream; ``Windows.Networking.Sockets.StreamWebSocket``.

    Each write is one binary message. The bytes of all received messages are one stream; text
    messages are read as UTF-8. If the server closes with the code 1000, 1001 or no code, reads
    return the end of the stream. After any other end, reads fail.

    The parameters and attributes are those of `WebSocketClient`.
    """

    control: StreamWebSocketControl
    _receiver: _StreamReceiver

    def __init__(self, reactor: Any, *, close_timeout: float = DEFAULT_CLOSE_TIMEOUT) -> None:
        super().__init__(reactor, close_timeout=close_timeout)
        self.control = StreamWebSocketControl(self._state.is_in_use, self._state.is_securing)
        self._make_streams()

    @property
    def input_stream(self) -> InputStream:
        """The receiving side. After it was closed, bytes of the server are dropped."""
        return self._receiver.input_stream

    # Overrides of `WebSocketClient`.

    @override
    def _make_streams(self) -> None:
        self.output_stream = WebSocketOutputStream(self._reactor, _binary)
        self._receiver = _StreamReceiver(self._reactor)

    @override
    def _opening(self, handshake: ClientHandshake) -> Opening:
        return Opening(handshake, self.control, None, True, RESPONSE_TIMEOUT)


def _binary() -> Opcode:
    return Opcode.BINARY
