"""A frame echo on twsock's `DataReader` and `DataWriter`, as the samples of WinRT have it."""

from __future__ import annotations

from benchmarks.servers.twisted_program import run_listener
from twsock import (
    DataReader,
    DataWriter,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)

__all__ = ["echo"]


async def echo(
    _listener: StreamSocketListener, args: StreamSocketListenerConnectionReceivedEventArgs
) -> None:
    """Send back each frame of one connection until it ends."""
    async with args.socket as connection:
        reader = DataReader(connection.input_stream)
        writer = DataWriter(connection.output_stream)
        while await reader.load(4) == 4:
            size = reader.read_uint32()
            if await reader.load(size) != size:
                break
            writer.write_uint32(size)
            writer.write_bytes(reader.read_bytes(size))
            await writer.store()


if __name__ == "__main__":
    run_listener(echo)
