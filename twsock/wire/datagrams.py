"""
Joining and splitting of runs: datagrams of one size between two addresses ↔ **one buffer**.

The kernel sends or receives a run in one system call. `twsock.datagram` calls this module to find
which queued datagrams form a run, and to split a run that was received. All datagrams of a run have
one size; the last may be shorter (udp(7), ``UDP_SEGMENT``).
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

#: 65,535 less 8 for the UDP header (:rfc:`768`) and 20 for the IPv4 header. A longer datagram is an
#: error of the send.
MAX_IPV4_DATAGRAM: Final = 65_507
#: On IPv6 the header is not counted (:rfc:`8200` section 3): 65,535 less 8.
MAX_IPV6_DATAGRAM: Final = 65_527

#: The most datagrams of one call: ``UDP_MAX_SEGMENTS`` of <linux/udp.h>. It was 64 up to Linux 6.8,
#: and is 128 since.
MAX_SEGMENTS: Final = 64


class Outgoing(typing.Protocol):
    """
    A datagram or a run that waits to be sent.

    :ivar data: the bytes of all datagrams, in order.
    :ivar segment_size: bytes of each datagram; the last may have fewer. For a single datagram, its
        length.
    :ivar address: the destination; None for the connected peer.
    :ivar control: a control message for the kernel, such as the source address; None for none.
    """

    data: bytes
    segment_size: int
    address: tuple[typing.Any, ...] | None
    control: tuple[int, int, bytes] | None


def count_datagrams(size: int, segment_size: int) -> int:
    """
    Count the datagrams of a run.

    :param size: bytes of the whole run; 0 is one empty datagram.
    """
    return 1 if size <= segment_size else -(-size // segment_size)


def split_run(data: bytes, segment_size: int) -> list[bytes]:
    """Split a run into its datagrams, in order."""
    if len(data) <= segment_size:
        return [data]
    return [data[start : start + segment_size] for start in range(0, len(data), segment_size)]


def count_fitting(queue: Sequence[Outgoing], start: int, max_size: int) -> int:
    """
    Count the queued items that form one run for one peer, so that one call can send them.

    :param start: index of the first item, which is always counted.
    :param max_size: most bytes of one call, without UDP and IP headers.
    :returns: 1 or more.
    """
    first = queue[start]
    size = first.segment_size
    total = len(first.data)
    # Only the last datagram of a run may be shorter, and none may be empty.
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
            # A single shorter datagram, which is the last of the run.
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
