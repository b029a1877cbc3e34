"""
Compression of messages (:rfc:`7692`): offers ↔ **agreement**; message ↔ **compressed message**.

The application chooses `DeflateSettings`. On a server they answer the offers of the client (called
by `twsock.websocket.handshake`). On a client they make the offer and judge the answer (called by
`twsock.websocket.client_handshake`). The result is a `DeflateAgreement`, which makes the `Deflater`
and the `Inflater` that `twsock.websocket.messages` uses.

Memory: without context takeover (the default), nothing is held between two messages. There is one
exception: a client whose server keeps its context holds what decompression needs. With context
takeover, a connection holds some 50 KiB by default. To compress, these are
2 ** (window bits + 2) + 2 ** (memory level + 9) bytes. To decompress, these are 2 ** (window bits)
bytes and some 10 KiB. While a message is decompressed, at most twice the limit is held: the pieces
of the result, and the result itself.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from twsock._integers import checked_integer
from twsock.errors import RemoteProtocolError
from twsock.websocket.close_frame import CloseCode, WebSocketViolation
from twsock.websocket.header_fields import Extension

__all__ = ["EXTENSION", "DeflateAgreement", "DeflateSettings", "Deflater", "Inflater"]

#: The name of the extension (section 7).
EXTENSION: Final = "permessage-deflate"

_SERVER_TAKEOVER: Final = "server_no_context_takeover"
_CLIENT_TAKEOVER: Final = "client_no_context_takeover"
_SERVER_WINDOW: Final = "server_max_window_bits"
_CLIENT_WINDOW: Final = "client_max_window_bits"
_TAKEOVERS: Final = frozenset({_SERVER_TAKEOVER, _CLIENT_TAKEOVER})
_WINDOWS: Final = frozenset({_SERVER_WINDOW, _CLIENT_WINDOW})

#: Values of the windows: section 7.1.2.
_WINDOW_BITS: Final = re.compile(r"[89]|1[0-5]")
_LARGEST_WINDOW: Final = 15
#: The smallest window that zlib can compress with. After an agreement on 8 (256 bytes), messages
#: are sent uncompressed, which is allowed for each message (section 6).
_LEAST_WINDOW: Final = 9
#: MAX_MEM_LEVEL of zlib.
_LARGEST_LEVEL: Final = 9

#: An empty block without compression. It ends each message, and is not sent (section 7.2.1).
_TAIL: Final = b"\0\0\xff\xff"
#: The empty block that ends a whole stream. A stream that accepts it was not cut.
_END: Final = b"\x01\0\0\xff\xff"
#: The most bytes that one step of zlib takes and returns.
_PIECE: Final = 64 * 1024
#: Compressed messages up to this size are decompressed in one step, to some 1 MiB at most: DEFLATE
#: makes a message at most 1,032 times as large.
_SMALL: Final = 1024
#: Follows a block with BFINAL: the beginning of the block whose rest is `_TAIL` (section 7.2.3.4).
_PADDING: Final = b"\0"


class _Parameters:
    """The checked parameters of one offer or answer. An absent parameter has its default."""

    __slots__ = ("client_no_takeover", "client_window", "server_no_takeover", "server_window")

    def __init__(self, extension: Extension, *, is_answer: bool) -> None:
        """
        Read the parameters (sections 7.1.1 and 7.1.2).

        :raises RemoteProtocolError: when one is unknown, occurs twice, or has a wrong value.
        """
        _, parameters = extension
        found = dict(parameters)
        if len(found) != len(parameters):
            raise RemoteProtocolError(f"{EXTENSION} has a parameter twice")
        for key, value in parameters:
            _check_parameter(key, value, is_answer)
        self.server_no_takeover = _SERVER_TAKEOVER in found
        self.client_no_takeover = _CLIENT_TAKEOVER in found
        #: None if it is absent.
        self.server_window = _read_window(found, _SERVER_WINDOW)
        self.client_window = _read_window(found, _CLIENT_WINDOW)


def _check_parameter(key: str, value: str | None, is_answer: bool) -> None:
    if key in _TAKEOVERS:
        is_valid = value is None
    elif key in _WINDOWS:
        # Section 7.1.2.2: without a value, the client accepts any window that the server chooses.
        may_be_bare = key == _CLIENT_WINDOW and not is_answer
        is_valid = may_be_bare if value is None else _WINDOW_BITS.fullmatch(value) is not None
    else:
        is_valid = False
    if not is_valid:
        raise RemoteProtocolError(f"a parameter of {EXTENSION} is unknown or has a wrong value")


def _read_window(found: dict[str, str | None], key: str) -> int | None:
    if key not in found:
        return None
    return int(found[key] or _LARGEST_WINDOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeflateSettings:
    """
    How an application wants to compress messages, in both directions.

    :param context_takeover: whether a message may refer to the messages before it. That compresses
        small messages better, and takes some 50 KiB as long as the connection lasts.
    :param max_window_bits: how many bytes back a message may refer, as a power of 2: 12 means 4,096
        bytes. 9 to 15. The peer may ask for less. A peer that does not know the parameter
        compresses its own messages with 15.
    :param compression_level: ``level`` of zlib, for the messages that this end sends; 1 (fastest)
        to 9 (smallest). The default of zlib is 6: up to twice the time of 3, for messages that are
        some 5 % smaller.
    :param memory_level: ``memLevel`` of zlib, for the messages that this end sends; 1 to 9.
    :param min_size: messages with fewer bytes are sent uncompressed; 0 or more.
    :raises ValueError: when a number is outside its bounds.
    :raises TypeError: when a number is no integer.
    """

    context_takeover: bool = False
    max_window_bits: int = 12
    compression_level: int = 3
    memory_level: int = 5
    min_size: int = 256

    def __post_init__(self) -> None:
        bounds = (
            ("max_window_bits", self.max_window_bits, _LEAST_WINDOW, _LARGEST_WINDOW),
            ("compression_level", self.compression_level, 1, zlib.Z_BEST_COMPRESSION),
            ("memory_level", self.memory_level, 1, _LARGEST_LEVEL),
        )
        for name, value, least, largest in bounds:
            if not least <= checked_integer(value, name) <= largest:
                raise ValueError(f"{name} is {least} to {largest}, not {value}")
        if checked_integer(self.min_size, "min_size") < 0:
            raise ValueError(f"min_size is 0 bytes or more, not {self.min_size}")

    def accept(self, extensions: Iterable[Extension]) -> DeflateAgreement | None:
        """
        Choose the first valid offer of a client (section 5).

        :param extensions: all extensions that the client offers, in its order.
        :returns: None if there is no valid offer. An offer with an invalid parameter is passed over
            without an error (section 7).
        """
        for extension in extensions:
            if extension[0] == EXTENSION:
                try:
                    offer = _Parameters(extension, is_answer=False)
                except RemoteProtocolError:
                    continue
                return self._agree(offer)
        return None

    def _agree(self, offer: _Parameters) -> DeflateAgreement:
        """Answer a valid offer. A server may reduce what a client offers, and never extend it."""
        keeps_context = self.context_takeover
        window = self.max_window_bits
        client_window = offer.client_window
        return DeflateAgreement(
            self,
            server_no_takeover=offer.server_no_takeover or not keeps_context,
            client_no_takeover=offer.client_no_takeover or not keeps_context,
            server_window=min(window, offer.server_window or _LARGEST_WINDOW),
            # Section 7.1.2.2: the client's window may be limited only if the offer has it.
            client_window=_LARGEST_WINDOW if client_window is None else min(window, client_window),
            has_server_window=offer.server_window is not None,
        )

    @property
    def _offers_server_window(self) -> bool:
        # Some servers, such as that of nhooyr.io/websocket, refuse an offer with this parameter.
        # Without context takeover it would save memory only while a message is decompressed.
        return self.context_takeover and self.max_window_bits < _LARGEST_WINDOW

    def offer(self) -> Extension:
        """Return the offer of a client."""
        parameters: list[tuple[str, str | None]] = []
        if not self.context_takeover:
            parameters += [(_SERVER_TAKEOVER, None), (_CLIENT_TAKEOVER, None)]
        bits = None if self.max_window_bits == _LARGEST_WINDOW else str(self.max_window_bits)
        if self._offers_server_window:
            parameters.append((_SERVER_WINDOW, bits))
        parameters.append((_CLIENT_WINDOW, bits))
        return EXTENSION, tuple(parameters)

    def judge(self, answer: Extension) -> DeflateAgreement:
        """
        Judge the answer of a server to the offer.

        A server has to repeat the limits of its own messages (sections 7.1.1.1 and 7.1.2.1).
        Tornado and gorilla/websocket do not. Their answers are accepted: this end can decompress
        their messages, with more memory.

        :raises RemoteProtocolError: when the answer has an invalid parameter (section 7), or a
            larger window than the offer.
        """
        given = _Parameters(answer, is_answer=True)
        window = self.max_window_bits
        for key, bits, is_offered in (
            (_SERVER_WINDOW, given.server_window, self._offers_server_window),
            (_CLIENT_WINDOW, given.client_window, True),
        ):
            if is_offered and bits is not None and bits > window:
                raise RemoteProtocolError(f"the server answers {key}={bits}, offered was {window}")
        return DeflateAgreement(
            self,
            server_no_takeover=given.server_no_takeover,
            # In its own direction, an end may always use less than what was agreed.
            client_no_takeover=given.client_no_takeover or not self.context_takeover,
            server_window=given.server_window or _LARGEST_WINDOW,
            client_window=min(window, given.client_window or _LARGEST_WINDOW),
        )


@dataclass(frozen=True, slots=True)
class DeflateAgreement:
    """
    What both ends agreed on.

    :ivar settings: the settings of this end.
    :ivar server_no_takeover: whether each message of the server is compressed by itself.
    :ivar client_no_takeover: the same for messages of the client.
    :ivar server_window: window bits of the server's messages, 8 to 15.
    :ivar client_window: the same for messages of the client.
    :ivar has_server_window: whether the offer names the window of the server, so that the answer
        has to. If only the answer names it, which section 7.1.2.1 allows, some clients fail.
    """

    settings: DeflateSettings
    server_no_takeover: bool
    client_no_takeover: bool
    server_window: int
    client_window: int
    has_server_window: bool = False

    @property
    def answer(self) -> Extension:
        """The element of the header field with which a server answers."""
        parameters: list[tuple[str, str | None]] = []
        if self.server_no_takeover:
            parameters.append((_SERVER_TAKEOVER, None))
        if self.client_no_takeover:
            parameters.append((_CLIENT_TAKEOVER, None))
        if self.has_server_window:
            parameters.append((_SERVER_WINDOW, str(self.server_window)))
        if self.client_window < _LARGEST_WINDOW:
            parameters.append((_CLIENT_WINDOW, str(self.client_window)))
        return EXTENSION, tuple(parameters)

    def deflater(self, *, is_server: bool) -> Deflater:
        """Make the compressor of this end's messages."""
        return Deflater(
            window_bits=self.server_window if is_server else self.client_window,
            keeps_context=not (self.server_no_takeover if is_server else self.client_no_takeover),
            compression_level=self.settings.compression_level,
            memory_level=self.settings.memory_level,
            min_size=self.settings.min_size,
        )

    def inflater(self, *, is_server: bool) -> Inflater:
        """Make the decompressor of the peer's messages."""
        return Inflater(
            window_bits=self.client_window if is_server else self.server_window,
            keeps_context=not (self.client_no_takeover if is_server else self.server_no_takeover),
        )


