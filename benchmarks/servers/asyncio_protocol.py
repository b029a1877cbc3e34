"""A frame echo as an `asyncio.Protocol`, with a buffer, a limit and back-pressure."""

from __future__ import annotations

import asyncio
import struct
from typing import Final, cast

from typing_extensions import override

from benchmarks.servers.asyncio_program import (
    BACKLOG,
    HOST,
    MAX_PAYLOAD,
    make_parser,
    make_server_context,
    run,
)

__all__ = ["Echo", "EchoEach"]

_HEADER: Final = struct.Struct("!I")


class Echo(asyncio.Protocol):
    """Sends back what comes; one write for all frames of a read."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is of no such class, but behaves like one.
        self._transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        answers: list[bytes | bytearray] = []
        for payload in self._take_frames():
            answers.append(_HEADER.pack(len(payload)))
            answers.append(payload)
        if answers:
            self._transport.write(b"".join(answers))

    def _take_frames(self) -> list[bytearray]:
        buffer = self._buffer
        end = len(buffer)
        payloads = []
        start = 0
        while end - start >= 4:
            (size,) = _HEADER.unpack_from(buffer, start)
            if size > MAX_PAYLOAD:
                self._transport.abort()
                break
            stop = start + 4 + size
            if stop > end:
                break
            payloads.append(buffer[start + 4 : stop])
            start = stop
        del buffer[:start]
        return payloads

    @override
    def pause_writing(self) -> None:
        self._transport.pause_reading()

    @override
    def resume_writing(self) -> None:
        self._transport.resume_reading()


class EchoEach(Echo):
    """Sends back what comes; one write for each frame."""

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for payload in self._take_frames():
            self._transport.write(_HEADER.pack(len(payload)) + payload)


def main() -> None:
    """Serve, as the command line says."""
    parser = make_parser()
    parser.add_argument("--write-each", action="store_true", help="write each frame by itself")
    options = parser.parse_args()
    protocol = EchoEach if options.write_each else Echo
    context = make_server_context(options.tls)

    async def listen() -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(protocol, HOST, 0, backlog=BACKLOG, ssl=context)

    run(listen, on_uvloop=options.uvloop)


if __name__ == "__main__":
    main()
