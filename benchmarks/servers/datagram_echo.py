"""twsock's own datagram echo, as it ships, on twsock's own port."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IListeningPort

from benchmarks.servers.twisted_program import HOST, run_port
from twsock.datagram.port import listen_datagrams
from twsock.protocols import DatagramEcho

__all__: list[str] = []


def _listen(reactor: Any) -> IListeningPort:
    return listen_datagrams(reactor, DatagramEcho(), 0, HOST)


if __name__ == "__main__":
    run_port(_listen)
