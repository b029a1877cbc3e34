"""
What comes with a datagram besides its bytes: control messages of the kernel ↔ values.

Read by `twsock.datagram.port` for each run that arrives, written for answers that have to
leave from the address they were asked at. Formats: ip(7) ``IP_PKTINFO``, :rfc:`3542` section 6,
udp(7) ``UDP_GRO`` and ``UDP_SEGMENT``.
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
    "request_packet_info",
    "request_runs",
    "segment_control",
    "source_control",
]

#: A control message: its level, its type, its bytes.
Control = tuple[int, int, bytes]

#: Linux's numbers, which Python 3.11 does not name.
_SOL_UDP: Final = socket.IPPROTO_UDP
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_IP_PKTINFO: Final = getattr(socket, "IP_PKTINFO", 8)
_IPV6_PKTINFO: Final = getattr(socket, "IPV6_PKTINFO", 50)
_IPV6_RECVPKTINFO: Final = getattr(socket, "IPV6_RECVPKTINFO", 49)

_SEGMENT: Final = struct.Struct("=H")
_GRO: Final = struct.Struct("=i")
#: ``struct in_pktinfo``: the interface, our address for an answer, the destination in the header.
_IPV4_INFO: Final = struct.Struct("=i4s4s")
#: ``struct in6_pktinfo``: the destination, the interface.
_IPV6_INFO: Final = struct.Struct("=16si")

#: What an address of a group begins with: 224 to 239, or ff00::/8.
_GROUP_BEGINNINGS: Final = frozenset({"22", "23", "ff", "FF", "fF", "Ff"})

#: Room for the control messages of one receive, in bytes: each has a header of 16 and is padded to
#: 8, so the size of a run takes 24 and the longer of the packet infos 40.
CONTROL_SIZE: Final = 64


def request_runs(udp: socket.socket) -> bool:
    """Have the kernel hand over runs; tell whether it can."""
    try:
        udp.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    except OSError:
        return False
    return True


def request_packet_info(udp: socket.socket) -> bool:
    """Have the kernel tell where each datagram was sent to; tell whether it can."""
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
    Read what came with a run.

    :returns: the size of its datagrams in bytes, 0 for a single one; the address it was sent to,
        empty if the kernel did not say; the index of the interface it came by, or 0; the address of
        ours to answer from, empty if that is not known: what was sent to a group, or to everybody,
        is not answered from there.
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


def segment_control(segment_size: int) -> Control:
    """Tell the kernel to cut what it is given into datagrams of this size, in bytes."""
    return (_SOL_UDP, _UDP_SEGMENT, _SEGMENT.pack(segment_size))


# The same for all answers to a peer, and comparing one object with itself costs nothing.
@lru_cache(maxsize=256)
def source_control(address: str, interface: int = 0) -> Control:
    """
    Tell the kernel from where to send.

    :param address: of this machine, without a zone; for its own choice empty, or ``::`` on IPv6.
    :param interface: index of the interface to send by; 0 for its own choice.
    """
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        return (socket.IPPROTO_IPV6, _IPV6_PKTINFO, _IPV6_INFO.pack(packed, interface))
    packed = socket.inet_aton(address or "0.0.0.0")
    return (socket.IPPROTO_IP, _IP_PKTINFO, _IPV4_INFO.pack(interface, packed, b"\0\0\0\0"))


def is_multicast(address: str) -> bool:
    """Tell whether a numeric address is that of a group (:rfc:`1112`, :rfc:`4291` section 2.7)."""
    begin = address[:2]
    if begin in _GROUP_BEGINNINGS:
        first, colon, _ = address.partition(":")
        if colon:
            return len(first) == 4 and begin.lower() == "ff"
        return 224 <= int(address[:3].rstrip(".")) <= 239
    return False
