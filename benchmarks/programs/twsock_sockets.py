"""
An echo of frames on twsock's awaitable sockets, in the form that their manual leads to.

With ``--values``, on `DataReader` and `DataWriter`, as the samples of WinRT have it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from benchmarks.programs.serving import HOST, MAX_PAYLOAD, install, make_parser
from twsock import (
    DataReader,
    DataWriter,
    EndOfStreamError,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)

__all__ = ["echo", "echo_values", "main"]

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
                await sent.send_all(header + await received.receive_exactly(size))
        except EndOfStreamError:
            pass


async def echo_values(
    _listener: StreamSocketListener, args: StreamSocketListenerConnectionReceivedEventArgs
) -> None:
    """Do the same with a reader and a writer."""
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


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = make_parser()
    parser.add_argument("--values", action="store_true", help="use DataReader and DataWriter")
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    from twsock.tls import Certificate, ServerOptions

    tls = None if options.tls is None else ServerOptions([Certificate.load(options.tls)])
    listener = StreamSocketListener(reactor, tls=tls)
    listener.connection_received.add(echo_values if options.values else echo)
    listener.bind_endpoint(HOST, "")
    print(listener.information.local_port, flush=True)
    reactor.run()
