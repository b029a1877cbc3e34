"""
Addresses of ports and peers: address of Twisted → **host** → network, or a text.

The limits per peer address of streams and datagrams use the network that counts as one peer.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from twisted.internet.interfaces import IAddress

from twsock.ip.zones import with_zone

__all__ = ["IPAddress", "describe_address", "host_of", "network_of", "parse_ip_address"]

#: An address of either family.
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

#: Length of the interface identifier: one host may use any address of its network
#: (:rfc:`4291` section 2.5.4).
_HOST_BITS: Final = 64


def host_of(address: IAddress | None) -> str | None:
    """Return the numeric address of a peer; None if it has none, as on a UNIX socket."""
    host: str | None = getattr(address, "host", None)
    return host


def describe_address(address: IAddress) -> str:
    """Return the address of a port as an endpoint string, such as ``tcp:127.0.0.1:1337``."""
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", address)
        return f"unix:{name.decode(errors='replace') if isinstance(name, bytes) else name}"
    escaped = with_zone(host, getattr(address, "scopeID", 0)).replace(":", "\\:")
    kind = str(getattr(address, "type", "TCP")).lower()
    return f"{kind}:{escaped}:{getattr(address, 'port', '')}"


def parse_ip_address(text: str) -> IPAddress | None:
    """Return a numeric address as an object; None for any other text."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def network_of(host: str) -> str:
    """
    Return the key that limits per peer use: an IPv4 address, or the /64 network of an IPv6 address.

    A peer may use any number of ports, and any of the addresses in its /64 network. Neither makes
    it another peer.

    :param host: numeric.
    """
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)  # A socket of both families has IPv4-mapped peers.
    # All hosts of a link share the network of their link-local addresses.
    return host if address.is_link_local else str(int(address) >> _HOST_BITS)
