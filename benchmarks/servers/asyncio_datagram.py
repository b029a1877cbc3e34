"""A datagram echo as an `asyncio.DatagramProtocol`."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, cast

from typing_extensions import override

from benchmarks.servers.asyncio_program import HOST, announce

__all__ = ["Echo"]


class Echo(asyncio.DatagramProtocol):
    """Sends back what comes, datagram by datagram."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is of no such class, but behaves like one.
        self._transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._transport.sendto(data, addr)


async def _listen() -> int:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, (HOST, 0))
    port: int = transport.get_extra_info("sockname")[1]
    return port


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    announce(_listen, on_uvloop=parser.parse_args().uvloop)
