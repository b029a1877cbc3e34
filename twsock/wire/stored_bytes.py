"""
Base classes of the decoders: they store the bytes that were fed and not yet pulled.

Used by `twsock.wire.frames`, `twsock.wire.lines` and `twsock.websocket.messages`.

A read that contains only whole messages is never copied: it stays the ``bytes`` object of the
receive. When a message is spread over reads, a ``bytearray`` replaces it, which grows in place.
"""

from __future__ import annotations

__all__ = ["StoppingBytes", "StoredBytes"]


class StoredBytes:
    """
    Bytes of a stream that were fed and not pulled.

    :ivar max_payload: the current limit, in bytes.
    :ivar delivered: the number of messages pulled so far.
    """

    __slots__ = ("_position", "delivered", "max_payload", "stored")

    def __init__(self, max_payload: int) -> None:
        self.max_payload = max_payload
        self.delivered = 0
        #: Empty if nothing is left to be pulled; otherwise it may begin with pulled bytes, so that
        #: only its truth is of use. While it is empty, received bytes may be assigned to it.
        self.stored: bytes | bytearray = b""
        # The first byte that was not pulled. A buffer that is pulled to its end is dropped at once.
        self._position = 0

    @property
    def buffered(self) -> int:
        """The number of bytes that were fed and not pulled."""
        return len(self.stored) - self._position

    def feed(self, data: bytes) -> None:
        """
        Append received bytes.

        :param data: any number of bytes; not copied if nothing else is stored.
        """
        buffer = self.stored
        if not buffer:
            self.stored = data
            return
        if not isinstance(buffer, bytearray):
            buffer = self.stored = bytearray(memoryview(buffer)[self._position :])
        elif self._position:
            del buffer[: self._position]
        self._position = 0
        buffer += data

    def clear(self) -> None:
        """Drop all bytes that were fed and not pulled."""
        self.stored = b""
        self._position = 0

    def peek(self, count: int) -> bytes:
        """Return the next bytes, at most ``count``, without pulling them."""
        return bytes(self.stored[self._position : self._position + count])

    def take_buffered(self) -> bytes:
        """Remove and return all bytes that were fed and not pulled."""
        rest = bytes(memoryview(self.stored)[self._position :])
        self.clear()
        return rest

    def _drop_pulled(self) -> None:
        """Drop the pulled bytes; called when a pull finds no message, not once per message."""
        if self._position:
            self.stored = bytearray(memoryview(self.stored)[self._position :])
            self._position = 0


class StoppingBytes(StoredBytes):
    """Bytes of a format on which an upgrade may begin between two messages."""

    __slots__ = ("_beginning", "_word")

    def __init__(self, max_payload: int) -> None:
        super().__init__(max_payload)
        # Pulls stop before this message; empty for none.
        self._word = b""
        self._beginning = b""

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
