"""
Our decoder and encoder beside the Sans-I/O core of ``websockets``, on the same bytes.

Each stream ends in a violation, so that the decoders have to agree on what precedes it and on the
code of the close frame that answers it. They may differ as `Difference` lists, and in nothing else.
"""

from __future__ import annotations

import enum
import re
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

from tests import THOROUGH
from tests.websocket.frame_bytes import KEY, client_frame, pieces, server_frame
from twsock.websocket.close_frame import WebSocketViolation, decode_close
from twsock.websocket.deflate import Inflater
from twsock.websocket.frames import MAX_CONTROL_PAYLOAD, Opcode, encode_frame
from twsock.websocket.messages import MessageDecoder, MessageEncoder

try:
    from websockets.frames import Frame
    from websockets.frames import Opcode as TheirOpcode
    from websockets.protocol import Protocol, Side
    from websockets.protocol import State as TheirState
except Exception as error:  # noqa: BLE001 - whatever stops the import is the reason to skip
    WHY_NOT: str | None = f"the Sans-I/O core of websockets cannot be imported here: {error}"
else:
    WHY_NOT = None

#: The limit of a message, in bytes, of both.
LIMIT: Final = 1000

#: More than any frame within the limit needs, text in itself, and a violation for both: opcode 15.
_END: Final = b"\x7f" * (LIMIT + 100)

EXAMPLES: Final = 2000 if THOROUGH else 200


class Difference(enum.Enum):
    """Where the two decoders may differ, and why ours does what it does."""

    TEXT = "websockets leaves UTF-8 to its connection; ours refuses what is no text (section 8.1)"
    LENGTH = "websockets accepts a length in more bytes than it needs (section 5.2)"
    FRAGMENTS = "websockets accepts any number of fragments; ours 1,024"
    CLOSE = "websockets refuses a close frame within a message, which section 5.4 allows"
    CONTROL = (
        "websockets refuses a control frame within a message if both together exceed the limit of "
        "a message; ours counts the fragments only"
    )
    ORDER = (
        "a frame that breaks two rules: ours looks at its first bytes, then at its size, then at "
        "its payload from front to back; websockets looks at the size first, and at the reason of "
        "a close frame before its code"
    )


class Outcome(NamedTuple):
    """What a decoder delivered, and the code and reason of its violation or of a close frame."""

    messages: list[tuple[int, bytes]]
    code: int
    reason: str


def decode_with_ours(
    stream: bytes, step: int, is_server: bool, inflater: Inflater | None = None
) -> Outcome:
    """Decode up to the first violation or close frame."""
    decoder = MessageDecoder(is_server=is_server, max_message_size=LIMIT, inflater=inflater)
    found: list[tuple[int, bytes]] = []
    try:
        for piece in pieces(stream, step):
            decoder.feed(piece)
            for opcode, data, _ in decoder.messages():
                if opcode is Opcode.CLOSE:
                    assert isinstance(data, bytes)
                    return Outcome(found, *decode_close(data))
                found.append((opcode, data.encode() if isinstance(data, str) else data))
    except WebSocketViolation as violation:
        return Outcome(found, -violation.code, violation.reason)
    raise AssertionError(f"the stream ended without a violation: {stream[:99]!r}")


def decode_with_theirs(stream: bytes, step: int, is_server: bool, extension: Any = None) -> Outcome:
    """Do the same, with an extension or without."""
    side = Side.SERVER if is_server else Side.CLIENT
    protocol = Protocol(side, state=TheirState.OPEN, max_size=LIMIT)
    protocol.extensions = [] if extension is None else [extension]
    found: list[tuple[int, bytes]] = []
    first, payload = 0, b""
    for piece in pieces(stream, step):
        protocol.receive_data(piece)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            data = bytes(frame.data)
            if frame.opcode is TheirOpcode.CLOSE:
                return Outcome(found, *decode_close(data))
            if frame.opcode >= TheirOpcode.CLOSE:
                found.append((int(frame.opcode), data))
                continue
            first, payload = (first, payload) if frame.opcode is TheirOpcode.CONT else (
                int(frame.opcode), b"",
            )  # fmt: skip
            payload += data
            if frame.fin:
                found.append((first, payload))
        if protocol.parser_exc is not None:
            assert protocol.close_sent is not None
            return Outcome(found, -protocol.close_sent.code, str(protocol.parser_exc))
    raise AssertionError(f"the stream ended without a violation: {stream[:99]!r}")


def difference(ours: Outcome, theirs: Outcome) -> Difference | None:
    """Return which of the differences explains that the outcomes are not the same."""
    earlier = ours.messages == theirs.messages[: len(ours.messages)]
    if earlier and ours.code == -1007 and ours.reason.startswith("text that"):
        return Difference.TEXT
    if earlier and ours.code == -1002 and ours.reason.startswith("length "):
        return Difference.LENGTH
    # A control frame has no length of more than 7 bits, also if these say that it is small.
    is_accepted = len(theirs.messages) > len(ours.messages) or theirs.code > 0
    if earlier and ours.reason.startswith("control frame above") and is_accepted:
        return Difference.LENGTH
    if earlier and ours.code == -1008:
        return Difference.FRAGMENTS
    if theirs.messages == ours.messages[: len(theirs.messages)] and theirs.code == -1009:
        size = re.match(r"frame with (\d+) bytes after reading", theirs.reason)
        if size is not None and int(size[1]) <= MAX_CONTROL_PAYLOAD:
            return Difference.CONTROL
    if ours.messages == theirs.messages:
        if theirs.reason == "incomplete fragmented message":
            return Difference.CLOSE
        if ours.code == -1002 and theirs.code in (-1007, -1009):
            return Difference.ORDER
    return None


