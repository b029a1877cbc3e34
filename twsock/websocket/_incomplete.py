"""
A message of which some frames, or a part of a frame, were pulled: pieces → **message**.

Part of the decoder in `twsock.websocket.messages`, which checks the limits. Holds the payload that
was pulled, without masks.
"""

from __future__ import annotations

from codecs import utf_8_decode
from io import BytesIO
from typing import Any

from twsock.websocket.close_frame import CloseCode, WebSocketViolation
from twsock.websocket.frames import Opcode
from twsock.websocket.masking import KEY_SIZE

__all__ = ["IncompleteMessage", "not_utf_8"]


class IncompleteMessage:
    """
    A message of which some bytes were pulled.

    :ivar fragments: how many frames of the message have begun.
    :ivar size: how many bytes of payload these frames have announced.
    :ivar left: how many bytes of the current frame have not been pulled.
    :ivar is_last: whether the current frame is the last one.
    :ivar tail: the first bytes of a character that has not arrived completely.
    """

    __slots__ = (
        "_key", "_payload", "fragments", "is_compressed", "is_last", "left", "opcode", "size",
        "tail",
    )  # fmt: skip

    def __init__(self, opcode: Opcode, is_compressed: bool) -> None:
        self.opcode = opcode
        self.is_compressed = is_compressed
        self.fragments = 0
        self.size = 0
        self.left = 0
        self.is_last = False
        # The key of the current frame, rotated to the next byte; empty without a mask.
        self._key: bytes | bytearray = b""
        self.tail = b""
        # The pieces that were collected, without masks; None if pieces are delivered.
        self._payload: BytesIO | None = None

    @property
    def collected(self) -> int:
        """The number of bytes that were collected."""
        return 0 if self._payload is None else self._payload.tell()

    def collect(self, piece: Any) -> None:
        """Append a piece to those that were collected."""
        if self._payload is None:
            self._payload = BytesIO()
        self._payload.write(piece)

    def take_collected(self) -> bytes:
        """Return all pieces that were collected; call it once."""
        assert self._payload is not None
        # A `BytesIO` returns its buffer without a copy; a bytearray cannot.
        return self._payload.getvalue()

    def begin_frame(self, size: int, is_last: bool, key: bytes | bytearray) -> None:
        """Begin the next frame, of ``size`` bytes of payload."""
        self.size += size
        self.left = size
        self.fragments += 1
        self.is_last = is_last
        self._key = key

    def next_key(self, size: int) -> bytes | bytearray:
        """Return the key for the next piece of the frame, and rotate it by ``size`` bytes."""
        key = self._key
        turn = size % KEY_SIZE
        if turn and key:
            self._key = key[turn:] + key[:turn]
        return key

    def check_text(self, piece: Any, is_complete: bool) -> None:
        """
        Check that the next bytes continue a text (section 8.1).

        :raises WebSocketViolation: 1007 when no UTF-8 text continues with these bytes.
        """
        data = self.tail + piece if self.tail else piece
        try:
            _, used = utf_8_decode(data, "strict", is_complete)
        except UnicodeDecodeError:
            raise not_utf_8() from None
        self.tail = bytes(data[used:])


def not_utf_8() -> WebSocketViolation:
    """Return the error for a text that is not UTF-8 (:rfc:`6455`, section 8.1)."""
    return WebSocketViolation(CloseCode.INVALID_PAYLOAD_DATA, "text that is not UTF-8")
