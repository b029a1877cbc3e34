"""
Received messages of a WebSocket: connection → **message** → handler.

A message may also report that receiving has failed, as in WinRT; reading the message then raises
the error. A message holds its bytes, or those of one piece.
"""

from __future__ import annotations

from twsock._enums import DocumentedEnum
from twsock.errors import SocketError
from twsock.sockets.data_reader import DataReader
from twsock.sockets.stream.input import InputStream

__all__ = [
    "MessageWebSocketMessageReceivedEventArgs",
    "MessageWebSocketReceiveMode",
    "SocketMessageType",
]


class SocketMessageType(DocumentedEnum):
    """The type of a message; ``Windows.Networking.Sockets.SocketMessageType``."""

    BINARY = 0
    UTF8 = 1


class MessageWebSocketReceiveMode(DocumentedEnum):
    """
    When messages are delivered; ``Windows.Networking.Sockets.MessageWebSocketReceiveMode``.

    ``FULL_MESSAGE``: when they are complete. ``PARTIAL_MESSAGE``: in pieces, as they arrive.
    """

    FULL_MESSAGE = 0
    PARTIAL_MESSAGE = 1


class MessageWebSocketMessageReceivedEventArgs:
    """
    A received message or a piece of one, or an error in its place.

    :ivar message_type: the type that the server has given the message.
    :ivar is_message_complete: whether this is the end of a message. False only with
        ``PARTIAL_MESSAGE``.
    :ivar error: the error that reading raises; None for a message. If the connection was lost, the
        error has the HRESULT 0x80072EFE. If a message was above ``control.max_message_size``, or
        the server broke another rule, the error is a `WebSocketViolation`. No message follows an
        error.
    """

    __slots__ = ("_payload", "error", "is_message_complete", "message_type")

    def __init__(
        self,
        payload: str | bytes,
        message_type: SocketMessageType,
        is_message_complete: bool = True,
        error: SocketError | None = None,
    ) -> None:
        self._payload = payload
        self.message_type = message_type
        self.is_message_complete = is_message_complete
        self.error = error

    @property
    def data(self) -> str | bytes:
        """
        A whole text as ``str``; anything else as ``bytes``. Not in WinRT.

        A piece of a text is bytes in UTF-8, and may end within a character.

        :raises SocketError: `error`, if there is one.
        """
        if self.error is not None:
            # A copy: a raised error has frames, which refer to this message.
            raise self.error.copy()
        return self._payload

    def get_data_reader(self) -> DataReader:
        """
        Return a reader with the whole message loaded; each call returns a new one.

        :raises SocketError: `error`, if there is one.
        """
        return DataReader.from_buffer(self._bytes())

    def get_data_stream(self) -> InputStream:
        """
        Return an input stream of the bytes; each call returns a new one.

        Its reads never wait. After the last byte it is at the end of the stream.

        :raises SocketError: `error`, if there is one.
        """
        return InputStream.from_buffer(self._bytes())

    def _bytes(self) -> bytes:
        data = self.data
        return data.encode() if isinstance(data, str) else data
