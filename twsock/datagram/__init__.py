"""
UDP ports, datagram endpoints, and the protocol classes above them.

The protocol classes are importable from `twsock.protocols`. Where the kernel supports it, one
system call sends or receives a run of datagrams.
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
