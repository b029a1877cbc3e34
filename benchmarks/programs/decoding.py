"""
Decodes a stream of frames of one size that comes in pieces of one size.

The frames are length-prefixed, or those of a WebSocket client, masked. Or each is a WebSocket
message in 1,000 fragments; a smaller message has fragments of one byte.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Final

from twsock.wire import FrameDecoder, encode_frame

__all__ = ["main", "measure"]

#: The limit of a decoder is 1,024.
_FRAGMENTS: Final = 1000
#: A message in fragments is repeated up to this many bytes on the wire. More would take long: a
#: fragment of one byte costs as much as a frame.
_FRAGMENTED: Final = 1 << 20


def measure(frame_size: int, piece_size: int, total: int, form: str = "frames") -> float:
    """
    Decode a stream.

    :param form: ``frames``, ``websocket``, or ``fragments``.
    :param frame_size: bytes in each payload; one frame of ``total`` bytes where that is less.
    :returns: nanoseconds of processor time for each byte; of fragments, for each byte of payload.
    """
    payload_size = min(frame_size, total)
    frame = _ENCODERS[form](bytes(payload_size))
    repeated = min(total, _FRAGMENTED) if form == "fragments" else total
    count = max(1, repeated // len(frame))
    stream = frame * count
    pieces = [stream[at : at + piece_size] for at in range(0, len(stream), piece_size)]
    decode = _decode_frames if form == "frames" else _decode_messages
    began = time.process_time()
    delivered = decode(pieces, payload_size)
    spent = time.process_time() - began
    if delivered != count * payload_size:
        raise AssertionError("the decoder lost bytes")
    # Headers of small fragments are longer than the fragments.
    size = count * payload_size if form == "fragments" else len(stream)
    return spent / size * 1e9


# Imported where they are used: an older checkout has no WebSockets.


def _websocket_frame(payload: bytes) -> bytes:
    from twsock.websocket import frames

    return frames.encode_frame(frames.Opcode.BINARY, payload, key=b"\1\2\3\4")


def _websocket_fragments(payload: bytes) -> bytes:
    from twsock.websocket import frames

    size = -(-len(payload) // _FRAGMENTS)
    return b"".join(
        frames.encode_frame(
            frames.Opcode.CONTINUATION if start else frames.Opcode.BINARY,
            payload[start : start + size],
            is_final=start + size >= len(payload),
            key=b"\1\2\3\4",
        )
        for start in range(0, len(payload), size)
    )


#: Form → encodes one message.
_ENCODERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "frames": encode_frame,
    "websocket": _websocket_frame,
    "fragments": _websocket_fragments,
}


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
    spent = measure(int(frame_size), int(piece_size), int(total), form)
    print(json.dumps({"decoding": spent}))
