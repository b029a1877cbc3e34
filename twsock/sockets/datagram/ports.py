"""
The ports of a datagram socket: one for each address family that it is bound in.

Opened by `twsock.DatagramSocket`, whose streams send through them. A socket of all addresses has
two ports, with the same number; a socket of one address, or of one peer, has one.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from twsock.datagram.addresses import interface_control
from twsock.datagram.network.interfaces import (
    Interface,
    broadcast_interfaces,
    find_interface,
    local_addresses,
)
from twsock.datagram.network.packet_info import Control, is_multicast, source_control
from twsock.datagram.port import DatagramPort, listen_datagrams
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.runs import Address
from twsock.errors import (
    LocalProtocolError,
    OperationNotSupported,
    SocketError,
    SocketErrorStatus,
)
from twsock.handover.datagram_state import UnreadDatagram
from twsock.handover.detached import DetachedDatagramSocket
from twsock.ip.zones import split_zone, zone_index
from twsock.sockets.datagram.control import DatagramSocketControl
from twsock.sockets.datagram.information import readable_address

__all__ = ["DatagramPorts"]

#: How many times to try for a port number that is free in both families: one that is free in the
#: first may be taken in the second.
_MAX_TRIES: Final = 16

#: Statuses of the error that a machine without IPv6 returns.
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

#: The address of all hosts on this network (:rfc:`919`).
_BROADCAST: Final = "255.255.255.255"

_WILDCARDS: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class DatagramPorts:
    """
    The ports of one socket; none until `bind_all`, `bind_one`, `bind_family` or `connect`.

    :param control: the options of the ports.
    :param make_protocol: makes the protocol of a port.
    """

    def __init__(
        self,
        reactor: Any,
        control: DatagramSocketControl,
        make_protocol: Callable[[], DatagramProtocol],
    ) -> None:
        self._reactor = reactor
        self._control = control
        self._make_protocol = make_protocol
        self._ports: dict[int, DatagramPort] = {}
        # The interface that they are bound to, or whose address they are bound to.
        self._adapter: Interface | None = None

    def __iter__(self) -> Iterator[DatagramPort]:
        """Return each port, that of IPv4 first."""
        return iter(tuple(self._ports.values()))

    def __bool__(self) -> bool:
        return bool(self._ports)

    def find(self, host: str) -> DatagramPort | None:
        """Return the port that sends to a host; None if its address family has no port."""
        return self._ports.get(_family_of(host))

    @property
    def peer(self) -> tuple[str, int] | None:
        """Host and port of the connected peer; None if no port is connected."""
        peers = (port.get_peer() for port in self)
        return next((readable_address(peer) for peer in peers if peer is not None), None)

    # Opening. A call that fails changes nothing.

    def bind_all(self, number: int, adapter: str | int | None) -> None:
        """
        Bind all addresses of both families, as far as this machine has both.

        :param number: 0 for a port number that is free in both.
        :param adapter: the one interface to use; None for all.
        :raises SocketError: when the system refuses.
        """
        interface = None if adapter is None else find_interface(adapter)
        for _ in range(_MAX_TRIES):
            first = self._listen("0.0.0.0", number, interface)
            try:
                second = self._listen("::", first.getHost().port, interface)
            except SocketError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno in _NO_IPV6:
                    self._take(interface, first)
                    return
                first.stopListening()
                if number or error.status is not SocketErrorStatus.ADDRESS_ALREADY_IN_USE:
                    raise
            else:
                self._take(interface, first, second)
                return
        raise SocketError(
            "no port is free for both IPv4 and IPv6",
            status=SocketErrorStatus.ADDRESS_ALREADY_IN_USE,
        )

    def bind_one(self, address: str, number: int) -> None:
        """
        Bind one address.

        :raises SocketError: when the system refuses.
        """
        is_wildcard = address in _WILDCARDS.values()
        if self._control.multicast_only and not is_wildcard:
            # A shared port is bound to all addresses, so the address only selects the interface.
            interface = find_interface(address)
            self._take(interface, self._listen(_wildcard_of(address), number, interface))
            return
        port = self._listen(address, number, None)
        self._take(None if is_wildcard else _interface_of(address), port)

    def bind_family(self, host: str, local: tuple[str, int] | None = None) -> DatagramPort:
        """
        Bind a port of the address family of a host.

        :param local: address or "", and port or 0; None lets the system choose both.
        :raises SocketError: when the system refuses.
        """
        port = self._listen_towards(host, local)
        self._take(None, port)
        return port

    def connect_to_first(
        self, addresses: Sequence[tuple[str, int]], local: tuple[str, int] | None
    ) -> DatagramPort:
        """
        Connect to the first address that works; see `connect`.

        :raises SocketError: the error of the first address, when none works.
        """
        first_error: SocketError | None = None
        for host, number in addresses:
            self.check_destination(host)
            try:
                return self.connect(host, number, local)
            except SocketError as error:
                first_error = first_error or error
        assert first_error is not None  # There is at least one address.
        raise first_error

    def connect(self, host: str, number: int, local: tuple[str, int] | None) -> DatagramPort:
        """
        Connect to one peer; through the port of its family, if ports are open.

        :param local: as in `bind_family`; None if ports are open.
        :raises SocketError: when the system refuses.
        """
        if not self._ports:
            # A broadcast leaves by the first interface only, as in WinRT; it needs no route.
            ways = broadcast_interfaces() if host == _BROADCAST else []
            port = self._listen_towards(host, local, ways[0] if ways else None)
            try:
                port.connect(host, number)
            except BaseException:
                port.stopListening()
                raise
        else:
            port = self.require(host)
            port.connect(host, number)
        # The peer is in one family, so the port of the other is closed.
        for other in self:
            if other is not port:
                other.stopListening()
        self._take(self._adapter, port)
        return port

    # The hand-over.

    def copy_sockets(self) -> list[socket.socket]:
        """
        Return a copy of each port's socket, for `detach`; the ports do not change.

        :raises SocketError: the errors of ``DatagramPort.detach``.
        """
        copies: list[socket.socket] = []
        try:
            copies.extend(port.copy_socket() for port in self)
        except BaseException:
            for copy in copies:
                copy.close()
            raise
        return copies

    def detach(
        self, copies: Sequence[socket.socket], unread: Sequence[UnreadDatagram]
    ) -> DetachedDatagramSocket:
        """Leave the sockets to another owner; the ports are closed."""
        found = tuple(
            port.leave(
                copy,
                tuple(one for one in unread if _family_of(one.source[0]) == port.socket_family),
            )
            for port, copy in zip(self, copies, strict=True)
        )
        return DetachedDatagramSocket(found, self._adapter.index if self._adapter else 0)

    def take(self, detached: DetachedDatagramSocket) -> list[DatagramPort]:
        """
        Make ports of detached sockets, and return them; ``catch_up`` of each follows.

        :raises SocketError: and the other errors of ``DatagramPort.from_socket``.
        """
        families = {one.socket.family for one in detached.ports}
        if not families or len(families) != len(detached.ports):
            raise ValueError("a datagram socket has one UDP socket for each address family")
        adapter = find_interface(detached.adapter) if detached.adapter else None
        ports: list[DatagramPort] = []
        try:
            for one in detached.ports:
                protocol = self._make_protocol()
                ports.append(
                    DatagramPort.take_socket(self._reactor, protocol, one.socket, one.state)
                )
        except BaseException:
            for port in ports:
                port.abandon()
            raise
        detached.close()
        self._control.take(ports[0].options)
        self._take(adapter, *ports)
        return ports

    # Using.

    def require(self, host: str) -> DatagramPort:
        """
        Return the port that sends to a host.

        :raises SocketError: with status ``ADDRESS_FAMILY_NOT_SUPPORTED``, if there is none.
        """
        port = self.find(host)
        if port is None:
            raise _wrong_family(host)
        return port

    def check_destination(self, host: str) -> None:
        """
        Check that the socket may send to a host.

        :raises LocalProtocolError: if the port is shared and the host is not a group.
        """
        if self._control.multicast_only and not is_multicast(host):
            raise LocalProtocolError(
                f"this socket is shared for multicast only: it does not send to {host}"
            )

    def find_ways(self, address: Address) -> tuple[Control, ...]:
        """
        Return control messages for the interfaces to send by; empty if the kernel chooses.

        :param address: in the form that the kernel takes.
        """
        if address[0] == _BROADCAST and self._adapter is None:
            return tuple(source_control("", each.index) for each in broadcast_interfaces())
        control = interface_control(address)
        return () if control is None else (control,)

    def find_source(self, local: tuple[str, int], host: str) -> Control | None:
        """
        Return the control message that sends to a host from a local end. The socket is bound.

        :param local: address or "", and port or 0.
        :returns: None if no message is needed.
        :raises LocalProtocolError: when the port differs from the bound one, or the socket is bound
            to another address or to an interface.
        :raises SocketError: with status ``CANNOT_ASSIGN_REQUESTED_ADDRESS``, when the address is
            not an address of this machine.
        """
        address, number = local
        bound = self.require(host).getHost()
        literal, zone = split_zone(address)
        is_free = bound.host in _WILDCARDS.values() and self._adapter is None
        is_bound = literal in ("", bound.host)
        if number not in (0, bound.port) or not (is_bound or is_free):
            raise LocalProtocolError("this socket is bound: its local end is fixed")
        if is_bound:
            return None
        if _family_of(literal) != _family_of(host):
            raise _wrong_family(address)
        scope = zone_index(address, zone) if zone else 0
        if is_multicast(literal) or literal == _BROADCAST:
            # A group cannot be a source address. The kernel chooses one of the interface, if the
            # zone names it.
            return source_control("::", scope) if scope else None
        _check_own(literal)
        return source_control(literal, scope)

    def join(self, group: str, interface: str | int | None, source: str | None) -> None:
        """Join a group; see ``DatagramSocket.join_multicast_group``."""
        self.require(group).join_group(group, self._where(group, interface), source)

    def leave(self, group: str, interface: str | int | None, source: str | None) -> None:
        """Leave a group; see ``DatagramSocket.leave_multicast_group``."""
        self.require(group).leave_group(group, self._where(group, interface), source)

    def _where(self, group: str, interface: str | int | None) -> str | int | Interface | None:
        """Return the interface for a group; the adapter if neither argument nor zone names one."""
        return self._adapter if interface is None and "%" not in group else interface

    def set_hop_limit(self, hops: int) -> None:
        """Change the hop limit of unicast datagrams."""
        for port in self:
            if port.is_open:
                port.set_hop_limit(hops)

    def set_reading(self, is_reading: bool) -> None:
        """Read from the ports, or leave received datagrams in the kernel."""
        for port in self:
            if is_reading:
                port.resumeProducing()
            else:
                port.pauseProducing()

    def close(self) -> None:
        """Close all ports."""
        for port in self:
            port.stopListening()

    def _take(self, interface: Interface | None, *ports: DatagramPort) -> None:
        self._adapter = interface
        self._ports = {port.socket_family: port for port in ports}

    def _listen_towards(
        self, host: str, local: tuple[str, int] | None, interface: Interface | None = None
    ) -> DatagramPort:
        address, number = local or ("", 0)
        if address and _family_of(address) != _family_of(host):
            raise _wrong_family(host)
        return self._listen(address or _wildcard_of(host), number, interface)

    def _listen(self, address: str, number: int, interface: Interface | None) -> DatagramPort:
        options = self._control.make_options(
            interface=0 if interface is None else interface.index,
            # A shared port receives groups on the interfaces where it joined them.
            device="" if interface is None or self._control.multicast_only else interface.name,
        )
        return listen_datagrams(self._reactor, self._make_protocol(), number, address, options)


def _family_of(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _wildcard_of(host: str) -> str:
    return _WILDCARDS[socket.AF_INET6 if ":" in host else socket.AF_INET]


def _check_own(address: str) -> None:
    """Refuse an address that this machine does not have, if the system can list its addresses."""
    try:
        own = {one.address for one in local_addresses()}
    except OperationNotSupported:
        return
    if address not in own and not ipaddress.ip_address(address).is_loopback:
        raise SocketError(
            f"{address} is not an address of this machine",
            status=SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS,
        )


def _interface_of(address: str) -> Interface | None:
    """Return the interface of an address; lo has 127.0.0.2, though it is not listed there."""
    try:
        return find_interface(address)
    except SocketError:
        is_loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
        return find_interface("lo") if is_loopback else None


def _wrong_family(host: str) -> SocketError:
    return SocketError(
        f"this socket is not bound in the address family of {host}",
        status=SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED,
    )