class Deflater:
    """Compresses the messages of one direction (section 7.2.1); see `DeflateAgreement.deflater`."""

    __slots__ = (
        "_compression_level", "_compressor", "_keeps_context", "_memory_level", "_min_size",
        "_window_bits",
    )  # fmt: skip

    def __init__(
        self,
        *,
        window_bits: int,
        keeps_context: bool,
        compression_level: int,
        memory_level: int,
        min_size: int,
    ) -> None:
        self._window_bits = window_bits
        self._keeps_context = keeps_context
        self._compression_level = compression_level
        self._memory_level = memory_level
        self._min_size = min_size
        self._compressor: zlib._Compress | None = None

    @property
    def key(self) -> tuple[int, int, int, int] | None:
        """Equal for compressors with equal results; None if they depend on earlier messages."""
        if self._keeps_context:
            return None
        return self._window_bits, self._compression_level, self._memory_level, self._min_size

    def compress(self, data: bytes) -> bytes | None:
        """
        Compress a message.

        :returns: None if the message has to be sent as it is, since it is small, or would not
            become smaller.
        """
        if len(data) < self._min_size or self._window_bits < _LEAST_WINDOW:
            return None
        compressor = self._compressor or zlib.compressobj(
            self._compression_level, wbits=-self._window_bits, memLevel=self._memory_level
        )
        beginning = compressor.compress(data)
        rest = compressor.flush(zlib.Z_SYNC_FLUSH)
        # The flush returns at least one byte in front of the tail. So no message is empty.
        compressed = beginning + rest[: -len(_TAIL)]
        if self._keeps_context:
            # Later messages refer to this one, so it is sent compressed, even if that is larger.
            self._compressor = compressor
        elif len(compressed) >= len(data):
            return None
        return compressed


