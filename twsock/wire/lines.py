"""
Decoder and encoder of lines: bytes ↔ **lines**.

The ``line`` format: text ended by CRLF on output; on input a bare LF ends a line too. A line is
bytes here; strict UTF-8 applies where text is asked for (`decode_text`, `encode_line`). It is what
the C# echo sample of the sockets guide sends with a ``StreamWriter``.

Fed and pulled by `twsock.protocols.LineProtocol`. Holds what is not yet pulled: at most one
unfinished line within the limit, and what came with its last read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from twsock._integers import checked_integer
from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.wire.stored_bytes import StoppingBytes

__all__ = [
    "DEFAULT_MAX_LINE",
    "LineDecoder",
    "LineTooLongError",
    "decode_text",
    "encode_line",
]

#: Default of the longest line, in bytes, without its ending. Sixty-four
#: times the 998 of mail (:rfc:`5322`, section 2.1.1), and small enough for an unfinished line on
#: each of thousands of connections.
DEFAULT_MAX_LINE: Final = 64 * 1024

_CRLF: Final = b"\r\n"


class LineTooLongError(RemoteProtocolError):
    """
    The peer sent more bytes than a line may have.

    :ivar received: the bytes of that line that had been received when it was refused.
    :ivar limit: the length of the longest line accepted, in bytes, without its ending.
    """

    def __init__(self, received: int, limit: int) -> None:
        super().__init__(f"peer sent a line of at least {received} bytes, limit is {limit}")
        self.received = received
        self.limit = limit


def encode_line(line: bytes | str) -> bytes:
    """
    Return a line with CRLF.

    :param line: bytes, or text that is encoded as UTF-8.
    :raises LocalProtocolError: when the line contains a LF, and would arrive as several lines; or
        when the text has no UTF-8 form (a lone surrogate).
    """
    if isinstance(line, str):
        try:
            line = line.encode()
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"this text has no UTF-8 form: {error.reason}") from error
    if b"\n" in line:
        raise LocalProtocolError("a line cannot contain a line feed: send it as several lines")
    return line + _CRLF


def decode_text(line: bytes) -> str:
    """
    Decode a line as text.

    :raises RemoteProtocolError: when the bytes are not UTF-8; nothing is replaced or skipped.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(
            f"peer sent a line that is not UTF-8: {error.reason} at byte {error.start}"
        ) from error


