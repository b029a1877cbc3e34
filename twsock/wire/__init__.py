"""
Wire formats without I/O: bytes ↔ messages and values.

Each module is one format. Nothing here uses Twisted, a socket or a clock, so the same decoder works
on TCP, TLS, UNIX sockets, in a test and on a replayed capture.
"""

from twsock.wire.frames import (
    DEFAULT_MAX_PAYLOAD,
    FrameDecoder,
    FrameTooLargeError,
    encode_frame,
    encode_header,
)
from twsock.wire.lines import (
    DEFAULT_MAX_LINE,
    LineDecoder,
    LineTooLongError,
    decode_text,
    encode_line,
)

__all__ = [
    "DEFAULT_MAX_LINE",
    "DEFAULT_MAX_PAYLOAD",
    "FrameDecoder",
    "FrameTooLargeError",
    "LineDecoder",
    "LineTooLongError",
    "decode_text",
    "encode_frame",
    "encode_header",
    "encode_line",
]
