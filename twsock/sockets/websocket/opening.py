"""
The settings of one connect: options and handshake → **opening** → decoder, encoder.

A WebSocket makes one `Opening` for each connect, and drops it when the server has answered. Its
decoder and encoder have the options that were set before the connect.
"""

from __future__ import annotations

import os
import typing

from twsock.errors import RemoteProtocolError, SocketErrorStatus
from twsock.sockets.websocket.control import DEFAULT_MAX_RECEIVED_MESSAGE, WebSocketControl
from twsock.websocket.client_handshake import Agreement, ClientHandshake
from twsock.websocket.http import ClientHttp
from twsock.websocket.messages import MessageDecoder, MessageEncoder

__all__ = ["Opening"]


class Opening(typing.NamedTuple):
    """
    The settings of one connect.

    :ivar handshake: makes the request, and judges the response.
    :ivar control: the options for the messages that follow.
    :ivar max_message_size: largest message accepted, in bytes; None for a `StreamWebSocket`.
    :ivar is_partial: whether messages are delivered in pieces.
    :ivar timeout: seconds from the request until the server has to have answered.
    """

    handshake: ClientHandshake
    control: WebSocketControl
    max_message_size: int | None
    is_partial: bool
    timeout: float

    def read_response(self, http: ClientHttp, data: bytes) -> Agreement | None:
        """
        Read and judge the response of the server.

        :param data: bytes that were received.
        :returns: None if more bytes are needed.
        :raises RemoteProtocolError: when the server refuses, or breaks a rule.
        """
        try:
            response = http.feed(data)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(
                str(error), status=SocketErrorStatus.HTTP_INVALID_SERVER_RESPONSE
            ) from None
        return None if response is None else self.handshake.judge(response)

    def make_decoder(self, agreement: Agreement) -> MessageDecoder:
        """Make the decoder for messages of the server."""
        compression = agreement.compression
        size = self.max_message_size
        if size is None:
            # A message of a stream may have any size; a compressed one is decompressed in memory.
            size = (1 << 63) - 1 if compression is None else DEFAULT_MAX_RECEIVED_MESSAGE
        return MessageDecoder(
            is_server=False,
            max_message_size=size,
            max_fragments=self.control.max_fragments,
            inflater=None if compression is None else compression.inflater(is_server=False),
            is_partial=self.is_partial,
        )

    def make_encoder(self, agreement: Agreement) -> MessageEncoder:
        """Make the encoder for messages of this end."""
        compression = agreement.compression
        return MessageEncoder(
            is_server=False,
            random_bytes=os.urandom,
            deflater=None if compression is None else compression.deflater(is_server=False),
            max_fragment_size=self.control.max_fragment_size,
        )
