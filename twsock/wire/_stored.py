"""
What was fed and not pulled yet: the store under each decoder of this room.

A read that holds only whole messages is never copied: it stays the ``bytes`` that came from the
socket. A ``bytearray``, which grows in place, takes over once a message is spread over reads.
"""

from __future__ import annotations

__all__ = ["StoredBytes"]


class StoredBytes:
    """
    The bytes of a stream between being fed and being pulled.

    :ivar max_payload: the limit in force, in bytes.
    :ivar delivered: how many messages were pulled so far.
    """

    __slots__ = ("_beginning", "_buffer", "_position", "_word", "delivered", "max_payload")

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self.delivered = 0
        self._buffer: bytes | bytearray = b""
        # Where what was not pulled begins. A buffer that is pulled to its end is let go at once.
        self._position = 0
        # The message before which runs and loops stop; empty for none.
        self._word = b""
        self._beginning = b""

    @property
    def buffered(self) -> int:
        """How many bytes were fed and not pulled yet."""
        return len(self._buffer) - self._position

    def feed(self, data: bytes) -> None:
        """
        Store what arrived, behind what is there already.

        :param data: any number of bytes; kept, not copied, where nothing else is stored.
        """
        buffer = self._buffer
        if not buffer:
            self._buffer = data
            return
        if not isinstance(buffer, bytearray):
            buffer = self._buffer = bytearray(memoryview(buffer)[self._position :])
        elif self._position:
            del buffer[: self._position]
        self._position = 0
        buffer += data

    def clear(self) -> None:
        """Drop all bytes that were fed and not pulled."""
        self._buffer = b""
        self._position = 0

    def peek(self, count: int) -> bytes:
        """Look at what would be pulled next, at most so many bytes of it."""
        return bytes(self._buffer[self._position : self._position + count])

    def stop_before(self, word: bytes, beginning: bytes = b"") -> None:
        """
        Make runs and loops stop before one message, which is then pulled by itself.

        Only whole messages are compared with it; their contents are not searched.

        :param word: the message; one byte or more.
        :param beginning: bytes that cannot begin a message within the limit; runs and loops stop
            before them too. Empty for none.
        """
        self._word = word
        self._beginning = beginning

    def take_buffered(self) -> bytes:
        """Hand over all that was fed and not pulled, for whoever reads the stream from here on."""
        rest = bytes(memoryview(self._buffer)[self._position :])
        self.clear()
        return rest

    def _drop_pulled(self) -> None:
        """Let go of what was pulled, once a pull finds nothing more: not once per message."""
        if self._position:
            self._buffer = bytearray(memoryview(self._buffer)[self._position :])
            self._position = 0
