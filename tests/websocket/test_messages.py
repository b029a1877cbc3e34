"""A `MessageDecoder` turns frames into messages; a `MessageEncoder` does the reverse."""

from __future__ import annotations

import os
import sys
import tracemalloc
import zlib
from collections.abc import Hashable
from typing import Any

from hypothesis import given
from hypothesis.strategies import (
    DrawFn,
    binary,
    booleans,
    composite,
    integers,
    lists,
    one_of,
    sampled_from,
    text,
    tuples,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.frame_bytes import (
    KEY,
    MIB,
    client_frame,
    pieces,
    pull_all,
    server_frame,
)
from twsock.errors import LocalProtocolError
from twsock.websocket.close_frame import CloseCode, WebSocketViolation
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.frames import Opcode
from twsock.websocket.messages import Message, MessageDecoder, MessageEncoder

KIB = 1024
TEXT, BINARY = Opcode.TEXT, Opcode.BINARY

#: A message as data, and the sizes of the fragments that it is sent in.
_DATA = one_of(tuples(sampled_from([TEXT]), text(max_size=40)),
               tuples(sampled_from([BINARY]), binary(max_size=200)))  # fmt: skip
_CONTROLS = tuples(sampled_from([Opcode.PING, Opcode.PONG]), binary(max_size=125))


class Deflater:
    """Compresses each message by itself (:rfc:`7692`, section 7.2)."""

    key = 15

    def compress(self, data: bytes) -> bytes:
        compressor = zlib.compressobj(wbits=-15)
        return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Inflater:
    """Decompresses what `Deflater` compressed."""

    def inflate(self, data: bytes, limit: int) -> bytes:
        found = zlib.decompressobj(wbits=-15).decompress(data + b"\0\0\xff\xff", limit + 1)
        if len(found) > limit:
            raise WebSocketViolation(CloseCode.MESSAGE_TOO_BIG, "message is too large inflated")
        return found


def make_decoder(**options: Any) -> MessageDecoder:
    return MessageDecoder(**{"is_server": True, "max_message_size": MIB, **options})


def as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


@composite
def conversations(draw: DrawFn, is_masked: bool = True) -> tuple[list[Message], bytes]:
    """Draw messages, in fragments with control frames between them, and their bytes."""
    make = client_frame if is_masked else server_frame
    expected: list[Message] = []
    stream = b""
    for opcode, data in draw(lists(one_of(_DATA, _CONTROLS), max_size=6)):
        if opcode >= Opcode.CLOSE:
            expected.append((opcode, data, True))
            stream += make(0x80 | opcode, as_bytes(data))
            continue
        rest, first = as_bytes(data), int(opcode)
        for size in draw(lists(integers(0, 50), max_size=4)):
            stream += make(first, rest[:size])
            rest, first = rest[size:], 0
            for control, payload in draw(lists(_CONTROLS, max_size=1)):
                expected.append((control, payload, True))
                stream += make(0x80 | control, payload)
        stream += make(0x80 | first, rest)
        expected.append((opcode, data, True))
    return expected, stream


class DecodingTests(SynchronousTestCase):
    """Messages come out as they were sent."""

    def test_the_examples_of_the_rfc(self) -> None:
        """Section 5.7: a text, masked and not, in fragments, and with a ping between them."""
        masked = bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")
        self.assertEqual(pull_all(make_decoder(), masked), [(TEXT, "Hello", True)])
        plain = bytes.fromhex("81 05 48 65 6c 6c 6f 01 03 48 65 6c 89 00 80 02 6c 6f")
        self.assertEqual(
            pull_all(make_decoder(is_server=False), plain),
            [(TEXT, "Hello", True), (Opcode.PING, b"", True), (TEXT, "Hello", True)],
        )

    @given(conversations(), integers(1, 400))
    def test_any_cut_gives_the_same_messages(
        self, conversation: tuple[list[Message], bytes], step: int
    ) -> None:
        """Control frames between fragments come first, messages when they are complete."""
        expected, stream = conversation
        decoder = make_decoder()
        found = pull_all(decoder, stream, step)
        self.assertEqual(found, expected)
        self.assertEqual([type(data) for _, data, _ in found], [type(d) for _, d, _ in expected])
        self.assertEqual(decoder.buffered, 0)
        self.assertEqual(decoder.delivered, sum(opcode <= BINARY for opcode, _, _ in expected))

    @given(conversations(is_masked=False), integers(1, 400))
    def test_a_client_decodes_frames_without_masks(
        self, conversation: tuple[list[Message], bytes], step: int
    ) -> None:
        """At any cut."""
        expected, stream = conversation
        found = pull_all(make_decoder(is_server=False), stream, step)
        self.assertEqual(found, expected)
        self.assertEqual([type(data) for _, data, _ in found], [type(d) for _, d, _ in expected])

    def test_each_size_at_each_border(self) -> None:
        """With a length of 7, 16 and 64 bits, whole, cut, and beside another message."""
        for size in (0, 1, 125, 126, 4095, 4096, 65_535, 65_536, 200_000):
            payload = os.urandom(size)
            stream = client_frame(0x82, payload) + client_frame(0x82, b"next")
            for step in (None, 7, 64 * KIB):
                found = pull_all(make_decoder(), stream, step)
                self.assertEqual(
                    found, [(BINARY, payload, True), (BINARY, b"next", True)], f"{size=} {step=}"
                )

    @given(conversations(), lists(integers(0, 3)), integers(1, 400))
    def test_leaving_the_loop_keeps_the_rest(
        self, conversation: tuple[list[Message], bytes], turns: list[int], step: int
    ) -> None:
        """A loop can end anywhere; the next pull continues behind it."""
        expected, stream = conversation
        decoder = make_decoder()
        found: list[Message] = []
        for number, piece in enumerate(pieces(stream, step)):
            decoder.feed(piece)
            for _, message in zip(
                range(turns[number % len(turns)] if turns else 0), decoder.messages(), strict=False
            ):
                found.append(message)
        # `zip` ends before it takes a message only if its first iterator ended.
        found.extend(decoder.messages())
        self.assertEqual(found, expected)

    @given(conversations(), binary(max_size=30), integers(1, 60))
    def test_garbage_gives_messages_or_a_violation(
        self, conversation: tuple[list[Message], bytes], garbage: bytes, step: int
    ) -> None:
        """No other exception, and what came before is delivered; the role does not matter."""
        expected, stream = conversation
        for is_partial in (False, True):
            decoder = make_decoder(is_partial=is_partial)
            found: list[Message] = []
            try:
                for piece in pieces(stream + garbage, step):
                    decoder.feed(piece)
                    found.extend(decoder.messages())
            except WebSocketViolation:
                self.assertEqual(decoder.buffered, 0)
            if not is_partial:
                self.assertEqual(found[: len(expected)], expected)

    def test_what_follows_a_close_frame_is_dropped(self) -> None:
        """Section 1.4: also a violation, also within a message, and bytes that arrive later."""
        decoder = make_decoder()
        stream = client_frame(0x01, b"part") + client_frame(0x88, b"\x03\xe8") + b"\xff" * 9
        self.assertEqual(pull_all(decoder, stream), [(Opcode.CLOSE, b"\x03\xe8", True)])
        self.assertEqual(decoder.buffered, 0)
        self.assertEqual(pull_all(decoder, client_frame(0x82, b"late")), [])
        self.assertEqual(decoder.buffered, 0)

    def test_undelivered_bytes_are_counted(self) -> None:
        """Bytes of incomplete frames and of incomplete messages count."""
        decoder = make_decoder()
        pull_all(decoder, client_frame(0x02, b"12345"))
        self.assertEqual(decoder.buffered, 5)
        pull_all(decoder, b"\x80\x82")
        self.assertEqual(decoder.buffered, 7)
        decoder.clear()
        self.assertEqual(decoder.buffered, 0)

    def test_a_pulled_message_leaves_nothing(self) -> None:
        """The bytes of the read are free while the message is handled."""
        decoder = make_decoder()
        decoder.feed(client_frame(0x82, b"one"))
        self.assertEqual(next(decoder.messages()), (BINARY, b"one", True))
        self.assertEqual((decoder.stored, decoder.buffered), (b"", 0))

    def test_a_payload_is_bytes(self) -> None:
        """A frame that was spread over reads gives bytes, too, on a client as on a server."""
        for is_server, make in ((True, client_frame), (False, server_frame)):
            for step in (1, 3, None):
                stream = make(0x82, b"12") + make(0x89, b"3") + make(0x82, b"4")
                for _, payload, _ in pull_all(make_decoder(is_server=is_server), stream, step):
                    self.assertIs(type(payload), bytes, f"{is_server=} {step=}")

    def test_limits_out_of_bounds_are_refused(self) -> None:
        """When the decoder is made."""
        for name in ("max_message_size", "max_fragments"):
            self.assertRaises(ValueError, make_decoder, **{name: -1})
            self.assertRaises(TypeError, make_decoder, **{name: 1.5})
        self.assertRaises(ValueError, make_decoder, max_fragments=0)


#: What breaks a rule of :rfc:`6455` → section, code, the first bytes of the reason, the bytes.
_VIOLATIONS: dict[str, tuple[str, int, str, bytes]] = {
    "unmasked": ("5.1", 1002, "frame without a mask", server_frame(0x82, b"x")),
    "RSV1": ("5.2", 1002, "reserved bits", client_frame(0xC2, b"x")),
    "RSV2": ("5.2", 1002, "reserved bits", client_frame(0xA2, b"x")),
    "RSV3": ("5.2", 1002, "reserved bits", client_frame(0x92, b"x")),
    "RSV1 of a ping": ("5.2", 1002, "reserved bits", client_frame(0xC9)),
    **{
        f"opcode {opcode}": ("5.2", 1002, "reserved opcode", client_frame(0x80 | opcode))
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    },
    "16 bits for 125": ("5.2", 1002, "length 125 in too", client_frame(0x82, bytes(125), 2)),
    "64 bits for 125": ("5.2", 1002, "length 125 in too", client_frame(0x82, bytes(125), 8)),
    "64 bits for 65535": ("5.2", 1002, "length 65535", client_frame(0x82, bytes(65_535), 8)),
    "2**63": ("5.2", 1002, "length of 2**63", b"\x82\xff\x80" + bytes(7) + KEY),
    "continuation first": ("5.4", 1002, "continuation without", client_frame(0x80, b"x")),
    "text in a message": ("5.4", 1002, "new message", client_frame(2) + client_frame(0x81)),
    "binary in a message": ("5.4", 1002, "new message", client_frame(1) + client_frame(0x02)),
    "fragmented ping": ("5.5", 1002, "fragmented control", client_frame(0x09)),
    "fragmented close": ("5.5", 1002, "fragmented control", client_frame(0x08)),
    "large ping": ("5.5", 1002, "control frame above 125", client_frame(0x89, bytes(126))),
    "large close": ("5.5", 1002, "control frame above 125", client_frame(0x88, bytes(126))),
    "not UTF-8": ("8.1", 1007, "text that is not UTF-8", client_frame(0x81, b"\xff")),
    "surrogate": ("8.1", 1007, "text that", client_frame(0x81, b"\xed\xa0\x80")),
    "overlong": ("8.1", 1007, "text that", client_frame(0x81, b"\xc0\xaf")),
    "above U+10FFFF": ("8.1", 1007, "text that", client_frame(0x81, b"\xf4\x90\x80\x80")),
    "unfinished character": ("8.1", 1007, "text that", client_frame(0x81, b"\xe2\x82")),
    "unfinished in fragments": (
        "8.1", 1007, "text that", client_frame(0x01, b"\xe2") + client_frame(0x80, b"\x82"),
    ),
    "too large": ("10.4", 1009, "message of 70001", client_frame(0x82, bytes(70_001))),
    "too large in sum": (
        "10.4", 1009, "message of 70001", client_frame(2, bytes(70_000)) + client_frame(0, b"x"),
    ),
}  # fmt: skip


class ViolationTests(SynchronousTestCase):
    """Each broken rule has its code, and what precedes it is delivered."""

    def assert_violates(self, decoder: MessageDecoder, stream: bytes, step: int) -> list[Message]:
        """Feed until the violation; return what was delivered, and keep the violation."""
        found: list[Message] = []
        try:
            for piece in pieces(stream, step):
                decoder.feed(piece)
                found.extend(decoder.messages())
        except WebSocketViolation as violation:
            self.violation = violation
        else:
            self.fail(f"no violation: {stream[:20]!r}")
        return found

    def test_each_violation_has_its_code_and_reason(self) -> None:
        """At any cut; a further pull raises the same, whatever arrives."""
        for name, (section, code, reason, stream) in _VIOLATIONS.items():
            for step in (1, 2, 7, 100_000):
                what = f"{section} {name}, {step=}"
                decoder = make_decoder(max_message_size=70_000)
                self.assert_violates(decoder, stream, step)
                self.assertEqual(self.violation.code, code, what)
                self.assertTrue(self.violation.reason.startswith(reason), what)
                self.assertLessEqual(len(self.violation.reason), 123, what)
                decoder.feed(client_frame(0x82, b"late"))
                again = self.assertRaises(WebSocketViolation, list, decoder.messages())
                self.assertEqual((again.code, again.reason), (code, self.violation.reason), what)
                self.assertIsNot(again, self.violation, what)

    @given(conversations(), sampled_from(sorted(_VIOLATIONS)), integers(1, 300))
    def test_what_precedes_a_violation_is_delivered(
        self, conversation: tuple[list[Message], bytes], name: str, step: int
    ) -> None:
        """Each message and control frame, however the stream is cut."""
        expected, stream = conversation
        _, code, _, bad = _VIOLATIONS[name]
        found = self.assert_violates(make_decoder(max_message_size=70_000), stream + bad, step)
        self.assertEqual((found, self.violation.code), (expected, code))

    def test_a_masked_frame_from_a_server(self) -> None:
        """Section 5.1: a client accepts none."""
        decoder = make_decoder(is_server=False)
        self.assert_violates(decoder, client_frame(0x82, b"x"), 1)
        self.assertEqual(self.violation.code, CloseCode.PROTOCOL_ERROR)

    def test_a_compressed_continuation(self) -> None:
        """Only the first frame of a message may have RSV1 (RFC 7692, section 6.1)."""
        decoder = make_decoder(inflater=Inflater())
        self.assert_violates(decoder, client_frame(0x41, b"x") + client_frame(0xC0, b"x"), 3)
        self.assertEqual(self.violation.code, CloseCode.PROTOCOL_ERROR)

    def test_two_bytes_show_a_violation(self) -> None:
        """No decoder waits for a payload that it will refuse."""
        for first, second in ((0x83, 0x80), (0x82, 0x05), (0x09, 0x80), (0x89, 0xFE), (0xC2, 0x80)):
            decoder = make_decoder()
            decoder.feed(bytes((first, second)))
            with self.assertRaises(WebSocketViolation, msg=f"{first:x} {second:x}"):
                list(decoder.messages())

    def test_a_violation_frees_the_memory(self) -> None:
        """Nothing that can never be delivered is kept."""
        decoder = make_decoder()
        stream = client_frame(0x02, bytes(9)) + client_frame(0x83) + bytes(99)
        self.assert_violates(decoder, stream, len(stream))
        self.assertEqual(decoder.buffered, 0)


class TextTests(SynchronousTestCase):
    """A text is UTF-8, and the first byte that is not ends it (section 8.1)."""

    def first_bad(self, stream: bytes) -> int | None:
        """Return after how many bytes the decoder raises, fed one by one."""
        decoder = make_decoder()
        for number, byte in enumerate(pieces(stream, 1), 1):
            decoder.feed(byte)
            try:
                list(decoder.messages())
            except WebSocketViolation:
                return number
        return None

    def test_an_invalid_byte_is_refused_when_it_arrives(self) -> None:
        """
        In one frame as in fragments; the rest of the message is not awaited.

        Python refuses half of a surrogate pair with its third byte, the others with the first byte
        that no valid text has there.
        """
        good = "κόσμε".encode()
        for bad in (b"\xff", b"\xf4\x90", b"\xed\xa0\x80", b"\xc0", b"\xe0\x9f", b"\xf0\x8f"):
            payload = good + bad + b"edited"
            one = client_frame(0x81, payload)
            self.assertEqual(self.first_bad(one), 6 + len(good + bad), f"{bad=}")
            two = client_frame(0x01, good) + client_frame(0x80, bad + b"edited")
            self.assertEqual(self.first_bad(two), 12 + len(good + bad), f"{bad=}")

    @given(text(max_size=60), integers(1, 9), booleans())
    def test_characters_may_be_divided(self, data: str, size: int, is_partial: bool) -> None:
        """Between fragments, at any byte."""
        parts = list(pieces(data.encode(), size)) or [b""]
        stream = b"".join(
            client_frame((0 if i else 1) | (0x80 if i == len(parts) - 1 else 0), part)
            for i, part in enumerate(parts)
        )
        found = pull_all(make_decoder(is_partial=is_partial), stream, 5)
        if is_partial:
            last = len(parts) - 1
            self.assertEqual(found, [(TEXT, part, i == last) for i, part in enumerate(parts)])
        else:
            self.assertEqual(found, [(TEXT, data, True)])

    @given(binary(max_size=12), integers(1, 12), booleans())
    def test_the_verdict_is_that_of_python(self, data: bytes, size: int, is_partial: bool) -> None:
        """Any bytes, whole or in fragments, are a text if Python can decode them."""
        parts = list(pieces(data, size)) or [b""]
        stream = b"".join(
            client_frame((0 if i else 1) | (0x80 if i == len(parts) - 1 else 0), part)
            for i, part in enumerate(parts)
        )
        try:
            data.decode()
        except UnicodeDecodeError:
            with self.assertRaises(WebSocketViolation):
                pull_all(make_decoder(is_partial=is_partial), stream)
        else:
            pull_all(make_decoder(is_partial=is_partial), stream)


class LimitTests(SynchronousTestCase):
    """A message within the limits passes; one byte or one fragment more does not."""

    def refuse(self, decoder: MessageDecoder, stream: bytes) -> WebSocketViolation:
        decoder.feed(stream)
        violation: WebSocketViolation
        violation = self.assertRaises(WebSocketViolation, list, decoder.messages())
        return violation

    def test_a_message_of_exactly_the_limit_passes(self) -> None:
        """One frame and fragments pass, whole or cut."""
        for stream in (
            client_frame(0x82, bytes(300)),
            client_frame(0x02, bytes(200)) + client_frame(0x80, bytes(100)),
        ):
            for step in (None, 1):
                found = pull_all(make_decoder(max_message_size=300), stream, step)
                self.assertEqual(found, [(BINARY, bytes(300), True)], f"{step=}")

    def test_the_header_is_enough(self) -> None:
        """One byte above the limit, and 2**62 bytes: no byte of the payload is awaited."""
        for header in (b"\x82\x8b", b"\x82\xfe\x01\x00", b"\x82\xff\x40" + bytes(7)):
            violation = self.refuse(make_decoder(max_message_size=10), header + KEY)
            self.assertEqual(violation.code, CloseCode.MESSAGE_TOO_BIG, f"{header=}")
            self.assertIn("limit is 10", violation.reason)

    def test_the_sum_of_fragments_is_limited(self) -> None:
        """By the header of the fragment that exceeds it."""
        stream = client_frame(0x02, bytes(6)) + client_frame(0x00, bytes(4))
        for is_partial in (False, True):
            decoder = make_decoder(max_message_size=10, is_partial=is_partial)
            pull_all(decoder, stream)
            violation = self.refuse(decoder, client_frame(0x80, b"x")[:6])
            self.assertEqual(violation.code, CloseCode.MESSAGE_TOO_BIG, f"{is_partial=}")

    def test_a_limit_of_zero_allows_empty_messages_only(self) -> None:
        """0 is the smallest limit."""
        decoder = make_decoder(max_message_size=0)
        self.assertEqual(pull_all(decoder, client_frame(0x81)), [(TEXT, "", True)])
        self.refuse(decoder, client_frame(0x81, b"x"))

    def test_the_inflater_gets_the_limit(self) -> None:
        """What it decompresses is limited, not what arrives."""
        decoder = make_decoder(max_message_size=1000, inflater=Inflater())
        stream = client_frame(0xC2, Deflater().compress(bytes(1000)))
        self.assertEqual(pull_all(decoder, stream), [(BINARY, bytes(1000), True)])
        bomb = client_frame(0xC2, Deflater().compress(bytes(1001)))
        self.assertEqual(self.refuse(decoder, bomb).code, CloseCode.MESSAGE_TOO_BIG)

    def test_a_failed_decompression_is_final(self) -> None:
        """What precedes it is delivered; each later pull raises an equal error."""
        bomb = Deflater().compress(bytes(1001))
        for stream in (
            client_frame(0xC2, bomb),
            client_frame(0x42, bomb[:1]) + client_frame(0x80, bomb[1:]),
        ):
            decoder = make_decoder(max_message_size=1000, inflater=Inflater())
            decoder.feed(client_frame(0x82, b"x") + stream + client_frame(0x82, b"late"))
            found = decoder.messages()
            self.assertEqual(next(found), (BINARY, b"x", True))
            violation = self.assertRaises(WebSocketViolation, next, found)
            self.assertEqual(decoder.buffered, 0)
            again = self.refuse(decoder, client_frame(0x82, b"late"))
            self.assertEqual((again.code, again.reason), (violation.code, violation.reason))

    def test_data_that_cannot_be_compressed_pass(self) -> None:
        """Such data become larger by compression, and are still within the limit."""
        data = os.urandom(70_000)
        decoder = make_decoder(max_message_size=len(data), inflater=Inflater())
        compressed = Deflater().compress(data)
        self.assertGreater(len(compressed), len(data))
        self.assertEqual(pull_all(decoder, client_frame(0xC2, compressed)), [(BINARY, data, True)])

    def test_compressed_bytes_are_limited_by_the_header(self) -> None:
        """An eighth above the limit is more than any compressor needs."""
        decoder = make_decoder(max_message_size=1000, inflater=Inflater())
        violation = self.refuse(decoder, client_frame(0xC2, bytes(1190))[:8])
        self.assertEqual(violation.code, CloseCode.MESSAGE_TOO_BIG)

    def test_fragments_are_limited(self) -> None:
        """1,024 by default, also empty ones; control frames between them do not count."""
        for payload in (b"", b"x"):
            decoder = make_decoder()
            stream = (
                client_frame(0x02, payload)
                + (client_frame(0x00, payload) + client_frame(0x89)) * 1022
            )
            pull_all(decoder, stream)
            found = pull_all(decoder, client_frame(0x80, payload))
            self.assertEqual(found, [(BINARY, payload * 1024, True)])
            pull_all(decoder, stream + client_frame(0x00, payload))
            violation = self.refuse(decoder, client_frame(0x80, payload))
            self.assertEqual(violation.code, CloseCode.POLICY_VIOLATION)
            self.assertEqual(violation.reason, "message of more than 1024 fragments")

    def test_the_limit_of_fragments_can_be_set(self) -> None:
        """One means that no message is fragmented."""
        decoder = make_decoder(max_fragments=1)
        self.assertEqual(len(pull_all(decoder, client_frame(0x81) + client_frame(0x82))), 2)
        self.refuse(decoder, client_frame(0x01) + client_frame(0x80))


class PartialTests(SynchronousTestCase):
    """With ``is_partial`` messages come in pieces, and none is collected."""

    def test_each_fragment_is_a_piece(self) -> None:
        """W15, W29: k frames that are not final and a final one are k + 1 pieces."""
        stream = (
            client_frame(0x01, b"one") + client_frame(0x00) + client_frame(0x89, b"ping")
            + client_frame(0x80, b"two") + client_frame(0x82, b"whole")
        )  # fmt: skip
        for step in (None, 1, 5):
            self.assertEqual(
                pull_all(make_decoder(is_partial=True), stream, step),
                [
                    (TEXT, b"one", False),
                    (TEXT, b"", False),
                    (Opcode.PING, b"ping", True),
                    (TEXT, b"two", True),
                    (BINARY, b"whole", True),
                ],
                f"{step=}",
            )

    def test_a_large_frame_is_divided_as_it_arrives(self) -> None:
        """No byte waits for the rest of its frame."""
        decoder = make_decoder(is_partial=True)
        payload = os.urandom(100_001)
        found: list[Message] = []
        for piece in pieces(client_frame(0x82, payload), 30_000):
            decoder.feed(piece)
            found.extend(decoder.messages())
            self.assertEqual(decoder.buffered, 0)
        self.assertEqual([is_complete for _, _, is_complete in found], [False] * 3 + [True])
        self.assertEqual(b"".join(as_bytes(data) for _, data, _ in found), payload)
        self.assertEqual(decoder.delivered, 1)

    @given(conversations(), integers(1, 400))
    def test_the_pieces_are_the_messages(
        self, conversation: tuple[list[Message], bytes], step: int
    ) -> None:
        """Joined, they give what a decoder of whole messages gives."""
        expected, stream = conversation
        joined: list[Message] = []
        parts = b""
        for opcode, data, is_complete in pull_all(make_decoder(is_partial=True), stream, step):
            self.assertIs(type(data), bytes)
            if opcode >= Opcode.CLOSE:
                joined.append((opcode, data, True))
                continue
            parts += as_bytes(data)
            if is_complete:
                joined.append((opcode, parts, True))
                parts = b""
        self.assertEqual(joined, [(o, as_bytes(data), True) for o, data, _ in expected])

    def test_fragments_are_not_limited(self) -> None:
        """Nothing is collected, so a message may have any number of them."""
        stream = client_frame(0x02) + client_frame(0x00) * 2000
        self.assertEqual(len(pull_all(make_decoder(is_partial=True), stream)), 2001)

    def test_a_compressed_message_is_one_piece(self) -> None:
        """A compressed message is decompressed when it is complete; its text is bytes, too."""
        decoder = make_decoder(is_partial=True, inflater=Inflater())
        data = Deflater().compress(b"text")
        stream = client_frame(0x41, data[:3]) + client_frame(0x80, data[3:])
        self.assertEqual(pull_all(decoder, stream), [(TEXT, b"text", True)])
        bad = client_frame(0xC1, Deflater().compress(b"\xff"))
        decoder.feed(bad)
        self.assertRaises(WebSocketViolation, list, decoder.messages())


class MemoryTests(SynchronousTestCase):
    """Memory and work grow with the number of bytes, not with the cuts or fragments."""

    def test_the_peak_of_memory_is_within_one_and_a_quarter_limits(self) -> None:
        """
        For one message of the limit's size, in large, small and tiny pieces and fragments.

        So the payload is copied once: from the reads into the buffer that is delivered.
        """
        for size, step, fragment in (
            (16 * MIB, 64 * KIB, 16 * MIB),
            (4 * MIB, KIB, 4 * MIB),
            (64 * KIB, 1, 64 * KIB),
            (4 * MIB, 64 * KIB, 4 * KIB),
            (16 * KIB, 64 * KIB, 16),
        ):
            stream = b"".join(
                server_frame((0 if start else 2) | (0x80 if start + fragment == size else 0), part)
                for start, part in zip(
                    range(0, size, fragment), pieces(bytes(size), fragment), strict=True
                )
            )
            decoder = make_decoder(is_server=False, max_message_size=size)
            tracemalloc.start()
            try:
                ((_, payload, _),) = pull_all(decoder, stream, step)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            self.assertEqual(len(payload), size)
            self.assertLess(peak, 1.25 * size + 2 * step, f"{size=} {step=} {fragment=}")

    def test_the_work_per_piece_does_not_grow(self) -> None:
        """The first piece of a message and the last cost the same number of calls."""
        for size in (1, KIB):
            decoder = make_decoder()
            counts = []
            for piece in pieces(client_frame(0x81, b"x" * 500 * size)[:-1], size):
                decoder.feed(piece)
                counts.append(self.count_calls(decoder))
            self.assertEqual(len(set(counts[20:])), 1, f"{size=}")

    def test_the_work_per_fragment_does_not_grow(self) -> None:
        """The second fragment and the last cost the same number of calls."""
        decoder = make_decoder()
        pull_all(decoder, client_frame(0x01, b"x"))
        counts = []
        for _ in range(500):
            decoder.feed(client_frame(0x00, b"x"))
            counts.append(self.count_calls(decoder))
        self.assertEqual(len(set(counts)), 1)

    def count_calls(self, decoder: MessageDecoder) -> int:
        """Pull what there is, and count the calls."""
        calls = 0

        def count(_frame: object, _event: str, _arg: object) -> None:
            nonlocal calls
            calls += 1

        profile: Any = count
        sys.setprofile(profile)
        try:
            list(decoder.messages())
        finally:
            sys.setprofile(None)
        return calls

    def test_a_usual_message_needs_no_call_of_its_own(self) -> None:
        """Twice as many frames only resume the loop more often: a call and a return each."""
        few, many = make_decoder(is_server=False), make_decoder(is_server=False)
        few.feed(server_frame(0x82, bytes(64)) * 10)
        many.feed(server_frame(0x82, bytes(64)) * 20)
        self.assertLessEqual(self.count_calls(many) - self.count_calls(few), 10 * 2)

    def test_a_large_message_needs_as_many_calls_as_a_small_one(self) -> None:
        """In one frame, from 64 KiB to 16 MiB: each byte costs the same."""
        counts = set()
        for size in (64 * KIB, MIB, 16 * MIB):
            decoder = make_decoder(max_message_size=size)
            decoder.feed(b"\x82\xff" + size.to_bytes(8, "big") + bytes(4 + size))
            counts.add(self.count_calls(decoder))
            self.assertEqual(decoder.delivered, 1)
        self.assertEqual(len(counts), 1)

    def test_a_large_fragment_needs_as_many_calls_as_a_small_one(self) -> None:
        """A thousand of 4 KiB, and a thousand of 60 KiB: the calls are those of the fragments."""
        counts = set()
        for size in (4 * KIB, 60 * KIB):
            decoder = make_decoder(max_message_size=1000 * size)
            rest = b"\xfe" + size.to_bytes(2, "big") + bytes(4 + size)
            decoder.feed(b"\x02" + rest + (b"\x00" + rest) * 998 + b"\x80" + rest)
            counts.add(self.count_calls(decoder))
            self.assertEqual(decoder.delivered, 1)
        self.assertEqual(len(counts), 1)

    def test_a_large_message_is_moved_a_few_dozen_times(self) -> None:
        """Its memory is not moved once per piece."""
        decoder = make_decoder(max_message_size=4 * MIB)
        sizes = set()
        for piece in pieces(client_frame(0x82, bytes(4 * MIB))[:-1], KIB):
            decoder.feed(piece)
            list(decoder.messages())
            self.assertFalse(decoder.stored)
            sizes.add(decoder.buffered)
        self.assertEqual(len(sizes), 4 * KIB + 1)

    def test_a_partial_frame_does_not_keep_the_read_before_it(self) -> None:
        """A hundred connections with partial frames do not hold a hundred reads."""
        read = client_frame(0x82, bytes(64 * KIB)) + b"\x82"
        decoders = [make_decoder() for _ in range(100)]
        tracemalloc.start()
        try:
            for decoder in decoders:
                decoder.feed(bytes(bytearray(read)))  # A read of its own for each.
                list(decoder.messages())
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        self.assertLess(held, 100 * KIB)


class EncodingTests(SynchronousTestCase):
    """A `MessageEncoder` makes frames that a `MessageDecoder` of the other side reads."""

    @given(lists(one_of(_DATA, _CONTROLS)), booleans(), sampled_from([None, 1, 7, 126]), booleans())
    def test_what_is_encoded_is_decoded(
        self,
        messages: list[tuple[Opcode, str | bytes]],
        is_server: bool,
        max_fragment_size: int | None,
        is_compressed: bool,
    ) -> None:
        """On both sides, in fragments and compressed."""
        encoder = MessageEncoder(
            is_server=is_server,
            random_bytes=os.urandom,
            max_fragment_size=max_fragment_size,
            deflater=Deflater() if is_compressed else None,
        )
        decoder = make_decoder(
            is_server=not is_server, inflater=Inflater() if is_compressed else None
        )
        stream = b"".join(encoder.encode(opcode, data) for opcode, data in messages)
        found = pull_all(decoder, stream)
        self.assertEqual(found, [(opcode, data, True) for opcode, data in messages])

    def test_a_server_sends_without_masks(self) -> None:
        """Text as ``str`` and as bytes; binary; a ping."""
        encode = MessageEncoder(is_server=True).encode
        self.assertEqual(encode(TEXT, "é"), b"\x81\x02\xc3\xa9")
        self.assertEqual(encode(TEXT, b"\xc3\xa9"), b"\x81\x02\xc3\xa9")
        self.assertEqual(encode(BINARY, b"\xff"), b"\x82\x01\xff")
        self.assertEqual(encode(Opcode.PING, b""), b"\x89\x00")

    def test_each_frame_of_a_client_has_a_new_key(self) -> None:
        """Section 5.3; also each fragment, and control frames."""
        keys = iter(range(1, 9))
        encoder = MessageEncoder(
            is_server=False, max_fragment_size=1, random_bytes=lambda _: bytes((next(keys),)) * 4
        )
        stream = encoder.encode(TEXT, "ab") + encoder.encode(Opcode.PING, b"")
        self.assertEqual(
            stream,
            b"\x01\x81\x01\x01\x01\x01\x60" + b"\x80\x81\x02\x02\x02\x02\x60"
            + b"\x89\x80\x03\x03\x03\x03",
        )  # fmt: skip

    def test_a_client_without_a_source_of_masks_is_refused(self) -> None:
        """A mask that can be predicted protects nobody."""
        self.assertRaises(ValueError, MessageEncoder, is_server=False)

    def test_fragments_have_the_size_that_was_asked_for(self) -> None:
        """The last may be shorter; a message of exactly this size is one frame."""
        encode = MessageEncoder(is_server=True, max_fragment_size=3).encode
        self.assertEqual(encode(BINARY, b"abc"), server_frame(0x82, b"abc"))
        self.assertEqual(
            encode(BINARY, b"abcdefg"),
            server_frame(0x02, b"abc") + server_frame(0x00, b"def") + server_frame(0x80, b"g"),
        )
        self.assertEqual(encode(BINARY, b""), server_frame(0x82))
        self.assertEqual(encode(Opcode.PING, b"12345"), server_frame(0x89, b"12345"))
        for size in (0, -1):
            self.assertRaises(ValueError, MessageEncoder, is_server=True, max_fragment_size=size)

    def test_only_the_first_fragment_is_marked_as_compressed(self) -> None:
        """RFC 7692, section 6.1."""
        encode = MessageEncoder(is_server=True, deflater=Deflater(), max_fragment_size=5).encode
        data = Deflater().compress(bytes(300))
        self.assertEqual(
            encode(BINARY, bytes(300)),
            server_frame(0x42, data[:5]) + server_frame(0x80, data[5:]),
        )

    def test_shared_message_is_encoded_once_for_equal_settings(self) -> None:
        """Fragments and compression are settings; an unfinished message refuses any other."""
        frames: dict[Hashable, bytes] = {}
        settings: list[dict[str, Any]] = [
            {},
            {"max_fragment_size": 100},
            {"deflater": Deflater()},
            {"deflater": Deflater(), "max_fragment_size": 3},
        ]
        for options in settings:
            one, two = (MessageEncoder(is_server=True, **options) for _ in range(2))
            shared = one.encode_shared(Opcode.TEXT, b"Hello" * 50, frames)
            self.assertIs(two.encode_shared(Opcode.TEXT, b"Hello" * 50, frames), shared, options)
            self.assertEqual(two.encode(Opcode.TEXT, b"Hello" * 50), shared, options)
            two.encode_fragment(Opcode.TEXT, b"a", is_final=False)
            with self.assertRaises(LocalProtocolError, msg=str(options)):
                two.encode_shared(Opcode.TEXT, b"Hello" * 50, frames)
        self.assertEqual(len(frames), len(settings))

    def test_small_messages_are_not_compressed(self) -> None:
        """Below 256 bytes by default, nor are control frames."""
        agreement = DeflateSettings().accept([("permessage-deflate", ())])
        assert agreement is not None
        deflater = agreement.deflater(is_server=True)
        encode = MessageEncoder(is_server=True, deflater=deflater).encode
        self.assertEqual(encode(BINARY, bytes(255)), server_frame(0x82, bytes(255)))
        self.assertEqual(encode(BINARY, bytes(256))[0], 0xC2)
        self.assertEqual(encode(Opcode.PING, bytes(125)), server_frame(0x89, bytes(125)))

    def test_what_is_no_text_is_refused(self) -> None:
        """The error is raised here, and not by the peer."""
        encode = MessageEncoder(is_server=True).encode
        self.assertRaises(LocalProtocolError, encode, TEXT, b"\xff")
        self.assertRaises(UnicodeEncodeError, encode, TEXT, "\ud83d")

    def test_a_large_control_frame_is_refused(self) -> None:
        """125 bytes at most (section 5.5), on both sides."""
        for is_server in (True, False):
            encoder = MessageEncoder(is_server=is_server, random_bytes=os.urandom)
            self.assertRaises(LocalProtocolError, encoder.encode, Opcode.PING, bytes(126))


class FragmentTests(SynchronousTestCase):
    """`encode_fragment` sends a message that its caller divides."""

    def make(self, **options: Any) -> MessageEncoder:
        return MessageEncoder(**{"is_server": True, **options})

    def test_the_message_of_the_rfc(self) -> None:
        """Section 5.7, with a ping between the fragments; then a whole message."""
        encoder = self.make()
        self.assertEqual(
            encoder.encode_fragment(TEXT, "Hello"[:3], is_final=False)
            + encoder.encode(Opcode.PING, b"")
            + encoder.encode_fragment(TEXT, "Hello"[3:], is_final=True)
            + encoder.encode(TEXT, "Hello"),
            bytes.fromhex("01 03 48 65 6c 89 00 80 02 6c 6f 81 05 48 65 6c 6c 6f"),
        )

    @given(lists(binary(max_size=9), min_size=1), booleans(), sampled_from([None, 1, 4]))
    def test_the_peer_gets_one_message(
        self, parts: list[bytes], is_server: bool, max_fragment_size: int | None
    ) -> None:
        """From both sides, also if fragments are divided further; empty ones count."""
        encoder = self.make(
            is_server=is_server, random_bytes=os.urandom, max_fragment_size=max_fragment_size
        )
        decoder = make_decoder(is_server=not is_server)
        found: list[Message] = []
        for number, part in enumerate(parts, 1):
            is_final = number == len(parts)
            frames = encoder.encode_fragment(BINARY, part, is_final=is_final)
            self.assertEqual(encoder.has_unfinished_message, not is_final)
            found = pull_all(decoder, frames)
        self.assertEqual(found, [(BINARY, b"".join(parts), True)])

    @given(text(max_size=20), integers(1, 5))
    def test_a_character_may_be_divided(self, data: str, size: int) -> None:
        """The pieces are bytes then."""
        encoder, decoder = self.make(), make_decoder(is_server=False)
        stream = b"".join(
            encoder.encode_fragment(TEXT, part, is_final=False)
            for part in pieces(data.encode(), size)
        ) + encoder.encode_fragment(TEXT, b"", is_final=True)
        self.assertEqual(pull_all(decoder, stream), [(TEXT, data, True)])

    def test_what_is_no_text_is_refused(self) -> None:
        """Half a character at the end is refused, too; the message can be continued."""
        encoder = self.make()
        encoder.encode_fragment(TEXT, b"\xc3", is_final=False)
        for data, is_final in ((b"(", False), (b"\xff", False), (b"", True)):
            with self.assertRaises(LocalProtocolError, msg=f"{data=}"):
                encoder.encode_fragment(TEXT, data, is_final=is_final)
        self.assertEqual(encoder.encode_fragment(TEXT, b"\xa9", is_final=True), b"\x80\x01\xa9")

    def test_another_message_is_refused_within_a_message(self) -> None:
        """Whole and in fragments; after the last fragment both can be sent."""
        for options in ({}, {"max_fragment_size": 1}, {"deflater": Deflater()}):
            encoder = self.make(**options)
            encoder.encode_fragment(TEXT, "a", is_final=False)
            for opcode in (TEXT, BINARY):
                self.assertRaises(LocalProtocolError, encoder.encode, opcode, b"")
            self.assertRaises(
                LocalProtocolError, encoder.encode_fragment, BINARY, b"", is_final=True
            )
            encoder.encode(Opcode.PONG, b"")
            encoder.encode_fragment(TEXT, "", is_final=True)
            self.assertFalse(encoder.has_unfinished_message, f"{options=}")
            encoder.encode(BINARY, b"x")

    def test_a_control_frame_is_no_fragment(self) -> None:
        """The caller cannot send a continuation, which the encoder adds by itself."""
        for opcode in (Opcode.PING, Opcode.CONTINUATION):
            self.assertRaises(
                LocalProtocolError, self.make().encode_fragment, opcode, b"", is_final=True
            )

    def test_fragments_are_not_compressed(self) -> None:
        """A message is compressed as a whole."""
        encoder = self.make(deflater=Deflater())
        frame = encoder.encode_fragment(BINARY, bytes(300), is_final=True)
        self.assertEqual(frame, server_frame(0x82, bytes(300)))
