"""
twsock's own echo of WebSocket messages, as it ships: pings, limits, checks of Host and Origin.

Compression is allowed. With ``--sockets``, on `twsock.WebSocketListener` and its awaitable sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.programs.serving import HOST, install, make_parser, serve
from twsock.websocket import DeflateSettings

__all__ = ["main"]


async def _echo(_listener: object, args: Any) -> None:
    async with args.socket as websocket:
        async for message in websocket:
            await websocket.send(message)


def _serve_sockets(reactor: Any) -> None:
    # Imported here: an earlier twsock has no such listener.
    from twsock import WebSocketListener

    listener = WebSocketListener(reactor, compression=DeflateSettings())
    listener.connection_received.add(_echo)
    listener.bind_endpoint(HOST, "")
    print(listener.information.local_port, flush=True)
    reactor.run()


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = make_parser()
    parser.add_argument("--sockets", action="store_true", help="await each message")
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    if options.sockets:
        _serve_sockets(reactor)
        return
    from twsock.protocols import WebSocketEcho, WebSocketFactory

    serve(reactor, WebSocketFactory(reactor, WebSocketEcho, compression=DeflateSettings()))
