"""
Messages of a WebSocket (:rfc:`6455`, sections 5 and 8.1): frames ↔ **messages**.

`twsock.websocket.protocol` feeds and pulls the decoder, and encodes its messages;
`twsock.websocket.connection` encodes control frames. Messages are pulled: a message in front of a
close frame or of a violation is delivered and answered first, even if one read brought both. The
decoder holds the bytes that were not pulled, and at most one incomplete message within the limit.

Most messages are one small frame. The loop of `MessageDecoder.messages` decodes them itself; other
methods decode all other frames, and find every violation.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any, Final

from typing_extensions import override

from twsock._integers import checked_integer
from twsock.websocket._incomplete import IncompleteMessage, not_utf_8
from twsock.websocket._message_encoder import Compressor, MessageEncoder
from twsock.websocket.close_frame import CloseCode, WebSocketViolation
from twsock.websocket.frames import MAX_CONTROL_PAYLOAD, Opcode
from twsock.websocket.masking import KEY_SIZE, mask
from twsock.wire.stored_bytes import StoredBytes

__all__ = [
    "DEFAULT_MAX_FRAGMENTS",
    "Compressor",
    "Decompressor",
    "Message",
    "MessageDecoder",
    "MessageEncoder",
]

#: Default of ``max_fragments``. Without this limit, a peer can send empty frames for ever.
DEFAULT_MAX_FRAGMENTS: Final = 1024

#: A message, or a piece of it: opcode, payload, and whether the message is complete.
Message = tuple[Opcode, "str | bytes", bool]

_FIN: Final = 0x80
_RSV1: Final = 0x40
_RSV: Final = 0x70
_MASKED: Final = 0x80
_OPCODES: Final = {int(opcode): opcode for opcode in Opcode}

# Cached: a global lookup costs less than an enum attribute.
_CONTINUATION: Final = Opcode.CONTINUATION
_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY
_CLOSE: Final = Opcode.CLOSE

# First bytes of a frame that is a whole message.
_WHOLE_TEXT: Final = _FIN | Opcode.TEXT
_WHOLE_BINARY: Final = _FIN | Opcode.BINARY
_WHOLE_COMPRESSED: Final = (_WHOLE_BINARY | _RSV1, _WHOLE_TEXT | _RSV1)

# Values of the 7-bit length: a length of 16 or of 64 bits follows.
_LENGTH_16: Final = 126
_LENGTH_64: Final = 127

#: From this size on, bytes are unmasked in place instead of being copied first.
_VIEWED: Final = 4096

#: Frames up to this size, in bytes, are never divided into pieces.
_UNDIVIDED: Final = 16 * 1024

# The result of a step that has pulled bytes, but no complete message.
_GO_ON: Final = ()


class Decompressor(typing.Protocol):
    """Decompresses messages for the decoder; such as `twsock.websocket.deflate.Inflater`."""

    def inflate(self, data: bytes | bytearray, limit: int, /) -> bytes:
        """
        Return a decompressed message.

        :param limit: the largest result, in bytes.
        :raises WebSocketViolation: 1009 when the result has more than ``limit`` bytes; at most one
            byte more is decompressed. 1007 when the data is malformed.
        """


class MessageDecoder(StoredBytes):
    """
    Decodes the messages and control frames of a peer, pulled one by one.

    After a violation the decoder stays failed: every later pull raises an equal error. After a
    close frame the decoder drops all further bytes.

    :param is_server: whether this end is the server, whose peer masks its frames.
    :param max_message_size: largest message accepted, in bytes, 0 or more. A compressed message has
        this limit after decompression, too.
    :param max_fragments: how many frames one message may have, 1 or more. With ``is_partial``, only
        compressed messages have this limit.
    :param inflater: decompresses messages; None if no compression was agreed.
    :param is_partial: whether messages are delivered in pieces. Then only compressed messages are
        collected.
    :raises ValueError: when a limit is outside its bounds.
    :raises TypeError: when a limit is no integer.

    :ivar incomplete: the message of which some bytes were pulled; None without one.
    """

    __slots__ = (
        "_failure", "_inflater", "_is_ended", "_is_partial", "_is_server", "_max_fragments",
        "incomplete",
    )  # fmt: skip

    def __init__(
        self,
        *,
        is_server: bool,
        max_message_size: int,
        max_fragments: int = DEFAULT_MAX_FRAGMENTS,
        inflater: Decompressor | None = None,
        is_partial: bool = False,
    ) -> None:
        if checked_integer(max_message_size, "max_message_size") < 0:
            raise ValueError(f"max_message_size is 0 bytes or more, not {max_message_size}")
        if checked_integer(max_fragments, "max_fragments") < 1:
            raise ValueError(f"max_fragments is 1 or more, not {max_fragments}")
        super().__init__(max_message_size)
        self._is_server = is_server
        self._max_fragments = max_fragments
        self._inflater = inflater
        self._is_partial = is_partial
        self.incomplete: IncompleteMessage | None = None
        self._failure: WebSocketViolation | None = None
        self._is_ended = False

    @property
    @override
    def buffered(self) -> int:
        """The number of bytes that were fed and not delivered."""
        collected = 0 if self.incomplete is None else self.incomplete.collected
        return len(self.stored) - self._position + collected

    @override
    def clear(self) -> None:
        """Drop all bytes that were fed and not delivered."""
        super().clear()
        self.incomplete = None

    def messages(self) -> Iterator[Message]:
        """
        Iterate over the messages and control frames.

        Messages that the loop has not taken stay for the next call. After a `feed`, call this
        method again instead of continuing the loop.

        :returns: opcode, payload, and whether the message is complete, until more bytes are needed
            or a close frame was delivered. The payload of a text is a ``str``, all others are
            bytes. With ``is_partial`` a text is bytes, too, since a piece may end within a
            character. A frame of at most 16 KiB is one piece; larger frames are divided as they
            arrive. A compressed message is one piece.
        :raises WebSocketViolation: when the next frame breaks a rule or a limit.
        """
        if self._failure is not None:
            raise self._failure.copy()
        if self._is_ended:
            self.clear()
        is_server = self._is_server
        mask_bit, header_size = (_MASKED, 2 + KEY_SIZE) if is_server else (0, 2)
        unmask = mask
        limit = self.max_payload
        text, binary = _TEXT, _BINARY
        whole_text = -1 if self._is_partial else _WHOLE_TEXT
        compressed = () if self._inflater is None or self._is_partial else _WHOLE_COMPRESSED
        # One long loop: with two generators, a small frame takes 7 % more.
        while self.stored:
            buffer, position = self.stored, self._position
            # Within a message no frame is a whole message.
            size_of_buffer = len(buffer) if self.incomplete is None else 0
            # Whole messages of one frame. Everything else ends this loop, and `_step` handles it.
            while (start := position + header_size) <= size_of_buffer:
                size = buffer[position + 1] ^ mask_bit
                if size >= _LENGTH_16:
                    start += 2
                    if size != _LENGTH_16 or start > size_of_buffer:
                        break
                    size = buffer[position + 2] << 8 | buffer[position + 3]
                    if size < _LENGTH_16:
                        break
                end = start + size
                if end > size_of_buffer or size > limit:
                    break
                first = buffer[position]
                if first != _WHOLE_BINARY and first != whole_text and first not in compressed:
                    break
                payload: Any = buffer[start:end]
                if is_server:
                    payload = unmask(payload, buffer[start - KEY_SIZE : start])
                if first == _WHOLE_BINARY:
                    opcode = binary
                    if not is_server:
                        payload = bytes(payload)  # A copy only if the frame was spread over reads.
                elif first == _WHOLE_TEXT:
                    opcode = text
                    try:
                        payload = payload.decode()
                    except UnicodeDecodeError:
                        break
                else:
                    opcode, payload = self._inflate(first, payload)
                self._position = position = end
                self.delivered += 1
                if end == size_of_buffer:
                    # Drop the buffer before the payload is handled, which may take long.
                    self.stored = buffer = b""
                    self._position = position = size_of_buffer = 0
                yield opcode, payload, True
            if not self.stored:
                return
            item = self._take_other()
            if item is None:
                break
            if item:
                yield item
        self._drop_pulled()

    def _inflate(self, first: int, payload: bytes) -> tuple[Opcode, str | bytes]:
        """Decompress a whole message; make the decoder stay failed after a violation."""
        try:
            return self._complete(_OPCODES[first & 0x0F], payload, True)[:2]
        except WebSocketViolation as violation:
            self._fail(violation)
            raise

    def _take_other(self) -> Message | tuple[()] | None:
        """Do the same as `_step`, and make the decoder stay failed after a violation."""
        try:
            return self._step()
        except WebSocketViolation as violation:
            self._fail(violation)
            raise

    def _fail(self, violation: WebSocketViolation) -> None:
        self.clear()
        self._failure = violation.copy()

    def _step(self) -> Message | tuple[()] | None:
        """
        Pull the next control frame, or as much of a data frame as has arrived.

        :returns: the message or piece to deliver; an empty tuple if there is none yet; None if more
            bytes are needed.
        """
        message = self.incomplete
        if message is not None and message.left:
            return self._take_piece(message)
        buffer, position = self.stored, self._position
        received = len(buffer)
        if received - position < 2:
            return None
        first, second = buffer[position], buffer[position + 1]
        opcode = self._check_beginning(first, second)
        size = second & ~_MASKED
        start = position + 2
        if size >= _LENGTH_16:
            start += 2 if size == _LENGTH_16 else 8
        key_start, start = start, start + (KEY_SIZE if self._is_server else 0)
        if start > received:
            return None
        if size >= _LENGTH_16:
            size = _checked_length(size, int.from_bytes(buffer[position + 2 : key_start], "big"))
        key = buffer[key_start:start]
        is_whole = start + size <= received
        if opcode >= _CLOSE:
            return self._take_control(opcode, start, size, key) if is_whole else None
        self._check_size(size, first)
        if is_whole and first >= _FIN and message is None:
            self.delivered += 1
            payload = self._take_payload(start, start + size, key)
            return self._complete(opcode, payload, first >= _FIN | _RSV1)
        if self._is_partial and not is_whole and size <= _UNDIVIDED:
            return None
        if message is None:
            message = self.incomplete = IncompleteMessage(opcode, first & _RSV1 > 0)
        message.begin_frame(size, first >= _FIN, key)
        self._pull_to(start)
        return self._take_piece(message)

    def _pull_to(self, end: int) -> None:
        """Drop the bytes in front of ``end``; drop the buffer itself if no byte is left."""
        if end == len(self.stored):
            self.stored, end = b"", 0
        self._position = end

    def _check_beginning(self, first: int, second: int) -> Opcode:
        """Check the first two bytes of a frame (sections 5.1, 5.2, 5.4 and 5.5)."""
        opcode = _OPCODES.get(first & 0x0F)
        if opcode is None:
            raise _protocol_error(f"reserved opcode {first & 0x0F}")
        if bits := first & _RSV:
            begins = opcode is _TEXT or opcode is _BINARY
            if bits != _RSV1 or self._inflater is None or not begins:
                raise _protocol_error("reserved bits are set")
        if (second >= _MASKED) != self._is_server:
            raise _protocol_error(
                "frame without a mask" if self._is_server else "masked frame from a server"
            )
        if opcode >= _CLOSE:
            if first < _FIN:
                raise _protocol_error("fragmented control frame")
            if second & ~_MASKED > MAX_CONTROL_PAYLOAD:
                raise _protocol_error(f"control frame above {MAX_CONTROL_PAYLOAD} bytes")
        elif (opcode is _CONTINUATION) is (self.incomplete is None):
            raise _protocol_error(
                "continuation without a message"
                if self.incomplete is None
                else "new message within a fragmented one"
            )
        return opcode

    def _check_size(self, size: int, first: int) -> None:
        """Check the limits, before a data frame of ``size`` bytes is pulled."""
        message = self.incomplete
        is_compressed = first & _RSV1 > 0 if message is None else message.is_compressed
        limit = self.max_payload
        if is_compressed:
            # Data that cannot be compressed become larger, at most by this (``deflateBound`` of
            # zlib). The decompressed message is checked against the limit itself.
            limit += (limit >> 3) + 64
        total = size if message is None else message.size + size
        if total > limit:
            raise WebSocketViolation(
                CloseCode.MESSAGE_TOO_BIG,
                f"message of {total} bytes or more, limit is {self.max_payload}",
            )
        is_collected = not self._is_partial or is_compressed
        if message is not None and message.fragments >= self._max_fragments and is_collected:
            raise WebSocketViolation(
                CloseCode.POLICY_VIOLATION,
                f"message of more than {self._max_fragments} fragments",
            )

    def _take_control(
        self, opcode: Opcode, start: int, size: int, key: bytes | bytearray
    ) -> Message:
        """Pull one control frame; it may be between the fragments of a message (section 5.4)."""
        payload = self._take_payload(start, start + size, key)
        if opcode is _CLOSE:
            # Nothing that follows a close frame counts (section 1.4).
            self.clear()
            self._is_ended = True
        return opcode, payload, True

    def _take_payload(self, start: int, end: int, key: bytes | bytearray) -> bytes:
        """Pull the rest of a frame; return a part of the buffer without its mask."""
        buffer = self.stored
        piece = buffer[start:end] if end - start < _VIEWED else memoryview(buffer)[start:end]
        payload = mask(piece, key) if key else bytes(piece)
        self._pull_to(end)
        return payload

    def _take_piece(self, message: IncompleteMessage) -> Message | tuple[()] | None:
        """Pull what has arrived of a data frame."""
        start = self._position
        end = min(start + message.left, len(self.stored))
        if end == start and message.left:
            return None
        piece = self._take_payload(start, end, message.next_key(end - start))
        message.left -= end - start
        is_complete = message.is_last and not message.left
        is_plain = not message.is_compressed
        if message.opcode is _TEXT and is_plain:
            message.check_text(piece, is_complete)
        if is_complete:
            self.incomplete = None
            self.delivered += 1
        if self._is_partial and is_plain:
            return message.opcode, piece, is_complete
        message.collect(piece)
        if not is_complete:
            return _GO_ON
        return self._complete(message.opcode, message.take_collected(), message.is_compressed)

    def _complete(self, opcode: Opcode, payload: bytes, is_compressed: bool) -> Message:
        """Return a whole message: decompressed, and a text as ``str`` unless pieces are wanted."""
        if is_compressed:
            assert self._inflater is not None
            payload = self._inflater.inflate(payload, self.max_payload)
        if opcode is _BINARY:
            return opcode, payload, True
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            raise not_utf_8() from None
        return opcode, payload if self._is_partial else text, True


def _protocol_error(reason: str) -> WebSocketViolation:
    return WebSocketViolation(CloseCode.PROTOCOL_ERROR, reason)


def _checked_length(form: int, size: int) -> int:
    """Return a length of 16 or 64 bits, if no shorter form could hold it (section 5.2)."""
    if size < (_LENGTH_16 if form == _LENGTH_16 else 0x1_0000):
        raise _protocol_error(f"length {size} in too many bytes")
    if size >= 1 << 63:
        raise _protocol_error("length of 2**63 or more")
    return size
