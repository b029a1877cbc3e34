"""
Destinations of datagrams: an address from the application → **checked** → for the kernel.

Called by `twsock.datagram.port` for each datagram, except for answers with `reply`. Holds up
to 1,024 checked addresses.
"""

from __future__ import annotations

import socket
from typing import Final

from twsock.datagram.network.packet_info import Control, is_multicast, source_control
from twsock.datagram.runs import Address
from twsock.datagram.udp_socket import numeric_address
from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus
from twsock.ip.zones import needs_zone

__all__ = ["Destinations", "interface_control", "refuse_port_0"]

#: Checked addresses that are cached; above that number the cache is cleared.
_MAX_REMEMBERED: Final = 1024


class Destinations:
    """
    The addresses that one port sends to.

    :param family: address family of the port.
    :param multicast_only: whether the port refuses to send to unicast addresses.
    """

    def __init__(self, family: int, *, multicast_only: bool) -> None:
        self._length = 4 if family == socket.AF_INET6 else 2
        self._multicast_only = multicast_only
        self._checked: dict[Address, Address] = {}

    def find(self, address: Address) -> Address:
        """
        Return an address in the form that the kernel takes.

        :param address: numeric host and port; for IPv6 optionally flow information and scope id.
        :raises ValueError: when the host is a name, or a number is out of bounds.
        :raises SocketError: with status ``UNREACHABLE_HOST``, when no interface has the name of the
            zone; with ``CANNOT_ASSIGN_REQUESTED_ADDRESS``, when the port is 0.
        :raises LocalProtocolError: when the address has the wrong family, or the port is shared for
            multicast and this is no group.
        """
        found = self._checked.get(address)
        if found is None:
            found = self._check(address)
            if len(self._checked) >= _MAX_REMEMBERED:
                self._checked.clear()
            # The index of an interface may change, so addresses with a zone are not cached.
            if "%" not in address[0]:
                self._checked[address] = found
        return found

    def check_host(self, host: str) -> None:
        """
        Refuse a unicast host if this port is shared for multicast.

        :param host: a numeric address.
        :raises LocalProtocolError: when the host is refused.
        """
        if self._multicast_only and not is_multicast(host):
            raise LocalProtocolError(
                f"this port is shared for multicast only: it does not send to {host}"
            )

    def _check(self, address: Address) -> Address:
        if len(address) not in (2, 4):
            raise ValueError(f"an address is a host and a port, not {address!r}")
        host, port, *more = address
        found: Address = numeric_address(host, port)
        refuse_port_0(host, port)
        self.check_host(found[0])
        if len(found) != self._length:
            raise LocalProtocolError(f"this port cannot send to {host}: wrong family")
        if more and len(found) == 4:
            flow, scope = more
            if not (0 <= flow < 2**20 and 0 <= scope < 2**32):
                raise ValueError(f"flow and scope of {address!r} are out of bounds")
            # A zone in the host takes precedence over the scope id.
            found = (found[0], port, flow, found[3] or scope)
        return found


def interface_control(address: Address) -> Control | None:
    """
    Return the control message that sends to an IPv6 group by the interface of its zone.

    Linux uses the scope id of link-local addresses only, so ``ff15::9%eth1`` needs this message.

    :param address: as `Destinations.find` returns it.
    :returns: None if no message is needed.
    """
    if len(address) == 2 or not address[3]:
        return None
    host = address[0]
    return source_control("::", address[3]) if is_multicast(host) and not needs_zone(host) else None


def refuse_port_0(host: str, port: int) -> None:
    """
    Refuse port 0: Linux would drop such a datagram without an error.

    :raises SocketError: with status ``CANNOT_ASSIGN_REQUESTED_ADDRESS``, when it is 0.
    """
    if not port:
        raise SocketError(
            f"nobody is at port 0 of {host}",
            status=SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
        )
