"""
DSCP marks of a socket: quality of service → **code point** → the kernel marks every packet.

Used for stream and datagram sockets. A mark is a differentiated services code point (:rfc:`2474`):
the upper six bits of the IPv4 type of service or of the IPv6 traffic class. The lower two bits are
for explicit congestion notification (:rfc:`3168`). A network may ignore or clear a mark.
"""

from __future__ import annotations

import socket
from typing import Final

from twsock.errors import OperationNotSupported

__all__ = ["EXPEDITED_FORWARDING", "check_marks", "mark_packets"]

#: The code point for "low loss, low latency, low jitter" (:rfc:`3246`), such as audio.
EXPEDITED_FORWARDING: Final = 46


def check_marks() -> None:
    """
    Check that this system can mark packets of both families.

    :raises OperationNotSupported: when it cannot.
    """
    if not (hasattr(socket, "IP_TOS") and hasattr(socket, "IPV6_TCLASS")):
        raise OperationNotSupported("this system cannot mark packets (IP_TOS, IPV6_TCLASS)")


def mark_packets(marked: socket.socket, code_point: int) -> None:
    """
    Mark all packets that a socket sends from now on.

    :param marked: an IPv4 or IPv6 socket. Call it before the connect to mark the TCP handshake too.
    :param code_point: 0 to 63; 0 removes the mark.
    :raises OSError: when the system refuses the option.
    """
    traffic_class = code_point << 2
    if marked.family == socket.AF_INET6:
        marked.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
        if marked.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return
    # An IPv6 socket may carry IPv4 as well ("::ffff:192.0.2.1").
    marked.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
