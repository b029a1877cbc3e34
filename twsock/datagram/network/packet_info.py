"""
Control messages of UDP sockets (packet info, segment size): kernel's bytes ↔ **values**.

`twsock.datagram.port` reads them for each received run, and writes them to set the source address
of an answer. Formats: ip(7) ``IP_PKTINFO``, :rfc:`3542` section 6, udp(7) ``UDP_GRO`` and
``UDP_SEGMENT``.
"""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import Final

__all__ = [
    "CONTROL_SIZE",
    "Control",
    "is_multicast",
    "read_control",
    "read_source",
    "refuse_runs",
    "request_packet_info",
    "request_runs",
    "segment_control",
    "source_control",
]

#: A control message: its level, its type, its bytes.
Control = tuple[int, int, bytes]

#: Linux's numbers; Python 3.11 does not define all of them.
_SOL_UDP: Final = socket.IPPROTO_UDP
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_PKTINFO: Final = getattr(socket, "IP_PKTINFO", 8)
_IPV6_PKTINFO: Final = getattr(socket, "IPV6_PKTINFO", 50)
_IPV6_RECVPKTINFO: Final = getattr(socket, "IPV6_RECVPKTINFO", 49)

_SEGMENT: Final = struct.Struct("=H")
_GRO: Final = struct.Struct("=i")
#: ``struct in_pktinfo``: interface, local address to answer from, destination in the header.
_IPV4_INFO: Final = struct.Struct("=i4s4s")
#: ``struct in6_pktinfo``: the destination, the interface.
_IPV6_INFO: Final = struct.Struct("=16si")

#: The first two characters of a multicast address: 224 to 239, or ff00::/8.
_GROUP_BEGINNINGS: Final = frozenset({"22", "23", "ff", "FF", "fF", "Ff"})

#: Bytes for the control messages of one receive. Each has a header of 16 bytes and is padded to 8,
#: so the segment size takes 24 and the longer packet info 40.
CONTROL_SIZE: Final = 64


def request_runs(udp: socket.socket) -> bool:
    """Let the socket receive runs; return whether the kernel supports it."""
    try:
        udp.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError:
        return False
    return True


def refuse_runs(udp: socket.socket) -> None:
    """Let the socket receive single datagrams only, whatever it was set to before."""
    try:
        udp.setsockopt(_SOL_UDP, _UDP_GRO, 0)
    except OSError:
        pass  # The kernel has no runs.


def request_packet_info(udp: socket.socket) -> bool:
    """Let the kernel report the destination of each datagram; return whether it supports it."""
    try:
        if udp.family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    except OSError:
        return False
    return True


def read_control(messages: list[Control]) -> tuple[int, str, int, str]:
    """
    Parse the control messages of a run.

    :returns: four values. Segment size in bytes, 0 for a single datagram. Destination address,
        empty if the kernel did not report it. Index of the receiving interface, or 0. Local address
        to answer from, empty if it is not known; it is never a multicast or broadcast address.
    """
    size, destination, interface, local = 0, "", 0, ""
    for level, kind, data in messages:
        if kind == _UDP_GRO and level == _SOL_UDP:
            (size,) = _GRO.unpack(data)
        elif kind == _IP_PKTINFO and level == socket.IPPROTO_IP:
            interface, own, address = _IPV4_INFO.unpack(data)
            destination = local = socket.inet_ntoa(address)
            if own != address:
                local = socket.inet_ntoa(own)
        elif kind == _IPV6_PKTINFO and level == socket.IPPROTO_IPV6:
            address, interface = _IPV6_INFO.unpack(data)
            destination = socket.inet_ntop(socket.AF_INET6, address)
            local = "" if is_multicast(destination) else destination
    return size, destination, interface, local


# Cached: most runs of a program have one size.
@lru_cache(maxsize=256)
def segment_control(segment_size: int) -> Control:
    """Return the control message that splits a run into datagrams of this size, in bytes."""
    return (_SOL_UDP, _UDP_SEGMENT, _SEGMENT.pack(segment_size))


# Cached: all answers to a peer share one object, and comparing an object with itself is fast.
@lru_cache(maxsize=256)
def source_control(address: str, interface: int = 0) -> Control:
    """
    Return the control message that sets the source address or the interface of a datagram.

    :param address: a local address without a zone. If it is empty, or ``::`` on IPv6, the kernel
        chooses.
    :param interface: index of the interface to send through; with 0 the kernel chooses.
    """
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        return (socket.IPPROTO_IPV6, _IPV6_PKTINFO, _IPV6_INFO.pack(packed, interface))
    packed = socket.inet_aton(address or "0.0.0.0")
    return (socket.IPPROTO_IP, _IP_PKTINFO, _IPV4_INFO.pack(interface, packed, b"\0\0\0\0"))


def read_source(control: Control) -> tuple[str, int]:
    """Return the two parameters of a message of `source_control`."""
    level, _, data = control
    if level == socket.IPPROTO_IPV6:
        packed, interface = _IPV6_INFO.unpack(data)
        return socket.inet_ntop(socket.AF_INET6, packed), interface
    interface, packed, _ = _IPV4_INFO.unpack(data)
    return socket.inet_ntoa(packed), interface


def is_multicast(address: str) -> bool:
    """Return whether a numeric address is multicast (:rfc:`1112`, :rfc:`4291` section 2.7)."""
    begin = address[:2]
    if begin in _GROUP_BEGINNINGS:
        first, colon, _ = address.partition(":")
        if colon:
            return len(first) == 4 and begin.lower() == "ff"
        return 224 <= int(address[:3].rstrip(".")) <= 239
    return False
