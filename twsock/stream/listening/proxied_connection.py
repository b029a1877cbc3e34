"""
A connection behind a proxy after its header: transport → **proxied connection** → protocol.

The base of the connections of `twsock.stream.ProxyEndpoint`, which decode the header first. A
connection that another process has handed over begins here, since its header was read there. Holds
no bytes.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import directlyProvides, implementer, providedBy

from twsock.wire.proxy_header import ProxyHeader

__all__ = ["MovedProxiedConnection", "ProxiedConnection", "ProxiedTransport", "address_of"]


class ProxiedTransport:
    """
    The transport of a connection behind a proxy: the real transport with the client's addresses.

    :param transport: of the connection to the proxy.
    :param header: the header of the proxy.
    :ivar wrappedProtocol: the application's protocol; None after the connection is lost. Twisted's
        wrappers use the same name; an upgrade to TLS sets its engine there.
    """

    def __init__(self, transport: Any, header: ProxyHeader) -> None:
        self.transport = transport
        self.wrappedProtocol: Any = None
        self._peer = address_of(header.source, header.is_datagram)
        self._host = address_of(header.destination, header.is_datagram)
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    @property
    def proxy_header(self) -> ProxyHeader:
        """The addresses of the header; they move with the connection to another process."""
        is_datagram = "UDP" in (getattr(self._peer, "type", ""), getattr(self._host, "type", ""))
        return ProxyHeader(_value_of(self._peer), _value_of(self._host), is_datagram)

    def getPeer(self) -> IAddress:
        """Return the address of the client."""
        peer: IAddress = self._peer or self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        """Return the address that the client connected to."""
        host: IAddress = self._host or self.transport.getHost()
        return host


@implementer(IHalfCloseableProtocol)
class ProxiedConnection(Protocol):
    """
    Passes the events of a connection to the protocol above it.

    TLS or a WebSocket may replace the protocol above this one. So a half-close is passed to the
    protocol that is there at that time; it need not support half-closes.

    Unlike Twisted's wrapper, this protocol is not also a transport. A TLS engine copies the
    interfaces of the transport below it, and would then appear to support half-closes.
    """

    transport: Any
    # None until the header is whole, and after the end.
    _upper: ProxiedTransport | None = None

    def connect_above(self, upper: ProxiedTransport, protocol: Any) -> None:
        """Connect the protocol of the application: the header is whole."""
        upper.wrappedProtocol = protocol
        self._upper = upper
        protocol.makeConnection(upper)

    # Called by Twisted.

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._upper is not None:
            self._upper.wrappedProtocol.dataReceived(data)

    @override
    def connectionLost(self, reason: Failure | None = None) -> None:
        upper, self._upper = self._upper, None
        if upper is not None:
            # Otherwise both would refer to each other.
            receiver, upper.wrappedProtocol = upper.wrappedProtocol, None
            receiver.connectionLost(reason)

    def readConnectionLost(self) -> None:
        """Report the end of the input; close if the protocol does not support half-closes."""
        receiver = self._half_closing()
        if receiver is None:
            self.transport.connectionLost(Failure(CONNECTION_DONE))
        else:
            receiver.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Report the end of the output to the protocol."""
        receiver = self._half_closing()
        if receiver is not None:
            receiver.writeConnectionLost()

    def _half_closing(self) -> Any:
        receiver = None if self._upper is None else self._upper.wrappedProtocol
        return receiver if IHalfCloseableProtocol.providedBy(receiver) else None


class MovedProxiedConnection(ProxiedConnection):
    """
    A connection whose header another process has read.

    :param header: the header of the connection.
    :param protocol: is connected with the transport.
    """

    def __init__(self, header: ProxyHeader, protocol: Any) -> None:
        self._header = header
        self._protocol: Any = protocol

    @override
    def connectionMade(self) -> None:
        protocol, self._protocol = self._protocol, None
        self.connect_above(ProxiedTransport(self.transport, self._header), protocol)


def address_of(address: tuple[str, int] | bytes | None, is_datagram: bool) -> IAddress | None:
    """Return an address of a header as an address of Twisted; None if the header has none."""
    if address is None:
        return None
    if isinstance(address, bytes):
        return UNIXAddress(address or None)
    host, port = address
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("UDP" if is_datagram else "TCP", host, port)


def _value_of(address: Any) -> tuple[str, int] | bytes | None:
    if address is None:
        return None
    return (
        (address.name or b"") if isinstance(address, UNIXAddress) else (address.host, address.port)
    )
