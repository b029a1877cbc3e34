"""Each example of ``docs/wire/websocket.rst`` is what the decoder and the encoder do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.frame_bytes import KEY, MIB
from twsock.websocket.close_frame import WebSocketViolation, decode_close
from twsock.websocket.deflate import Inflater
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.messages import MessageDecoder, MessageEncoder

_PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "wire" / "websocket.rst"

#: A line with who sends, and the line below it.
_EXAMPLE: Final = re.compile(
    r"^    (server|client|compressed server|fragments): (.+)\n +(\S.*)$", re.MULTILINE
)


class Example(NamedTuple):
    """Two lines of the page."""

    sender: str
    first: str
    second: str


def examples() -> list[Example]:
    return [Example(*found) for found in _EXAMPLE.findall(_PAGE.read_text("utf-8"))]


def read_bytes(words: str) -> bytes:
    """Read bytes as the page writes them."""
    found = bytearray()
    for word in words.split():
        byte, _, count = word.partition("*")
        found += bytes.fromhex(byte) * int(count or 1)
    return bytes(found)


def write_bytes(data: bytes) -> str:
    """Write bytes as the page does: more than six equal ones with their number."""
    if len(data) > 6 and len(set(data)) == 1:
        return f" {data[0]:02X}*{len(data)}"
    return "".join(f" {byte:02X}" for byte in data)


def describe(decoder: MessageDecoder, stream: bytes) -> Iterator[str]:
    """Return what a decoder yields, in the words of the page."""
    decoder.feed(stream)
    try:
        for opcode, data, _ in decoder.messages():
            if isinstance(data, str):
                yield f"TEXT {json.dumps(data, ensure_ascii=False)}"
            elif opcode is Opcode.CLOSE:
                code, reason = decode_close(data)
                yield f'CLOSE {code} "{reason}"'
            else:
                yield f"{opcode.name}{write_bytes(data)}"
    except WebSocketViolation as violation:
        yield f'{violation.code} "{violation.reason}"'


class PageTests(SynchronousTestCase):
    """``docs/wire/websocket.rst``."""

    def test_examples_are_decoded_as_the_page_says(self) -> None:
        """Fed as a whole and byte by byte."""
        for sender, words, expected in examples():
            if sender == "fragments":
                continue
            for is_cut in (False, True):
                inflater = None
                if sender.startswith("compressed"):
                    inflater = Inflater(window_bits=15, keeps_context=False)
                decoder = MessageDecoder(
                    is_server=sender == "client", max_message_size=MIB, inflater=inflater
                )
                stream = read_bytes(words)
                found: list[str] = []
                for byte in [stream] if not is_cut else [bytes((byte,)) for byte in stream]:
                    found.extend(describe(decoder, byte))
                    if found and found[-1][0].isdecimal():
                        break  # A violation; the page shows no byte that is not needed for it.
                self.assertEqual(", ".join(found), expected, f"{sender} {words} {is_cut=}")

    def test_violations_are_shown_with_their_shortest_bytes(self) -> None:
        """One byte less, and the decoder waits."""
        for sender, words, expected in examples():
            if re.fullmatch(r"\d{4} .*", expected) is None:
                continue
            inflater = Inflater(window_bits=15, keeps_context=False)
            decoder = MessageDecoder(
                is_server=sender == "client",
                max_message_size=MIB,
                inflater=inflater if sender.startswith("compressed") else None,
            )
            self.assertEqual(list(describe(decoder, read_bytes(words)[:-1])), [], words)

    def test_whole_messages_are_encoded_as_the_page_says(self) -> None:
        """The examples of a single frame, from both sides."""
        count = 0
        for sender, words, expected in examples():
            found = re.fullmatch(r'(TEXT|BINARY|PING|PONG) (?:"([^"]*)"|([0-9A-F* ]+))', expected)
            stream = read_bytes(words) if found and sender in ("client", "server") else b""
            if found is None or not stream or stream[0] < 0x80:
                continue
            name, text, data = found.groups()
            payload = text.encode() if text is not None else read_bytes(data)
            key = KEY if sender == "client" else None
            self.assertEqual(encode_frame(Opcode[name], payload, key=key), stream, words)
            count += 1
        self.assertEqual(count, 6)

    def test_fragments_are_sent_as_the_page_says(self) -> None:
        """Messages above the size of a fragment are divided, control frames are not."""
        encoder = MessageEncoder(is_server=True, max_fragment_size=3)
        for sender, words, expected in examples():
            if sender == "fragments":
                name, _, content = words.partition(" ")
                data = content[1:-1] if name == "TEXT" else read_bytes(content)
                self.assertEqual(encoder.encode(Opcode[name], data), read_bytes(expected), words)

    def test_no_example_is_overlooked(self) -> None:
        """Each indented line with bytes or an opcode belongs to one."""
        lines = _PAGE.read_text("utf-8").splitlines()
        indented = [line for line in lines if re.match(r"    +\S", line)]
        layout = [line for line in indented if re.match(r"    (byte|\d|\.\.\.) ", line)]
        self.assertEqual(len(indented) - len(layout), 2 * len(examples()))
        self.assertGreater(len(examples()), 35)
