"""Decodes a stream of frames of one size that comes in pieces of one size."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from twsock.wire import FrameDecoder, encode_frame

__all__ = ["main", "measure"]


def measure(frame_size: int, piece_size: int, total: int) -> float:
    """
    Decode a stream.

    :param frame_size: bytes in each payload; one frame of ``total`` bytes where that is less.
    :returns: nanoseconds of processor time for each byte.
    """
    frame = encode_frame(bytes(min(frame_size, total)))
    stream = frame * max(1, total // len(frame))
    pieces = [stream[at : at + piece_size] for at in range(0, len(stream), piece_size)]
    decoder = FrameDecoder(max_payload=len(frame))
    delivered = 0
    began = time.process_time()
    for piece in pieces:
        decoder.feed(piece)
        for payload in decoder.frames():
            delivered += len(payload)
    spent = time.process_time() - began
    if delivered != len(stream) - 4 * decoder.delivered:
        raise AssertionError("the decoder lost bytes")
    return spent / len(stream) * 1e9


def main(argv: Sequence[str]) -> None:
    """Decode pieces of a size, bytes in all, frames of a size; print the figure."""
    piece_size, total, frame_size = map(int, argv)
    print(json.dumps({"decoding": measure(frame_size, piece_size, total)}))
