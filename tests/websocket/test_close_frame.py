"""Payloads of close frames: code and reason, what may be sent, and what is accepted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis.strategies import binary, integers, sampled_from, text
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import RemoteProtocolError, SocketError, SocketErrorStatus
from twsock.websocket.close_frame import (
    MAX_REASON,
    CloseCode,
    WebSocketViolation,
    check_code,
    check_reason,
    decode_close,
    encode_close,
    named_code,
)

#: What `close` of WinRT foresees, and what was registered for servers since.
_SENDABLE = (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999)
_UNSENDABLE = (-1, 0, 999, 1004, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535, 65_536)


class SendingTests(SynchronousTestCase):
    """What this end sends."""

    def test_the_close_of_the_samples(self) -> None:
        """Code 1000, and 27 bytes of text."""
        payload = encode_close(1000, "Closed due to user request.")
        self.assertEqual(payload, b"\x03\xe8Closed due to user request.")
        self.assertEqual(len(payload), 29)

    def test_code_1005_is_an_empty_frame(self) -> None:
        """Code 1005 with a reason is refused."""
        self.assertEqual(encode_close(1005), b"")
        self.assertRaises(ValueError, encode_close, 1005, "reason")

    def test_codes_that_can_be_sent(self) -> None:
        """Each has two bytes, big-endian."""
        for code in _SENDABLE:
            self.assertEqual(check_code(code), code)
            self.assertEqual(encode_close(code), code.to_bytes(2, "big"), f"{code=}")

    def test_codes_that_cannot_be_sent(self) -> None:
        """Codes that are not assigned, never sent, or outside all ranges are refused."""
        for code in _UNSENDABLE:
            self.assertRaises(ValueError, check_code, code)
            self.assertRaises(ValueError, encode_close, code, "reason")

    def test_a_code_is_a_whole_number(self) -> None:
        """A float, a text and a bool are refused."""
        codes: tuple[Any, ...] = (True, 1000.0, "1000", None)
        for code in codes:
            self.assertRaises(TypeError, check_code, code)

    def test_a_reason_has_123_bytes_at_most(self) -> None:
        """In UTF-8, not in characters."""
        self.assertEqual(MAX_REASON, 123)
        self.assertEqual(len(encode_close(1000, "x" * 123)), 125)
        self.assertEqual(check_reason(1000, "é" * 61 + "x"), b"\xc3\xa9" * 61 + b"x")
        for reason in ("x" * 124, "é" * 62, "\ud800"):
            self.assertRaises(ValueError, encode_close, 1000, reason)

    @given(sampled_from(_SENDABLE), text(max_size=30))
    def test_what_is_encoded_is_decoded(self, code: int, reason: str) -> None:
        """A code and a reason come back."""
        self.assertEqual(decode_close(encode_close(code, reason)), (code, reason))


class NameTests(SynchronousTestCase):
    """Codes as applications receive them."""

    def test_a_registered_code_is_a_member(self) -> None:
        """Of every origin: checked, received, or of a violation."""
        received, _ = decode_close(b"\x03\xe9")
        violation = WebSocketViolation(1001, "x")
        for code in (named_code(1001), check_code(1001), received, violation.code):
            self.assertIs(code, CloseCode.GOING_AWAY)

    def test_each_code_is_shown_as_its_number(self) -> None:
        """In every version of Python."""
        code = CloseCode.GOING_AWAY
        self.assertEqual(f"{code} {code:d} {code!s}", "1001 1001 1001")

    def test_any_other_code_is_a_plain_integer(self) -> None:
        """Such as those of applications."""
        received, _ = decode_close(b"\x0f\xa0")
        violation = WebSocketViolation(4000, "x")
        for code in (named_code(4000), check_code(4000), received, violation.code):
            self.assertEqual((code, type(code)), (4000, int))


class ReceivingTests(SynchronousTestCase):
    """What a peer sends."""

    def assert_violates(self, payload: bytes, code: CloseCode) -> None:
        violation = self.assertRaises(WebSocketViolation, decode_close, payload)
        self.assertEqual(violation.code, code, f"{payload=}")

    def test_an_empty_payload_is_1005(self) -> None:
        """The peer gave no status."""
        self.assertEqual(decode_close(b""), (1005, ""))

    def test_one_byte_is_no_code(self) -> None:
        """Section 5.5.1: the code has two bytes."""
        self.assert_violates(b"\x03", CloseCode.PROTOCOL_ERROR)

    def test_codes_that_are_never_sent(self) -> None:
        """Section 7.4: they stand for an end without a code, or have no meaning."""
        for code in (*_UNSENDABLE[1:-1], 1005):
            self.assert_violates(code.to_bytes(2, "big"), CloseCode.PROTOCOL_ERROR)

    def test_a_reason_is_utf_8(self) -> None:
        """Section 8.1."""
        self.assert_violates(b"\x03\xe8\xce\xba\xe1", CloseCode.INVALID_PAYLOAD_DATA)

    @given(binary(max_size=125))
    def test_any_payload_is_decoded_or_a_violation(self, payload: bytes) -> None:
        """No other exception, and what was decoded can be sent back."""
        try:
            code, reason = decode_close(payload)
        except WebSocketViolation:
            return
        self.assertEqual(encode_close(code, reason), payload)

    @given(integers(0, 65_535))
    def test_every_code_that_is_accepted_can_be_sent(self, code: int) -> None:
        """An end that echoes the code of its peer needs no check."""
        try:
            decode_close(code.to_bytes(2, "big"))
        except WebSocketViolation:
            return
        check_code(code)


class ViolationTests(SynchronousTestCase):
    """The error that a violation raises."""

    def test_it_carries_the_answer(self) -> None:
        """Code and reason of the close frame; a copy has them too."""
        violation = WebSocketViolation(CloseCode.PROTOCOL_ERROR, "reserved opcode 3")
        for error in (violation, violation.copy()):
            self.assertIsInstance(error, RemoteProtocolError)
            self.assertEqual((error.code, error.reason), (1002, "reserved opcode 3"))
            self.assertEqual(str(error), "WebSocket peer: reserved opcode 3 (close code 1002)")
            self.assertEqual(SocketError.get_status(error), SocketErrorStatus.UNKNOWN)
