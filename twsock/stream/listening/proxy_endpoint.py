"""
Connections that a proxy forwards: socket → **PROXY header** → protocol.

The services make this for ``haproxy:`` endpoints, and applications around any stream endpoint. The
protocol is built once the header is complete, so its factory sees the client's address from the
start. Until then a connection holds at most one header, at most for the timeout.

Any peer that can reach the port could claim any address. So peers outside the trusted networks are
refused before a byte is read. Twisted's ``haproxy:`` endpoint trusts every peer, waits without a
limit, and drops peers without a log line.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import alsoProvides, implementer

from twsock.errors import RemoteProtocolError
from twsock.log import RateLimitedLogger, TextLogger
from twsock.stream.descriptor import describe_path
from twsock.stream.listening.proxied_connection import ProxiedConnection, ProxiedTransport
from twsock.wire.proxy_header import ProxyHeaderDecoder

__all__ = ["DEFAULT_HEADER_TIMEOUT", "LOOPBACK", "Network", "ProxyEndpoint", "parse_networks"]

#: Seconds from the connection to the end of its header. The specification asks for at least three,
#: in which TCP can retransmit a lost segment.
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

    ``getPeer`` and ``getHost`` of a connection return the addresses in its header. If the header
    has none (``PROXY UNKNOWN``, a proxy's health check), they return those of the connection.

    :param reactor: measures the timeout.
    :param endpoint: the endpoint that the proxies connect to.
    :param trusted: networks of the proxies; all other peers are reset. UNIX sockets are always
        trusted, since the permissions of their path decide which users may connect.
    :param timeout: seconds from a connection to the end of its header; then the peer is reset.
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
        """Listen; the factory builds a protocol for each connection whose header is complete."""
        return self._endpoint.listen(
            _ProxyFactory(self._reactor, factory, self._trusted, self._timeout)
        )


def parse_networks(text: str) -> tuple[Network, ...]:
    """
    Read networks from a command line.

    :param text: addresses or networks, separated by commas: ``10.0.0.0/8,2001:db8::1``.
    :raises ValueError: when a word is neither an address nor a network; names the word.
    """
    return tuple(_network(word.strip()) for word in text.split(","))


def _network(word: str) -> Network:
    try:
        return ipaddress.ip_network(word)
    except ValueError as error:
        example = "10.0.0.0/8 or ::1"
        raise ValueError(f"{word!r} is not an address or network such as {example}") from error


class _ProxyFactory(ServerFactory):
    """Wraps the factory of an application; waits for the header of each connection."""

    noisy = False
    #: Read by `twsock.stream.AcceptGate`: the peers of this port are proxies, not clients.
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
        self._occasional: dict[str, RateLimitedLogger] = {}
        if IProtocolNegotiationFactory.providedBy(factory):
            alsoProvides(self, IProtocolNegotiationFactory)

    def acceptableProtocols(self) -> list[bytes]:
        """Return the protocols that the wrapped factory names for ALPN."""
        return list(self.wrapped.acceptableProtocols())

    def logPrefix(self) -> str:
        """Return the name for Twisted's log."""
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
        """End the waits when the port stops; a header that has arrived by now is still accepted."""
        for connection in list(self._waiting):
            connection.end_wait()

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        if not self._is_trusted(addr):
            networks = ", ".join(map(str, self._trusted))
            self.note_dropped(addr, "untrusted", f"PROXY headers are accepted only from {networks}")
            return _Refused()
        return _ProxiedConnection(self)

    def join(self, connection: _ProxiedConnection) -> None:
        """Add a connection that waits for its header."""
        self._waiting.add(connection)

    def leave(self, connection: _ProxiedConnection) -> None:
        """Remove a connection that waits no longer."""
        self._waiting.discard(connection)

    def note_dropped(self, peer: IAddress | None, kind: str, reason: str) -> None:
        """Log that a peer was dropped, with at most one line a minute for each kind of reason."""
        occasional = self._occasional.setdefault(
            kind, RateLimitedLogger(self._log, self.reactor.seconds)
        )
        occasional.warn("{peer} dropped: {reason}", peer=_describe(peer), reason=reason)

    def _is_trusted(self, peer: Any) -> bool:
        host = getattr(peer, "host", None)
        if host is None:
            return isinstance(peer, UNIXAddress)
        address: Any = ipaddress.ip_address(host.partition("%")[0])
        # On a socket of both families, IPv4 peers have IPv4-mapped addresses.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._trusted)


class _Refused(Protocol):
    """Resets the connection of a peer that is not a trusted proxy."""

    @override
    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class _ProxiedConnection(ProxiedConnection):
    """Receives the bytes of a connection: decodes its header, then passes the rest on."""

    factory: Any

    def __init__(self, factory: _ProxyFactory) -> None:
        self.factory = factory
        self._decoder = ProxyHeaderDecoder()
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
        if self._upper is not None:
            super().connectionLost(reason)
        elif self._has_begun and not self._is_over:
            # A peer that has sent nothing only checked whether the port is open.
            self._note("cut off", "it closed the connection within its PROXY header")
        self._stop_waiting()
        self._is_over = True

    # Called by the factory.

    def end_wait(self) -> None:
        """Read the bytes that have arrived; abort if they are not a whole header."""
        # Above Twisted's TLS there is no `doRead`.
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
            self._hand_over(ProxiedTransport(self.transport, header))

    def _hand_over(self, upper: ProxiedTransport) -> None:
        built = self.factory.wrapped.buildProtocol(upper.getPeer())
        if built is None:
            # The factory refused the connection; it logs the reason itself.
            self._end()
            return
        self._stop_waiting()
        rest = self._decoder.take_buffered()
        self.connect_above(upper, built)
        # The protocol may have closed the connection; `dataReceived` then drops the bytes.
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


def _describe(peer: Any) -> str:
    if getattr(peer, "host", None) is None:
        name = getattr(peer, "name", None)
        return f"a peer at {describe_path(name)}" if name else "a peer at a UNIX socket"
    return f"{peer.host} port {peer.port}"
