"""
Connects a stream socket: service, endpoint, transport or socket → **connecting** → protocol.

A `twsock.StreamSocket` calls these functions, and its protocol receives the transport. They hold
nothing after a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IResolver, IStreamClientEndpoint
from twisted.internet.protocol import Protocol

from twsock.errors import ClosedError
from twsock.names import EndpointPair
from twsock.sockets.resolving import interleave, resolve
from twsock.sockets.stream.attempts import ATTEMPT_TIMEOUT, connect_to_any
from twsock.sockets.stream.control import StreamSocketControl
from twsock.stream.adopting import OneProtocol
from twsock.wire.byte_queue import as_bytes

__all__ = ["adopt_transport", "connect_through", "connect_to_service"]


async def connect_to_service(
    reactor: Any,
    pair: EndpointPair,
    bind: tuple[str, int] | None,
    resolver: IResolver | None,
    control: StreamSocketControl,
    build_protocol: Callable[[], Protocol],
    *,
    max_addresses: int | None = None,
    attempt_timeout: float = ATTEMPT_TIMEOUT,
) -> None:
    """
    Look up the remote end of a pair, and connect to the first of its addresses that answers.

    :param bind: local address, or empty, and local port, or 0.
    :param resolver: looks up SRV records; None for the DNS servers of this machine.
    :param control: options of the socket, set before each attempt.
    :param build_protocol: called once, for the attempt that succeeds.
    :param max_addresses: how many addresses are tried, 1 or more; None for all of them.
    :param attempt_timeout: seconds for each address, above 0.
    :raises ConnectError: when all attempts failed.
    :raises SocketError: when the lookup failed.
    """
    host, service = pair.remote_host_name, pair.remote_service_name
    addresses = interleave(await resolve(reactor, host, service, resolver))
    once = OneProtocol(build_protocol)
    try:
        await connect_to_any(
            reactor,
            f"{host.display_name}:{service}",
            addresses[:max_addresses],
            once,
            bind=bind,
            is_serial=control.serialize_connection_attempts,
            timeout=attempt_timeout,
            prepare=control.apply,
        )
    finally:
        once.end()


async def connect_through(
    endpoint: IStreamClientEndpoint, build_protocol: Callable[[], Protocol]
) -> None:
    """Connect through an endpoint of Twisted; its errors are raised unchanged."""
    once = OneProtocol(build_protocol)
    connecting: Deferred[IProtocol] = endpoint.connect(once)
    try:
        await connecting
    finally:
        once.end()


def adopt_transport(transport: Any, protocol: Protocol, unread: bytes) -> None:
    """
    Connect a protocol to a transport; it replaces the transport's own protocol.

    :param unread: bytes that the other protocol received and did not use.
    :raises ClosedError: when the transport is no longer connected.
    """
    # A wrapper (TLS, a policy) passes received bytes to `wrappedProtocol`, a plain transport to
    # `protocol`.
    top = transport.protocol if getattr(transport, "TLS", False) else transport
    name = "wrappedProtocol" if hasattr(top, "wrappedProtocol") else "protocol"
    if not getattr(transport, "connected", True):
        raise ClosedError("cannot take the transport over: it is not connected")
    setattr(top, name, protocol)
    # First: the input stream pauses the transport again if the unread bytes exceed its limit.
    transport.resumeProducing()
    protocol.makeConnection(transport)
    if unread:
        protocol.dataReceived(as_bytes(unread))
