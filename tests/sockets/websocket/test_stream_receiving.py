"""Messages become one stream of bytes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import Accepted, close, text
from twsock import ClosedError
from twsock.sockets.stream.input import READ_AHEAD_LIMIT
from twsock.sockets.websocket.stream_receiving import choose_binary
from twsock.websocket.frames import Opcode


class WebSocketStreamReceiverTests(SynchronousTestCase):
    """The receiving side of a stream WebSocket."""

    def test_end_of_the_stream_depends_on_the_code(self) -> None:
        """A normal close frame ends the stream; any other fails the read, after all bytes."""
        for code, is_error in ((1000, False), (1001, False), (4000, True)):
            one = Accepted(is_stream=True)
            accepted = one.open(text("a") + close(code))
            stream = accepted.input_stream
            self.assertEqual(self.successResultOf(stream.receive_some()), b"a", code)
            if is_error:
                self.failureResultOf(stream.receive_some(), ClosedError)
            else:
                self.assertEqual(self.successResultOf(stream.receive_some()), b"", code)

    def test_bytes_that_nobody_reads_stop_the_reading(self) -> None:
        """Reading continues when the application reads."""
        one = Accepted(is_stream=True)
        accepted = one.open()
        one.receive(text("x" * READ_AHEAD_LIMIT))
        self.assertEqual(one.transport.producerState, "paused")
        self.successResultOf(accepted.input_stream.receive_exactly(READ_AHEAD_LIMIT))
        accepted.input_stream.receive_some()
        self.assertEqual(one.transport.producerState, "producing")

    def test_all_messages_are_binary(self) -> None:
        """A stream has no texts."""
        self.assertIs(choose_binary(), Opcode.BINARY)
