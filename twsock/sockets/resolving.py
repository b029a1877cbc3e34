"""
Lookups of hosts and services: host and service → **resolving** → addresses and ports, best first.

Used by the sockets before they connect or send. A service is a number, or a name in the services
file of this machine, or else the name of an SRV record (:rfc:`2782`). Hosts are looked up with the
reactor's resolver, SRV records by `twsock.sockets.service_records`. Nothing is cached.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver, IResolver
from zope.interface import implementer

from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.zones import with_zone
from twsock.names import HostName, HostNameType

__all__ = ["RemoteAddress", "find_port", "interleave", "resolve"]

#: Somewhere to connect to.
RemoteAddress = IPv4Address | IPv6Address


def find_port(service: str, protocol: str = "tcp") -> int | None:
    """
    Return the port of a service, without the DNS.

    :param service: a number, or a name in the services file of this machine.
    :returns: None for any other name.
    :raises ValueError: for a number above 65,535.
    """
    if service.isascii() and service.isdigit():
        digits = service.lstrip("0") or "0"
        if len(digits) > 5 or int(digits) > 65535:
            raise ValueError(f"a port is 0 to 65535, not {digits[:20]}")
        return int(digits)
    try:
        return socket.getservbyname(service, protocol)
    except OSError:
        return None


async def resolve(
    reactor: Any,
    host: HostName,
    service: str,
    resolver: IResolver | None = None,
    *,
    protocol: str = "tcp",
) -> list[RemoteAddress]:
    """
    Return the addresses of a service of a host.

    :param resolver: looks up SRV records; None for the DNS servers that this machine is configured
        with.
    :param protocol: ``tcp`` or ``udp``; for the lookup in the services file and the DNS.
    :returns: addresses, best first, as the resolver orders them; at least one. Those of an SRV
        record may have different ports.
    :raises SocketError: when the lookup finds none.
    """
    port = find_port(service, protocol)
    if port is not None:
        return await _look_up(reactor, host, port)
    if host.type is not HostNameType.DOMAIN_NAME:
        raise SocketError(
            f"there is no service {service!r} on this machine, and an address has no SRV records",
            status=SocketErrorStatus.CLASS_TYPE_NOT_FOUND,
        )
    return await _resolve_service(reactor, host, f"_{service}._{protocol}", resolver)


def interleave(addresses: Sequence[RemoteAddress]) -> list[RemoteAddress]:
    """
    Alternate between the two address families, starting with the first (:rfc:`8305`, section 4).

    If one family does not work on this machine, the second attempt uses the other.
    """
    first = [address for address in addresses if type(address) is type(addresses[0])]
    others = [address for address in addresses if type(address) is not type(addresses[0])]
    mixed: list[RemoteAddress] = []
    for place, address in enumerate(first):
        mixed.append(address)
        mixed += others[place : place + 1]
    return mixed + others[len(first) :]


async def _resolve_service(
    reactor: Any, host: HostName, labels: str, resolver: IResolver | None
) -> list[RemoteAddress]:
    # Here, since it loads Twisted's DNS client: most programs look up no SRV record.
    from twsock.sockets.service_records import look_up_service

    addresses: list[RemoteAddress] = []
    failed: SocketError | None = None
    for target, port in await look_up_service(reactor, host, labels, resolver):
        try:
            addresses += await _look_up(reactor, target, port)
        except SocketError as error:
            failed = error
    if not addresses and failed is not None:
        raise failed
    return addresses


async def _look_up(reactor: Any, host: HostName, port: int) -> list[RemoteAddress]:
    if host.type is HostNameType.BLUETOOTH:
        raise SocketError(
            f"{host.display_name} is a Bluetooth address, and only IP is supported",
            status=SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED,
        )
    if host.type is HostNameType.IPV4:
        return [IPv4Address("TCP", host.canonical_name, port)]
    if host.type is HostNameType.IPV6:
        return [IPv6Address("TCP", host.canonical_name, port)]
    receiver = _Receiver()
    reactor.nameResolver.resolveHostName(
        receiver, host.canonical_name, port, [IPv4Address, IPv6Address], "TCP"
    )
    addresses = await receiver.complete
    if not addresses:
        raise SocketError(
            f"there is no host {host.display_name!r}", status=SocketErrorStatus.HOST_NOT_FOUND
        )
    return addresses


@implementer(IResolutionReceiver)
class _Receiver:
    """Collects the addresses that Twisted's resolver finds."""

    def __init__(self) -> None:
        self.complete: Deferred[list[RemoteAddress]] = Deferred(self._cancel)
        self._found: list[RemoteAddress] = []
        self._resolution: IHostResolution | None = None

    def _cancel(self, _complete: Deferred[list[RemoteAddress]]) -> None:
        if self._resolution is not None:
            try:
                self._resolution.cancel()
            except NotImplementedError:
                pass  # Twisted's own (26.10): its thread ends by itself, and its result is dropped.

    # Called by Twisted.

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:  # noqa: N803 - theirs
        self._resolution = resolutionInProgress

    def addressResolved(self, address: Any) -> None:
        scope = getattr(address, "scopeID", 0)
        if scope:
            # Twisted's endpoints use the host alone, but a link-local host needs its interface.
            address = IPv6Address("TCP", with_zone(address.host, scope), address.port)
        self._found.append(address)

    def resolutionComplete(self) -> None:
        if not self.complete.called:
            self.complete.callback(self._found)
