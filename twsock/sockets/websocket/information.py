"""
Information about a WebSocket: the facts of its stream connection, and those of its handshake.

Read by applications, at any time.
"""

from __future__ import annotations

from typing_extensions import override

from twsock.names import HostName
from twsock.sockets.stream.information import StreamSocketInformation
from twsock.websocket.client_handshake import Agreement
from twsock.websocket.http_message import Response

__all__ = ["WebSocketInformation"]


class WebSocketInformation(StreamSocketInformation):
    """
    Facts of one WebSocket; ``Windows.Networking.Sockets.MessageWebSocketInformation``.

    Not in WinRT: the facts of a `twsock.StreamSocket`, and the response of the server. The facts of
    a failed connect stay until the next connect.
    """

    __slots__ = ("_agreement",)

    def __init__(self) -> None:
        super().__init__()
        self._agreement: Agreement | None = None

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the server chose; None without one, and before it has accepted."""
        return None if self._agreement is None else self._agreement.subprotocol

    @property
    def is_compressed(self) -> bool:
        """Whether both ends agreed to compress messages (:rfc:`7692`). Not in WinRT."""
        return self._agreement is not None and self._agreement.compression is not None

    @property
    def response(self) -> Response | None:
        """The response of the server that accepted the WebSocket, for its header fields."""
        return None if self._agreement is None else self._agreement.response

    # Called by the socket.

    @override
    def asked_for(self, host: HostName | None, service: str | None) -> None:
        super().asked_for(host, service)
        self._agreement = None

    def agreed(self, agreement: Agreement) -> None:
        """Record a finished handshake."""
        self._agreement = agreement
