"""
UDP sockets and their options: options → **open and bound socket** → `twsock.datagram.port`.

All options are set before the first datagram, in the order that the kernel requires. Option numbers
that Python does not define are Linux's. Other systems do not get these options; if the user asked
for one, an error is raised.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any, Final

from zope.interface import Interface

from twsock._integers import checked_integer
from twsock.datagram.network.interfaces import local_addresses
from twsock.datagram.network.packet_info import (
    is_multicast,
    refuse_runs,
    request_packet_info,
    request_runs,
)
from twsock.errors import OperationNotSupported, SocketError, SocketErrorStatus
from twsock.ip.address_errors import listening_error
from twsock.ip.inherited import check_inherited
from twsock.ip.traffic_class import check_marks, mark_packets
from twsock.ip.zones import describe_missing_zone, split_zone, zone_index

__all__ = [
    "LARGEST",
    "MAX_BUFFER",
    "DatagramOptions",
    "IReactorUdpSockets",
    "OpenedSocket",
    "count_dropped",
    "numeric_address",
    "open_udp_socket",
    "open_udp_socket_of",
    "renew_udp_socket",
    "set_hop_limit",
]

_IS_LINUX: Final = sys.platform == "linux"

# <linux/in.h> and <linux/in6.h>.
_IP_MTU_DISCOVER: Final = 10
_IP_MULTICAST_ALL: Final = 49
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_MULTICAST_ALL: Final = 29
_IPV6_DONTFRAG: Final = 62
_PMTUDISC_DONT: Final = 0
_PMTUDISC_DO: Final = 2

#: ``struct ip_mreqn``: group (unused), source address, index of the interface.
_IP_MREQN: Final = struct.Struct("=4s4si")

#: <asm-generic/socket.h>.
_SO_BINDTODEVICE: Final = 25

#: <asm-generic/socket.h>: an array of 32-bit numbers; the ninth counts dropped datagrams.
_SO_MEMINFO: Final = 55
_MEMORY_INFO: Final = struct.Struct("=9I")

#: Bytes of a buffer for the largest datagram of either family.
LARGEST: Final = 65_535

#: The largest number of bytes that the kernel takes for a buffer: a signed 32-bit integer.
MAX_BUFFER: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DatagramOptions:
    """
    Socket options of a port.

    :ivar receive_buffer: receive buffer of the kernel in bytes (``SO_RCVBUF``); None for the
        system's default. Linux doubles the value for its own overhead, up to
        ``net.core.rmem_max``.
    :ivar send_buffer: send buffer in bytes (``SO_SNDBUF``, ``net.core.wmem_max``), likewise.
    :ivar max_datagram: longer datagrams are flagged as truncated; 0 to 65,535 bytes.
    :ivar hop_limit: hop limit or TTL of unicast datagrams, 1 to 255.
    :ivar multicast_hop_limit: hop limit or TTL of multicast datagrams, 0 to 255. With 0 they stay
        on this machine, with 1 on the local network.
    :ivar multicast_loopback: whether members on this machine receive multicast datagrams of this
        port.
    :ivar multicast_only: share the port with other programs that set the same options. The port
        sends to groups only, and receives from joined groups only.
    :ivar interface: index of the interface that sends multicast; with 0 the routes decide.
    :ivar device: name of the only interface for all traffic; empty for all interfaces (Linux).
    :ivar dont_fragment: set DF. A datagram longer than the path MTU fails with status
        ``MESSAGE_TOO_LONG`` (Linux).
    :ivar broadcast: whether the port may send to broadcast addresses.
    :ivar code_point: differentiated services code point (:rfc:`2474`) of sent datagrams: 0 to 63; 0
        for none, 46 for "expedited forwarding".
    :ivar segmentation: whether to send and receive runs if the kernel supports it.
    :raises ValueError: when a number is out of bounds.
    """

    receive_buffer: int | None = None
    send_buffer: int | None = None
    max_datagram: int = LARGEST
    hop_limit: int = 128
    multicast_hop_limit: int = 1
    multicast_loopback: bool = True
    multicast_only: bool = False
    interface: int = 0
    device: str = ""
    dont_fragment: bool = False
    broadcast: bool = True
    code_point: int = 0
    segmentation: bool = True

    def __post_init__(self) -> None:
        _check("receive_buffer", self.receive_buffer, 1, MAX_BUFFER, "bytes")
        _check("send_buffer", self.send_buffer, 1, MAX_BUFFER, "bytes")
        _check("max_datagram", self.max_datagram, 0, LARGEST, "bytes")
        _check("hop_limit", self.hop_limit, 1, 255, "hops")
        _check("multicast_hop_limit", self.multicast_hop_limit, 0, 255, "hops")
        _check("code_point", self.code_point, 0, 63, "")


@dataclass(frozen=True, slots=True)
class OpenedSocket:
    """
    A bound socket, and the features that its kernel supports.

    :ivar has_runs: whether the socket receives runs and can send them.
    :ivar has_packet_info: whether the kernel reports the destination of each run.
    """

    udp: socket.socket
    has_runs: bool
    has_packet_info: bool


class IReactorUdpSockets(Interface):
    """
    A reactor that opens UDP sockets itself instead of the kernel, such as a network in memory.

    Twisted's ``IReactorUDP`` is not used: its ports cannot set options before the bind, and do not
    report the destination address of a datagram.
    """

    def open_udp_socket(
        address: str,  # noqa: N805
        port: int,
        options: DatagramOptions,
    ) -> OpenedSocket:
        """
        Open a socket, set its options and bind it.

        :returns: an `OpenedSocket` whose ``udp`` has the methods of a non-blocking ``socket``.
        :raises SocketError: when it cannot be bound; see the function `open_udp_socket`.
        """


class IReactorGroupSockets(IReactorUdpSockets):
    """A reactor that knows which socket is for which multicast group, as after a restart."""

    def open_group_socket(
        group: str,  # noqa: N805
        address: str,
        port: int,
        options: DatagramOptions,
    ) -> OpenedSocket:
        """
        Open a socket that will join a group; see `open_udp_socket` of `IReactorUdpSockets`.

        :param group: ``GROUP%INTERFACE``, with a source ``GROUP%INTERFACE,SOURCE``.
        :returns: the socket may have joined the group before.
        """


def open_udp_socket_of(
    reactor: Any, address: str, port: int, options: DatagramOptions, group: str = ""
) -> OpenedSocket:
    """
    Open a UDP socket of a reactor or of the kernel; see `open_udp_socket`.

    :param reactor: opens the socket if it provides `IReactorUdpSockets`; otherwise the kernel does.
    :param group: the group that the socket is for; see `IReactorGroupSockets`. Empty for none.
    """
    opened: OpenedSocket
    if group and IReactorGroupSockets.providedBy(reactor):
        opened = reactor.open_group_socket(group, address, port, options)
        return opened
    if IReactorUdpSockets.providedBy(reactor):
        opened = reactor.open_udp_socket(address, port, options)
        return opened
    return open_udp_socket(address, port, options)


def _check_bind_address(address: str, host: str, options: DatagramOptions) -> None:
    """Raise ``ValueError`` for an address that a port with these options must not be bound to."""
    if is_multicast(host):
        # It would share the port with every socket of all addresses, although none agreed.
        raise ValueError(f"{address} is a group: join it instead of binding to it")
    if options.multicast_only and host not in ("0.0.0.0", "::"):
        # If bound to the group address, it would not prevent others from binding the port alone.
        # If bound to a local unicast address, it would receive no datagram to a group.
        raise ValueError(f"a shared port must be bound to all addresses, not to {address}")


def open_udp_socket(
    address: str, port: int, options: DatagramOptions, *, shares_port: bool = False
) -> OpenedSocket:
    """
    Open a socket, set its options and bind it.

    No other socket can have the same port, unless ``multicast_only`` is set on every one of them,
    or ``shares_port``.

    :param address: numeric; empty for all IPv4 addresses, ``::`` for all IPv6 addresses.
    :param port: 0 to 65,535; with 0 the system chooses.
    :param shares_port: set ``SO_REUSEPORT``: the kernel spreads the peers over all such sockets of
        the same user.
    :raises ValueError: when the address is not numeric, or its port cannot be shared.
    :raises SocketError: with the status of the system's error: ``ADDRESS_ALREADY_IN_USE``,
        ``CANNOT_ASSIGN_REQUESTED_ADDRESS``, …
    :raises OperationNotSupported: when this system does not have one of the options.
    """
    where = numeric_address(address or "0.0.0.0", port)
    is_wildcard = where[0] in ("0.0.0.0", "::")
    _check_bind_address(address, where[0], options)
    family = socket.AF_INET6 if len(where) == 4 else socket.AF_INET
    try:
        udp = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise SocketError.from_exception(
            error, f"cannot open a UDP socket for {where[0]}: {error.strerror}"
        ) from error
    try:
        udp.setblocking(False)
        _set_fixed_options(udp, options, shares_port)
        _set_options(udp, options)
        has_runs = options.segmentation and request_runs(udp)
        # The destination of datagrams to a socket of one address is known.
        has_packet_info = is_wildcard and request_packet_info(udp)
        udp.bind(where)
    except OSError as error:
        udp.close()
        no_address = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
        raise describe_missing_zone(address, error, no_address) or listening_error(
            error, f"cannot bind UDP port {port} of {where[0]}: {error.strerror}"
        ) from error
    except BaseException:
        udp.close()
        raise
    return OpenedSocket(udp, has_runs, has_packet_info)


def renew_udp_socket(
    udp: socket.socket,
    address: str,
    port: int,
    options: DatagramOptions,
    *,
    shares_port: bool = False,
) -> OpenedSocket:
    """
    Set the options of a bound socket that another process has opened with other options.

    Datagrams in the receive buffer, and memberships of groups, stay.

    :param udp: not closed on an error.
    :param address: what the socket has to be bound to; see `open_udp_socket`, also for the others.
    :raises SocketError: with status ``ADDRESS_ALREADY_IN_USE``, when an option differs that cannot
        be set any more; otherwise when the system refuses an option.
    """
    where = numeric_address(address or "0.0.0.0", port)
    family = socket.AF_INET6 if len(where) == 4 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as fresh:
            _set_fixed_options(fresh, options, shares_port)
            check_inherited(udp, fresh, where)
            _restore_defaults(udp, fresh, options)
        _set_options(udp, options)
    except OSError as error:
        raise listening_error(
            error, f"cannot set the options of UDP port {port} of {where[0]}: {error.strerror}"
        ) from error
    has_runs = options.segmentation and request_runs(udp)
    has_packet_info = where[0] in ("0.0.0.0", "::") and request_packet_info(udp)
    return OpenedSocket(udp, has_runs, has_packet_info)


def numeric_address(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """
    Return the socket address of a numeric host; no name is looked up.

    :param host: ``192.0.2.1``, ``2001:db8::1`` or, with a zone, ``fe80::1%eth0``.
    :param port: 0 to 65,535.
    :raises ValueError: when the host is a name (the send would have to wait for a lookup), or the
        port is out of bounds.
    :raises SocketError: with status ``UNREACHABLE_HOST``, when no interface has the name of the
        zone.
    """
    literal, zone = split_zone(host)
    try:
        parsed = ipaddress.ip_address(literal)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address: look names up first") from None
    if not 0 <= checked_integer(port, "a port") <= 65_535:
        raise ValueError(f"a port is 0 to 65535, not {port}")
    if parsed.version == 4:
        if literal != host:
            raise ValueError(f"{host!r} is not an IP address: zones are for IPv6")
        return literal, port
    return literal, port, 0, zone_index(host, zone) if literal != host else 0


def set_hop_limit(udp: socket.socket, hops: int) -> None:
    """
    Set the hop limit or TTL of unicast datagrams of an open socket.

    :param hops: 1 to 255.
    :raises ValueError: when the number is out of bounds.
    """
    if not 1 <= checked_integer(hops, "a hop limit") <= 255:
        raise ValueError(f"a hop limit is 1 to 255, not {hops}")
    if udp.family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    else:
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def count_dropped(udp: socket.socket) -> int:
    """
    Return how many datagrams were dropped because the receive buffer was full.

    :returns: 0 if the system has no count.
    """
    try:
        raw = udp.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY_INFO.size)
    except OSError:
        return 0
    dropped: int = _MEMORY_INFO.unpack(raw)[8] if len(raw) == _MEMORY_INFO.size else 0
    return dropped


def _set_fixed_options(udp: socket.socket, options: DatagramOptions, shares_port: bool) -> None:
    """Set the options that have no effect on a bound socket, or are refused there."""
    if udp.family == socket.AF_INET6:
        # IPv4 has a socket of its own. So no IPv4 address is reported as IPv4-mapped.
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if options.multicast_only:
        # Both: a socket with only one of them cannot share with a socket that has only the other.
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if (options.multicast_only or shares_port) and hasattr(socket, "SO_REUSEPORT"):
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _restore_defaults(udp: socket.socket, fresh: socket.socket, options: DatagramOptions) -> None:
    """Set the defaults of the system for the options that `_set_options` leaves alone."""
    for option, value in (
        (socket.SO_RCVBUF, options.receive_buffer),
        (socket.SO_SNDBUF, options.send_buffer),
    ):
        default = fresh.getsockopt(socket.SOL_SOCKET, option)
        if value is None and udp.getsockopt(socket.SOL_SOCKET, option) != default:
            # Linux doubles the value that it gets.
            udp.setsockopt(socket.SOL_SOCKET, option, default // 2 if _IS_LINUX else default)
    if not options.code_point and hasattr(socket, "IP_TOS"):
        mark_packets(udp, 0)
    if not options.segmentation:
        refuse_runs(udp)
    if _IS_LINUX and not options.device and _device_of(udp):
        udp.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, b"")
    if udp.family == socket.AF_INET6:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 0)
        if _IS_LINUX:
            udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 0)
    else:
        no_interface = _IP_MREQN.pack(bytes(4), bytes(4), 0)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, no_interface)


def _device_of(udp: socket.socket) -> str:
    # 16 bytes: IFNAMSIZ of <linux/if.h>.
    return udp.getsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, 16).rstrip(b"\0").decode()


def _set_options(udp: socket.socket, options: DatagramOptions) -> None:
    is_ipv6 = udp.family == socket.AF_INET6
    set_option = udp.setsockopt
    if options.receive_buffer is not None:
        set_option(socket.SOL_SOCKET, socket.SO_RCVBUF, options.receive_buffer)
    if options.send_buffer is not None:
        set_option(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer)
    set_option(socket.SOL_SOCKET, socket.SO_BROADCAST, int(options.broadcast))
    if options.device:
        if not _IS_LINUX:
            raise OperationNotSupported("binding a port to an interface needs Linux")
        # Setting a device needs a privilege, also if the socket has this device already.
        if _device_of(udp) != options.device:
            set_option(socket.SOL_SOCKET, _SO_BINDTODEVICE, options.device.encode())
    if options.code_point:
        check_marks()
        mark_packets(udp, options.code_point)
    (_set_ipv6_options if is_ipv6 else _set_ipv4_options)(udp, options)


def _set_ipv4_options(udp: socket.socket, options: DatagramOptions) -> None:
    set_option = udp.setsockopt
    set_option(socket.IPPROTO_IP, socket.IP_TTL, options.hop_limit)
    set_option(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, options.multicast_hop_limit)
    set_option(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(options.multicast_loopback))
    if options.interface:
        source = _multicast_source(options.interface)
        choice = _IP_MREQN.pack(bytes(4), source, options.interface)
        set_option(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, choice)
    if _IS_LINUX:
        # Without it the socket receives from groups that other sockets joined.
        set_option(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        if not options.dont_fragment:
            # By default Linux sets DF for path MTU discovery, and reports the ICMP answers to
            # connected sockets.
            set_option(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
    if options.dont_fragment:
        _check_linux()
        set_option(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)


def _multicast_source(interface: int) -> bytes:
    """
    Return the source address of multicast datagrams; all zeros if the kernel chooses.

    On a loopback interface the kernel would choose the address of another interface, or none.
    """
    try:
        addresses = local_addresses(socket.AF_INET)
    except SocketError:
        return bytes(4)
    own = [one.address for one in addresses if one.interface == interface]
    loopback = [address for address in own if ipaddress.ip_address(address).is_loopback]
    return socket.inet_aton(loopback[0]) if loopback else bytes(4)


def _set_ipv6_options(udp: socket.socket, options: DatagramOptions) -> None:
    set_option = udp.setsockopt
    set_option(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, options.hop_limit)
    set_option(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, options.multicast_hop_limit)
    set_option(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(options.multicast_loopback))
    if options.interface:
        set_option(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, options.interface)
    if _IS_LINUX:
        try:
            set_option(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        except OSError:
            pass  # Before Linux 4.20. The port then checks each datagram by its packet info.
        if not options.dont_fragment:
            set_option(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
    if options.dont_fragment:
        _check_linux()
        set_option(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
        set_option(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)


def _check_linux() -> None:
    if not _IS_LINUX:
        raise OperationNotSupported("dont_fragment needs Linux")


def _check(name: str, value: int | None, least: int, most: int, unit: str) -> None:
    if value is not None and not least <= checked_integer(value, name) <= most:
        bounds = f"{least:,} to {most:,} {unit}".rstrip()
        raise ValueError(f"{name} is {bounds}, not {value!r}")
