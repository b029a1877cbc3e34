"""
Several datagrams in one system call, as Linux has it: as the load and the sender need it.

Called by `benchmarks.datagram_load` and `benchmarks.programs.datagram_sender`, which have to be
cheap beside what is measured, and must not share code with it.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

__all__ = ["LARGEST_RUN", "receive_run", "receive_runs", "send_run"]

# <linux/udp.h>; Python has no names for them. The level is the number of the protocol.
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104

#: What the kernel hands over in one call, at most, in bytes.
LARGEST_RUN: Final = 65_535

_SIZE: Final = struct.Struct("=i")
#: Room for the one message that is expected.
_ANCILLARY: Final = socket.CMSG_SPACE(_SIZE.size)


def receive_runs(sink: socket.socket) -> None:
    """
    Let a socket receive runs of datagrams in one piece.

    :raises OSError: when the kernel does not know how.
    """
    sink.setsockopt(_SOL_UDP, _UDP_GRO, 1)


def receive_run(sink: socket.socket, buffer: memoryview) -> tuple[int, int]:
    """
    Take what the kernel has: a datagram or a run of them.

    :param buffer: has room for `LARGEST_RUN`.
    :returns: the bytes of all, and those of each but the last.
    """
    size, ancillary, _, _ = sink.recvmsg_into([buffer], _ANCILLARY)
    for level, kind, data in ancillary:
        if level == _SOL_UDP and kind == _UDP_GRO:
            return size, _SIZE.unpack_from(data)[0]
    return size, size


def send_run(source: socket.socket, data: bytes, segment_size: int) -> None:
    """Send a run of equal datagrams over a connected socket, in one call."""
    source.sendmsg([data], [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", segment_size))])
