"""
What decoding costs for each byte, however large the frames are and however they were cut.

``python -m benchmarks.framing`` prints a table in about ten seconds. A decoder whose time per byte
grows with the frame, or with the number of pieces of a frame, would show it in the last columns.
"""

from __future__ import annotations

import time
from typing import Final

from benchmarks.tables import Table
from twsock.wire import FrameDecoder, encode_frame

MIB: Final = 1024 * 1024
FRAME_SIZES: Final = (64, 1024, 64 * 1024, MIB, 64 * MIB)

#: Pieces, and how many bytes to feed in them: byte by byte the whole 64 MiB would take a minute.
PIECES: Final = (("64 KiB", 64 * 1024, 64 * MIB), ("1 KiB", 1024, 64 * MIB), ("1 byte", 1, MIB))


def measure(frame_size: int, piece_size: int, total: int) -> float:
    """
    Decode a stream of frames of one size.

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


def main() -> None:
    """Print nanoseconds per byte, for each size of frames and pieces."""
    rows = [
        (name, *(f"{measure(size, piece_size, total):.2f}" for size in FRAME_SIZES))
        for name, piece_size, total in PIECES
    ]
    header = ("pieces", *(f"{size:,} B" for size in FRAME_SIZES))
    print(Table("Nanoseconds of processor time per byte", header, rows).to_text())


if __name__ == "__main__":
    main()
