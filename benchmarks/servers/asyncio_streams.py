"""A frame echo with asyncio's stream reader and writer, in the form that its manual leads to."""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from benchmarks.servers.asyncio_program import (
    BACKLOG,
    HOST,
    MAX_PAYLOAD,
    make_parser,
    make_server_context,
    run,
)

__all__ = ["echo"]

_HEADER: Final = struct.Struct("!I")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back each frame of one connection until it ends."""
    try:
        while True:
            header = await reader.readexactly(4)
            (size,) = _HEADER.unpack(header)
            if size > MAX_PAYLOAD:
                writer.transport.abort()
                return
            writer.write(header + await reader.readexactly(size))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def main() -> None:
    """Serve, as the command line says."""
    options = make_parser().parse_args()
    context = make_server_context(options.tls)

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(echo, HOST, 0, backlog=BACKLOG, ssl=context)

    run(listen, on_uvloop=options.uvloop)


if __name__ == "__main__":
    main()
