"""A datagram echo as a plain `DatagramProtocol` of Twisted, one that ratios refer to."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from typing_extensions import override

from benchmarks.servers.twisted_program import HOST, run_port

__all__ = ["Echo"]


class Echo(DatagramProtocol):
    """Sends back what comes, datagram by datagram."""

    transport: IUDPTransport

    @override
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.transport.write(datagram, addr)


def _listen(reactor: Any) -> IListeningPort:
    port: IListeningPort = reactor.listenUDP(0, Echo(), interface=HOST)
    return port


if __name__ == "__main__":
    run_port(_listen)
