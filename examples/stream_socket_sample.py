"""
The StreamSocket sample: a client sends "Hello" in a frame a number of times; a server prints it.

Run it:        python examples/stream_socket_sample.py server 22112
Then, in a second terminal:  python examples/stream_socket_sample.py client localhost 22112 3
You will see:  at the client   Connected
                               "Hello" sent successfully (three times)
               at the server   Listening on port 22112
                               Received data: "Hello" (three times)
Ctrl-C stops the server.

A frame is a 4-byte big-endian count and that many bytes of UTF-8. `DataWriter` and `DataReader`
write and read it; ``load`` returns fewer bytes than asked for when the peer has closed.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import (
    DataReader,
    DataWriter,
    SocketError,
    SocketErrorStatus,
    StreamSocket,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)

#: Bytes in a text; a longer one ends the connection.
MAX_TEXT = 64 * 1024


async def show_texts(
    _listener: StreamSocketListener, args: StreamSocketListenerConnectionReceivedEventArgs
) -> None:
    """Print each text until the peer closes."""
    async with args.socket as accepted:
        reader = DataReader(accepted.input_stream)
        try:
            while await reader.load(4) == 4:
                size = reader.read_uint32()
                if size > MAX_TEXT or await reader.load(size) != size:
                    return
                print(f'Received data: "{reader.read_string(size)}"', flush=True)
        except SocketError as error:
            if error.status is SocketErrorStatus.UNKNOWN:
                raise  # Not an error of the connection.
            print(f"Read stream failed with error: {error}", flush=True)


async def serve(reactor: Any, service: str) -> None:
    """Listen until Ctrl-C."""
    listener = StreamSocketListener(reactor)
    listener.control.keep_alive = False
    listener.connection_received.add(show_texts)
    await listener.bind_endpoint("localhost", service)
    print(f"Listening on port {listener.information.local_port}", flush=True)
    reactor.addSystemEventTrigger("before", "shutdown", listener.close_all, 5)
    await Deferred()


async def send(reactor: Any, host: str, service: str, count: int) -> None:
    """Connect, send the text a number of times, close."""
    client = StreamSocket(reactor)
    client.control.keep_alive = False
    await client.connect(host, service)
    print("Connected")
    writer = DataWriter(client.output_stream)
    for _ in range(count):
        writer.write_uint32(writer.measure_string("Hello"))
        writer.write_string("Hello")
        await writer.store()
        print('"Hello" sent successfully')
    writer.detach_stream()
    await client.close()


async def main(reactor: Any, *words: str) -> None:
    """Run server or client; exit with one line if it fails."""
    try:
        match words:
            case ["server", service]:
                await serve(reactor, service)
            case ["client", host, service]:
                await send(reactor, host, service, 1)
            case ["client", host, service, count] if count.isdigit():
                await send(reactor, host, service, int(count))
            case _:
                sys.exit(f"usage: {sys.argv[0]} server PORT | client HOST PORT [COUNT]")
    except (SocketError, ValueError) as error:
        sys.exit(f"stream_socket_sample: {getattr(error, 'summary', error)}")


if __name__ == "__main__":
    react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
