"""
Destination and source addresses of datagrams: address or run → **checked address** → kernel.

Used by `twsock.datagram.port`. `Destinations` checks the address of each datagram, except for
answers with `reply`, and connects the socket; it caches up to 1,024 addresses. `ReplySources` finds
the source address of an answer on a port of all addresses. The answer to a unicast datagram leaves
from the address that it was sent to. The answer to a multicast or broadcast datagram leaves from an
address of the receiving interface.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime

from twsock.datagram.network.interfaces import LocalAddresses, local_addresses
from twsock.datagram.network.netlink import LocalAddress
from twsock.datagram.network.packet_info import Control, is_multicast, source_control
from twsock.datagram.runs import Address, Run
from twsock.datagram.udp_socket import numeric_address
from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus
from twsock.ip.zones import describe_missing_zone, needs_zone, with_zone

__all__ = ["Destinations", "ReplySources", "interface_control", "refuse_port_0"]

#: Most checked addresses in the cache; when it is full, it is cleared.
_MAX_CACHED: Final = 1024

_ANY_IPV6: Final = "::"
#: The first three digits of addresses in fe80::/10 (:rfc:`4291` section 2.5.6).
_LINK_LOCAL: Final = frozenset({"fe8", "fe9", "fea", "feb"})


class Destinations:
    """
    Checks the addresses that one port sends to.

    :param family: address family of the port.
    :param multicast_only: whether the port refuses to send to unicast addresses.
    :ivar peer: the only destination, once the socket is connected; None before.
    :ivar is_limited: whether the port refuses some addresses of its family.
    """

    def __init__(self, family: int, *, multicast_only: bool) -> None:
        self._length = 4 if family == socket.AF_INET6 else 2
        self.peer: Address | None = None
        self.is_limited = multicast_only
        self._multicast_only = multicast_only
        self._checked: dict[Address, Address] = {}

    def find(self, address: Address | None) -> Address | None:
        """
        Return an address in the form that the kernel takes; None for the connected peer.

        :param address: numeric host and port; for IPv6 optionally flow information and scope id.
            None for the connected peer.
        :raises ValueError: when the host is a name, or a number is out of bounds.
        :raises SocketError: with status ``UNREACHABLE_HOST``, when no interface has the name of the
            zone; with ``CANNOT_ASSIGN_REQUESTED_ADDRESS``, when the port is 0.
        :raises LocalProtocolError: when the address has the wrong family, is not the connected
            peer, or is not a group and the port is shared for multicast.
        """
        if self.peer is not None:
            if address is not None and address[:2] != self.peer[:2]:
                raise LocalProtocolError(f"this port is connected to {self.peer[0]} only")
            return None
        if address is None:
            raise LocalProtocolError("no address: pass one, or connect the port")
        found = self._checked.get(address)
        if found is None:
            found = self._check(address)
            if len(self._checked) >= _MAX_CACHED:
                self._checked.clear()
            # The index of an interface may change, so addresses with a zone are not cached.
            if "%" not in address[0]:
                self._checked[address] = found
        return found

    def connect(self, udp: socket.socket, host: str, port: int) -> Address:
        """
        Connect the socket of the port.

        :param host: numeric.
        :returns: the peer, as the kernel reports it.
        :raises ValueError: and other errors; see ``DatagramPort.connect``.
        """
        if self.peer is not None:
            raise LocalProtocolError("this port is connected already")
        address = numeric_address(host, port)
        self.check_host(address[0])
        refuse_port_0(host, port)
        try:
            if interface_control(address) is not None:
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, address[-1])
            udp.connect(address)
            peer: Address = udp.getpeername()
        except OSError as error:
            raise describe_missing_zone(
                host, error, SocketErrorStatus.UNREACHABLE_HOST
            ) or SocketError.from_exception(
                error, f"cannot connect to {host} port {port}: {error.strerror}"
            ) from error
        self.peer = peer
        self.is_limited = True
        return peer

    def take_peer(self, udp: socket.socket) -> Address | None:
        """Return the peer that a socket is connected to already; None if it is not connected."""
        try:
            peer: Address = udp.getpeername()
        except OSError:
            return None
        self.peer = peer
        self.is_limited = True
        return peer

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
    Return the control message that sends to an IPv6 group through the interface of its zone.

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
            f"cannot send to port 0 of {host}",
            status=SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
        )


class ReplySources:
    """
    Finds the source addresses of answers.

    :param clock: measures the age of the list of addresses.
    :param list_addresses: returns the addresses of this machine. If it raises `SocketError`, the
        list counts as empty.
    """

    def __init__(
        self,
        clock: IReactorTime,
        list_addresses: Callable[[], Sequence[LocalAddress]] = local_addresses,
    ) -> None:
        self._addresses = LocalAddresses(clock.seconds, list_addresses)

    def find_address(self, run: Run) -> str:
        """
        Return the source address of answers to a run.

        :returns: a numeric address without a zone; empty if the kernel chooses.
        """
        if run.local == run.destination:
            return run.local
        own = self._find_candidates(run)
        if not own or _is_among(run.local, own):
            return run.local
        if run.local:
            # The kernel reports the address from which it would send to the peer. That may be an
            # address of another interface. The first address of an interface is its primary one.
            return own[0]
        return max(own, key=lambda address: _common_bits(address, run.source[0]))

    def find_zoned_address(self, run: Run) -> str:
        """Return the source address of answers to a run, with its zone if it needs one."""
        address = self.find_address(run)
        return with_zone(address, run.interface if needs_zone(address) else 0)

    def make_control(self, run: Run) -> Control | None:
        """Return the control message that sets this address; None if the kernel chooses."""
        address = self.find_address(run)
        if not address:
            # The kernel chooses among the addresses of the interface (RFC 3542 section 6.7).
            is_group = bool(run.destination and run.interface)
            return source_control(_ANY_IPV6, run.interface) if is_group else None
        # A link-local address is valid on one link only, so the interface is set as well.
        return source_control(address, run.interface if _is_link_local(address) else 0)

    def _find_candidates(self, run: Run) -> list[str]:
        """Return the addresses of the receiving interface that have the scope of the source."""
        family = socket.AF_INET6 if len(run.source) == 4 else socket.AF_INET
        found = [
            one.address
            for one in self._addresses.current() or ()
            if one.interface == run.interface and one.family == family
        ]
        if family == socket.AF_INET:
            return found
        is_link_local = _is_link_local(run.source[0])
        return [address for address in found if _is_link_local(address) is is_link_local]


def _is_among(address: str, own: Sequence[str]) -> bool:
    """Return whether an interface has an address; loopback has the whole of 127.0.0.0/8."""
    if address.startswith("127."):
        return any(one.startswith("127.") for one in own)
    return address in own


def _is_link_local(address: str) -> bool:
    return address.startswith("169.254.") or address[:3].lower() in _LINK_LOCAL


def _common_bits(one: str, other: str) -> int:
    """Return the length of the common prefix of two IPv6 addresses (:rfc:`6724`, rule 8)."""
    difference = int(ipaddress.IPv6Address(one)) ^ int(
        ipaddress.IPv6Address(other.partition("%")[0])
    )
    return 128 - difference.bit_length()
