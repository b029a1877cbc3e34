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

The request does not leave from the client's port: the first datagram binds the third socket to a
free port. So the server answers to the sender's address, but to the client's port. A host and two
ports can be given: ``python examples/datagram_echo_page.py ::1 2337 2336``.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import defer
from twisted.internet.task import react

from twsock import DatagramSocket, DatagramSocketMessageReceivedEventArgs, SocketError

#: Seconds to wait for an answer, since UDP may lose it.
PATIENCE = 5


async def serve(reactor: Any, host: str, service: str, reply_service: str) -> DatagramSocket:
    """Answer each datagram, to the sender's address and the reply port."""

    async def answer(server: DatagramSocket, args: DatagramSocketMessageReceivedEventArgs) -> None:
        request = args.data.decode().rstrip()
        print(f'server received the request: "{request}"')
        # The answer leaves from the address that the request was sent to.
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
    """Send a text, and print the answer that arrives at the reply port."""
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
    """Run server and client until both have closed."""
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
