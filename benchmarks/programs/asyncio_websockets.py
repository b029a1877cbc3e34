"""
Echoes WebSocket messages on asyncio, or with ``--uvloop`` on uvloop.

By ``websockets``, aiohttp or picows, with the defaults of each; picows has no compression. With
``broadcast``, ``websockets`` sends each message to all connections that have sent none.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

__all__ = ["main"]

# The same as in `benchmarks.programs.serving`, which is not imported, as it loads Twisted.
_HOST: Final = "127.0.0.1"
_BACKLOG: Final = 1024


async def _serve_websockets() -> Any:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed

    async def echo(connection: ServerConnection) -> None:
        try:
            async for message in connection:
                await connection.send(message)
        except ConnectionClosed:
            pass

    server = await serve(echo, _HOST, 0, backlog=_BACKLOG)
    return server.sockets[0]


async def _serve_broadcast() -> Any:
    from websockets.asyncio.server import ServerConnection, broadcast, serve
    from websockets.exceptions import ConnectionClosed

    receivers: set[ServerConnection] = set()

    async def listen(connection: ServerConnection) -> None:
        receivers.add(connection)
        try:
            async for message in connection:
                receivers.discard(connection)
                broadcast(receivers, message)
        except ConnectionClosed:
            pass
        finally:
            receivers.discard(connection)

    server = await serve(listen, _HOST, 0, backlog=_BACKLOG)
    return server.sockets[0]


async def _serve_aiohttp() -> Any:
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        response = web.WebSocketResponse()
        await response.prepare(request)
        async for message in response:
            if message.type is WSMsgType.BINARY:
                await response.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await response.send_str(message.data)
        return response

    application = web.Application()
    application.router.add_get("/", echo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    assert runner.server is not None
    server = await asyncio.get_running_loop().create_server(
        runner.server, _HOST, 0, backlog=_BACKLOG
    )
    return server.sockets[0]


async def _serve_picows() -> Any:
    import picows

    messages = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY)

    class Echo(picows.WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type in messages:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview(), frame.fin)
            elif frame.msg_type == picows.WSMsgType.CLOSE:
                transport.disconnect()

    server = await picows.ws_create_server(lambda _request: Echo(), _HOST, 0, backlog=_BACKLOG)
    return server.sockets[0]


_SERVERS: Final[dict[str, Callable[[], Awaitable[Any]]]] = {
    "websockets": _serve_websockets,
    "broadcast": _serve_broadcast,
    "aiohttp": _serve_aiohttp,
    "picows": _serve_picows,
}


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=tuple(_SERVERS))
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    options = parser.parse_args(argv)
    if options.uvloop:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    listening = loop.run_until_complete(_SERVERS[options.library]())
    print(listening.getsockname()[1], flush=True)
    loop.run_forever()
