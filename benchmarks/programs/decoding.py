"""
Decodes a stream of frames of one size that comes in pieces of one size.

The frames are length-prefixed, or those of a WebSocket client, masked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from twsock.wire import FrameDecoder, encode_frame

__all__ = ["main", "measure"]


def measure(frame_size: int, piece_size: int, total: int, *, is_websocket: bool = False) -> float:
    """
    Decode a stream.

    :param frame_size: bytes in each payload; one frame of ``total`` bytes where that is less.
    :returns: nanoseconds of processor time for each byte.
    """
    payload_size = min(frame_size, total)
    frame = (_websocket_frame if is_websocket else encode_frame)(bytes(payload_size))
    stream = frame * max(1, total // len(frame))
    pieces = [stream[at : at + piece_size] for at in range(0, len(stream), piece_size)]
    decode = _decode_messages if is_websocket else _decode_frames
    began = time.process_time()
    delivered = decode(pieces, payload_size)
    spent = time.process_time() - began
    if delivered != len(stream) // len(frame) * payload_size:
        raise AssertionError("the decoder lost bytes")
    return spent / len(stream) * 1e9


# Imported where they are used: an older checkout has no WebSockets.


def _websocket_frame(payload: bytes) -> bytes:
    from twsock.websocket import frames

    return frames.encode_frame(frames.Opcode.BINARY, payload, key=b"\1\2\3\4")


def _decode_frames(pieces: Sequence[bytes], limit: int) -> int:
    decoder = FrameDecoder(max_payload=limit)
    delivered = 0
    for piece in pieces:
        decoder.feed(piece)
        for payload in decoder.frames():
            delivered += len(payload)
    return delivered


def _decode_messages(pieces: Sequence[bytes], limit: int) -> int:
    from twsock.websocket.messages import MessageDecoder

    decoder = MessageDecoder(is_server=True, max_message_size=limit)
    delivered = 0
    for piece in pieces:
        decoder.feed(piece)
        for _, payload, _ in decoder.messages():
            delivered += len(payload)
    return delivered


def main(argv: Sequence[str]) -> None:
    """Decode pieces of a size, bytes in all, of a format, frames of a size; print the figure."""
    piece_size, total, form, frame_size = argv
    is_websocket = form == "websocket"
    spent = measure(int(frame_size), int(piece_size), int(total), is_websocket=is_websocket)
    print(json.dumps({"decoding": spent}))
