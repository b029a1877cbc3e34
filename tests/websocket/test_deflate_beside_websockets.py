"""
Our compression beside that of ``websockets``, on the same bytes.

As in `tests.websocket.test_beside_websockets`, each stream ends in a violation. The messages are
compressed by zlib itself, with every window and with context takeover or without.
"""

from __future__ import annotations

import enum
import zlib
from typing import Any, Final, NamedTuple

from hypothesis import event, given, settings
from hypothesis.strategies import (
    DrawFn,
    binary,
    booleans,
    composite,
    integers,
    lists,
    one_of,
    sampled_from,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.frame_bytes import KEY, client_frame, server_frame
from tests.websocket.test_beside_websockets import (
    EXAMPLES,
    LIMIT,
    WHY_NOT,
    Outcome,
    decode_with_ours,
    decode_with_theirs,
    difference,
)
from twsock.websocket.deflate import DeflateAgreement, DeflateSettings, Inflater
from twsock.websocket.frames import Opcode
from twsock.websocket.messages import MessageEncoder

if WHY_NOT is None:
    from websockets.extensions.permessage_deflate import PerMessageDeflate
    from websockets.frames import Frame
    from websockets.frames import Opcode as TheirOpcode

#: A violation for both, as in the streams without compression.
_END: Final = b"\x7f" * (LIMIT + 100)

_TAIL: Final = b"\0\0\xff\xff"
_RSV1: Final = 0x40

#: Payloads that refer to each other, that cannot be compressed, and that exceed the limit.
_PAYLOADS: Final = one_of(
    sampled_from((b"", b"Hello", b"Hello, Hello", b"x" * 600, b"ab" * 500, b"x" * (LIMIT + 1))),
    sampled_from([bytes((value * 7919 >> 4) & 255 for value in range(size)) for size in (40, 990)]),
    binary(max_size=40),
)


_MESSAGES: Final = lists(_PAYLOADS, max_size=5)


class Difference(enum.Enum):
    """Where the two may differ about compressed messages, and why ours does what it does."""

    CODE = (
        "websockets answers malformed data with 1002; ours with 1007, the code for data that does "
        "not fit the type of its message (RFC 6455 section 7.4.1)"
    )
    CUT = (
        "websockets delivers the beginning of a message that was cut, or has bytes behind its end; "
        "ours refuses it as malformed"
    )
    WHOLE = (
        "websockets decompresses each fragment when it arrives; ours the whole message, so that "
        "frames within the message, and their violations, come first"
    )
    ROOM = (
        "websockets applies what is left of the limit to the compressed size of a frame; ours "
        "applies the limit to the message, and allows for an eighth more before decompression"
    )
    ENDED = (
        "websockets decompresses nothing more once the peer has ended its DEFLATE stream, although "
        "a peer may do that (RFC 7692 section 7.2.3.4); ours goes on"
    )


class Stream(NamedTuple):
    """Frames, and how both ends decompress them."""

    frames: bytes
    window_bits: int
    keeps_context: bool


def _compress(compressor: Any, payload: bytes, is_ended: bool) -> bytes:
    data: bytes = compressor.compress(payload)
    if is_ended:
        return data + bytes(compressor.flush(zlib.Z_FINISH)) + b"\0"
    return (data + bytes(compressor.flush(zlib.Z_SYNC_FLUSH))).removesuffix(_TAIL)


@composite
def streams(draw: DrawFn, is_server: bool) -> Stream:
    """Draw compressed and plain messages, in fragments, some of their bytes changed."""
    make = client_frame if is_server else server_frame
    window_bits = draw(integers(9, 15))
    keeps_context = draw(booleans())
    compressor: Any = None
    stream = bytearray()
    for _ in range(draw(integers(1, 5))):
        payload = draw(_PAYLOADS)
        # What is no text is a difference that the frames without compression show.
        opcode = Opcode.TEXT if payload.isascii() and draw(booleans()) else Opcode.BINARY
        bit = draw(sampled_from((_RSV1, _RSV1, _RSV1, 0)))
        if bit:
            if compressor is None or not keeps_context:
                compressor = zlib.compressobj(wbits=-window_bits, memLevel=draw(integers(1, 9)))
            is_ended = draw(integers(0, 9)) == 0
            payload = _compress(compressor, payload, is_ended)
            compressor = None if is_ended else compressor
        cuts = sorted(draw(lists(integers(0, len(payload)), max_size=3)))
        pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for number, piece in enumerate(pieces):
            fin = 0x80 if number == len(pieces) - 1 else 0
            stream += make(fin | (0 if number else bit | opcode), piece)
            if draw(integers(0, 5)) == 0:
                stream += make(draw(sampled_from((0x89, 0x8A, 0x88))), b"")
    changes = draw(lists(_CHANGES, max_size=2)) if draw(booleans()) else []
    for position, value in changes:
        stream[position % len(stream)] = value
    # A change may refer to bytes in front of the window, which zlib finds or not, as the data is
    # cut into calls.
    return Stream(bytes(stream) + _END, 15 if changes else window_bits, keeps_context)


_CHANGES: Final = sampled_from([(p, v) for p in range(60) for v in (0, 1, 0x7F, 0x80, 0xFF)])


def explain(ours: Outcome, theirs: Outcome, has_ended: bool) -> enum.Enum | None:
    """
    Return which of the differences explains that the outcomes are not the same.

    :param has_ended: whether the decompressor of ``websockets`` has reached the end of its stream.
    """
    common = min(len(ours.messages), len(theirs.messages))
    same = next((n for n in range(common) if ours.messages[n] != theirs.messages[n]), common)
    our_rest, their_rest = ours.messages[same:], theirs.messages[same:]
    is_refused = ours.code == -1007 and ours.reason.startswith("compressed message")
    if not our_rest and not their_rest and is_refused and theirs.code == -1002:
        return Difference.CODE
    if not our_rest and is_refused and their_rest:
        return Difference.CUT
    if has_ended and their_rest and their_rest[0][1] == b"":
        return Difference.ENDED
    failed = theirs.code == -1009 or theirs.reason == "decompression failed"
    if failed and not their_rest:
        begun = next((data for opcode, data in our_rest if opcode < Opcode.CLOSE), None)
        if begun is None:
            return Difference.WHOLE
        if theirs.code == -1009 and len(begun) <= LIMIT:
            return Difference.ROOM
    return difference(ours, theirs)


class DecodingTests(SynchronousTestCase):
    """The messages and the codes are equal, except for the differences that are listed."""

    skip = WHY_NOT

    def assert_alike(self, stream: Stream, step: int, is_server: bool) -> enum.Enum | None:
        frames, window_bits, keeps_context = stream
        inflater = Inflater(window_bits=window_bits, keeps_context=keeps_context)
        theirs = PerMessageDeflate(not keeps_context, True, window_bits, 15)
        our_outcome = decode_with_ours(frames, step, is_server, inflater)
        their_outcome = decode_with_theirs(frames, step, is_server, theirs)
        if (our_outcome.messages, our_outcome.code) == (their_outcome.messages, their_outcome.code):
            return None
        decompressor = getattr(theirs, "decoder", None)
        has_ended = decompressor is not None and decompressor.eof
        found = explain(our_outcome, their_outcome, has_ended)
        self.assertIsNotNone(
            found, f"{our_outcome=}\n{their_outcome=}\n{stream=}\n{frames[:200].hex(' ')}"
        )
        return found

    @settings(max_examples=EXAMPLES)
    @given(streams(is_server=True), integers(1, 300))
    def test_as_a_server(self, stream: Stream, step: int) -> None:
        """Masked frames."""
        event(str(self.assert_alike(stream, step, is_server=True)))

    @settings(max_examples=EXAMPLES)
    @given(streams(is_server=False), integers(1, 300))
    def test_as_a_client(self, stream: Stream, step: int) -> None:
        """Frames without masks."""
        event(str(self.assert_alike(stream, step, is_server=False)))

    def test_each_difference_exists(self) -> None:
        """What is listed as a difference is one."""
        hello = _compress(zlib.compressobj(wbits=-15), b"Hello, Hello", False)
        last = _compress(zlib.compressobj(wbits=-15), b"Hello, Hello", True)
        noise = b"".join(pow(3, n, 257).to_bytes(2, "big")[1:] for n in range(LIMIT))
        stored = _compress(zlib.compressobj(0, wbits=-15), noise, False)
        examples = {
            Difference.CODE: client_frame(0xC2, b"\xff"),
            Difference.CUT: client_frame(0xC2, hello[:-4]),
            Difference.WHOLE: client_frame(0x42, b"\xff") + client_frame(0x89),
            Difference.ROOM: client_frame(0xC2, stored),
            Difference.ENDED: client_frame(0xC2, last) + client_frame(0xC2, hello),
        }
        for expected, frames in examples.items():
            found = self.assert_alike(Stream(frames + _END, 15, True), 7, is_server=True)
            self.assertIs(found, expected)
        self.assertEqual(list(examples), list(Difference))


class EncodingTests(SynchronousTestCase):
    """Each end reads what the other one has compressed."""

    skip = WHY_NOT

    @given(_MESSAGES, integers(9, 15), booleans(), booleans())
    def test_they_read_what_we_compress(
        self, payloads: list[bytes], window_bits: int, keeps_context: bool, is_server: bool
    ) -> None:
        """In fragments, with every window, and with context takeover or without."""
        settings = DeflateSettings(context_takeover=keeps_context, min_size=5)
        agreement = DeflateAgreement(
            settings,
            server_no_takeover=not keeps_context,
            client_no_takeover=not keeps_context,
            server_window=window_bits,
            client_window=window_bits,
        )
        encoder = MessageEncoder(
            is_server=is_server,
            random_bytes=lambda size: KEY * (size // 4),
            deflater=agreement.deflater(is_server=is_server),
            max_fragment_size=50,
        )
        kept = [payload for payload in payloads if len(payload) <= LIMIT]
        frames = b"".join(encoder.encode(Opcode.BINARY, payload) for payload in kept)
        theirs = PerMessageDeflate(not keeps_context, True, window_bits, 15)
        found = decode_with_theirs(frames + _END, 100, not is_server, theirs)
        self.assertEqual(found.messages, [(Opcode.BINARY, payload) for payload in kept])

    @given(_MESSAGES, integers(9, 15), booleans(), booleans())
    def test_we_read_what_they_compress(
        self, payloads: list[bytes], window_bits: int, keeps_context: bool, is_server: bool
    ) -> None:
        """They compress every message, also small and empty ones."""
        theirs = PerMessageDeflate(True, not keeps_context, 15, window_bits)
        kept = [payload for payload in payloads if len(payload) <= LIMIT]
        frames = b"".join(
            Frame(TheirOpcode.BINARY, payload).serialize(mask=is_server, extensions=[theirs])
            for payload in kept
        )
        inflater = Inflater(window_bits=window_bits, keeps_context=keeps_context)
        found = decode_with_ours(frames + _END, 100, is_server, inflater)
        self.assertEqual(found.messages, [(Opcode.BINARY, payload) for payload in kept])
