"""
Runs of datagrams: kernel → **received run** → protocol; send queue → **segmentation** → kernel.

A run is consecutive datagrams of one size between the same two addresses, as the kernel joins
them (``UDP_GRO``, ``UDP_SEGMENT``; udp(7)). `twsock.datagram.port` makes a `Run` of received
datagrams. Its bytes stay in one piece: a protocol that answers or forwards whole runs never splits
them. `twsock.datagram.send_queue` asks its `Segmentation` which queued datagrams may leave in one
system call. A `Segmentation` holds the refused sizes of at most 256 peers.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Final

from twsock.datagram.network.packet_info import is_multicast
from twsock.datagram.syscalls import NO_SEGMENTATION
from twsock.wire.datagrams import (
    MAX_IPV6_DATAGRAM,
    Outgoing,
    count_datagrams,
    count_fitting,
    split_run,
)

__all__ = ["MAPPED", "Address", "Run", "Segmentation", "is_loop_risk", "split_item"]

#: A numeric host and a port, for IPv6 also flow information and scope id, as sockets accept it.
Address = tuple[Any, ...]

#: Prefix of IPv4 peers on a socket of both families (:rfc:`4291` section 2.5.5.2).
MAPPED: Final = "::ffff:"

#: Addresses that no host has.
_NO_HOSTS: Final = frozenset({"0.0.0.0", "::", "255.255.255.255"})

#: Peers whose refusals of runs are remembered. At the limit all are dropped and learned again.
_MAX_REMEMBERED: Final = 256


class Run:
    """
    One or more received datagrams, from one peer.

    :ivar data: the datagrams, concatenated.
    :ivar segment_size: bytes of each; the last may have fewer.
    :ivar source: the peer: address and port, for IPv6 also flow information and scope id, as the
        kernel reports and accepts it.
    :ivar destination: the address they were sent to, for example of a group; empty where the
        system does not report it.
    :ivar interface: index of the interface that received them; 0 where the system does not report
        it.
    :ivar local: the address of this machine to answer from; empty for the system's choice.
    :ivar is_truncated: whether this is the beginning of a datagram that was longer.
    """

    __slots__ = (
        "data",
        "destination",
        "interface",
        "is_truncated",
        "local",
        "segment_size",
        "source",
    )

    def __init__(
        self,
        data: bytes,
        segment_size: int,
        source: Address,
        destination: str = "",
        interface: int = 0,
        is_truncated: bool = False,
        local: str = "",
    ) -> None:
        self.data = data
        self.segment_size = segment_size
        self.source = source
        self.destination = destination
        self.interface = interface
        self.local = local
        self.is_truncated = is_truncated

    def part(self, data: bytes, segment_size: int, *, is_truncated: bool = False) -> Run:
        """Return a run of some of its bytes, with the same addresses and interface."""
        return Run(
            data,
            segment_size,
            self.source,
            self.destination,
            self.interface,
            is_truncated,
            self.local,
        )

    def __len__(self) -> int:
        return count_datagrams(len(self.data), self.segment_size)

    def __bool__(self) -> bool:
        return True

    def datagrams(self) -> list[bytes]:
        """Return its datagrams, in order."""
        return split_run(self.data, self.segment_size)

    def __repr__(self) -> str:
        host, port = self.source[:2]
        return f"<{len(self)} datagrams of {self.segment_size} bytes from {host} port {port}>"


def is_loop_risk(source: Address) -> bool:
    """Return whether an answer could cause a loop, or reach a host that sent nothing."""
    host, port = source[0].removeprefix(MAPPED), source[1]
    return not port or host in _NO_HOSTS or is_multicast(host)


class Segmentation:
    """
    Decides which queued datagrams of one socket leave together as a run.

    It stops offering runs of a size that a route refused, and all runs where the system cannot
    segment.

    :param max_size: bytes of the largest datagram, and of the largest run, of the address family.
    :param is_offered: whether the kernel splits runs at all.
    """

    __slots__ = ("_is_offered", "_max_size", "_refused_sizes")

    def __init__(self, max_size: int, *, is_offered: bool) -> None:
        self._max_size = max_size
        self._is_offered = is_offered
        # By address: the smallest segment size of refused runs whose datagrams were accepted one by
        # one.
        self._refused_sizes: dict[Any, int] = {}

    def allows(self, item: Outgoing) -> bool:
        """Return whether datagrams of this size may leave as a run to this address."""
        return self._is_offered and item.segment_size < self._least_refused(item.address)

    def begins_run(self, window: Sequence[Outgoing]) -> bool:
        """Return whether the first two items may leave together; addresses are not compared."""
        size = window[0].segment_size
        return len(window) > 1 and window[1].segment_size == size and self.allows(window[0])

    def count_run(self, window: Sequence[Outgoing]) -> int:
        """Return how many items, from the first on, leave in one call: 1 or more."""
        return count_fitting(window, 0, self._max_size) if self.allows(window[0]) else 1

    def count_singles(self, window: Sequence[Outgoing]) -> int:
        """Return how many items, from the first on, are one datagram that the next cannot join."""
        sizes = [item.segment_size for item in window]
        lengths = [len(item.data) for item in window]
        # Up to this size a datagram may leave together with another.
        largest = self._least_refused(window[0].address) - 1 if self._is_offered else -1
        if sizes == lengths and (
            min(sizes) > largest or not any(map(operator.le, sizes[1:], sizes))
        ):
            return len(window)
        count = 0
        for size, length, following in zip(sizes, lengths, [*sizes[1:], None], strict=True):
            if size != length or (following is not None and following <= size <= largest):
                break
            count += 1
        return count

    def note_refusal(self, refusal: OSError, address: Any, segment_size: int) -> None:
        """Remember that a run was refused although its datagrams were accepted one by one."""
        if refusal.errno in NO_SEGMENTATION:
            self._is_offered = False
        elif segment_size < self._least_refused(address):
            if len(self._refused_sizes) >= _MAX_REMEMBERED:
                self._refused_sizes.clear()
            self._refused_sizes[address] = segment_size

    def _least_refused(self, address: Any) -> int:
        if not self._refused_sizes:
            return MAX_IPV6_DATAGRAM + 1
        return self._refused_sizes.get(address, MAX_IPV6_DATAGRAM + 1)


class _Piece:
    """One datagram of a queued run."""

    __slots__ = ("address", "control", "data", "segment_size")

    def __init__(self, data: bytes, run: Outgoing) -> None:
        self.data = data
        self.segment_size = len(data)
        self.address = run.address
        self.control = run.control


def split_item(item: Outgoing) -> list[Outgoing]:
    """Return the datagrams of a queued run, in order, each as an item of its own."""
    return [_Piece(data, item) for data in split_run(item.data, item.segment_size)]
