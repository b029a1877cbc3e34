"""
A queue of bytes: pieces in → **queue** → pieces of any size out.

`ValueReader` and the input stream of a socket read from it. It holds the bytes that were not taken;
the caller of `ByteQueue.feed` has to bound them.

Bytes taken from one read are copied once. Small reads are joined, so that a peer that sends byte by
byte costs the memory of its bytes, and not one object for each.
"""

from __future__ import annotations

import operator
from typing import Final

__all__ = ["Buffer", "ByteQueue", "as_bytes"]

#: The types of arguments that are bytes.
Buffer = bytes | bytearray | memoryview

#: A read below this many bytes is joined to the one before it, if that one was small too.
_SMALL: Final = 1024

#: The largest joined piece, in bytes: it stays in memory until all of it is taken.
_MAX_JOINED: Final = 64 * 1024


class ByteQueue:
    """
    Stores bytes, first in, first out; the pieces taken need not be the pieces fed.

    :ivar size: the number of bytes in the queue.
    """

    __slots__ = ("_chunks", "_position", "size")

    def __init__(self) -> None:
        self.size = 0
        self._chunks: list[bytes | bytearray] = []
        # The first byte of the first chunk that was not taken.
        self._position = 0

    def feed(self, data: bytes) -> None:
        """
        Append bytes.

        :param data: stored without a copy, unless it is small.
        """
        chunks = self._chunks
        self.size += len(data)
        if chunks and len(data) < _SMALL:
            last = chunks[-1]
            if isinstance(last, bytearray) and len(last) < _MAX_JOINED:
                last += data
                return
            if len(last) < _SMALL:
                chunks[-1] = bytearray(last) + data
                return
        if data:
            chunks.append(data)

    def take(self, count: int) -> bytes:
        """
        Remove and return bytes from the front.

        :param count: 0 to `size`, both included.
        """
        chunks = self._chunks
        if chunks and count > 0:
            chunk = chunks[0]
            start = self._position
            end = start + count
            if end > len(chunk):
                return self._take_across(count)
            # First, since a count that is not a number must not change the queue.
            taken = (
                chunk[start:end] if type(chunk) is bytes else bytes(memoryview(chunk)[start:end])
            )
            if end < len(chunk):
                self._position = end
            else:
                del chunks[0]
                self._position = 0
            self.size -= count
            return taken
        return self._take_across(count)

    def find(self, delimiter: bytes, searched: int) -> int:
        """
        Search for bytes, which may be spread over reads.

        :param searched: the number of bytes at the front where no match begins.
        :returns: the number of bytes before the first match; -1 if there is none.
        """
        if not self._chunks:
            return -1
        self._join()
        found = self._chunks[0].find(delimiter, self._position + searched)
        return found - self._position if found >= 0 else -1

    def _take_across(self, count: int) -> bytes:
        count = operator.index(count)
        if not 0 <= count <= self.size:
            raise ValueError(f"cannot take {count} of {self.size} bytes")
        chunks = self._chunks
        self.size -= count
        pieces: list[bytes | bytearray | memoryview] = []
        start = self._position
        used = 0
        while count:
            chunk = chunks[used]
            held = len(chunk) - start
            if held > count:
                pieces.append(memoryview(chunk)[start : start + count])
                start += count
                break
            pieces.append(memoryview(chunk)[start:] if start else chunk)
            used += 1
            start = 0
            count -= held
        self._position = start
        del chunks[:used]
        return b"".join(pieces)

    def _join(self) -> None:
        """Join all chunks into one; a chunk joined before is appended to."""
        chunks = self._chunks
        if len(chunks) == 1:
            return
        first = chunks[0]
        if self._position or not isinstance(first, bytearray):
            first = bytearray(memoryview(first)[self._position :])
            self._position = 0
        for chunk in chunks[1:]:
            first += chunk
        chunks[:] = [first]


def as_bytes(data: Buffer) -> bytes:
    """
    Return immutable bytes: a copy of a mutable buffer.

    :raises TypeError: when it is not a buffer. A number is not one, although ``bytes(5)`` exists.
    """
    return data if type(data) is bytes else bytes(memoryview(data))
