"""
A limit on the memory of all connections of one server: connections → **buffer limit** → abort.

Each connection limits its own bytes: those received and not delivered, and those written and not
yet with the kernel. Many peers together could still fill the memory. So a connection reports its
size here when bytes stay in memory after a read or a write. When the sum is above the limit, the
connection that holds most is aborted. A small connection is not, so that a few attackers cannot
lock out all other peers.

A connection that holds no bytes never reports. Decreases are not always reported, so the sums are
upper bounds; the sizes are read again before a connection is aborted. The limit keeps one number
for each connection that holds bytes.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Final

from twsock._integers import checked_integer
from twsock.stream.counters import Counters

__all__ = ["DEFAULT_MAX_BUFFERED", "BufferHolder", "BufferLimit"]

#: The default limit, in bytes: sixteen frames of the largest default size.
DEFAULT_MAX_BUFFERED: Final = 256 * 1024 * 1024

#: All sizes are read again only after one report for each 8 connections. With 10,000 connections at
#: the limit, a report then costs a few microseconds on average instead of milliseconds.
_HOLDERS_PER_NOTE: Final = 8


class BufferHolder(typing.Protocol):
    """
    A connection that holds bytes in memory.

    :ivar counters: those of its port.
    """

    counters: Counters

    @property
    def buffered(self) -> int:
        """Bytes that it holds: received and not delivered, written and not yet with the kernel."""

    def abort_as_largest(self, buffered: int, total: int, limit: int) -> None:
        """
        Abort the connection and log the reason; do nothing if it was aborted already.

        :param buffered: bytes that this connection holds.
        :param total: bytes that all connections hold.
        :param limit: bytes that all connections may hold.
        """


class BufferLimit:
    """
    Limits the sum of the bytes that connections hold.

    Only the bytes of data are counted; Python adds some 40 bytes to each queued piece. Until the
    largest connection is aborted, the sum may exceed the limit by one receive and by what a handler
    writes before it awaits. OpenSSL's own buffer, up to one record of 16 KiB for each connection,
    is not counted.

    :param max_buffered: in bytes; 1 or more.
    :raises ValueError: when it is less than 1.
    :raises TypeError: when it is not a whole number.
    """

    __slots__ = ("_notes", "_sizes", "max_buffered", "total")

    def __init__(self, max_buffered: int = DEFAULT_MAX_BUFFERED) -> None:
        if checked_integer(max_buffered, "max_buffered") < 1:
            raise ValueError(f"max_buffered is 1 byte or more, not {max_buffered}")
        self.max_buffered = max_buffered
        #: Bytes held, as last reported.
        self.total = 0
        self._sizes: dict[BufferHolder, int] = {}
        # Reports since all sizes were last read.
        self._notes = 0

    def note(self, holder: BufferHolder, size: int) -> None:
        """
        Set the size of a connection; abort the largest ones while the sum is above the limit.

        :param size: in bytes; 0 removes the connection. A lost connection has to be removed.
        """
        self._set(holder, size)
        self._notes += 1
        if self.total > self.max_buffered:
            if self._notes * _HOLDERS_PER_NOTE >= len(self._sizes):
                self._ask_all()
            while self.total > self.max_buffered:
                self._abort_largest()

    def sizes(self) -> Iterator[tuple[BufferHolder, int]]:
        """Return each connection that holds bytes, with their number as last reported."""
        return iter(self._sizes.items())

    def _set(self, holder: BufferHolder, size: int) -> None:
        sizes = self._sizes
        self.total += size - sizes.get(holder, 0)
        if size:
            sizes[holder] = size
        else:
            sizes.pop(holder, None)

    def _ask_all(self) -> None:
        self._notes = 0
        for holder in list(self._sizes):
            self._set(holder, holder.buffered)

    def _abort_largest(self) -> None:
        total = self.total
        largest, size = max(self._sizes.items(), key=_size_of)
        # Removed first: the abort may make other connections write, which calls `note` again.
        self._set(largest, 0)
        largest.abort_as_largest(size, total, self.max_buffered)


def _size_of(item: tuple[BufferHolder, int]) -> int:
    return item[1]
