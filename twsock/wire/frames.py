"""
Decoder and encoder of length-prefixed frames: bytes ↔ **frames**.

The ``uint32`` format: a 4-byte unsigned big-endian count, then that many bytes of payload. It is
what a WinRT ``DataWriter`` writes with ``WriteUInt32(MeasureString(text))`` and ``WriteString``.

Used by `twsock.protocols.FrameProtocol`. The decoder holds the bytes that were not pulled: at most
one partial frame within the limit, and the rest of its last read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from twsock._integers import checked_integer
from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.wire.stored_bytes import StoppingBytes

__all__ = [
    "DEFAULT_MAX_PAYLOAD",
    "MAX_UINT32",
    "FrameDecoder",
    "FrameTooLargeError",
    "encode_frame",
    "encode_header",
    "pack_size",
]

#: Default of the largest payload, in bytes. Larger than messages that people write, and small
#: enough that a few hostile connections do not make a machine swap.
DEFAULT_MAX_PAYLOAD: Final = 16 * 1024 * 1024

#: The largest count that the four header bytes can carry.
MAX_UINT32: Final = 0xFFFF_FFFF

_HEADER: Final = struct.Struct(">I")
_HEADER_SIZE: Final = _HEADER.size

#: Returns the header of a payload whose size is known to fit. `encode_frame` and `encode_header`
#: report a size that does not; this saves a small frame their call.
pack_size: Final = _HEADER.pack

#: Not the size of any frame.
_NO_SIZE: Final = -1

#: The least number of frames of one size for which it is faster to compare their headers at once.
_FEWEST_ALIKE: Final = 8


class FrameTooLargeError(RemoteProtocolError):
    """
    The peer announced a payload above the limit.

    :ivar announced: the count in the header, in bytes.
    :ivar limit: the largest payload that would have been accepted, in bytes.
    """

    def __init__(self, announced: int, limit: int) -> None:
        super().__init__(f"peer announced a frame of {announced} bytes, limit is {limit}")
        self.announced = announced
        self.limit = limit


def encode_header(size: int) -> bytes:
    """
    Return the four header bytes of a payload.

    :param size: bytes in the payload; 0 to 4,294,967,295, both included.
    :raises LocalProtocolError: when ``size`` does not fit the header.
    """
    try:
        return _HEADER.pack(size)
    except struct.error:
        raise LocalProtocolError(f"a frame carries 0 to {MAX_UINT32} bytes, not {size}") from None


def encode_frame(payload: bytes) -> bytes:
    """
    Return a payload with its header.

    :raises LocalProtocolError: when the payload has more than 4,294,967,295 bytes.
    """
    try:
        return _HEADER.pack(len(payload)) + payload
    except struct.error:
        return encode_header(len(payload))  # For its error.


def _skip_alike(
    buffer: bytes | bytearray, position: int, limit: int, size_of_word: int
) -> tuple[int, int]:
    """
    Skip a run of frames of one size, if every whole frame in the buffer has that size.

    Peers often send messages of one size. Comparing all headers with the first one, a column of
    bytes at a time, costs a sixth of reading them one by one; where they differ it costs no more
    than reading two.

    :param size_of_word: frames of this size have to be compared one by one.
    :returns: the end of the run and its number of frames; ``position`` and 0 if there is none.
    """
    (size,) = _HEADER.unpack_from(buffer, position)
    stride = _HEADER_SIZE + size
    count = (len(buffer) - position) // stride
    if size > limit or size == size_of_word or count < _FEWEST_ALIKE:
        return position, 0
    end = position + count * stride
    # The lowest byte first, since it differs most often.
    for column in range(position + _HEADER_SIZE - 1, position - 1, -1):
        if buffer[column:end:stride] != buffer[column : column + 1] * count:
            return position, 0
    return end, count


class FrameDecoder(StoppingBytes):
    """
    Decodes a stream of length-prefixed frames, pulled one by one or run by run.

    Bytes stay until they are pulled, so a pause, a limit or an upgrade can fall between two frames.
    After a frame above the limit the decoder stays failed: every later pull raises that error.

    :param max_payload: largest payload accepted, in bytes, 0 to 4,294,967,295. A larger count is
        refused when its header is complete, before a byte of the payload is stored.
    :raises ValueError: when ``max_payload`` is outside these bounds.
    """

    __slots__ = ()

    def __init__(self, max_payload: int = DEFAULT_MAX_PAYLOAD) -> None:
        if not 0 <= checked_integer(max_payload, "max_payload") <= MAX_UINT32:
            raise ValueError(f"max_payload is 0 to {MAX_UINT32} bytes, not {max_payload}")
        super().__init__(max_payload)

    def next_frame(self) -> bytes | None:
        """
        Pull one payload.

        :returns: the payload without its header, ``b""`` for an empty frame, or None when more
            bytes are needed.
        :raises FrameTooLargeError: when the next header announces more than ``max_payload``.
        """
        return next(self._pull(b""), None)

    def frames(self) -> Iterator[bytes]:
        """
        Iterate over the payloads.

        Frames that the loop has not taken stay for the next pull. Do not continue the loop after a
        `feed`.

        :returns: the payloads without their headers, until more bytes are needed or the next frame
            is the one of `stop_before`.
        :raises FrameTooLargeError: when the next header announces more than ``max_payload``.
        """
        return self._pull(self._word)

    def take_frames(self) -> Iterator[bytes]:
        """
        Begin a loop over the payloads, as `frames` does.

        A frame that is all that is stored is pulled by this call, which is faster than the first
        step of the loop. So the caller has to take the first payload.
        """
        buffer = self.stored
        if isinstance(buffer, bytes) and self._holds_one_frame(buffer):
            self.delivered += 1
            self.stored = b""
            return iter((buffer[_HEADER_SIZE:],))
        return self._pull(self._word)

    def stops_here(self) -> bool:
        """Return whether the next bytes are the whole word or the beginning of `stop_before`."""
        word, beginning = self._word, self._beginning
        if beginning and self.peek(len(beginning)) == beginning:
            return True
        return bool(word) and self.peek(_HEADER_SIZE + len(word)) == encode_frame(word)

    def _holds_one_frame(self, buffer: bytes | bytearray) -> bool:
        """
        Return whether one frame is all that is stored, and not the one of `stop_before`.

        Loops and runs find it without this check, too. A peer that awaits each answer sends nothing
        else, and its frames cost the decoder a third less with it.
        """
        size = len(buffer) - _HEADER_SIZE
        return (
            0 < size <= self.max_payload
            and size != len(self._word)
            and not self._position
            and _HEADER.unpack_from(buffer) == (size,)
        )

    def _pull(self, word: bytes) -> Iterator[bytes]:
        """Pull payloads until more bytes are needed or the next one is ``word``, if not empty."""
        # A generator keeps its position between two frames; a call per frame costs twice as much.
        buffer = self.stored
        unpack = _HEADER.unpack_from
        limit = self.max_payload
        position = self._position
        size_of_buffer = len(buffer)
        is_spread = isinstance(buffer, bytearray)
        size_of_word = len(word) or _NO_SIZE
        while (start := position + _HEADER_SIZE) <= size_of_buffer:
            (size,) = unpack(buffer, position)
            if size > limit:
                if word and self.stops_here():
                    return
                raise FrameTooLargeError(size, limit)
            position = start + size
            if position > size_of_buffer:
                break
            if size == size_of_word and buffer[start:position] == word:
                return  # The rest is not moved to the front: many such messages may follow.
            self._position = position
            self.delivered += 1
            # One copy: a slice of a bytearray would be a second bytearray first.
            payload = (
                bytes(memoryview(buffer)[start:position]) if is_spread else buffer[start:position]
            )
            if position == size_of_buffer:
                # All is pulled: drop the buffer before the payload is handled, which may take long.
                self.stored = buffer = b""
                self._position = position = size_of_buffer = 0
            yield payload  # type: ignore[misc]
        if self._position:
            self._drop_pulled()

    def take_run(self) -> bytes | bytearray:
        """
        Pull the longest run of complete frames as one piece, headers included.

        An echo sends it back unchanged. The caller owns the result, which is not copied if it is
        all that was stored.

        :returns: whole frames in wire form, or ``b""`` when more bytes are needed or the next frame
            is the one of `stop_before`.
        :raises FrameTooLargeError: when the first header announces more than ``max_payload``. A
            later such header ends the run, and the next call raises the error.
        """
        buffer = self.stored
        if not buffer:
            return b""
        if self._holds_one_frame(buffer):
            self.delivered += 1
            self.stored = b""
            return buffer
        end, count = self._measure_run(buffer)
        if not count:
            if not self.stops_here():
                self._drop_pulled()
            return b""
        self.delivered += count
        start, self._position = self._position, end
        if end == len(buffer):
            self.stored, self._position = b"", 0
            return buffer[start:] if start else buffer
        if self.stops_here():
            # The rest is not moved to the front: many such messages may follow.
            return bytes(memoryview(buffer)[start:end])
        self.stored, self._position = bytearray(memoryview(buffer)[end:]), 0
        if start or isinstance(buffer, bytes):
            return buffer[start:end]
        del buffer[end:]
        return buffer

    def _measure_run(self, buffer: bytes | bytearray) -> tuple[int, int]:
        """Return the end of the complete frames, and their number."""
        unpack = _HEADER.unpack_from
        limit = self.max_payload
        position = self._position
        word = self._word
        size_of_word = len(word) or _NO_SIZE
        # The last position at which a complete header can begin.
        last = len(buffer) - _HEADER_SIZE
        count = 0
        if position <= last:
            position, count = _skip_alike(buffer, position, limit, size_of_word)
        while position <= last:
            (size,) = unpack(buffer, position)
            if size > limit:
                if not count and not self.stops_here():
                    raise FrameTooLargeError(size, limit)
                break
            following = position + _HEADER_SIZE + size
            if following > last + _HEADER_SIZE:
                break
            if size == size_of_word and buffer[position + _HEADER_SIZE : following] == word:
                break
            position = following
            count += 1
        return position, count
