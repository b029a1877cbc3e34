"""
Lookups of hosts and services: host and service → **resolving** → addresses and ports, best first.

Used by the sockets before they connect or send. A service is a number, or a name in the services
file of this machine, or else the name of an SRV record (:rfc:`2782`). Hosts are looked up with the
reactor's resolver, SRV records with a DNS client of Twisted. Nothing is cached.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostResolution, IResolutionReceiver, IResolver
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import DNSNameError
from zope.interface import implementer

from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.zones import with_zone
from twsock.names import HostName, HostNameType

__all__ = ["RemoteAddress", "find_port", "interleave", "order_targets", "resolve"]

#: Somewhere to connect to.
RemoteAddress = IPv4Address | IPv6Address

#: Where the DNS servers of this machine are named.
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_DNS_PORT: Final = 53

#: Seconds of each query for an SRV record; Twisted's own default takes a minute.
_QUERY_TIMEOUTS: Final = (1, 3, 6)


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
    addresses: list[RemoteAddress] = []
    failed: SocketError | None = None
    for target, target_port in await _look_up_service(
        reactor, host, f"_{service}._{protocol}", resolver
    ):
        try:
            addresses += await _look_up(reactor, target, target_port)
        except SocketError as error:
            failed = error
    if not addresses and failed is not None:
        raise failed
    return addresses


def order_targets(
    records: Iterable[tuple[int, int, str, int]], choose: Callable[[int], int] = random.randrange
) -> list[tuple[str, int]]:
    """
    Return the targets of SRV records in the order in which to try them (:rfc:`2782`).

    :param records: priority (low first), weight, host, port.
    :param choose: returns a random number from 0 to below its argument.
    :returns: hosts and ports. The lowest priority comes first. Within one priority, the chance of a
        target to be first is proportional to its weight; with weight 0 it is very small.
    """
    ordered = []
    # Records of weight 0 first: then the random number 0 selects them, as the RFC says.
    left = sorted(records, key=lambda record: record[:2])
    while left:
        same = [record for record in left if record[0] == left[0][0]]
        chosen = choose(sum(weight for _, weight, _, _ in same) + 1)
        for record in same:
            chosen -= record[1]
            if chosen <= 0:
                break
        left.remove(record)
        ordered.append(record[2:])
    return ordered


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


async def _look_up_service(
    reactor: Any, host: HostName, labels: str, resolver: IResolver | None
) -> list[tuple[HostName, int]]:
    name = f"{labels}.{host.canonical_name}"
    client: Any = resolver or Resolver(servers=_dns_servers(), reactor=reactor)
    try:
        answers, _authority, _additional = await client.lookupService(name, _QUERY_TIMEOUTS)
    except CancelledError:
        raise
    except DNSNameError as error:
        raise _no_service(name) from error
    except Exception as error:
        raise SocketError.from_exception(error, f"the lookup of {name} failed: {error}") from error
    records = [
        (record.priority, record.weight, _text(record.target), record.port)
        for record in (answer.payload for answer in answers if answer.type == dns.SRV)
        # The root as target means that the service does not exist (RFC 2782).
        if _text(record.target)
    ]
    targets = [
        (found, port)
        for target, port in order_targets(records)
        if (found := _well_formed(target)) is not None
    ]
    if not targets:
        raise _no_service(name)
    return targets


def _well_formed(target: str) -> HostName | None:
    """Return the name that a DNS server sent; None if it is malformed."""
    try:
        return HostName(target)
    except ValueError:
        return None


def _no_service(name: str) -> SocketError:
    return SocketError(f"there is no service {name}", status=SocketErrorStatus.CLASS_TYPE_NOT_FOUND)


def _text(name: Any) -> str:
    return bytes(name.name).decode("ascii", "replace").rstrip(".")


def _dns_servers() -> list[tuple[str, int]]:
    """Return the DNS servers of this machine, or the local host, as the C library does."""
    try:
        lines = _RESOLV_CONF.read_text().splitlines()
    except OSError:
        lines = []
    words = [line.split() for line in lines]
    servers = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
    return [(server, _DNS_PORT) for server in servers or ["127.0.0.1"]]
