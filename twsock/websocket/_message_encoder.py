"""
Encoder of messages and control frames: message → **frames** → connection.

`twsock.websocket.messages` exports it. Protocols and sockets encode messages,
`twsock.websocket.connection` encodes control frames. The encoder of a client holds the keys of some
later masks. While a message is sent in fragments, the encoder also holds the opcode of the message,
and the first bytes of a character that the last fragment has divided.
"""

from __future__ import annotations

import typing
from codecs import utf_8_decode
from collections.abc import Callable, Hashable, Iterator
from typing import Final

from twsock._integers import checked_integer
from twsock.errors import LocalProtocolError
from twsock.websocket.frames import (
    MAX_MEDIUM,
    MAX_SHORT,
    MEDIUM,
    Opcode,
    encode_frame,
    encode_header,
    pack_medium,
    pack_short,
)
from twsock.websocket.masking import MaskKeys

__all__ = ["Compressor", "MessageEncoder"]

_FIN: Final = 0x80

# Cached: a global lookup costs less than an enum attribute.
_CONTINUATION: Final = Opcode.CONTINUATION
_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY
_CLOSE: Final = Opcode.CLOSE


class Compressor(typing.Protocol):
    """
    Compresses messages for the encoder; such as `twsock.websocket.deflate.Deflater`.

    :ivar key: equal if two compressors return equal results; None if the results depend on earlier
        messages.
    """

    @property
    def key(self) -> Hashable: ...

    def compress(self, data: bytes, /) -> bytes | None:
        """Return a compressed message; None if it has to be sent as it is."""


