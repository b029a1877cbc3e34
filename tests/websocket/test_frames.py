"""`encode_frame` makes frames of RFC 6455, section 5.2."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import binary, booleans, sampled_from
from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.frame_bytes import KEY, client_frame, server_frame
from twsock.errors import LocalProtocolError
from twsock.websocket.frames import Opcode, encode_frame, encode_header


class ExampleTests(SynchronousTestCase):
    """The examples of RFC 6455, section 5.7."""

    def test_text_without_a_mask(self) -> None:
        """``Hello`` from a server."""
        self.assertEqual(encode_frame(Opcode.TEXT, b"Hello"), bytes.fromhex("81 05 48 65 6c 6c 6f"))

    def test_masked_text(self) -> None:
        """``Hello`` from a client."""
        self.assertEqual(
            encode_frame(Opcode.TEXT, b"Hello", key=KEY),
            bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58"),
        )

    def test_fragments(self) -> None:
        """``Hello`` in two."""
        self.assertEqual(
            encode_frame(Opcode.TEXT, b"Hello"[:3], is_final=False)
            + encode_frame(Opcode.CONTINUATION, b"Hello"[3:]),
            bytes.fromhex("01 03 48 65 6c 80 02 6c 6f"),
        )

    def test_ping_and_masked_pong(self) -> None:
        """A control frame has a payload too."""
        self.assertEqual(encode_frame(Opcode.PING, b"Hello"), bytes.fromhex("89 05 48 65 6c 6c 6f"))
        self.assertEqual(
            encode_frame(Opcode.PONG, b"Hello", key=KEY),
            bytes.fromhex("8a 85 37 fa 21 3d 7f 9f 4d 51 58"),
        )

    def test_lengths_of_16_and_64_bits(self) -> None:
        """256 bytes and 64 KiB."""
        self.assertEqual(encode_header(Opcode.BINARY, 256), bytes.fromhex("82 7e 01 00"))
        self.assertEqual(
            encode_header(Opcode.BINARY, 65_536), bytes.fromhex("82 7f 00 00 00 00 00 01 00 00")
        )


class EncodingTests(SynchronousTestCase):
    """Any frame."""

    def test_each_size_has_the_shortest_length(self) -> None:
        """On both sides of each border; the mask bit is beside the length."""
        for size in (0, 125, 126, 65_535, 65_536):
            payload = bytes(size)
            self.assertEqual(
                encode_frame(Opcode.BINARY, payload), server_frame(0x82, payload), f"{size=}"
            )
            self.assertEqual(
                encode_frame(Opcode.BINARY, payload, key=KEY),
                client_frame(0x82, payload),
                f"{size=}",
            )

    @given(sampled_from(list(Opcode)[:3]), binary(max_size=130), booleans(), booleans())
    def test_flags(
        self, opcode: Opcode, payload: bytes, is_final: bool, is_compressed: bool
    ) -> None:
        """FIN ends a message; RSV1 marks a compressed one."""
        first = opcode | (0x80 if is_final else 0) | (0x40 if is_compressed else 0)
        frame = encode_frame(opcode, payload, is_final=is_final, is_compressed=is_compressed)
        self.assertEqual(frame, server_frame(first, payload))

    def test_a_control_frame_is_small(self) -> None:
        """125 bytes at most (section 5.5)."""
        for opcode in (Opcode.CLOSE, Opcode.PING, Opcode.PONG):
            encode_frame(opcode, bytes(125))
            self.assertRaises(LocalProtocolError, encode_frame, opcode, bytes(126))

    def test_a_control_frame_is_whole(self) -> None:
        """A control frame is not fragmented (section 5.5), nor compressed (RFC 7692, section 6)."""
        self.assertRaises(LocalProtocolError, encode_frame, Opcode.PING, b"", is_final=False)
        self.assertRaises(LocalProtocolError, encode_frame, Opcode.PING, b"", is_compressed=True)
