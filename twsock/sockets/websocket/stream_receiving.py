"""
The receiving side of a stream WebSocket: connection → **receiver** → input stream → application.

The boundaries of messages are not visible. The input stream holds the bytes that were not read.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from twsock.errors import SocketError
from twsock.sockets.stream.input import READ_AHEAD_LIMIT, InputStream
from twsock.sockets.websocket.closed import WebSocketClosedError
from twsock.sockets.websocket.receiving import MessageSource
from twsock.websocket.frames import Opcode

__all__ = ["WebSocketStreamReceiver", "choose_binary"]


class WebSocketStreamReceiver:
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
    def is_waiting(self) -> bool:
        """Return False: the end of the input is reported as the end of the stream."""
        return False

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


def choose_binary() -> Opcode:
    """Return the opcode of all messages of a stream WebSocket."""
    return Opcode.BINARY
