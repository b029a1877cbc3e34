"""
Statistics of a TCP connection: socket → **TCP_INFO** → numbers.

The information object of a socket reads them. Only Linux has this form; on other systems, and for
other sockets, all numbers are 0.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["TcpInfo", "read_tcp_info"]

#: ``struct tcp_info`` of <linux/tcp.h> up to the delivery rate, which Linux 4.9 added; fields are
#: never moved. Read: a byte of flags, rtt, rttvar, min_rtt and delivery_rate.
_LAYOUT: Final = struct.Struct("=7xB60xII72xI8xQ")

#: The value on Linux; Python defines the name on Linux only.
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """
    Statistics of one connection; 0 for what was not measured.

    :ivar smoothed_round_trip: in microseconds (:rfc:`6298`).
    :ivar round_trip_variation: in microseconds.
    :ivar least_round_trip: in microseconds.
    :ivar delivery_rate: bytes a second that last reached the peer.
    :ivar is_rate_limited_by_sender: whether the rate is what was sent, not what the path can carry.
    """

    smoothed_round_trip: int = 0
    round_trip_variation: int = 0
    least_round_trip: int = 0
    delivery_rate: int = 0
    is_rate_limited_by_sender: bool = True


def read_tcp_info(connection: socket.socket | None) -> TcpInfo:
    """Return the statistics; all 0 without a connection, without TCP, or on other systems."""
    if connection is None or _TCP_INFO is None:
        return TcpInfo()
    try:
        raw = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAYOUT.size)
    except OSError:
        return TcpInfo()  # Not TCP, for example a UNIX socket.
    if len(raw) < _LAYOUT.size:
        return TcpInfo()  # An older kernel.
    flags, round_trip, variation, least, rate = _LAYOUT.unpack(raw)
    # The kernel reports the largest number before the first measurement.
    least = 0 if least == 0xFFFF_FFFF else least
    return TcpInfo(round_trip, variation, least, rate, bool(flags & 1))
