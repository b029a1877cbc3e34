"""
What the servers on asyncio share: the loop, the settings of TLS, a free port, its announcement.

Called by the programs `asyncio_protocol`, `asyncio_streams` and `asyncio_datagram`. Both loops set
``TCP_NODELAY`` on the connections that they accept.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

__all__ = [
    "BACKLOG",
    "HOST",
    "MAX_PAYLOAD",
    "announce",
    "make_parser",
    "make_server_context",
    "run",
]

HOST: Final = "127.0.0.1"
#: Connections that may wait to be accepted; what the kernel allows caps it.
BACKLOG: Final = 1024
#: Largest frame accepted, in bytes, as a server that faces a network needs one.
MAX_PAYLOAD: Final = 16 * 1024 * 1024


def make_parser() -> argparse.ArgumentParser:
    """The options that both programs for streams take."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    parser.add_argument("--tls", type=Path, metavar="FILE", help="key and certificate, for TLS")
    return parser


def make_server_context(certificate: Path | None) -> ssl.SSLContext | None:
    """Make the settings of TLS, as the `ssl` module has them for servers; None for plaintext."""
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def run(listen: Callable[[], Awaitable[asyncio.Server]], *, on_uvloop: bool) -> None:
    """Serve streams until a signal ends the process."""

    async def listen_for_streams() -> int:
        server = await listen()
        port: int = server.sockets[0].getsockname()[1]
        return port

    announce(listen_for_streams, on_uvloop=on_uvloop)


def announce(listen: Callable[[], Awaitable[int]], *, on_uvloop: bool) -> None:
    """
    Print the port, and serve until a signal ends the process.

    :param listen: begins to listen, and gives the port.
    """
    if on_uvloop:
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    print(loop.run_until_complete(_wait_for(listen)), flush=True)
    loop.run_forever()


async def _wait_for(listen: Callable[[], Awaitable[int]]) -> int:
    return await listen()