class Inflater:
    """
    Decompresses the messages of one direction (section 7.2.2); see `DeflateAgreement.inflater`.
    """

    __slots__ = ("_decompressor", "_keeps_context", "_window_bits")

    def __init__(self, *, window_bits: int, keeps_context: bool) -> None:
        self._window_bits = window_bits
        self._keeps_context = keeps_context
        self._decompressor: zlib._Decompress | None = None

    def inflate(self, data: bytes | bytearray, limit: int) -> bytes:
        """
        Decompress a message.

        :param data: the whole payload of the message.
        :param limit: the largest result, in bytes. Decompression stops one byte after it.
        :raises WebSocketViolation: 1009 when the result is larger; 1007 when the data is malformed
            or incomplete. After an error, make no further call.
        """
        if not data:
            if not self._keeps_context:
                raise _malformed()
            # An empty message has one byte (section 7.2.3.6). That of Mojolicious has none: zlib
            # makes no block if nothing is new since the last one.
            return b""
        decompressor = self._decompressor or self._new_decompressor()
        try:
            found, rest = _decompress(decompressor, data, limit)
            is_ended = decompressor.eof
            if not is_ended:
                self._check_tail(decompressor)
        except zlib.error:
            raise _malformed() from None
        if is_ended:
            # The peer ended its DEFLATE stream (section 7.2.3.4). Only one stream is accepted in a
            # message: many small ones would take much time.
            if decompressor.unused_data + rest not in (b"", _PADDING):
                raise _malformed()
            decompressor = self._new_decompressor(found)
        if self._keeps_context:
            self._decompressor = decompressor
        return found

    def _check_tail(self, decompressor: zlib._Decompress) -> None:
        """
        Decompress the tail that the peer does not send, to find out whether the message was cut.

        In a message that was cut, zlib takes the tail for data. Without context takeover the stream
        is ended, too, so that every cut is found.
        """
        tail = _TAIL if self._keeps_context else _TAIL + _END
        if decompressor.decompress(tail, 1) or decompressor.eof is self._keeps_context:
            raise _malformed()

    def _new_decompressor(self, history: bytes = b"") -> zlib._Decompress:
        """
        Make a decompressor that knows the end of one message.

        A peer that has ended its stream begins a new one, or refers to its last message. A
        reference to an earlier message is malformed.
        """
        if not (self._keeps_context and history):
            return zlib.decompressobj(wbits=-self._window_bits)
        window = history[-(1 << self._window_bits) :]
        return zlib.decompressobj(wbits=-self._window_bits, zdict=window)


