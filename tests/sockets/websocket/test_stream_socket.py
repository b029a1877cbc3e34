"""A stream WebSocket sends and receives bytes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.connected import Served, binary, close, ping, served, text
from twsock import (
    BrokenError,
    ClosedError,
    DataReader,
    DataWriter,
    InputStreamOptions,
    SocketError,
    StreamWebSocket,
    WebErrorStatus,
    WebSocketError,
)
from twsock.sockets import StreamWebSocketControl
from twsock.websocket.frames import Opcode, encode_frame


class StreamTests(SynchronousTestCase):
    """Messages are one stream of bytes."""

    def test_each_write_is_a_binary_message(self) -> None:
        """Each ``store`` of a `DataWriter` is one, too."""
        made = served(StreamWebSocket)
        made.socket.output_stream.write(b"ab")
        writer = DataWriter(made.socket.output_stream)
        writer.write_uint16(1)
        self.assertEqual(self.successResultOf(writer.store()), 2)
        self.assertEqual(made.frames(), [("binary", b"ab"), ("binary", b"\0\1")])

    def test_boundaries_are_not_visible(self) -> None:
        """A message may be read in parts, and several by one read; text is passed through."""
        made = served(StreamWebSocket)
        made.receive(binary(b"abc") + binary(b"") + text("\u00e9") + binary(b"d"))
        stream = made.socket.input_stream
        self.assertEqual(self.successResultOf(stream.read(2)), b"ab")
        self.assertEqual(self.successResultOf(stream.read(4)), b"c\xc3\xa9d")
        reader = DataReader(stream)
        loading = reader.load(2)
        made.receive(binary(b"e"), 1)
        self.assertNoResult(loading)
        made.receive(binary(b"f"), 1)
        self.assertEqual(self.successResultOf(loading), 2)
        self.assertEqual(reader.read_bytes(2), b"ef")

    def test_pieces_are_read_as_they_arrive(self) -> None:
        """A message that is not complete; control frames in between do no harm."""
        made = served(StreamWebSocket)
        first = encode_frame(Opcode.BINARY, b"a" * 20_000, is_final=False)
        made.receive(first[:10_000])
        read = made.socket.input_stream.read(20_000, InputStreamOptions.PARTIAL)
        self.assertEqual(len(self.successResultOf(read)), 10_000 - 4)
        made.receive(first[10_000:] + ping(b"1") + encode_frame(Opcode.CONTINUATION, b"b"))
        self.assertEqual(made.socket.input_stream.buffered, 20_000 - 9_996 + 1)
        self.assertEqual(made.frames(), [("pong", b"1")])

    def test_reading_stops_if_nobody_reads(self) -> None:
        """Reading stops at 64 KiB, and continues when a read needs more."""
        made = served(StreamWebSocket)
        made.receive(binary(b"a" * 40_000))
        self.assertTrue(made.is_reading)
        made.receive(binary(b"a" * 40_000))
        self.assertFalse(made.is_reading)
        self.assertEqual(len(self.successResultOf(made.socket.input_stream.read(80_000))), 80_000)
        read = made.socket.input_stream.read(1)
        self.assertTrue(made.is_reading)
        made.receive(binary(b"b"))
        self.assertEqual(self.successResultOf(read), b"b")

    def test_close_in_order_is_the_end_of_the_stream(self) -> None:
        """A read returns the bytes that are left; the next one returns none."""
        for code in (1000, 1001, 1005):
            made = served(StreamWebSocket)
            made.receive(binary(b"ab"))
            read = made.socket.input_stream.read(9)
            made.receive(close(code))
            self.assertEqual(self.successResultOf(read), b"ab", code)
            self.assertEqual(self.successResultOf(made.socket.input_stream.read(9)), b"", code)
            self.failureResultOf(made.socket.output_stream.write(b"c"), SocketError)

    def test_other_ends_fail_the_read(self) -> None:
        """A close frame with another code, a loss, a violation; received bytes are read before."""
        violation = encode_frame(Opcode.TEXT, b"a", key=b"abcd")
        for sent, end in ((close(1011), ""), (b"", "end"), (b"", "reset"), (violation, "")):
            made = served(StreamWebSocket)
            made.receive(binary(b"ab") + sent)
            if end:
                getattr(made, end)()
            self.assertEqual(self.successResultOf(made.socket.input_stream.read(2)), b"ab", end)
            self.failureResultOf(made.socket.input_stream.read(1), BrokenError, ClosedError)

    def test_pending_read_ends_as_cancelled(self) -> None:
        """W25: At the close of this end."""
        made = served(StreamWebSocket)
        read = made.socket.input_stream.read(1)
        made.socket.close()
        failure = self.failureResultOf(read, ClosedError)
        self.assertIs(WebSocketError.get_status(failure), WebErrorStatus.OPERATION_CANCELED)

    def test_failed_connect_gives_new_streams(self) -> None:
        """The next connect uses them."""
        made = Served(StreamWebSocket)
        connecting = made.connect()
        made.answer_tcp()
        made.reset()
        self.failureResultOf(connecting, SocketError)
        made.connect()
        made.accept(behind=binary(b"a"))
        self.assertEqual(self.successResultOf(made.socket.input_stream.read(1)), b"a")
        made.lose()

    def test_control_has_no_options_of_messages(self) -> None:
        """Only `MessageWebSocketControl` has the options of messages; `no_delay` is True."""
        control: Any = Served(StreamWebSocket).socket.control
        self.assertIsInstance(control, StreamWebSocketControl)
        self.assertTrue(control.no_delay)
        for name in ("max_message_size", "message_type", "receive_mode"):
            self.assertFalse(hasattr(control, name), name)
