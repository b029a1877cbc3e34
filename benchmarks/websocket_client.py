"""
Opens WebSockets to a server on 127.0.0.1, for clients that measure it.

Used by `benchmarks.websocket_load`. The bytes of frames are made and read here, by code that no
measured server shares.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.connections import connect
from benchmarks.processes import MeasurementError

__all__ = [
    "BINARY",
    "CLOSE",
    "DEFLATE",
    "PING",
    "TEXT",
    "Frame",
    "compress",
    "decompress",
    "encode",
    "open_web_socket",
    "read_frame",
    "read_message",
]

#: Opcodes (:rfc:`6455`, section 5.2).
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9

#: The compression that a client may offer: each message by itself, so that equal messages have
#: equal bytes (:rfc:`7692`, section 7.1.1).
DEFLATE: Final = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

#: Zero bytes, which end each compressed message and are not sent (:rfc:`7692`, section 7.2.1).
_TAIL: Final = b"\x00\x00\xff\xff"
_KEY: Final = bytes.fromhex("37fa213d")
_LARGEST_HEADER: Final = 64 * 1024


class Frame(NamedTuple):
    """One frame, as it was on the wire."""

    first: int
    payload: bytes
    wire: bytes

    @property
    def opcode(self) -> int:
        """The type of the frame."""
        return self.first & 0x0F

    @property
    def is_final(self) -> bool:
        """Whether the frame ends its message."""
        return self.first >= 0x80


def open_web_socket(port: int, *, deflate: bool = False) -> socket.socket:
    """
    Open a connection and make the handshake.

    :param deflate: whether to offer `DEFLATE`.
    :raises MeasurementError: when the server refuses the WebSocket or the compression.
    """
    connection = connect(port)
    try:
        connection.sendall(_request(port, deflate))
        response = b""
        while b"\r\n\r\n" not in response:
            # Byte by byte at the end: frames of the server may follow.
            piece = connection.recv(1)
            if not piece or len(response) > _LARGEST_HEADER:
                raise MeasurementError("the server hung up within the handshake")
            response += piece
        if not response.startswith(b"HTTP/1.1 101 "):
            raise MeasurementError(f"the server refuses: {response.splitlines()[0]!r}")
        if deflate and b"permessage-deflate" not in response:
            raise MeasurementError("the server agrees to no compression")
    except BaseException:
        connection.close()
        raise
    return connection


def _request(port: int, deflate: bool) -> bytes:
    extension = f"Sec-WebSocket-Extensions: {DEFLATE}\r\n" if deflate else ""
    return (
        f"GET / HTTP/1.1\r\nHost: localhost:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Version: 13\r\n{extension}\r\n"
    ).encode()


def encode(opcode: int, payload: bytes, *, is_final: bool = True, deflated: bool = False) -> bytes:
    """Return a masked frame (:rfc:`6455`, section 5.2)."""
    size = len(payload)
    first = opcode | (0x80 if is_final else 0) | (0x40 if deflated else 0)
    if size < 126:
        header = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        header = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        header = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    repeated = (_KEY * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return header + _KEY + masked.to_bytes(size, "big")


def compress(payload: bytes) -> bytes:
    """Return a compressed message (:rfc:`7692`, section 7.2.1)."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(_TAIL)


def decompress(data: bytes) -> bytes:
    """Return a message without its compression."""
    return zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(data + _TAIL)


def read_frame(connection: socket.socket) -> Frame:
    """
    Receive one frame of a server.

    :raises MeasurementError: when the server hangs up.
    """
    header = _read_exactly(connection, 2)
    size = header[1]
    if size >= 126:
        extended = _read_exactly(connection, 2 if size == 126 else 8)
        header += extended
        size = int.from_bytes(extended, "big")
    payload = _read_exactly(connection, size)
    return Frame(header[0], payload, header + payload)


def read_message(connection: socket.socket) -> Sequence[Frame]:
    """Receive the frames of one message of a server."""
    frames = [read_frame(connection)]
    while not frames[-1].is_final:
        frames.append(read_frame(connection))
    return frames


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL) if size else b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise MeasurementError("the server hung up")
        data += piece
    return data
