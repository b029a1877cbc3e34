"""
Connections that a proxy hands on: socket → **PROXY header** → protocol.

Made by the services for ``haproxy:`` endpoints, and by applications around any stream endpoint. A
protocol is built, and told of its connection, once the header is whole, so its factory sees the
client's address from the start. Until then a connection holds at most one header, and no longer
than the timeout.

Whoever reaches the port could claim to be anybody, so peers other than the proxies that are trusted
are refused before a byte is read. Twisted's ``haproxy:`` endpoint trusts everybody, waits for ever,
and drops peers without a word.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import alsoProvides, directlyProvides, implementer, providedBy

from twsock.errors import RemoteProtocolError
from twsock.transport.descriptor import describe_path
from twsock.transport.log import TextLogger
from twsock.transport.occasional_log import OccasionalLog
from twsock.wire.proxy_header import ProxyHeader, ProxyHeaderDecoder

__all__ = ["DEFAULT_HEADER_TIMEOUT", "LOOPBACK", "Network", "ProxyEndpoint", "parse_networks"]

#: Seconds from the connection to the end of its header. The specification asks for at least three,
#: in which TCP sends a lost segment again.
DEFAULT_HEADER_TIMEOUT: Final = 10.0

#: A network of either family.
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The proxies of this machine.
LOOPBACK: Final[tuple[Network, ...]] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)


@implementer(IStreamServerEndpoint)
class ProxyEndpoint:
    """
    Listens on another endpoint for connections that begin with a PROXY header.

    ``getPeer`` and ``getHost`` of a connection are the addresses in its header; where that has
    none (``PROXY UNKNOWN``, a proxy's health check), they are those of the connection.

    :param reactor: measures the timeout.
    :param endpoint: where the proxies connect to.
    :param trusted: networks of the proxies. UNIX sockets are always trusted, as the permissions of
        their path say who may connect.
    :param timeout: seconds from a connection to the end of its header.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamServerEndpoint,
        *,
        trusted: Sequence[Network] = LOOPBACK,
        timeout: float = DEFAULT_HEADER_TIMEOUT,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._trusted = tuple(trusted)
        self._timeout = timeout

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; the factory builds protocols for connections whose header has come."""
        return self._endpoint.listen(
            _ProxyFactory(self._reactor, factory, self._trusted, self._timeout)
        )


def parse_networks(text: str) -> tuple[Network, ...]:
    """
    Read networks from a command line.

    :param text: addresses or networks, such as ``10.0.0.0/8,2001:db8::1``.
    :raises ValueError: naming the word that is none.
    """
    return tuple(_network(word.strip()) for word in text.split(","))


def _network(word: str) -> Network:
    try:
        return ipaddress.ip_network(word)
    except ValueError as error:
        example = "10.0.0.0/8 or ::1"
        raise ValueError(f"{word!r} is no address or network such as {example}") from error


class _ProxyFactory(ServerFactory):
    """Stands before the factory of an application, and waits for headers."""

    noisy = False
    #: Read by `twsock.transport.AcceptGate`, which otherwise would take proxies for clients.
    learns_addresses = True
    _log = TextLogger()

    def __init__(
        self, reactor: Any, factory: Any, trusted: tuple[Network, ...], timeout: float
    ) -> None:
        self.reactor = reactor
        self.wrapped = factory
        self.timeout = timeout
        self._trusted = trusted
        self._waiting: set[_ProxiedConnection] = set()
        # One for each reason, so that a flood of one does not hide the others.
        self._occasional: dict[str, OccasionalLog] = {}

    def logPrefix(self) -> str:
        """Give the name for Twisted's log."""
        return f"{type(self.wrapped).__name__} (PROXY)"

    @override
    def doStart(self) -> None:
        self.wrapped.doStart()
        super().doStart()

    @override
    def doStop(self) -> None:
        super().doStop()
        self.wrapped.doStop()

    @override
    def stopFactory(self) -> None:
        """End the waits of a port that stops: a header that has arrived by now still counts."""
        for connection in list(self._waiting):
            connection.end_wait()

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        if not self._is_trusted(addr):
            networks = ", ".join(map(str, self._trusted))
            self.note_dropped(addr, "untrusted", f"PROXY headers are taken from {networks} only")
            return _Refused()
        return _ProxiedConnection(self)

    def join(self, connection: _ProxiedConnection) -> None:
        """Note a connection whose header is awaited."""
        self._waiting.add(connection)

    def leave(self, connection: _ProxiedConnection) -> None:
        """Forget it."""
        self._waiting.discard(connection)

    def note_dropped(self, peer: IAddress | None, kind: str, reason: str) -> None:
        """Log a peer that is dropped, now and then."""
        occasional = self._occasional.setdefault(
            kind, OccasionalLog(self._log, self.reactor.seconds)
        )
        occasional.warn("{peer} dropped: {reason}", peer=_describe(peer), reason=reason)

    def _is_trusted(self, peer: Any) -> bool:
        host = getattr(peer, "host", None)
        if host is None:
            return isinstance(peer, UNIXAddress)
        address: Any = ipaddress.ip_address(host.partition("%")[0])
        # What connects to a socket of both families over IPv4 has such an address.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._trusted)


class _Refused(Protocol):
    """A peer that is no proxy of ours."""

    @override
    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class _ProxiedTransport:
    """
    The transport of a connection behind a proxy: the real one, but for its addresses.

    :ivar wrappedProtocol: the application's; None after the end. The name is the one of Twisted's
        wrappers, by which an upgrade to TLS puts its engine in this place.
    """

    def __init__(self, transport: Any, header: ProxyHeader) -> None:
        self.transport = transport
        self.wrappedProtocol: Any = None
        self._peer = _address(header.source, header.is_datagram)
        self._host = _address(header.destination, header.is_datagram)
        directlyProvides(self, providedBy(transport))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def getPeer(self) -> IAddress:
        """Give the address of the client."""
        peer: IAddress = self._peer or self.transport.getPeer()
        return peer

    def getHost(self) -> IAddress:
        """Give the address that the client has connected to."""
        host: IAddress = self._host or self.transport.getHost()
        return host


class _ProxiedConnection(Protocol):
    """
    Takes what arrives on a connection: its header, then all the rest for another protocol.

    It is no transport as well, as Twisted's wrapper is: what a transport provides is taken over by
    an engine of TLS above it, which must not seem to know of half-closes.
    """

    factory: Any
    transport: Any

    def __init__(self, factory: _ProxyFactory) -> None:
        self.factory = factory
        self._decoder = ProxyHeaderDecoder()
        # None until the header is whole, and after the end.
        self._upper: _ProxiedTransport | None = None
        self._has_begun = False
        self._is_over = False
        self._deadline: IDelayedCall | None = None

    # Called by Twisted.

    @override
    def logPrefix(self) -> str:
        name: str = self.factory.logPrefix()
        return name

    @override
    def connectionMade(self) -> None:
        self.factory.join(self)
        self._deadline = self.factory.reactor.callLater(self.factory.timeout, self._time_out)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._upper is not None:
            self._upper.wrappedProtocol.dataReceived(data)
        elif not self._is_over:
            self._begin(data)

    @override
    def connectionLost(self, reason: Failure | None = None) -> None:
        upper, self._upper = self._upper, None
        if upper is not None:
            # Both would hold each other.
            receiver, upper.wrappedProtocol = upper.wrappedProtocol, None
            receiver.connectionLost(reason)
        elif self._has_begun and not self._is_over:
            # One that has sent nothing is a look whether the port is open.
            self._note("cut off", "it ended within its PROXY header")
        self._stop_waiting()
        self._is_over = True

    def readConnectionLost(self) -> None:
        """Pass the end of the peer's output on; end the connection where nobody knows of halves."""
        receiver = self._half_closing()
        if receiver is None:
            self.transport.connectionLost(Failure(CONNECTION_DONE))
        else:
            receiver.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Pass the end of our output on."""
        receiver = self._half_closing()
        if receiver is not None:
            receiver.writeConnectionLost()

    # Called by the factory.

    def end_wait(self) -> None:
        """Read what has arrived; abort if that is no header."""
        # What is above TLS of Twisted's has nothing to read by itself.
        read = getattr(self.transport, "doRead", None)
        if read is not None:
            read()
        if self._upper is None and not self._is_over:
            self._end()

    # The header.

    def _begin(self, data: bytes) -> None:
        self._has_begun = True
        self._decoder.feed(data)
        try:
            header = self._decoder.next_header()
        except RemoteProtocolError as error:
            self._note("malformed", str(error))
            self._end()
            return
        if header is not None:
            self._hand_over(_ProxiedTransport(self.transport, header))

    def _hand_over(self, upper: _ProxiedTransport) -> None:
        built = self.factory.wrapped.buildProtocol(upper.getPeer())
        if built is None:
            # The factory has said why, if it likes.
            self._end()
            return
        self._stop_waiting()
        rest = self._decoder.take_rest()
        if IHalfCloseableProtocol.providedBy(built):
            alsoProvides(self, IHalfCloseableProtocol)
        upper.wrappedProtocol = built
        self._upper = upper
        built.makeConnection(upper)
        # It may have ended the connection by now.
        if rest:
            self.dataReceived(rest)

    def _time_out(self) -> None:
        self._deadline = None
        self._note("timeout", f"it sent no PROXY header within {self.factory.timeout:g} s")
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._stop_waiting()
        self._decoder = ProxyHeaderDecoder()
        self.transport.abortConnection()

    def _note(self, kind: str, reason: str) -> None:
        self.factory.note_dropped(self.transport.getPeer(), kind, reason)

    def _stop_waiting(self) -> None:
        self.factory.leave(self)
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def _half_closing(self) -> Any:
        receiver = None if self._upper is None else self._upper.wrappedProtocol
        return receiver if IHalfCloseableProtocol.providedBy(receiver) else None


def _address(address: tuple[str, int] | bytes | None, is_datagram: bool) -> IAddress | None:
    if address is None:
        return None
    if isinstance(address, bytes):
        return UNIXAddress(address or None)
    host, port = address
    kind = IPv6Address if ":" in host else IPv4Address
    return kind("UDP" if is_datagram else "TCP", host, port)


def _describe(peer: Any) -> str:
    if getattr(peer, "host", None) is None:
        name = getattr(peer, "name", None)
        return f"a peer at {describe_path(name)}" if name else "a peer at a UNIX socket"
    return f"{peer.host} port {peer.port}"
