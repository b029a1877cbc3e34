"""A `LineProtocol` hands lines to one method and answers with another."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, LineRecorder, Recorder
from twsock.errors import LocalProtocolError
from twsock.protocols import LineEcho, LineProtocol
from twsock.wire import LineTooLongError, decode_text

#: What .NET writes first, and Python calls ``utf-8-sig``.
BOM = b"\xef\xbb\xbf"


class Shout(Recorder, LineProtocol):
    """Answers in upper case."""

    def line_received(self, line: bytes) -> None:
        self.send_line(decode_text(line).upper())


class LineProtocolTests(SynchronousTestCase):
    """Lines in, lines out."""

    def test_both_endings_are_read(self) -> None:
        """CRLF and a bare LF end a line; neither reaches the handler."""
        connected = Connected(LineRecorder)
        connected.receive(b"one\r\ntwo\n\r\n")
        self.assertEqual(connected.protocol.received, [b"one", b"two", b""])

    def test_a_byte_order_mark_is_part_of_the_first_line(self) -> None:
        """A .NET client with ``Encoding.UTF8`` sends one; no byte of it is lost or added."""
        connected = Connected(LineRecorder)
        connected.receive(BOM + b"Hello\r\nHello\r\n", step=2)
        self.assertEqual(connected.protocol.received, [BOM + b"Hello", b"Hello"])
        self.assertEqual(decode_text(connected.protocol.received[0]), "\ufeffHello")
        echo = Connected(LineEcho)
        echo.receive(BOM + b"Hello\r\n")
        self.assertEqual(echo.sent(), BOM + b"Hello\r\n")

    def test_lines_arrive_whatever_the_segmentation(self) -> None:
        """Byte by byte, the same lines come in the same order."""
        connected = Connected(LineRecorder)
        connected.receive(b"a\r\n\nbc\n", step=1)
        self.assertEqual(connected.protocol.received, [b"a", b"", b"bc"])

    def test_an_answer_ends_with_crlf(self) -> None:
        """Text leaves as UTF-8 with CRLF behind it."""
        connected = Connected(Shout)
        connected.receive("grüße\n".encode())
        self.assertEqual(connected.sent(), "GRÜSSE\r\n".encode())

    def test_a_line_above_the_limit_aborts_before_it_ends(self) -> None:
        """Too many bytes without an ending are refused as soon as they are there."""
        connected = Connected(LineRecorder, max_payload=4)
        connected.receive(b"1234\r\n12345")
        self.assertTrue(connected.transport.disconnected)
        self.assertEqual(connected.protocol.received, [b"1234"])
        connected.lose()
        self.assertIsInstance(connected.protocol.lost[0], LineTooLongError)

    def test_text_that_is_not_utf8_is_the_peers_mistake(self) -> None:
        """A handler that asks for text gets none that is not: one event, no traceback."""
        connected = Connected(Shout)
        connected.receive(b"\xff\n")
        self.assertTrue(connected.transport.disconnected)
        self.assertEqual(connected.factory.counters.violations, 1)

    def test_a_line_feed_cannot_be_smuggled_into_an_answer(self) -> None:
        """An answer is one line, or an error."""
        connected = Connected(LineRecorder)
        self.assertRaises(LocalProtocolError, connected.protocol.send_line, "a\nb")
        self.assertEqual(connected.sent(), b"")
