"""
What the kernel knows of a TCP connection: socket → **TCP_INFO** → numbers.

Read by the information object of a socket. Only Linux answers in this form; elsewhere, and for
what is no TCP, there is nothing to read, which is not an error.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

__all__ = ["TcpInfo", "read_tcp_info"]

#: ``struct tcp_info`` of <linux/tcp.h> as far as the delivery rate, which came with Linux 4.9; a
#: field is never moved there. Kept: a byte of flags, rtt, rttvar, min_rtt and delivery_rate.
_LAYOUT: Final = struct.Struct("=7xB60xII72xI8xQ")

#: Linux's number; Python names it on Linux only.
_TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None)


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """
    Figures of one connection at one moment; 0 where nothing was measured.

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
    """Read the figures; all 0 where there is no connection, no TCP, or no such call."""
    if connection is None or _TCP_INFO is None:
        return TcpInfo()
    try:
        raw = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _LAYOUT.size)
    except OSError:
        return TcpInfo()  # No TCP: a UNIX socket, say.
    if len(raw) < _LAYOUT.size:
        return TcpInfo()  # A kernel from before these figures.
    flags, round_trip, variation, least, rate = _LAYOUT.unpack(raw)
    # The kernel's "none measured yet" is the largest number.
    least = 0 if least == 0xFFFF_FFFF else least
    return TcpInfo(round_trip, variation, least, rate, bool(flags & 1))
