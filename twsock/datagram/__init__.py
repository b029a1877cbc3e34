"""
Datagrams: UDP ports, their endpoints, and the protocol classes above them.

The protocol classes are importable from `twsock.protocols`. Runs of datagrams are received and sent
in one system call where the kernel can.
"""

from twsock.datagram.endpoint import (
    IDatagramEndpoint,
    IDatagramEndpointStringParser,
    MulticastEndpoint,
    UdpEndpoint,
    datagram_endpoint_from_string,
)
from twsock.datagram.port import DatagramPort, listen_datagrams
from twsock.datagram.runs import Run
from twsock.datagram.udp_socket import DatagramOptions, IReactorUdpSockets, OpenedSocket

__all__ = [
    "DatagramOptions",
    "DatagramPort",
    "IDatagramEndpoint",
    "IDatagramEndpointStringParser",
    "IReactorUdpSockets",
    "MulticastEndpoint",
    "OpenedSocket",
    "Run",
    "UdpEndpoint",
    "datagram_endpoint_from_string",
    "listen_datagrams",
]