def _decompress(
    decompressor: zlib._Decompress, data: bytes | bytearray, limit: int
) -> tuple[bytes, bytes]:
    """
    Decompress data in small steps, so that a bomb takes little more memory than the limit.

    :returns: the result; and the first bytes after the piece that has ended the stream, if any.
    :raises WebSocketViolation: when the result is above the limit.
    """
    # One byte more shows that the result is too large. For zlib, 0 would mean no limit.
    if len(data) <= _SMALL:
        result = decompressor.decompress(data, limit + 1)
        if len(result) > limit:
            raise _too_big(limit)
        return result, b""
    results = []
    end, left, is_full = 0, limit, False
    with memoryview(data) as view:
        while not decompressor.eof and (is_full or end < len(view)):
            if is_full:
                # The input that is left of the last piece; zlib may also have output without input.
                piece: bytes | memoryview = decompressor.unconsumed_tail
            else:
                piece = view[end : end + _PIECE]
                end += _PIECE
            most = min(left + 1, _PIECE)
            results.append(decompressor.decompress(piece, most))
            is_full = len(results[-1]) == most
            left -= len(results[-1])
            if left < 0:
                raise _too_big(limit)
        # Two bytes are enough: after the stream, at most `_PADDING` is accepted.
        rest = bytes(view[end : end + 2])
    return b"".join(results), rest


def _too_big(limit: int) -> WebSocketViolation:
    return WebSocketViolation(CloseCode.MESSAGE_TOO_BIG, f"compressed message above {limit} bytes")


def _malformed() -> WebSocketViolation:
    return WebSocketViolation(CloseCode.INVALID_PAYLOAD_DATA, "compressed message is malformed")
