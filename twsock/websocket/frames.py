"""
Encoder of WebSocket frames (:rfc:`6455`, section 5.2): opcode and payload → **frame**.

Called by the encoder of `twsock.websocket.messages`, for messages and for control frames. Frames
are decoded there, too, since most messages are one frame. Nothing is held.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from twsock.errors import LocalProtocolError
from twsock.websocket.masking import mask

__all__ = [
    "MAX_CONTROL_PAYLOAD",
    "MAX_MEDIUM",
    "MAX_SHORT",
    "MEDIUM",
    "Opcode",
    "encode_frame",
    "encode_header",
    "pack_medium",
    "pack_short",
]

#: The largest payload of a control frame, in bytes (section 5.5).
MAX_CONTROL_PAYLOAD: Final = 125

# Bits of the first two bytes of a frame.
_FIN: Final = 0x80
_RSV1: Final = 0x40
_MASKED: Final = 0x80

#: The largest payload with a length of 7 bits.
MAX_SHORT: Final = 125
#: The largest payload with a length of 16 bits. The length of a larger one has 64 bits.
MAX_MEDIUM: Final = 0xFFFF
#: Stands for a length of 16 bits, which follows.
MEDIUM: Final = 126

#: These pack the header of a frame with a length of 7 bits, and of one with `MEDIUM` and a length
#: of 16 bits. So most messages need no call of `encode_header`.
pack_short: Final = struct.Struct(">BB").pack
pack_medium: Final = struct.Struct(">BBH").pack

_PACK_LONG: Final = struct.Struct(">BBQ").pack


class Opcode(enum.IntEnum):
    """The types of frames; those from 8 on are control frames (section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


# Cached: a global lookup costs less than an enum attribute.
_CLOSE: Final = Opcode.CLOSE


def encode_header(
    opcode: Opcode,
    size: int,
    *,
    is_final: bool = True,
    is_compressed: bool = False,
    is_masked: bool = False,
) -> bytes:
    """
    Return a header without the key of a mask, 2 to 10 bytes.

    :param size: bytes in the payload.
    :param is_final: whether the frame ends its message.
    :param is_compressed: sets RSV1, which begins a compressed message (:rfc:`7692`, section 6).
    :param is_masked: whether a key follows the header.
    :raises LocalProtocolError: when a control frame is fragmented, compressed or too large.
    """
    if opcode >= _CLOSE:
        if size > MAX_CONTROL_PAYLOAD:
            raise LocalProtocolError(
                f"a control frame carries {MAX_CONTROL_PAYLOAD} bytes at most, not {size}"
            )
        if not is_final or is_compressed:
            raise LocalProtocolError("a control frame is neither fragmented nor compressed")
    first = opcode | (_FIN if is_final else 0) | (_RSV1 if is_compressed else 0)
    masked = _MASKED if is_masked else 0
    if size <= MAX_SHORT:
        return pack_short(first, masked | size)
    if size <= MAX_MEDIUM:
        return pack_medium(first, masked | MEDIUM, size)
    return _PACK_LONG(first, masked | 127, size)


def encode_frame(
    opcode: Opcode,
    payload: bytes,
    *,
    is_final: bool = True,
    is_compressed: bool = False,
    key: bytes | None = None,
) -> bytes:
    """
    Return a frame.

    :param is_final: whether the frame ends its message.
    :param is_compressed: sets RSV1, which begins a compressed message (:rfc:`7692`, section 6).
    :param key: 4 bytes to mask the payload with, as a client does; None for a server.
    :raises LocalProtocolError: when a control frame is fragmented, compressed or too large.
    """
    header = encode_header(
        opcode,
        len(payload),
        is_final=is_final,
        is_compressed=is_compressed,
        is_masked=key is not None,
    )
    if key is None:
        return header + payload
    return b"".join((header, key, mask(payload, key)))