@composite
def streams(draw: DrawFn, is_server: bool) -> bytes:
    """Draw frames of which some break a rule, some of their bytes changed."""
    make = client_frame if is_server else server_frame
    stream = bytearray()
    for _ in range(draw(integers(0, 6))):
        first = draw(sampled_from((0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, -1)))
        if first < 0:
            first = draw(integers(0, 255))
        payload = draw(one_of(_CONTENTS, _SIZES.map(bytes)))
        stream += make(first, payload, draw(sampled_from((None, None, None, 2, 8))))
    for position, value in draw(lists(_CHANGES, max_size=3)):
        if stream:
            stream[position % len(stream)] = value
    return bytes(stream) + draw(binary(max_size=4)) + _END


_CONTENTS: Final = sampled_from((b"", b"\x03\xe8", b"\xce\xba", b"Hello"))
_SIZES: Final = sampled_from((124, 125, 126, 127, 999, 1000, 1001))
_CHANGES: Final = sampled_from([(p, v) for p in range(40) for v in (0, 1, 0x7F, 0x80, 0xFF)])


class DecodingTests(SynchronousTestCase):
    """The same messages and the same codes, but for the differences that are listed."""

    skip = WHY_NOT

    def assert_alike(self, stream: bytes, step: int, is_server: bool) -> Difference | None:
        ours = decode_with_ours(stream, step, is_server)
        theirs = decode_with_theirs(stream, step, is_server)
        if (ours.messages, ours.code) == (theirs.messages, theirs.code):
            return None
        found = difference(ours, theirs)
        self.assertIsNotNone(found, f"{ours=}\n{theirs=}\n{stream[:200].hex(' ')}")
        return found

    @settings(max_examples=EXAMPLES)
    @given(streams(is_server=True), integers(1, 300))
    def test_as_a_server(self, stream: bytes, step: int) -> None:
        """Masked frames, of which some break a rule."""
        event(str(self.assert_alike(stream, step, is_server=True)))

    @settings(max_examples=EXAMPLES)
    @given(streams(is_server=False), integers(1, 300))
    def test_as_a_client(self, stream: bytes, step: int) -> None:
        """Frames without masks, of which some break a rule."""
        event(str(self.assert_alike(stream, step, is_server=False)))

    def test_each_difference_exists(self) -> None:
        """What is listed as a difference is one; the list does not excuse more than it says."""
        examples = {
            Difference.TEXT: client_frame(0x81, b"\xff"),
            Difference.LENGTH: client_frame(0x82, b"x", 2),
            Difference.FRAGMENTS: client_frame(0x02) + client_frame(0x00) * 1024,
            Difference.CLOSE: client_frame(0x02) + client_frame(0x88),
            Difference.CONTROL: client_frame(0x02, bytes(999)) + client_frame(0x89, b"12"),
            Difference.ORDER: client_frame(0x83 & 0xF2 | 0x10, bytes(1001)),
        }
        for expected, stream in examples.items():
            self.assertIs(self.assert_alike(stream + _END, 7, is_server=True), expected)
        self.assertEqual(list(examples), list(Difference))

    def test_the_largest_length_differs_too(self) -> None:
        """2**63 and more is no length for ours, and too large for theirs."""
        stream = b"\x82\xff\x80" + bytes(7) + KEY + _END
        self.assertIs(self.assert_alike(stream, 7, is_server=True), Difference.LENGTH)


class EncodingTests(SynchronousTestCase):
    """Our frames are theirs."""

    skip = WHY_NOT

    @given(sampled_from(list(Opcode)), binary(max_size=125), booleans())
    def test_a_frame_has_the_same_bytes(
        self, opcode: Opcode, payload: bytes, is_final: bool
    ) -> None:
        """Without a mask, which is another in each frame."""
        is_final |= opcode >= Opcode.CLOSE
        theirs = Frame(TheirOpcode(opcode), payload, is_final).serialize(mask=False)
        self.assertEqual(encode_frame(opcode, payload, is_final=is_final), theirs)

    def test_large_frames_have_the_same_bytes(self) -> None:
        """On both sides of each border."""
        for size in (125, 126, 65_535, 65_536):
            theirs = Frame(TheirOpcode.BINARY, bytes(size)).serialize(mask=False)
            self.assertEqual(encode_frame(Opcode.BINARY, bytes(size)), theirs, f"{size=}")

    @given(lists(binary(max_size=200), max_size=5), sampled_from([None, 1, 50]))
    def test_they_read_what_our_client_sends(
        self, payloads: list[bytes], max_fragment_size: int | None
    ) -> None:
        """With masks, and in fragments."""
        options: dict[str, Any] = {"max_fragment_size": max_fragment_size}
        keys = MessageEncoder(is_server=False, random_bytes=lambda n: KEY * (n // 4), **options)
        stream = b"".join(keys.encode(Opcode.BINARY, payload) for payload in payloads)
        theirs = decode_with_theirs(stream + _END, len(stream) + 1, is_server=True)
        self.assertEqual(theirs.messages, [(Opcode.BINARY, payload) for payload in payloads])
