"""
A message of which some frames, or a part of a frame, were pulled: pieces → **message**.

Part of the decoder in `twsock.websocket.messages`, which checks the limits. Holds the payload that
was pulled, without masks.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import Any

from twsock.websocket.close_frame import CloseCode, WebSocketViolation
from twsock.websocket.frames import Opcode
from twsock.websocket.masking import KEY_SIZE, mask

__all__ = ["IncompleteMessage", "not_utf_8"]


class IncompleteMessage:
    """
    A message of which some bytes were pulled.

    :ivar fragments: how many frames of the message have begun.
    :ivar size: how many bytes of payload these frames have announced.
    :ivar left: how many bytes of the current frame have not been pulled.
    :ivar is_last: whether the current frame is the last one.
    :ivar key: the key of the current frame, rotated to the next byte; empty without a mask.
    :ivar payload: the bytes that were pulled, without masks; empty if pieces are delivered.
    :ivar tail: the first bytes of a character that has not arrived completely.
    """

    __slots__ = (
        "fragments", "is_compressed", "is_last", "key", "left", "opcode", "payload", "size", "tail",
    )  # fmt: skip

    def __init__(self, opcode: Opcode, is_compressed: bool) -> None:
        self.opcode = opcode
        self.is_compressed = is_compressed
        self.fragments = 0
        self.size = 0
        self.left = 0
        self.is_last = False
        self.key: bytes | bytearray = b""
        self.payload = bytearray()
        self.tail = b""

    def unmask(self, piece: Any) -> Any:
        """Return a piece without its mask, and rotate the key for the next piece."""
        key = self.key
        if not key:
            return piece
        turn = len(piece) % KEY_SIZE
        if turn:
            self.key = key[turn:] + key[:turn]
        return mask(piece, key)

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
