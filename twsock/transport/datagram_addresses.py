"""
Where to send: an address as programs write it → **checked** → as the kernel takes it.

Asked by `twsock.transport.datagrams` for each datagram that does not answer a run as a whole. Holds
the addresses that were checked last.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus
from twsock.transport.packet_info import Control, is_multicast, source_control
from twsock.transport.udp_socket import numeric_address
from twsock.transport.zones import needs_zone

__all__ = ["Destinations", "interface_control", "refuse_port_0"]

Address = tuple[Any, ...]

#: Addresses that are remembered; a sender to more of them has each checked again.
_MAX_REMEMBERED: Final = 1024


class Destinations:
    """
    The addresses that one port sends to.

    :param family: of the port.
    :param multicast_only: whether it sends to groups only.
    """

    def __init__(self, family: int, *, multicast_only: bool) -> None:
        self._length = 4 if family == socket.AF_INET6 else 2
        self._multicast_only = multicast_only
        self._checked: dict[Address, Address] = {}

    def find(self, address: Address) -> Address:
        """
        Make an address as the kernel takes it.

        :param address: numeric host and port; for IPv6 also flow information and scope id.
        :raises ValueError: when it is a name, or a number is out of its bounds.
        :raises SocketError: with status ``UNREACHABLE_HOST``, when its zone is no interface;
            ``CANNOT_ASSIGN_REQUESTED_ADDRESS`` for port 0.
        :raises LocalProtocolError: when the port does not send there.
        """
        found = self._checked.get(address)
        if found is None:
            found = self._check(address)
            if len(self._checked) >= _MAX_REMEMBERED:
                self._checked.clear()
            # An interface may get another index, so what has a zone is looked up each time.
            if "%" not in address[0]:
                self._checked[address] = found
        return found

    def check_host(self, host: str) -> None:
        """
        Refuse a host that a shared port does not send to.

        :param host: numeric.
        :raises LocalProtocolError: then.
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
            # A zone in the host says as much as a scope behind it.
            found = (found[0], port, flow, found[3] or scope)
        return found


def interface_control(address: Address) -> Control | None:
    """
    Make what has a group of IPv6 leave by the interface of its zone, where the kernel ignores that.

    Linux looks at the zone of an address of one link only, so ``ff15::9%eth1`` needs more.

    :param address: as `Destinations.find` returns it.
    :returns: None where nothing more is to be said.
    """
    if len(address) == 2 or not address[3]:
        return None
    host = address[0]
    return source_control("::", address[3]) if is_multicast(host) and not needs_zone(host) else None


def refuse_port_0(host: str, port: int) -> None:
    """
    Refuse a port that nobody has: Linux would send nothing, and say nothing.

    :raises SocketError: with status ``CANNOT_ASSIGN_REQUESTED_ADDRESS``, when it is 0.
    """
    if not port:
        raise SocketError(
            f"nobody is at port 0 of {host}",
            status=SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
        )
