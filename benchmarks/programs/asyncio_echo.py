"""
Echoes on asyncio, or with ``--uvloop`` on uvloop: a `Protocol`, streams, or datagrams.

The two Protocols have a buffer, a limit and back-pressure; the streams have the form that asyncio's
manual leads to. Both loops set ``TCP_NODELAY`` on the connections that they accept.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from typing_extensions import override

__all__ = ["DatagramEcho", "Echo", "EchoEach", "echo", "main"]

# The same as in `benchmarks.programs.serving`, which is not imported, as it loads Twisted.
_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024
_MAX_PAYLOAD: Final = 16 * 1024 * 1024

_HEADER: Final = struct.Struct("!I")


class Echo(asyncio.Protocol):
    """Sends back each frame; one write for all frames of a read."""

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
            if size > _MAX_PAYLOAD:
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
    """Sends back each frame; one write for each."""

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for payload in self._take_frames():
            self._transport.write(_HEADER.pack(len(payload)) + payload)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back each frame of one connection until it ends."""
    try:
        while True:
            header = await reader.readexactly(4)
            (size,) = _HEADER.unpack(header)
            if size > _MAX_PAYLOAD:
                writer.transport.abort()
                return
            writer.write(header + await reader.readexactly(size))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends back each datagram."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(data, addr)


async def _listen(kind: str, certificate: Path | None) -> int:
    """Listen, and return the port."""
    loop = asyncio.get_running_loop()
    if kind == "datagrams":
        transport, _ = await loop.create_datagram_endpoint(DatagramEcho, (_HOST, 0))
        datagram_port: int = transport.get_extra_info("sockname")[1]
        return datagram_port
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    if kind == "streams":
        server = await asyncio.start_server(echo, _HOST, 0, backlog=_BACKLOG, ssl=context)
    else:
        protocol = EchoEach if kind == "each" else Echo
        server = await loop.create_server(protocol, _HOST, 0, backlog=_BACKLOG, ssl=context)
    port: int = server.sockets[0].getsockname()[1]
    return port


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("protocol", "each", "streams", "datagrams"))
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    parser.add_argument("--tls", type=Path, metavar="FILE", help="key and certificate, for TLS")
    options = parser.parse_args(argv)
    if options.uvloop:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    print(loop.run_until_complete(_listen(options.kind, options.tls)), flush=True)
    loop.run_forever()
