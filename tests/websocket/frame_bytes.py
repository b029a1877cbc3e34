"""Frames as bytes, made without the code under test: also those that break a rule."""

from __future__ import annotations

from collections.abc import Iterator

from twsock.websocket.messages import Message, MessageDecoder

__all__ = ["KEY", "MIB", "client_frame", "pieces", "pull_all", "server_frame"]

MIB = 1024 * 1024

#: The key of the examples in RFC 6455, section 5.7.
KEY = bytes.fromhex("37 fa 21 3d")


def server_frame(first: int, payload: bytes = b"", length_bytes: int | None = None) -> bytes:
    """
    Make a frame without a mask.

    :param first: the first byte: FIN, RSV1 to RSV3 and the opcode.
    :param length_bytes: 0, 2 or 8 bytes after the length of 7 bits; None for the fewest.
    """
    return _frame(first, payload, length_bytes, None)


def client_frame(first: int, payload: bytes = b"", length_bytes: int | None = None) -> bytes:
    """Make a masked frame; the parameters are those of `server_frame`."""
    return _frame(first, payload, length_bytes, KEY)


def _frame(first: int, payload: bytes, length_bytes: int | None, key: bytes | None) -> bytes:
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65_536 else 8
    second = {0: size, 2: 126, 8: 127}[length_bytes]
    extended = size.to_bytes(length_bytes, "big") if length_bytes else b""
    if key is None:
        return bytes((first, second)) + extended + payload
    masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return bytes((first, 0x80 | second)) + extended + key + masked


def pieces(stream: bytes, size: int) -> Iterator[bytes]:
    """Cut a stream into pieces of one size."""
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


def pull_all(decoder: MessageDecoder, stream: bytes, size: int | None = None) -> list[Message]:
    """Feed a stream in pieces of one size, and return what the decoder yields for them."""
    found: list[Message] = []
    for piece in pieces(stream, size or len(stream) or 1):
        decoder.feed(piece)
        found.extend(decoder.messages())
    return found
