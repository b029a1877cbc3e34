"""
WebSockets whose messages are one stream of bytes: connection → **input stream** → application.

The boundaries of messages are not visible. Pieces of messages are passed on as they arrive, so a
message may have any size. (A compressed message is collected, and has at most 16 MiB.) The input
stream holds the bytes that were received and not read.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from twsock.sockets.stream.input import InputStream
from twsock.sockets.websocket.client import RESPONSE_TIMEOUT, WebSocketClient
from twsock.sockets.websocket.control import StreamWebSocketControl
from twsock.sockets.websocket.opening import Opening
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.stream_receiving import WebSocketStreamReceiver, choose_binary
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.websocket.client_handshake import ClientHandshake

__all__ = ["StreamWebSocket"]


class StreamWebSocket(WebSocketClient):
    """
    A WebSocket client of a byte stream; ``Windows.Networking.Sockets.StreamWebSocket``.

    Each write is one binary message. The bytes of all received messages are one stream; text
    messages are read as UTF-8. If the server closes with the code 1000, 1001 or no code, reads
    return the end of the stream. After any other end, reads fail.

    The parameters and attributes are those of `WebSocketClient`.
    """

    control: StreamWebSocketControl
    _receiver: WebSocketStreamReceiver

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
        self.output_stream = WebSocketOutputStream(self._reactor, choose_binary)
        self._receiver = WebSocketStreamReceiver(self._reactor)

    @override
    def _opening(self, handshake: ClientHandshake) -> Opening:
        return Opening(handshake, self.control, None, True, RESPONSE_TIMEOUT)
