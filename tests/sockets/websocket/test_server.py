"""WebSockets of a server send, receive and end as those of a client."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import KEY, Accepted, close, text
from twsock import (
    BrokenError,
    BusyError,
    LocalProtocolError,
    MessageWebSocketReceiveMode,
    SocketMessageType,
    WebSocketClosedError,
)
from twsock.websocket.frames import Opcode, encode_frame


async def echo(_listener: object, args: Any) -> None:
    async with args.socket as websocket:
        async for message in websocket:
            await websocket.send(message)


class ServerMessageWebSocketTests(SynchronousTestCase):
    """Messages in memory."""

    def test_echo_of_one_read_leaves_in_one_write(self) -> None:
        """All answers of one read are sent together."""
        one = Accepted(echo)
        one.open()
        writes: list[bytes] = []
        one.transport.write = writes.append
        one.transport.writeSequence = lambda pieces: writes.append(b"".join(pieces))
        one.receive(text("a") + text("b") + text("c"))
        self.assertEqual(writes, [b"\x81\x01a\x81\x01b\x81\x01c"])
        one.lose()

    def test_violation_is_logged_with_the_peer(self) -> None:
        """In one line."""
        made = Accepted()
        made.open()
        with capturedLogs() as events:
            made.receive(b"\x83\x80" + KEY)
        (logged,) = [formatEvent(event) for event in events]
        self.assertEqual(
            logged,
            "127.0.0.1:50000 closed: WebSocket peer: reserved opcode 3 (close code 1002)",
        )

    def test_violation_behind_messages_is_found_by_the_receive(self) -> None:
        """The messages in front are answered; pings between them too, in order."""
        one = Accepted(echo)
        one.open()
        ping = b"\x89\x80\x00\x00\x00\x00"
        one.receive(text("a") + ping + text("b") + b"\xff\x80\x00\x00\x00\x00")
        opcodes = [opcode for opcode, _ in one.frames()]
        self.assertEqual(sorted(opcodes[:-1]), [Opcode.TEXT, Opcode.TEXT, Opcode.PONG])
        self.assertIs(opcodes[-1], Opcode.CLOSE)
        one.lose()

    def test_loop_does_not_wake_for_each_message_of_a_read(self) -> None:
        """One wait takes the first message; the others are here when they are asked for."""
        one = Accepted()
        accepted = one.open()
        got: list[object] = []

        def next_one(message: object) -> None:
            got.append(message)
            received = accepted.receive()
            while received.called:
                got.append(self.successResultOf(received))
                received = accepted.receive()

        accepted.receive().addCallback(next_one)
        one.receive(text("a") + text("b") + text("c"))
        self.assertEqual(got, ["a", "b", "c"])

    def test_written_messages_have_the_chosen_type(self) -> None:
        """``control.message_type`` is the type of messages written to the output stream."""
        one = Accepted()
        accepted = one.open()
        accepted.output_stream.send_all(b"a")
        accepted.control.message_type = SocketMessageType.UTF8
        accepted.output_stream.send_all(b"b")
        accepted.output_stream.flush()
        self.assertEqual(one.frames(), [(Opcode.BINARY, b"a"), (Opcode.TEXT, "b")])

    def test_handlers_get_the_messages(self) -> None:
        """Also those that arrive behind the request."""
        got: list[object] = []

        def serve(_listener: object, args: Any) -> None:
            args.socket.message_received.add(lambda _, message: got.append(message.data))

        one = Accepted(serve)
        one.open(text("a"))
        one.receive(text("b"))
        self.assertEqual(got, ["a", "b"])

    def test_pieces_go_to_handlers(self) -> None:
        """With ``PARTIAL_MESSAGE``: as they arrive, within the limit of a whole message."""
        pieces: list[tuple[object, bool]] = []

        def serve(_listener: object, args: Any) -> None:
            args.socket.message_received.add(
                lambda _, piece: pieces.append((piece.data, piece.is_message_complete))
            )

        mode = MessageWebSocketReceiveMode.PARTIAL_MESSAGE
        one = Accepted(serve, receive_mode=mode, max_message_size=3)
        one.open()
        one.receive(encode_frame(Opcode.TEXT, b"a", is_final=False, key=KEY))
        one.receive(encode_frame(Opcode.CONTINUATION, b"bc", key=KEY))
        self.assertEqual(pieces, [(b"a", False), (b"bc", True)])
        self.failureResultOf(one.socket.receive(), LocalProtocolError)
        one.receive(encode_frame(Opcode.BINARY, b"abc", is_final=False, key=KEY))
        one.receive(encode_frame(Opcode.CONTINUATION, b"d", key=KEY))
        ((opcode, payload),) = one.frames()
        self.assertEqual((opcode, payload[:2]), (Opcode.CLOSE, b"\x03\xf1"))

    def test_pieces_cannot_be_received_without_handlers(self) -> None:
        """A receive fails at once, and does not wait."""
        one = Accepted(receive_mode=MessageWebSocketReceiveMode.PARTIAL_MESSAGE)
        self.failureResultOf(one.open().receive(), LocalProtocolError)

    def test_messages_that_nobody_receives_stop_the_reading(self) -> None:
        """One message is held; the rest waits at the client."""
        one = Accepted()
        accepted = one.open()
        one.receive(text("a") + text("b"))
        self.assertEqual(one.transport.producerState, "paused")
        self.assertEqual(self.successResultOf(accepted.receive()), "a")
        self.assertEqual(self.successResultOf(accepted.receive()), "b")
        self.assertEqual(one.transport.producerState, "producing")

    def test_unsent_messages_are_bounded(self) -> None:
        """At ``max_unsent`` a further message fails."""
        one = Accepted(max_unsent=10)
        accepted = one.open()
        accepted.output_stream.write(b"x" * 10)
        self.failureResultOf(accepted.output_stream.write(b"x"), BusyError)

    def test_close_frame_of_the_client_ends_the_iteration(self) -> None:
        """The close frame is answered; the server ends the connection first."""
        ended: list[object] = []
        one = Accepted(lambda _listener, args: args.socket.closed.add(lambda *a: ended.append(a)))
        accepted = one.open()
        waiting = accepted.receive()
        one.receive(close(1000))
        self.failureResultOf(waiting, WebSocketClosedError)
        self.assertEqual(one.frames(), [(Opcode.CLOSE, b"\x03\xe8")])
        self.assertTrue(one.transport.disconnecting)

    def test_loss_without_a_close_frame_is_an_error(self) -> None:
        """A receive fails, and so does a later ping."""
        one = Accepted()
        accepted = one.open()
        waiting = accepted.receive()
        one.lose()
        self.failureResultOf(waiting, BrokenError)
        self.failureResultOf(accepted.ping(), BrokenError)
        self.assertTrue(accepted.was_lost)

    def test_oversized_message_closes_with_1009(self) -> None:
        """The limit is that of the listener."""
        one = Accepted(max_message_size=3)
        one.open()
        one.receive(text("abcd"))
        ((opcode, payload),) = one.frames()
        self.assertEqual((opcode, payload[:2]), (Opcode.CLOSE, b"\x03\xf1"))

    def test_drain_closes_with_1001_after_the_last_answer(self) -> None:
        """The handler answers all that has arrived, then its iteration ends."""
        one = Accepted(echo)
        one.open()
        one.receive(text("a"))
        one.listener.close_all(5)
        frames = one.frames()
        self.assertEqual(frames, [(Opcode.TEXT, "a"), (Opcode.CLOSE, b"\x03\xe9")])

    def test_drain_waits_for_handlers_of_messages(self) -> None:
        """While none of them runs, the WebSocket closes."""
        for is_working in (False, True):
            one = Accepted()
            accepted = one.open()
            working: Deferred[None] = Deferred()
            accepted.message_received.add(lambda *_, working=working: working)
            if is_working:
                one.receive(text("a"))
            one.listener.close_all(30)
            self.assertEqual(accepted.is_open, is_working)
            working.callback(None)
            ((opcode, payload),) = one.frames()
            self.assertEqual((opcode, payload), (Opcode.CLOSE, b"\x03\xe9"), is_working)
            one.lose(is_clean=True)

    def test_drain_waits_for_a_handler_that_works(self) -> None:
        """The close frame follows when the handler asks for the next message."""
        one = Accepted()
        accepted = one.open(text("a"))
        self.assertEqual(self.successResultOf(accepted.receive()), "a")
        one.listener.close_all(5)
        self.assertEqual(one.frames(), [])
        accepted.send("late")
        accepted.output_stream.flush()
        self.failureResultOf(accepted.receive(), WebSocketClosedError)
        self.assertEqual(one.frames(), [(Opcode.TEXT, "late"), (Opcode.CLOSE, b"\x03\xe9")])

    def test_silent_client_is_aborted(self) -> None:
        """After a ping that nothing answers."""
        one = Accepted(ping_interval=16, ping_timeout=16)
        accepted = one.open()
        accepted.receive().addErrback(lambda _: None)
        for _ in range(40):
            one.reactor.advance(1)
        self.assertIn((Opcode.PING, b""), one.frames())
        self.assertTrue(one.transport.is_aborted)


class ServerStreamWebSocketTests(SynchronousTestCase):
    """Byte streams in memory."""

    def test_messages_are_one_stream(self) -> None:
        """The boundaries of messages are not visible."""
        one = Accepted(is_stream=True)
        accepted = one.open(text("ab") + text("cd"))
        read = accepted.input_stream.receive_exactly(4)
        self.assertEqual(self.successResultOf(read), b"abcd")
        accepted.output_stream.send_all(b"x")
        accepted.output_stream.flush()
        self.assertEqual(one.frames(), [(Opcode.BINARY, b"x")])

    def test_drain_ends_the_stream(self) -> None:
        """A read that waits gets the end of the stream."""
        one = Accepted(is_stream=True)
        accepted = one.open()
        read = accepted.input_stream.receive_some()
        one.listener.close_all(5)
        self.assertEqual(self.successResultOf(read), b"")
