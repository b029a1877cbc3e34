"""
Echo protocol for WebSockets: handler → **echo** → the same message.

Used by `twsock.services.websocket`. Holds nothing.
"""

from __future__ import annotations

from typing_extensions import override

from twsock.websocket.protocol import WebSocketProtocol

__all__ = ["WebSocketEcho"]


class WebSocketEcho(WebSocketProtocol):
    """Sends each complete message back: text as text, binary as binary."""

    @override
    def text_received(self, text: str) -> None:
        self.send_text(text)

    @override
    def binary_received(self, data: bytes) -> None:
        self.send_binary(data)
