"""
The load of `benchmarks.websocket`: messages that are kept in flight on WebSockets to one server.

The client sends masked frames that were made before. Each different message makes a round trip
first, whose answer is decoded and compared with what was sent. From then on the same bytes are
expected for the same message, so that the client decodes nothing while it measures. Messages are
compressed one by one, without context takeover: equal messages have equal bytes.
"""

from __future__ import annotations

import json
import random
import socket
from dataclasses import dataclass
from typing import Final

from typing_extensions import override

from benchmarks.processes import MeasurementError
from benchmarks.stream_load import (
    MIN_DIFFERENT,
    Case,
    EchoLoad,
    PlainClient,
    Repeated,
    open_all,
)
from benchmarks.websocket_client import (
    BINARY,
    TEXT,
    compress,
    decompress,
    encode,
    open_web_socket,
    read_message,
)

__all__ = ["WebSocketCase", "WebSocketLoad", "encode_message", "make_payloads"]

#: Words of the texts; two of them have characters of more than one byte.
_WORDS: Final = ("bid", "ask", "price", "größe", "volume", "trade", "ünit", "time", "symbol")


@dataclass(frozen=True, slots=True)
class WebSocketCase(Case):
    """
    Equal messages in flight.

    :ivar is_text: whether the messages are texts.
    :ivar is_deflated: whether the messages are compressed in both directions.
    """

    is_text: bool = False
    is_deflated: bool = False

    @property
    @override
    def title(self) -> str:
        title = Case.title.__get__(self)
        return f"{title}{', text' * self.is_text}{', deflated' * self.is_deflated}"


def make_payloads(case: WebSocketCase) -> list[bytes]:
    """Return some different payloads: random bytes, or JSON where they are text or compressed."""
    chance = random.Random(0)
    count = max(case.window, MIN_DIFFERENT)
    if not (case.is_text or case.is_deflated):
        return [chance.randbytes(case.payload) for _ in range(count)]
    return [_make_text(chance, case.payload) for _ in range(count)]


def _make_text(chance: random.Random, size: int) -> bytes:
    """Return JSON of so many bytes; the last value is cut or filled up."""
    record: dict[str, int] = {}
    text = b""
    while len(text) < size:
        record[f"{chance.choice(_WORDS)}{len(record)}"] = chance.randrange(100_000)
        text = json.dumps(record, ensure_ascii=False).encode()
    return text[:size].decode(errors="ignore").encode().ljust(size)


class WebSocketLoad(EchoLoad):
    """
    Messages in flight on WebSockets.

    :param sleeps: see `EchoLoad`.
    :raises MeasurementError: when an answer differs from the message.
    """

    def __init__(self, port: int, case: WebSocketCase, *, sleeps: bool) -> None:
        payloads = make_payloads(case)
        opcode = TEXT if case.is_text else BINARY
        outgoing = [encode_message(case, opcode, payload) for payload in payloads]
        with open_web_socket(port, deflate=case.is_deflated) as connection:
            incoming = [
                _echo(connection, frame, opcode, payload)
                for frame, payload in zip(outgoing, payloads, strict=True)
            ]
        clients = open_all(
            lambda: PlainClient(open_web_socket(port, deflate=case.is_deflated)), case.connections
        )
        super().__init__(
            clients,
            Repeated(outgoing, case.window),
            Repeated(incoming, case.window),
            case.window,
            sleeps=sleeps,
        )


def encode_message(case: WebSocketCase, opcode: int, payload: bytes) -> bytes:
    """Return the frame of a message, compressed where the case says so."""
    data = compress(payload) if case.is_deflated else payload
    return encode(opcode, data, deflated=case.is_deflated)


def _echo(connection: socket.socket, frame: bytes, opcode: int, payload: bytes) -> bytes:
    """Send a frame, and return the bytes of the answer."""
    connection.sendall(frame)
    frames = read_message(connection)
    data = b"".join(frame.payload for frame in frames)
    is_compressed = bool(frames[0].first & 0x40)
    if frames[0].opcode != opcode or (decompress(data) if is_compressed else data) != payload:
        raise MeasurementError("the answer differs from what was sent")
    return b"".join(frame.wire for frame in frames)
