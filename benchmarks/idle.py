"""
What a connection that does nothing costs a server in memory.

Called by `benchmarks.stream` for ``--idle``; starts each server by itself through
`benchmarks.processes` and holds the client's ends of all connections.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from benchmarks.client import STALLED, encode_frame
from benchmarks.kernel import resident_memory
from benchmarks.processes import Running, ServerError, start
from benchmarks.servers import Server

__all__ = ["SPARE_DESCRIPTORS", "IdleCost", "measure_idle"]

#: Descriptors that either side has open besides the connections.
SPARE_DESCRIPTORS: Final = 100
_FRAME: Final = encode_frame(bytes(range(64)))


@dataclass(frozen=True, slots=True)
class IdleCost:
    """
    Resident memory of a server for each connection, in bytes.

    :ivar connected: connections that have not carried anything.
    :ivar echoed: the same after one frame of 64 bytes was echoed on each.
    """

    connections: int
    connected: float
    echoed: float


def measure_idle(server: Server, count: int) -> IdleCost:
    """
    Open connections to a server of their own, and see how it grows.

    :param count: how many; both processes need a descriptor for each.
    :raises ServerError: when the server does not echo on one of them.
    """
    with start(server, core=None) as running, ExitStack() as stack:
        # The first connection pays for what is imported and allocated once.
        _echo(running, stack.enter_context(_connect(running)))
        before = resident_memory(running.pid)
        connections = [stack.enter_context(_connect(running)) for _ in range(count)]
        # Connections are accepted in order: when the last answers, all the others have been.
        _echo(running, stack.enter_context(_connect(running)))
        connected = resident_memory(running.pid)
        for connection in connections:
            _echo(running, connection)
        echoed = resident_memory(running.pid)
    return IdleCost(count, (connected - before) / count, (echoed - before) / count)


def _connect(running: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), STALLED)


def _echo(running: Running, connection: socket.socket) -> None:
    answer = b""
    try:
        connection.sendall(_FRAME)
        while len(answer) < len(_FRAME) and (piece := connection.recv(len(_FRAME))):
            answer += piece
    except OSError as error:
        raise ServerError(f"{running.server.title} does not echo: {error}") from error
    if answer != _FRAME:
        raise ServerError(f"{running.server.title} does not echo")
