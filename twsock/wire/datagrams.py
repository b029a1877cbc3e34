"""
Runs of datagrams: several of one size to or from one peer, held as one piece of memory.

The kernel takes and gives runs in one system call; `twsock.datagram` asks here what makes one,
and cuts it where datagrams are wanted. A run has datagrams of one size, of which the last may be
shorter, as Linux's segmentation does it (udp(7), ``UDP_SEGMENT``).
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Final

__all__ = [
    "MAX_IPV4_DATAGRAM",
    "MAX_IPV6_DATAGRAM",
    "MAX_SEGMENTS",
    "Outgoing",
    "count_datagrams",
    "count_fitting",
    "split_run",
]

#: 65,535 less 8 for the UDP header (:rfc:`768`) and 20 for the IPv4 header: one byte more and the
#: send fails.
MAX_IPV4_DATAGRAM: Final = 65_507
#: On IPv6 the header is not counted (:rfc:`8200` section 3): 65,535 less 8.
MAX_IPV6_DATAGRAM: Final = 65_527

#: How many datagrams one call sends: ``UDP_MAX_SEGMENTS`` of <linux/udp.h>, which is 64 up to Linux
#: 6.8 and 128 since.
MAX_SEGMENTS: Final = 64


class Outgoing(typing.Protocol):
    """
    What waits to be sent: a datagram, or a run.

    :ivar data: the bytes, one datagram behind the other.
    :ivar segment_size: bytes of each datagram, the last excepted; of a single one, its length.
    :ivar address: where to; None for the connected peer.
    :ivar control: what else the kernel is told, such as the source address; None for nothing.
    """

    data: bytes
    segment_size: int
    address: tuple[typing.Any, ...] | None
    control: tuple[int, int, bytes] | None


def count_datagrams(size: int, segment_size: int) -> int:
    """
    Count the datagrams of a run.

    :param size: of all, in bytes; 0 is one empty datagram.
    """
    return 1 if size <= segment_size else -(-size // segment_size)


def split_run(data: bytes, segment_size: int) -> list[bytes]:
    """Cut a run into its datagrams, in order."""
    if len(data) <= segment_size:
        return [data]
    return [data[start : start + segment_size] for start in range(0, len(data), segment_size)]


def count_fitting(queue: Sequence[Outgoing], start: int, max_size: int) -> int:
    """
    Count what can leave in one call: items for one peer that make one run together.

    :param start: index of the first; it is always counted.
    :param max_size: of the bytes of the call, both headers taken off.
    :returns: 1 or more.
    """
    first = queue[start]
    size = first.segment_size
    total = len(first.data)
    # Behind a shorter datagram nothing fits, and an empty one has no place in a run.
    if not size or total % size:
        return 1
    address, control = first.address, first.control
    room = MAX_SEGMENTS - total // size
    end = start + 1
    for item in queue[end : end + room]:
        length = len(item.data)
        total += length
        if total > max_size or item.address != address or item.control != control:
            break
        if length == size == item.segment_size:
            room -= 1
        elif 0 < length < size and item.segment_size == length:
            # A single shorter one, which is the last.
            room -= 1
            size = 0
        elif item.segment_size == size:
            room -= count_datagrams(length, size)
            size = 0 if length % size else size
        else:
            break
        if room < 0:
            break
        end += 1
        if not size:
            break
    return end - start
