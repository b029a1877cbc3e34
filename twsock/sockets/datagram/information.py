"""
Information about a datagram socket: addresses and counters, read from its ports at each access.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twsock.datagram.port import DatagramPort
from twsock.ip.zones import with_zone
from twsock.names import HostName

__all__ = ["DatagramSocketInformation"]


class DatagramSocketInformation:
    """
    Facts of one `twsock.DatagramSocket`. All ports are text, as in WinRT.

    :param ports: returns the ports of the socket, that of IPv4 first.
    """

    __slots__ = ("_ports",)

    def __init__(self, ports: Callable[[], Sequence[DatagramPort]]) -> None:
        self._ports = ports

    @property
    def local_address(self) -> HostName | None:
        """
        Address that the socket is bound to; None before. With both families, that of IPv4.
        """
        ports = self._ports()
        if not ports:
            return None
        host = ports[0].getHost()
        return HostName(with_zone(host.host, getattr(host, "scopeID", 0)))

    @property
    def local_port(self) -> str:
        """Port that the socket is bound to; empty before."""
        ports = self._ports()
        return str(ports[0].getHost().port) if ports else ""

    @property
    def remote_address(self) -> HostName | None:
        """Address of the connected peer; None if there is none."""
        peer = self._peer()
        return HostName(peer[0]) if peer else None

    @property
    def remote_port(self) -> str:
        """Port of the connected peer; empty if there is none."""
        peer = self._peer()
        return str(peer[1]) if peer else ""

    @property
    def dropped(self) -> int:
        """How many datagrams the kernel had no room for; 0 if unknown. Not in WinRT."""
        return sum(port.dropped_by_kernel for port in self._ports())

    @property
    def unexpected_source(self) -> int:
        """
        How many datagrams were dropped because of their address. Not in WinRT.

        On a connected socket these are datagrams that are not from the peer; on one that is
        ``multicast_only``, datagrams that are not to a group that it joined.
        """
        return sum(port.counters.unexpected_source for port in self._ports())

    def _peer(self) -> tuple[str, int] | None:
        for port in self._ports():
            peer = port.get_peer()
            if peer is not None:
                return readable_address(peer)
        return None


def readable_address(address: tuple[object, ...]) -> tuple[str, int]:
    """Return host and port of an address of the kernel; a link-local host has its zone."""
    host, port, *more = address
    scope = more[1] if len(more) == 2 else 0
    return with_zone(str(host), int(str(scope))), int(str(port))
