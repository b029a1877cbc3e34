"""
Wire formats without I/O: bytes in, values out, values in, bytes out.

Each module is one format, fed by whoever holds a transport. Nothing here knows Twisted, a socket
or a clock, so the same decoder serves TCP, TLS, UNIX sockets, a test and a replayed capture.
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