class LineDecoder(StoppingBytes):
    """
    Decodes a stream of lines, pulled one by one or run by run.

    Bytes stay until they are pulled. After a line above the limit the decoder stays failed: every
    later pull raises that error.

    :param max_payload: longest line accepted, in bytes, without its ending; 0 or more.
    :raises ValueError: when ``max_payload`` is negative.
    """

    __slots__ = ("_first_bytes", "_searched")

    def __init__(self, max_payload: int = DEFAULT_MAX_LINE) -> None:
        if checked_integer(max_payload, "max_payload") < 0:
            raise ValueError(f"max_payload is 0 bytes or more, not {max_payload}")
        super().__init__(max_payload)
        # The number of bytes that were searched and have no LF: no byte is searched twice.
        self._searched = 0
        self._first_bytes = b""

    def next_line(self) -> bytes | None:
        """
        Pull one line.

        :returns: the line without its ending, ``b""`` for an empty one, or None when more bytes
            are needed. A CR that is not part of the ending stays in the line.
        :raises LineTooLongError: when the line has more than ``max_payload`` bytes, as soon as
            that many were received without an ending.
        """
        buffer = self.stored
        start = self._position
        end = buffer.find(b"\n", start + self._searched)
        if end < 0:
            self._await_more()
            return None
        content_end = end - 1 if end > start and buffer[end - 1] == _CRLF[0] else end
        if content_end - start > self.max_payload:
            raise LineTooLongError(content_end - start, self.max_payload)
        if isinstance(buffer, bytes):
            line = buffer[start:content_end]
        else:
            # One copy: a slice of a bytearray would be a second bytearray first.
            line = bytes(memoryview(buffer)[start:content_end])
        self._move_to(end + 1)
        self.delivered += 1
        return line

    def lines(self) -> Iterator[bytes]:
        """
        Iterate over the received lines.

        Lines that the loop has not taken stay for the next call.

        :returns: the lines without their endings, until more bytes are needed or the next line is
            the one of `stop_before`.
        :raises LineTooLongError: when the next line has more than ``max_payload`` bytes.
        """
        next_line = self.next_line
        while not self.stops_here() and (line := next_line()) is not None:
            yield line

    def stops_here(self) -> bool:
        """Return whether the next bytes are the whole word or the beginning of `stop_before`."""
        buffer, start = self.stored, self._position
        # Fast path: compares one byte of most lines.
        if not self._word or start == len(buffer) or buffer[start] not in self._first_bytes:
            return False
        word, beginning = self._word, self._beginning
        if beginning and self.peek(len(beginning)) == beginning:
            return True
        return self.peek(len(word) + len(_CRLF)).startswith((word + b"\n", word + _CRLF))

    def stop_before(self, word: bytes, beginning: bytes = b"") -> None:
        """See `StoredBytes`. The first bytes of a line are compared before the line is copied."""
        super().stop_before(word, beginning)
        self._first_bytes = word[:1] + beginning[:1]

    def take_run(self) -> bytes:
        """
        Pull the longest run of complete lines as one piece, each ended by CRLF, ready to be sent.

        :returns: whole lines in wire form, or ``b""`` when more bytes are needed or the next line
            is the one of `stop_before`.
        :raises LineTooLongError: when the first line is longer than ``max_payload``. A later such
            line ends the run, and the next call raises the error.
        """
        if self.stops_here():
            return b""
        buffer = self.stored
        start = self._position
        end = buffer.rfind(b"\n", start + self._searched) + 1
        if not end:
            self._await_more()
            return b""
        if self._word:
            end = self._end_before_word(end)
        if end - start > self.max_payload:
            end = self._end_of_legal_lines(end)
        run = bytes(memoryview(buffer)[start:end])
        self._move_to(end)
        count = run.count(b"\n")
        self.delivered += count
        if run.count(_CRLF) == count:
            return run
        return run.replace(_CRLF, b"\n").replace(b"\n", _CRLF)

    def clear(self) -> None:
        """Drop all bytes that were fed and not pulled, and reset the search for their ends."""
        self._searched = 0
        super().clear()

    def _end_before_word(self, end: int) -> int:
        """Return the end of the lines before the word of `stop_before`; ``end`` if not found."""
        buffer, start = self.stored, self._position
        # With the line feed of the line before, the search finds whole lines only.
        mark = b"\n" + self._word
        found = start
        while (found := buffer.find(mark, found, end)) >= 0:
            behind = found + len(mark)
            if buffer[behind : behind + 2].startswith((b"\n", _CRLF)):
                end = found + 1
                break
            found = behind
        if self._beginning:
            found = buffer.find(b"\n" + self._beginning, start, end + len(self._beginning))
            if found >= 0:
                end = found + 1
        return end

    def _end_of_legal_lines(self, end: int) -> int:
        """Return the end of the lines within the limit; the first one must be within it."""
        buffer = self.stored
        start = self._position
        while start < end:
            following = buffer.find(b"\n", start) + 1
            size = following - 1 - start
            if size and buffer[following - 2] == _CRLF[0]:
                size -= 1
            if size > self.max_payload:
                if start == self._position:
                    raise LineTooLongError(size, self.max_payload)
                return start
            start = following
        return end

    def _await_more(self) -> None:
        """Store how far the search went; refuse an unfinished line that is already too long."""
        self._drop_pulled()
        buffer = self.stored
        self._searched = len(buffer)
        # A CR at the end may be the first half of the ending, so it does not count yet.
        size = len(buffer) - (1 if buffer.endswith(b"\r") else 0)
        if size > self.max_payload:
            raise LineTooLongError(size, self.max_payload)

    def _move_to(self, position: int) -> None:
        """Mark everything before ``position`` as pulled."""
        if position == len(self.stored):
            self.stored = b""
            position = 0
        self._position = position
        self._searched = 0