class MessageEncoder:
    """
    Encodes messages and control frames.

    :param is_server: whether this end is the server; a client masks its frames.
    :param random_bytes: the source of masks, see `MaskKeys`; required for a client.
    :param deflater: compresses messages; None if no compression was agreed.
    :param max_fragment_size: messages with more bytes are divided into frames of this size; the
        last frame may be smaller. 1 or more; None for one frame for each message.
    :raises ValueError: when ``max_fragment_size`` is below 1, or a client has no ``random_bytes``.
    :raises TypeError: when ``max_fragment_size`` is no integer.
    """

    __slots__ = (
        "_deflater", "_has_shortcut", "_is_usual", "_keys", "_max_fragment_size", "_tail",
        "_unfinished",
    )  # fmt: skip

    def __init__(
        self,
        *,
        is_server: bool,
        random_bytes: Callable[[int], bytes] | None = None,
        deflater: Compressor | None = None,
        max_fragment_size: int | None = None,
    ) -> None:
        if (
            max_fragment_size is not None
            and checked_integer(max_fragment_size, "max_fragment_size") < 1
        ):
            raise ValueError(f"max_fragment_size is 1 byte or more, not {max_fragment_size}")
        self._keys: MaskKeys | None = None
        if not is_server:
            if random_bytes is None:
                raise ValueError("a client needs random_bytes for its masks")
            self._keys = MaskKeys(random_bytes)
        self._deflater = deflater
        self._max_fragment_size = max_fragment_size
        # The opcode of the message that `encode_fragment` has begun; None without such a message.
        # And the first bytes of a character that its last fragment has divided.
        self._unfinished: Opcode | None = None
        self._tail = b""
        # Whether the settings make each whole message one plain frame; and whether one may be sent
        # now: no message in fragments is unfinished.
        self._has_shortcut = is_server and deflater is None and max_fragment_size is None
        self._is_usual = self._has_shortcut

    @property
    def is_compressing(self) -> bool:
        """Whether messages are compressed; later ones may then refer to an encoded message."""
        return self._deflater is not None

    @property
    def has_unfinished_message(self) -> bool:
        """Whether `encode_fragment` has begun a message and not ended it."""
        return self._unfinished is not None

    def encode(self, opcode: Opcode, data: str | bytes) -> bytes:
        """
        Return the frames of a message, or a control frame.

        :param data: the payload; a text is a ``str``, or bytes in UTF-8.
        :raises LocalProtocolError: when a text in bytes is not UTF-8, a control frame is above 125
            bytes, or `encode_fragment` has begun another message and not ended it.
        :raises UnicodeEncodeError: when a text has no form in UTF-8, such as half of a surrogate
            pair.
        """
        if isinstance(data, str):
            data = data.encode("utf-8")
        elif opcode is _TEXT and not data.isascii():
            _check_text(data, is_complete=True)
        if self._is_usual:
            size = len(data)
            if size <= MAX_SHORT:
                return pack_short(_FIN | opcode, size) + data
            if size <= MAX_MEDIUM and opcode < _CLOSE:
                return pack_medium(_FIN | opcode, MEDIUM, size) + data
            return encode_header(opcode, size) + data
        if opcode >= _CLOSE:
            return encode_frame(opcode, data, key=self._next_key())
        if self._unfinished is not None:
            raise LocalProtocolError(f"a {self._unfinished.name} message is sent in fragments")
        compressed = None if self._deflater is None else self._deflater.compress(data)
        is_compressed = compressed is not None
        if compressed is not None:
            data = compressed
        limit = self._max_fragment_size
        if limit is None or len(data) <= limit:
            # The same as `_frames`, with fewer calls.
            key = self._next_key()
            return encode_frame(opcode, data, is_compressed=is_compressed, key=key)
        return b"".join(self._frames(opcode, data, is_compressed=is_compressed))

    def encode_fragment(self, opcode: Opcode, data: str | bytes, *, is_final: bool) -> bytes:
        """
        Return the next fragment of a message that the caller divides, without compression.

        A fragment above ``max_fragment_size`` is divided further. Between the fragments of a
        message only control frames can be sent (:rfc:`6455`, section 5.4).

        :param opcode: ``TEXT`` or ``BINARY``; the same for all fragments of a message.
        :param data: the bytes of the fragment. A text may also be a ``str``; bytes of a text are
            UTF-8, and may end within a character.
        :param is_final: whether the message ends with this fragment.
        :raises LocalProtocolError: when a text is not UTF-8, or a message with the other opcode is
            unfinished. The unfinished message can still be continued.
        :raises UnicodeEncodeError: when a text has no form in UTF-8.
        """
        if opcode not in (_TEXT, _BINARY):
            raise LocalProtocolError(f"{opcode.name} is not the opcode of a message")
        if self._unfinished not in (None, opcode):
            raise LocalProtocolError(f"a {self._unfinished.name} message is sent in fragments")
        if isinstance(data, str):
            data = data.encode("utf-8")
        if opcode is _TEXT:
            self._tail = _check_text(self._tail + data, is_final)
        first = opcode if self._unfinished is None else _CONTINUATION
        self._unfinished = None if is_final else opcode
        self._is_usual = self._has_shortcut and is_final
        return b"".join(self._frames(first, data, is_final=is_final))

    def encode_shared(self, opcode: Opcode, data: bytes, frames: dict[Hashable, bytes]) -> bytes:
        """
        Return the frames of a server's message, encoded once for all encoders with equal settings.

        :param frames: the results of other encoders for this message. The result is added, unless
            it depends on the earlier messages of this encoder.
        :raises LocalProtocolError: as `encode` does.
        """
        key: Hashable = None
        if not self._is_usual:
            compression = None if self._deflater is None else self._deflater.key
            depends_on_others = self._deflater is not None and compression is None
            if depends_on_others or self._unfinished is not None:
                return self.encode(opcode, data)
            key = compression, self._max_fragment_size
        found = frames.get(key)
        if found is None:
            found = frames[key] = self.encode(opcode, data)
        return found

    def _next_key(self) -> bytes | None:
        return None if self._keys is None else self._keys.next()

    def _frames(
        self, opcode: Opcode, data: bytes, *, is_compressed: bool = False, is_final: bool = True
    ) -> Iterator[bytes]:
        """Make the frames of a message (section 5.4); only the first can have RSV1."""
        size = len(data)
        limit = self._max_fragment_size
        if limit is None or size <= limit:
            limit = size or 1
        for start in range(0, size or 1, limit):
            end = start + limit
            yield encode_frame(
                _CONTINUATION if start else opcode,
                data if limit == size else data[start:end],
                is_final=is_final and end >= size,
                is_compressed=is_compressed and not start,
                key=self._next_key(),
            )


def _check_text(data: bytes, is_complete: bool) -> bytes:
    """Check that bytes are UTF-8; return the bytes of a character that is cut at their end."""
    try:
        _, used = utf_8_decode(data, "strict", is_complete)
    except UnicodeDecodeError:
        raise LocalProtocolError("a text message in bytes is not UTF-8") from None
    return data[used:]
