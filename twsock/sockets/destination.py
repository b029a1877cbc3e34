"""
Arguments of calls that connect or bind: host and service → `twsock.EndpointPair` → port numbers.

Used by the stream and the datagram socket, before any lookup.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IResolver

from twsock._integers import checked_integer
from twsock.names import EndpointPair, HostName, HostNameSortOptions, HostNameType
from twsock.operation import start_operation
from twsock.sockets.resolving import find_port, interleave, resolve

__all__ = [
    "as_host_name",
    "find_endpoint_pairs",
    "find_local_port",
    "local_binding",
    "make_pair",
]


def as_host_name(host: HostName | str) -> HostName:
    """
    Return the host parameter of a call as a `HostName`.

    :raises ValueError: when it is malformed.
    :raises TypeError: when it is neither a ``str`` nor a `HostName`.
    """
    return host if isinstance(host, HostName) else HostName(host)


def make_pair(
    remote: HostName | str | EndpointPair, service: str | int | None, protocol: str = "tcp"
) -> EndpointPair:
    """
    Return the pair that the arguments of a call describe.

    :param service: a port or a service; None if ``remote`` is a pair.
    :param protocol: ``tcp`` or ``udp``; for the lookup in the services file.
    :raises ValueError: for a malformed name, a missing host or service, and an invalid port.
    :raises TypeError: when the service is neither a ``str`` nor an ``int``.
    """
    if isinstance(remote, EndpointPair):
        if service is not None:
            raise ValueError("an endpoint pair has a service of its own")
        pair = remote
    else:
        if not remote or service is None:
            raise ValueError("a connection needs a host and a service")
        pair = EndpointPair(None, "", as_host_name(remote), _as_text(service))
    if not pair.remote_service_name:
        raise ValueError("remote_service_name is empty: a connection needs a port or a service")
    find_port(pair.remote_service_name, protocol)  # Raises for an invalid port.
    return pair


def find_endpoint_pairs(
    reactor: Any,
    host: HostName | str,
    service: str | int,
    sort_options: HostNameSortOptions,
    resolver: IResolver | None,
    protocol: str,
) -> Deferred[list[EndpointPair]]:
    """
    Resolve a host and a service; see ``StreamSocket.get_endpoint_pairs``.

    :param protocol: ``tcp`` or ``udp``; for the lookup in the services file and the DNS.
    :raises ValueError: at the call, for a malformed name, a missing service or a bad port.
    """
    pair = make_pair(host, service, protocol)

    async def look_up() -> list[EndpointPair]:
        name, wanted = pair.remote_host_name, pair.remote_service_name
        found = await resolve(reactor, name, wanted, resolver, protocol=protocol)
        if not sort_options & HostNameSortOptions.OPTIMIZE_FOR_LONG_CONNECTIONS:
            found = interleave(found)
        return [EndpointPair(None, "", HostName(each.host), str(each.port)) for each in found]

    return start_operation(look_up())


def local_binding(pair: EndpointPair, protocol: str = "tcp") -> tuple[str, int] | None:
    """
    Return the local end that a pair specifies.

    :param protocol: ``tcp`` or ``udp``; for the lookup in the services file.
    :returns: an address or "", and a port or 0; None if the pair specifies neither.
    :raises ValueError: when the local host is no address, or the service is unknown.
    """
    host, service = pair.local_host_name, pair.local_service_name
    if host is not None and host.type not in (HostNameType.IPV4, HostNameType.IPV6):
        raise ValueError(f"a local host is an IP address, not {host.display_name!r}")
    port = find_local_port(service, protocol)
    if host is None and not port:
        return None
    return ("" if host is None else host.canonical_name), port


def find_local_port(service: str | int, protocol: str = "tcp") -> int:
    """
    Return the port number of a service on this machine; 0, for any free port, if it is empty.

    :param protocol: ``tcp`` or ``udp``; for the lookup in the services file.
    :raises ValueError: when it is None, a bad port, or not in the services file.
    :raises TypeError: when it is neither a ``str`` nor an ``int``.
    """
    if service is None:
        raise ValueError("the service is None; an empty one asks for a free port")
    name = _as_text(service)
    port = find_port(name, protocol) if name else 0
    if port is None:
        raise ValueError(f"there is no service {service!r} on this machine")
    return port


def _as_text(service: str | int) -> str:
    if isinstance(service, str):
        return service
    if checked_integer(service, "a port") < 0:
        raise ValueError(f"a port is 0 to 65535, not {service}")
    return str(service)
