"""
Lookups of SRV records: service and host → **service records** → hosts and ports, in order.

Used by `twsock.sockets.resolving`, which imports this module when a program first needs it: it
loads Twisted's DNS client. :rfc:`2782`; nothing is cached.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IResolver
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import DNSNameError

from twsock.errors import SocketError, SocketErrorStatus
from twsock.names import HostName

__all__ = ["look_up_service", "order_targets"]

#: Where the DNS servers of this machine are named.
_RESOLV_CONF: Final = Path("/etc/resolv.conf")
_DNS_PORT: Final = 53

#: Seconds of each query for an SRV record; Twisted's own default takes a minute.
_QUERY_TIMEOUTS: Final = (1, 3, 6)


async def look_up_service(
    reactor: Any, host: HostName, labels: str, resolver: IResolver | None
) -> list[tuple[HostName, int]]:
    """
    Return the targets of a service of a host, in the order in which to try them.

    :param labels: service and protocol, such as ``_http._tcp``.
    :param resolver: asks the DNS; None for the servers that this machine is configured with.
    :returns: hosts and ports; at least one. Malformed names are left out.
    :raises SocketError: when there is none, or the lookup fails.
    """
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
