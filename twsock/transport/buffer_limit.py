"""
What the connections of one server hold together, bounded: connections → **buffer limit** → abort.

Each connection is bounded by itself, in what it received and did not deliver and in what it wrote
and the kernel did not take. Many peers together could still fill the memory. So a connection notes
here how much it holds whenever bytes stay with it after a read or a write, and once all of them
together hold too much, the one that holds most is aborted. A small one never is: otherwise a few
attackers would lock everybody out.

A connection with which nothing stays never comes here. What leaves in small steps is not noted: the
sums are upper bounds, and connections are asked again before one is aborted. Held in memory is one
number for each connection that holds anything.
"""

from __future__ import annotations

import typing
from typing import Final

from twsock._integers import checked_integer

__all__ = ["DEFAULT_MAX_BUFFERED", "BufferHolder", "BufferLimit"]

#: Bytes that the connections of one server may hold together, unless told otherwise: those of
#: sixteen frames of the largest size.
DEFAULT_MAX_BUFFERED: Final = 256 * 1024 * 1024

#: Connections are asked again only when there was one note for so many of them since the last time.
#: With 10,000 connections at the limit a note costs then a few microseconds, and not milliseconds.
_HOLDERS_PER_NOTE: Final = 8


class BufferHolder(typing.Protocol):
    """A connection."""

    @property
    def buffered(self) -> int:
        """How many bytes it holds: received and not delivered, written and not with the kernel."""

    def abort_as_largest(self, buffered: int, total: int, limit: int) -> None:
        """
        End now, and log why; do nothing where this was done already.

        :param buffered: how many bytes it holds.
        :param total: how many all connections hold.
        :param limit: how many they may.
        """


class BufferLimit:
    """
    Bounds the sum of what connections hold.

    What is counted is bytes of data; Python adds some 40 to each piece that waits. The sum
    exceeds the limit by one receive and what a handler writes in one go, until the largest
    connection is aborted. What OpenSSL keeps, up to one record of 16 KiB for each connection, is
    not counted.

    :param max_buffered: bytes; 1 or more.
    :raises ValueError: when it is less.
    """

    __slots__ = ("_notes", "_sizes", "max_buffered", "total")

    def __init__(self, max_buffered: int = DEFAULT_MAX_BUFFERED) -> None:
        if checked_integer(max_buffered, "max_buffered") < 1:
            raise ValueError(f"max_buffered is 1 byte or more, not {max_buffered}")
        self.max_buffered = max_buffered
        #: Bytes held, as far as was noted.
        self.total = 0
        self._sizes: dict[BufferHolder, int] = {}
        # How many since the connections were asked.
        self._notes = 0

    def note(self, holder: BufferHolder, size: int) -> None:
        """
        Note what a connection holds now; abort the largest where all together hold too much.

        :param size: in bytes; 0 forgets the connection, which has to be done when it is lost.
        """
        self._set(holder, size)
        self._notes += 1
        if self.total > self.max_buffered:
            if self._notes * _HOLDERS_PER_NOTE >= len(self._sizes):
                self._ask_all()
            while self.total > self.max_buffered:
                self._abort_largest()

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
        # Forgotten first: the end of one connection may have others write, and come back here.
        self._set(largest, 0)
        largest.abort_as_largest(size, total, self.max_buffered)


def _size_of(item: tuple[BufferHolder, int]) -> int:
    return item[1]
