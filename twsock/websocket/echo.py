"""
Echo protocol for WebSockets.
"""

from __future__ import annotations

from typing_extensions import override

from twsock.websocket.protocol import WebSocketProtocol

__all__ = ["WebSocketEcho"]


class WebSocketEcho(WebSocketProtocol):
    """Sends each message back with its type, once it is complete."""

    @override
    def text_received(self, text: str) -> None:
        self.send_text(text)

    @override
    def binary_received(self, data: bytes) -> None:
        self.send_binary(data)
