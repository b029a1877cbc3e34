"""A frame echo on twsock's awaitable sockets, in the form that their manual leads to."""

from __future__ import annotations

import struct
from typing import Final

from benchmarks.servers.asyncio_program import MAX_PAYLOAD
from benchmarks.servers.twisted_program import run_listener
from twsock import (
    EndOfStreamError,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)

__all__ = ["echo"]

_HEADER: Final = struct.Struct("!I")


async def echo(
    _listener: StreamSocketListener, args: StreamSocketListenerConnectionReceivedEventArgs
) -> None:
    """Send back each frame of one connection until it ends."""
    async with args.socket as connection:
        received, sent = connection.input_stream, connection.output_stream
        try:
            while True:
                header = await received.receive_exactly(4)
                (size,) = _HEADER.unpack(header)
                if size > MAX_PAYLOAD:
                    connection.abort()
                    return
                sent.write(header + await received.receive_exactly(size))
                if sent.is_full:
                    await sent.flush()
        except EndOfStreamError:
            pass


if __name__ == "__main__":
    run_listener(echo)
