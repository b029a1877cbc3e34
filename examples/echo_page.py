"""
The echo page of the sockets guide: a server and a client in one program, one line each way.

Run it:        python examples/echo_page.py
You will see:  server is listening...
               client is trying to connect...
               client connected
               client sent the request: "Hello, World!"
               server received the request: "Hello, World!"
               server sent back the response: "Hello, World!"
               client received the response: "Hello, World!"
               client closed its socket
               server closed its socket

A line is UTF-8 text ended by CRLF, as a .NET ``StreamWriter`` writes it. The server listens on a
free port, or on a given one: ``python examples/echo_page.py 1337``.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import (
    SocketError,
    StreamSocket,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)

#: Bytes in a line; a longer one ends the connection.
MAX_LINE = 1024


async def serve(
    _listener: StreamSocketListener, args: StreamSocketListenerConnectionReceivedEventArgs
) -> None:
    """Send one line back, then wait for the client to close."""
    async with args.socket as accepted:
        request = await accepted.input_stream.receive_until(b"\r\n", MAX_LINE)
        print(f'server received the request: "{request.decode()}"')
        await accepted.output_stream.write(request + b"\r\n")
        print(f'server sent back the response: "{request.decode()}"')
        await accepted.input_stream.receive_some()


async def ask(reactor: Any, service: str, request: str) -> None:
    """Send one line, and print the answer."""
    async with StreamSocket(reactor) as client:
        print("client is trying to connect...")
        await client.connect("localhost", service)
        print("client connected")
        await client.output_stream.write(f"{request}\r\n".encode())
        print(f'client sent the request: "{request}"')
        response = await client.input_stream.receive_until(b"\r\n", MAX_LINE)
        print(f'client received the response: "{response.decode()}"')
    print("client closed its socket")


async def main(reactor: Any, service: str = "") -> None:
    """Run server and client until both have closed."""
    listener = StreamSocketListener(reactor)
    listener.connection_received.add(serve)
    try:
        await listener.bind_endpoint("localhost", service)
        print("server is listening...")
        await ask(reactor, listener.information.local_port, "Hello, World!")
    except (SocketError, ValueError) as error:
        sys.exit(f"echo_page: {getattr(error, 'summary', error)}")
    await listener.close_all(timeout=5)
    print("server closed its socket")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(f"usage: {sys.argv[0]} [PORT]")
    react(lambda reactor, *service: Deferred.fromCoroutine(main(reactor, *service)), sys.argv[1:])
