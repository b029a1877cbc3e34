"""
Bytes between arriving and being taken: what is under a stream that is read in any piece one likes.

Fed with what a transport receives, emptied by `ValueReader` and by the input stream of a socket.
Holds the bytes not taken yet; whoever feeds it bounds them.

What is taken out of one read is copied once. Many small reads are put together, so that a peer that
sends byte by byte costs the memory of its bytes, and not of as many objects.
"""

from __future__ import annotations

import operator
from typing import Final

__all__ = ["Buffer", "ByteQueue", "as_bytes"]

#: What may be given where bytes are asked for.
Buffer = bytes | bytearray | memoryview

#: A read below this many bytes is joined to the one before it, if that one was small too.
_SMALL: Final = 1024

#: A joined piece grows up to this, in bytes: what was taken from it stays until all of it is.
_MAX_JOINED: Final = 64 * 1024


class ByteQueue:
    """
    First in, first out, in pieces that need not be those that came.

    :ivar size: how many bytes wait.
    """

    __slots__ = ("_chunks", "_position", "size")

    def __init__(self) -> None:
        self.size = 0
        self._chunks: list[bytes | bytearray] = []
        # Where in the first chunk that begins which was not taken.
        self._position = 0

    def feed(self, data: bytes) -> None:
        """
        Put bytes at the end.

        :param data: kept without a copy, unless it is small.
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
        Take bytes from the front.

        :param count: how many; 0 to `size`, both included.
        """
        chunks = self._chunks
        if chunks and count > 0:
            chunk = chunks[0]
            start = self._position
            end = start + count
            if end > len(chunk):
                return self._take_across(count)
            # Taken first: what is no number changes nothing.
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
        Look for bytes, wherever the reads were cut.

        :param searched: how many bytes from the front are known not to begin one.
        :returns: how many bytes are before it; -1 where it is not there.
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
        """Make one chunk of all; what was joined before is only added to."""
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
    Give bytes that nobody can change: a copy of what could be.

    :raises TypeError: for what is no buffer; a number is none, though ``bytes(5)`` makes five.
    """
    return data if type(data) is bytes else bytes(memoryview(data))
