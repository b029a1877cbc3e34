"""The sending side of a WebSocket waits for the kernel, and fails in time."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.connected import Served, close, served
from twsock import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    MessageWebSocket,
    SocketError,
    SocketMessageType,
    WebSocketClosedError,
)
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.frames import Opcode
from twsock.websocket.messages import MessageDecoder


class OutputTests(SynchronousTestCase):
    """Waits for room, and their ends."""

    def fill(self) -> Served[MessageWebSocket]:
        """Return a WebSocket whose transport is full."""
        made = served(MessageWebSocket)
        made.transport.producer.pauseProducing()
        return made

    def test_messages_wait_while_the_transport_is_full(self) -> None:
        """`send` fires when there is room again; the messages stay in order."""
        made = self.fill()
        output = made.socket.output_stream
        first = made.socket.send("a")
        self.assertNoResult(first)
        self.assertTrue(output.is_full)
        second = made.socket.send("b")
        flushing = output.flush()
        self.assertNoResult(flushing)
        made.transport.producer.resumeProducing()
        self.assertEqual(self.successResultOf(first), 1)
        self.assertEqual(self.successResultOf(second), 1)
        self.assertTrue(self.successResultOf(flushing))
        self.assertEqual(made.frames(), [("text", "a"), ("text", "b")])

    def test_loss_fails_what_waits(self) -> None:
        """A close frame of the server and an abort fail the waiting writes, too."""
        made = self.fill()
        sending = made.socket.send("a")
        made.reset()
        self.failureResultOf(sending, BrokenError)
        self.failureResultOf(made.socket.send("b"), BrokenError)
        made = self.fill()
        sending = made.socket.send("a")
        made.receive(close())
        self.failureResultOf(made.socket.send("b"), WebSocketClosedError)
        made.reset()
        self.failureResultOf(sending, SocketError)
        made = self.fill()
        sending = made.socket.send("a")
        made.socket.abort()
        made.reset()
        self.failureResultOf(sending, ClosedError)

    def test_after_the_end_a_wrong_message_fails_with_the_reason_of_the_end(self) -> None:
        """A text that is not UTF-8, or a message within another, is no error of the caller then."""
        made = served(MessageWebSocket)
        made.socket.control.message_type = SocketMessageType.UTF8
        self.failureResultOf(made.socket.output_stream.write(b"\xff"), LocalProtocolError)
        made.socket.send_nonfinal_frame(b"a")
        self.failureResultOf(made.socket.send("b"), LocalProtocolError)
        made.receive(close(4000))
        for sending in (made.socket.send("b"), made.socket.output_stream.write(b"\xff")):
            failure = self.failureResultOf(sending, WebSocketClosedError)
            self.assertEqual(failure.value.code, 4000)

    def test_type_of_a_message_may_be_given(self) -> None:
        """`send_message` does not depend on ``message_type``."""
        made = served(MessageWebSocket)
        made.socket.output_stream.send_message(Opcode.TEXT, b"a")
        self.assertEqual(made.frames(), [("text", "a")])

    def test_mutable_buffers_are_copied(self) -> None:
        """The application may change them at once."""
        made = served(MessageWebSocket)
        data = bytearray(b"a")
        made.socket.output_stream.write(data)
        data[:] = b"b"
        self.assertEqual(made.frames(), [("binary", b"a")])
        self.assertRaises(TypeError, made.socket.output_stream.write, "text")

    def test_block_closes_the_stream(self) -> None:
        """The WebSocket stays open."""

        async def use() -> None:
            async with made.socket.output_stream as output:
                await output.send_all(b"a")

        made = served(MessageWebSocket)
        self.assertEqual(made.socket.output_stream.unsent, 0)
        using = Deferred.fromCoroutine(use())
        made.turn()
        self.successResultOf(using)
        self.failureResultOf(made.socket.send("b"), ClosedError)
        self.assertTrue(made.socket.is_open)

    def test_frames_of_one_message_follow_the_type_of_the_first(self) -> None:
        """A change of ``message_type`` in between has no effect on it."""
        made = served(MessageWebSocket)
        made.socket.send_nonfinal_frame(b"\xff")
        made.socket.control.message_type = made.socket.control.message_type.__class__(1)
        made.socket.send_final_frame(b"\xfe")
        self.assertEqual(made.frames(), [("binary", b"\xff\xfe")])
        self.failureResultOf(made.socket.send_final_frame(b"\xfe"), LocalProtocolError)

    def test_refused_message_is_not_compressed(self) -> None:
        """With context takeover, later messages would refer to bytes that the peer never gets."""
        settings = DeflateSettings(context_takeover=True, min_size=0)
        made = Served(MessageWebSocket)
        made.socket.control.compression = settings
        made.socket.control.ping_interval = None
        made.connect()
        made.accept(
            "Sec-WebSocket-Extensions: permessage-deflate; "
            "client_max_window_bits=12; server_max_window_bits=12"
        )
        made.transport.producer.pauseProducing()
        made.socket.output_stream.max_unsent = 1
        made.socket.send(b"first message")
        made.turn()
        made.socket.send(b"x")
        self.failureResultOf(made.socket.send(b"refused message"), BusyError)
        made.transport.producer.resumeProducing()
        made.socket.send(b"refused message")
        agreed = settings.judge(settings.offer())
        made.decoder = MessageDecoder(
            is_server=True, max_message_size=1000, inflater=agreed.inflater(is_server=True)
        )
        received = [payload for _, payload in made.frames()]
        self.assertEqual(received, [b"first message", b"x", b"refused message"])
