"""
A TCP proxy: passes each connection on to one host, both ways, whatever the bytes are.

Run it:        python examples/proxy.py 8080 localhost 1337
You will see:  127.0.0.1:8080 leads to localhost:1337
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twsock import SocketError, StreamSocket, StreamSocketListener, relay


async def main(reactor: Any, port: str, remote_host: str, remote_port: str) -> None:
    """Listen until Ctrl-C."""
    listener = StreamSocketListener(reactor, max_connections=1000)

    @listener.connection_received.add
    async def pass_on(_listener: object, args: Any) -> None:
        async with args.socket as accepted, StreamSocket(reactor) as onward:
            await onward.connect(remote_host, remote_port, timeout=10)
            await relay(accepted, onward)

    await listener.bind_endpoint("127.0.0.1", port)
    print(f"127.0.0.1:{listener.information.local_port} leads to {remote_host}:{remote_port}")
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: {sys.argv[0]} PORT REMOTE_HOST REMOTE_PORT")
    try:
        react(lambda *words: Deferred.fromCoroutine(main(*words)), sys.argv[1:])
    except (SocketError, ValueError) as error:
        sys.exit(f"proxy: {error}")
