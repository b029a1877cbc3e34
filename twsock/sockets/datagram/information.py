"""
What is known of a datagram socket: asked of its ports, readable at any time.
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

    :param ports: gives its ports, best first.
    """

    __slots__ = ("_ports",)

    def __init__(self, ports: Callable[[], Sequence[DatagramPort]]) -> None:
        self._ports = ports

    @property
    def local_address(self) -> HostName | None:
        """
        Address it is bound to; None before. Bound to all of both families, that of IPv4.
        """
        ports = self._ports()
        if not ports:
            return None
        host = ports[0].getHost()
        return HostName(with_zone(host.host, getattr(host, "scopeID", 0)))

    @property
    def local_port(self) -> str:
        """Port it is bound to; empty before."""
        ports = self._ports()
        return str(ports[0].getHost().port) if ports else ""

    @property
    def remote_address(self) -> HostName | None:
        """Address of the connected peer; None where there is none."""
        peer = self._peer()
        return HostName(peer[0]) if peer else None

    @property
    def remote_port(self) -> str:
        """Port of the connected peer; empty where there is none."""
        peer = self._peer()
        return str(peer[1]) if peer else ""

    @property
    def dropped(self) -> int:
        """How many datagrams the kernel had no room for; not in WinRT. 0 where none can tell."""
        return sum(port.dropped_by_kernel for port in self._ports())

    @property
    def unexpected_source(self) -> int:
        """
        How many datagrams were dropped; not in WinRT.

        On a connected socket those that are not from the peer, on one that is ``multicast_only``
        those that are not for a group it joined.
        """
        return sum(port.counters.unexpected_source for port in self._ports())

    def _peer(self) -> tuple[str, int] | None:
        for port in self._ports():
            peer = port.get_peer()
            if peer is not None:
                return readable_address(peer)
        return None


def readable_address(address: tuple[object, ...]) -> tuple[str, int]:
    """Give host and port of a kernel's address, with the zone of a link-local one."""
    host, port, *more = address
    scope = more[1] if len(more) == 2 else 0
    return with_zone(str(host), int(str(scope))), int(str(port))
