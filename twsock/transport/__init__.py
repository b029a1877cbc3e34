"""
What touches a socket: bytes to the kernel at once, back-pressure, a close that ends, a listener
that waits.

Stands between the protocols, which decide what to send, and Twisted's transports, which carry it.
What is for streams works over any stream transport of Twisted; where there is a plain socket under
it, the bytes take the short way. What is for datagrams has ports of its own.
"""

from twsock.transport.accepting import AcceptGate
from twsock.transport.datagram_endpoint import (
    IDatagramEndpoint,
    IDatagramEndpointStringParser,
    MulticastEndpoint,
    UdpEndpoint,
    datagram_endpoint_from_string,
)
from twsock.transport.datagrams import DatagramPort, listen_datagrams
from twsock.transport.proxy_endpoint import ProxyEndpoint
from twsock.transport.runs import Run
from twsock.transport.stream import StreamOwner, StreamTransport
from twsock.transport.udp_socket import DatagramOptions, IReactorUdpSockets, OpenedSocket
from twsock.transport.unix_endpoint import UnixEndpoint

__all__ = [
    "AcceptGate",
    "DatagramOptions",
    "DatagramPort",
    "IDatagramEndpoint",
    "IDatagramEndpointStringParser",
    "IReactorUdpSockets",
    "MulticastEndpoint",
    "OpenedSocket",
    "ProxyEndpoint",
    "Run",
    "StreamOwner",
    "StreamTransport",
    "UdpEndpoint",
    "UnixEndpoint",
    "datagram_endpoint_from_string",
    "listen_datagrams",
]
