"""twsock's own datagram echo on Twisted's port, where one datagram is one call."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IListeningPort

from benchmarks.servers.twisted_program import HOST, run_port
from twsock.protocols import DatagramEcho

__all__: list[str] = []


def _listen(reactor: Any) -> IListeningPort:
    port: IListeningPort = reactor.listenUDP(0, DatagramEcho(), interface=HOST)
    return port


if __name__ == "__main__":
    run_port(_listen)
