"""
The UDP page of the sockets guide: a server, a client, and a third socket that sends the request.

Run it:        python examples/datagram_echo_page.py
You will see:  server is bound to port 1337
               client is bound to port 1336
               client sent the request: "Hello, World!"
               server received the request: "Hello, World!"
               server sent back the response: "Hello, World!"
               client received the response: "Hello, World!"
               client closed its socket
               server closed its socket

The request does not leave from the client's port: its socket is bound by its first datagram, to any
port. So the server answers the sender's address, but at the port of the client. Give a host and two
ports to have others: ``python examples/datagram_echo_page.py ::1 2337 2336``.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import defer
from twisted.internet.task import react

from twsock import DatagramSocket, DatagramSocketMessageReceivedEventArgs, SocketError

#: Seconds after which an answer is given up: UDP may lose anything.
PATIENCE = 5


async def serve(reactor: Any, host: str, service: str, reply_service: str) -> DatagramSocket:
    """Answer each datagram at the sender's address and the port of the reply."""

    async def answer(server: DatagramSocket, args: DatagramSocketMessageReceivedEventArgs) -> None:
        request = args.data.decode().rstrip()
        print(f'server received the request: "{request}"')
        # From the address that the request was sent to, to another port of its sender.
        pair = args.endpoint_pair
        pair.remote_service_name = reply_service
        output = await server.get_output_stream(pair)
        await output.write(f"{request}\r\n".encode())
        print(f'server sent back the response: "{request}"')

    server = DatagramSocket(reactor)
    server.message_received.add(answer)
    await server.bind_endpoint(host, service)
    print(f"server is bound to port {server.information.local_port}")
    return server


async def ask(reactor: Any, host: str, service: str, reply_service: str, request: str) -> None:
    """Send a text, and print what comes to the port of the reply."""
    answered: defer.Deferred[str] = defer.Deferred()

    def receive(_client: DatagramSocket, args: DatagramSocketMessageReceivedEventArgs) -> None:
        if not answered.called:
            answered.callback(args.data.decode().rstrip())

    async with DatagramSocket(reactor) as client, DatagramSocket(reactor) as sender:
        client.message_received.add(receive)
        await client.bind_endpoint(host, reply_service)
        print(f"client is bound to port {client.information.local_port}")
        output = await sender.get_output_stream(host, service)
        await output.write(f"{request}\r\n".encode())
        print(f'client sent the request: "{request}"')
        response = await answered.addTimeout(PATIENCE, reactor)
        print(f'client received the response: "{response}"')
    print("client closed its socket")


async def main(
    reactor: Any, host: str = "localhost", service: str = "1337", reply_service: str = "1336"
) -> None:
    """Run both to their ends."""
    try:
        async with await serve(reactor, host, service, reply_service):
            await ask(reactor, host, service, reply_service, "Hello, World!")
        print("server closed its socket")
    except (SocketError, ValueError) as error:
        sys.exit(f"datagram_echo_page: {getattr(error, 'summary', error)}")
    except defer.TimeoutError:
        sys.exit(f"datagram_echo_page: no answer came within {PATIENCE} s")


if __name__ == "__main__":
    if len(sys.argv) > 4:
        sys.exit(f"usage: {sys.argv[0]} [HOST [SERVER_PORT [CLIENT_PORT]]]")
    react(lambda reactor, *words: defer.Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
