"""
Addresses of peers: address of Twisted → **host** → network, which counts as one peer.

Used by the limits per address of streams and datagrams.
"""

from __future__ import annotations

import ipaddress
from typing import Final

from twisted.internet.interfaces import IAddress

__all__ = ["host_of", "network_of"]

#: Bits of an IPv6 address that are the same for all that one host may take (:rfc:`4291`, 2.5.4).
_HOST_BITS: Final = 64


def host_of(address: IAddress | None) -> str | None:
    """Return the numeric address of a peer; None if it has none, as on a UNIX socket."""
    host: str | None = getattr(address, "host", None)
    return host


def network_of(host: str) -> str:
    """
    Give what counts as one peer: an IPv4 address, or the network of an IPv6 address.

    The port does not count: a peer has as many of those as it likes; nor do the last 64 bits of an
    IPv6 address, for the same reason.

    :param host: numeric.
    """
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)  # A socket of both families has IPv4-mapped peers.
    # All hosts of a link share the network of their link-local addresses.
    return host if address.is_link_local else str(int(address) >> _HOST_BITS)
