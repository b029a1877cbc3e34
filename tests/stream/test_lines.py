"""A `LineProtocol` receives and sends lines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, LineRecorder, Recorder
from twsock.errors import LocalProtocolError
from twsock.protocols import LineEcho, LineProtocol
from twsock.wire import LineTooLongError, decode_text

#: The byte order mark that .NET sends first; Python's codec ``utf-8-sig`` writes it too.
BOM = b"\xef\xbb\xbf"


class Shout(Recorder, LineProtocol):
    """Answers in upper case."""

    def line_received(self, line: bytes) -> None:
        self.send_line(decode_text(line).upper())


class LineProtocolTests(SynchronousTestCase):
    """A `LineProtocol` between its transport and its handler."""

    def test_both_line_ends_are_accepted(self) -> None:
        """CRLF and a bare LF end a line; the handler receives neither."""
        connected = Connected(LineRecorder)
        connected.receive(b"one\r\ntwo\n\r\n")
        self.assertEqual(connected.protocol.received, [b"one", b"two", b""])

    def test_a_byte_order_mark_stays_part_of_the_first_line(self) -> None:
        """A .NET client with ``Encoding.UTF8`` sends one; no byte of it is lost or added."""
        connected = Connected(LineRecorder)
        connected.receive(BOM + b"Hello\r\nHello\r\n", step=2)
        self.assertEqual(connected.protocol.received, [BOM + b"Hello", b"Hello"])
        self.assertEqual(decode_text(connected.protocol.received[0]), "\ufeffHello")
        echo = Connected(LineEcho)
        echo.receive(BOM + b"Hello\r\n")
        self.assertEqual(echo.sent(), BOM + b"Hello\r\n")

    def test_lines_in_single_bytes_arrive_in_order(self) -> None:
        """Lines that arrive byte by byte are the same, in the same order."""
        connected = Connected(LineRecorder)
        connected.receive(b"a\r\n\nbc\n", step=1)
        self.assertEqual(connected.protocol.received, [b"a", b"", b"bc"])

    def test_an_answer_ends_with_crlf(self) -> None:
        """Text is sent as UTF-8, followed by CRLF."""
        connected = Connected(Shout)
        connected.receive("grüße\n".encode())
        self.assertEqual(connected.sent(), "GRÜSSE\r\n".encode())

    def test_a_line_above_the_limit_aborts_before_its_end(self) -> None:
        """Too many bytes without a line end are refused as soon as they arrived."""
        connected = Connected(LineRecorder, max_payload=4)
        connected.receive(b"1234\r\n12345")
        self.assertTrue(connected.transport.disconnected)
        self.assertEqual(connected.protocol.received, [b"1234"])
        connected.lose()
        self.assertIsInstance(connected.protocol.lost[0], LineTooLongError)

    def test_text_that_is_not_utf8_aborts_the_peer(self) -> None:
        """A handler that decodes such a line causes one event, without a traceback."""
        connected = Connected(Shout)
        connected.receive(b"\xff\n")
        self.assertTrue(connected.transport.disconnected)
        self.assertEqual(connected.factory.counters.violations, 1)

    def test_an_answer_with_a_line_feed_is_refused(self) -> None:
        """One answer is always one line on the wire."""
        connected = Connected(LineRecorder)
        self.assertRaises(LocalProtocolError, connected.protocol.send_line, "a\nb")
        self.assertEqual(connected.sent(), b"")
