"""A message WebSocket sends and receives messages, with the statements W11 to W22 of WinRT."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.connected import Served, binary, close, ping, pong, served, text
from twsock import (
    BrokenError,
    BusyError,
    ClosedError,
    DataWriter,
    LocalProtocolError,
    MessageWebSocket,
    MessageWebSocketReceiveMode,
    SocketError,
    SocketErrorStatus,
    SocketMessageType,
    WebErrorStatus,
    WebSocketClosedError,
    WebSocketError,
)
from twsock.websocket import CloseCode, WebSocketViolation
from twsock.websocket.frames import Opcode, encode_frame

UTF8 = SocketMessageType.UTF8
BINARY = SocketMessageType.BINARY
#: An ``é``, which has two bytes in UTF-8.
ACCENT = "\u00e9"


async def collect(websocket: MessageWebSocket) -> list[str | bytes]:
    """Receive messages until the WebSocket closes."""
    return [message async for message in websocket]


class Recorded(Served[MessageWebSocket]):
    """A WebSocket with a handler that records what it gets."""

    def __init__(self, handled: Any = None, **options: Any) -> None:
        super().__init__(MessageWebSocket)
        self.handled = handled
        self.events: list[Any] = []
        self.waits: list[Deferred[None]] = []
        self.socket.message_received.add(self.record)
        self.socket.control.ping_interval = None
        for name, value in options.items():
            setattr(self.socket.control, name, value)
        self.connect()

    def record(self, _socket: MessageWebSocket, args: Any) -> Any:
        try:
            self.events.append(args.data)
        except SocketError as error:
            self.events.append(error)
        return None if self.handled is None else self.handled(args)


class SendTests(SynchronousTestCase):
    """Messages leave as frames."""

    def test_str_is_text_and_bytes_are_binary(self) -> None:
        """The Deferred fires at once with the number of bytes; messages of a turn leave as one."""
        made = served(MessageWebSocket)
        self.assertEqual(self.successResultOf(made.socket.output_stream.flush()), True)
        sending = [made.socket.send("h\u00e9"), made.socket.send(b"ab"), made.socket.send("")]
        self.assertEqual(made.frames(), [("text", "h\u00e9"), ("binary", b"ab"), ("text", "")])
        self.assertEqual([self.successResultOf(each) for each in sending], [3, 2, 0])

    def test_one_store_is_one_message(self) -> None:
        """W13: A `DataWriter` collects values, and `store` sends one message of all of them."""
        made = served(MessageWebSocket)
        writer = DataWriter(made.socket.output_stream)
        writer.write_uint32(7)
        writer.write_string("ab")
        storing = writer.store()
        self.assertEqual(made.frames(), [("binary", b"\0\0\0\7ab")])
        self.assertEqual(self.successResultOf(storing), 6)

    def test_message_type_applies_to_later_writes(self) -> None:
        """W12: The default is binary. It may change at any time, and does not affect receiving."""
        made = served(MessageWebSocket)
        output = made.socket.output_stream
        self.assertIs(made.socket.control.message_type, BINARY)
        output.write(b"a")
        made.socket.control.message_type = UTF8
        output.write(b"b")
        self.assertEqual(made.frames(), [("binary", b"a"), ("text", "b")])
        made.receive(binary(b"c"))
        self.assertEqual(self.successResultOf(made.socket.receive()), b"c")

    def test_texts_are_checked_before_they_are_sent(self) -> None:
        """A text that is not UTF-8 fails, and nothing leaves."""
        made = served(MessageWebSocket)
        made.socket.control.message_type = UTF8
        self.failureResultOf(made.socket.output_stream.write(b"\xff"), LocalProtocolError)
        self.assertEqual(made.frames(), [])
        self.assertRaises(UnicodeEncodeError, made.socket.send, "\ud800")

    def test_frames_of_a_message_are_sent_one_by_one(self) -> None:
        """W14: A non-final frame has FIN=0, the final one FIN=1; a character may be in two."""
        made = served(MessageWebSocket)
        made.socket.control.message_type = UTF8
        first, second = ACCENT.encode()[:1], ACCENT.encode()[1:]
        sending = [
            made.socket.send_nonfinal_frame(b"a" + first),
            made.socket.send_nonfinal_frame(second),
            made.socket.send_final_frame(b"b"),
        ]
        self.assertEqual(made.frames(), [("text", f"a{ACCENT}b")])
        self.assertEqual([made.raw[0], made.raw[8], made.raw[15]], [0x01, 0x00, 0x80])
        self.assertEqual([self.successResultOf(each) for each in sending], [2, 1, 1])

    def test_only_frame_may_be_final(self) -> None:
        """`send_final_frame` alone is a message."""
        made = served(MessageWebSocket)
        made.socket.send_final_frame(b"a")
        self.assertEqual(made.frames(), [("binary", b"a")])

    def test_other_messages_wait_for_the_final_frame(self) -> None:
        """Another message in between fails; a ping may be sent."""
        made = served(MessageWebSocket)
        made.socket.send_nonfinal_frame(b"a")
        self.failureResultOf(made.socket.send(b"b"), LocalProtocolError)
        self.failureResultOf(made.socket.output_stream.write(b"b"), LocalProtocolError)
        made.socket.ping()
        made.socket.send_final_frame(b"c")
        made.socket.send(b"d")
        expected = [("ping", b"\0\0\0\1"), ("binary", b"ac"), ("binary", b"d")]
        self.assertEqual(made.frames(), expected)

    def test_frames_of_a_text_are_checked(self) -> None:
        """A frame that is not UTF-8 fails, and the message can be continued without it."""
        made = served(MessageWebSocket)
        made.socket.control.message_type = UTF8
        made.socket.send_nonfinal_frame(b"a")
        self.failureResultOf(made.socket.send_nonfinal_frame(b"\xff"), LocalProtocolError)
        self.failureResultOf(made.socket.send_final_frame(b"\xc3"), LocalProtocolError)
        made.socket.send_final_frame(b"b")
        self.assertEqual(made.frames(), [("text", "ab")])

    def test_large_messages_are_divided_if_so_set(self) -> None:
        """``max_fragment_size`` divides them."""
        made = Served(MessageWebSocket)
        made.socket.control.max_fragment_size = 2
        made.connect()
        made.accept()
        made.socket.send("abc")
        self.assertEqual(made.frames(), [("text", "abc")])
        self.assertEqual((made.raw[0], made.raw[8]), (0x01, 0x80))

    def test_each_frame_has_a_new_mask(self) -> None:
        """All frames are masked, with keys that differ."""
        made = served(MessageWebSocket)
        keys = set()
        for _ in range(10):
            made.socket.send(b"")
            made.frames()
            self.assertEqual(made.raw[:2], b"\x82\x80")
            keys.add(made.raw[2:6])
        self.assertEqual(len(keys), 10)

    def test_flush_before_connect_and_after_close_fails(self) -> None:
        """W22: 0x8000000E before the WebSocket is connected, 0x80000013 when it is closed."""
        made = Served(MessageWebSocket)
        failure = self.failureResultOf(made.socket.output_stream.flush(), LocalProtocolError)
        self.assertEqual(failure.value.hresult, 0x8000_000E)
        made = served(MessageWebSocket)
        self.assertTrue(self.successResultOf(made.socket.output_stream.flush()))
        made.socket.close()
        failure = self.failureResultOf(made.socket.output_stream.flush(), ClosedError)
        self.assertEqual(failure.value.hresult, 0x8000_0013)

    def test_closed_stream_refuses_although_the_websocket_is_open(self) -> None:
        """W22: A `DataWriter` that is closed closes its stream; messages are still received."""
        made = served(MessageWebSocket)
        writer = DataWriter(made.socket.output_stream)
        writer.write_bytes(b"a")
        writer.store()
        self.successResultOf(writer.close())
        output = made.socket.output_stream
        for call in (output.flush, lambda: output.write(b"b"), lambda: output.send_all(b"b")):
            failure = self.failureResultOf(call(), ClosedError)
            self.assertEqual(failure.value.hresult, 0x8000_0013)
        self.assertEqual(made.frames(), [("binary", b"a")])
        made.receive(text("c"))
        self.assertEqual(self.successResultOf(made.socket.receive()), "c")

    def test_unsent_bytes_are_limited(self) -> None:
        """At ``max_unsent`` a message fails with `BusyError`, and is not encoded."""
        made = served(MessageWebSocket)
        made.socket.output_stream.max_unsent = 10
        made.socket.output_stream.write(b"x" * 10)
        self.failureResultOf(made.socket.output_stream.write(b""), BusyError)
        self.failureResultOf(made.socket.send_final_frame(b""), BusyError)
        self.assertEqual(made.frames(), [("binary", b"x" * 10)])

    def test_cancelled_message_is_sent(self) -> None:
        """Cancelling ends the wait only: the next message may refer to it."""
        made = served(MessageWebSocket)
        writing = made.socket.output_stream.write(b"a")
        writing.cancel()
        self.failureResultOf(writing)
        self.assertEqual(made.frames(), [("binary", b"a")])


class ReceiveTests(SynchronousTestCase):
    """Messages are received one by one."""

    @given(st.lists(st.text(max_size=200) | st.binary(max_size=200)), st.integers(1, 50))
    def test_any_cut_gives_the_same_messages(self, messages: list[str | bytes], step: int) -> None:
        """The received messages do not depend on how the stream is cut."""
        made = served(MessageWebSocket)
        sent = b"".join(text(m) if isinstance(m, str) else binary(m) for m in messages)

        async def receive_all() -> list[str | bytes]:
            return [message async for message in made.socket]

        receiving = Deferred.fromCoroutine(receive_all())
        made.receive(sent + close(), step)
        self.assertEqual(self.successResultOf(receiving), messages)

    def test_messages_behind_the_response_are_received(self) -> None:
        """A server that does not wait may send with its response."""
        made = Served(MessageWebSocket)
        connecting = made.connect()
        made.accept(behind=text("a") + binary(b"b"))
        self.successResultOf(connecting)
        self.assertEqual(self.successResultOf(made.socket.receive()), "a")
        self.assertEqual(self.successResultOf(made.socket.receive()), b"b")

    def test_one_message_is_held_that_nobody_has_asked_for(self) -> None:
        """Reading stops until the message is taken. Pings behind it are answered after that."""
        made = served(MessageWebSocket)
        self.assertTrue(made.is_reading)
        made.receive(text("a") + ping(b"1") + text("b") + ping(b"2"))
        self.assertFalse(made.is_reading)
        self.assertEqual(made.frames(), [])
        self.assertEqual(self.successResultOf(made.socket.receive()), "a")
        self.assertEqual(made.frames(), [("pong", b"1")])
        self.assertFalse(made.is_reading)
        self.assertEqual(self.successResultOf(made.socket.receive()), "b")
        self.assertEqual(made.frames(), [("pong", b"2")])
        self.assertTrue(made.is_reading)

    def test_client_that_only_sends_answers_pings(self) -> None:
        """Its handlers of ``closed`` are called for a close frame, too."""
        made = served(MessageWebSocket)
        made.receive(ping(b"1") + close(1001))
        self.assertEqual(made.frames()[0], ("pong", b"1"))
        self.assertEqual(made.closed, [(1001, "")])

    def test_one_receive_may_be_pending(self) -> None:
        """A second receive fails, and the first one continues."""
        made = served(MessageWebSocket)
        receiving = made.socket.receive()
        self.failureResultOf(made.socket.receive(), BusyError)
        made.receive(text("a"))
        self.assertEqual(self.successResultOf(receiving), "a")

    def test_cancelled_receive_takes_nothing(self) -> None:
        """The next one gets the message; so it is after a timeout."""
        made = served(MessageWebSocket)
        receiving = made.socket.receive()
        receiving.cancel()
        self.failureResultOf(receiving)
        late = made.socket.receive(timeout=1)
        made.reactor.advance(1)
        failure = self.failureResultOf(late, SocketError)
        self.assertIs(SocketError.get_status(failure), SocketErrorStatus.CONNECTION_TIMED_OUT)
        made.receive(text("a"))
        self.assertEqual(self.successResultOf(made.socket.receive()), "a")

    def test_receive_before_connect_fails(self) -> None:
        """The calling code is wrong."""
        made = Served(MessageWebSocket)
        self.failureResultOf(made.socket.receive(), LocalProtocolError)
        self.failureResultOf(made.socket.ping(), LocalProtocolError)

    def test_iteration_ends_with_the_close_in_order(self) -> None:
        """With 1000, 1001 or no code; with others it raises the error with the code."""
        for code, is_in_order in ((1000, True), (1001, True), (1005, True), (1011, False)):
            made = served(MessageWebSocket)

            iterating = Deferred.fromCoroutine(collect(made.socket))
            made.receive(text("a") + close(code))
            if is_in_order:
                self.assertEqual(self.successResultOf(iterating), ["a"], code)
            else:
                failure = self.failureResultOf(iterating, WebSocketClosedError)
                error: Any = failure.value
                self.assertEqual(error.code, code)

    def test_received_messages_precede_the_loss(self) -> None:
        """Both messages can be received after the loss; the ping between them does no harm."""
        made = served(MessageWebSocket)
        made.receive(text("a") + ping() + text("b"))
        made.reset()
        self.assertEqual(self.successResultOf(made.socket.receive()), "a")
        self.assertEqual(self.successResultOf(made.socket.receive()), "b")
        self.failureResultOf(made.socket.receive(), BrokenError)
        self.failureResultOf(made.socket.receive(), BrokenError)

    def test_close_frame_behind_a_held_message_counts_although_tcp_has_ended(self) -> None:
        """The end is the one that the close frame says."""
        for end in ("end", "lose", "reset"):
            made = served(MessageWebSocket)
            made.receive(text("a") + text("b") + close(4000, "bye"))
            getattr(made, end)()
            self.assertEqual(self.successResultOf(made.socket.receive()), "a", end)
            self.assertEqual(self.successResultOf(made.socket.receive()), "b", end)
            failure = self.failureResultOf(made.socket.receive(), WebSocketClosedError)
            error: Any = failure.value
            self.assertEqual((error.code, error.reason), (4000, "bye"), end)

    def test_over_size_message_closes_with_1009(self) -> None:
        """W21: The limit counts in the header; messages in front of it are received."""
        made = Served(MessageWebSocket)
        self.assertEqual(made.socket.control.max_message_size, 16 * 1024 * 1024)
        made.socket.control.max_message_size = 4
        made.connect()
        made.accept()
        made.receive(text("1234") + text("12345")[:2])
        self.assertEqual(self.successResultOf(made.socket.receive()), "1234")
        failure = self.failureResultOf(made.socket.receive(), WebSocketViolation)
        error: Any = failure.value
        self.assertEqual(error.code, CloseCode.MESSAGE_TOO_BIG)
        ((kind, payload),) = made.frames()
        self.assertEqual((kind, payload[:2]), ("close", b"\x03\xf1"))
        self.assertTrue(made.transport.disconnecting)

    def test_message_of_too_many_fragments_closes_with_1008(self) -> None:
        """A server could send empty ones for ever."""
        made = Served(MessageWebSocket)
        made.socket.control.max_fragments = 2
        made.connect()
        made.accept()
        made.receive(text("", is_final=False) + encode_frame(Opcode.CONTINUATION, b"") + text("a"))
        self.assertEqual(self.successResultOf(made.socket.receive()), "")
        continuation = encode_frame(Opcode.CONTINUATION, b"", is_final=False)
        made.receive(text("", is_final=False) + continuation * 2)
        self.assertEqual(self.successResultOf(made.socket.receive()), "a")
        error: Any = self.failureResultOf(made.socket.receive(), WebSocketViolation).value
        self.assertEqual(error.code, CloseCode.POLICY_VIOLATION)

    def test_masked_frame_of_a_server_is_refused(self) -> None:
        """RFC 6455, section 5.1."""
        made = served(MessageWebSocket)
        made.receive(encode_frame(Opcode.TEXT, b"a", key=b"abcd"))
        self.failureResultOf(made.socket.receive(), WebSocketViolation)
        ((kind, payload),) = made.frames()
        self.assertEqual((kind, payload[:2]), ("close", b"\x03\xea"))


class EventTests(SynchronousTestCase):
    """Messages go to the handlers of ``message_received``."""

    def test_handlers_get_messages_with_their_types(self) -> None:
        """W16: The type is the one that the server has given the message."""
        kinds: list[Any] = []
        made = Recorded(lambda args: kinds.append((args.message_type, args.is_message_complete)))
        made.accept()
        made.receive(text("a") + binary(b"b"))
        self.assertEqual(made.events, ["a", b"b"])
        self.assertEqual(kinds, [(UTF8, True), (BINARY, True)])

    def test_empty_message_has_a_reader_without_bytes(self) -> None:
        """W17: It is no end: a message follows."""
        lengths: list[int] = []
        made = Recorded(
            lambda args: lengths.append(args.get_data_reader().unconsumed_buffer_length)
        )
        made.accept()
        made.receive(text("") + binary(b"") + text("a"))
        self.assertEqual(lengths, [0, 0, 1])

    def test_reader_can_be_got_again(self) -> None:
        """W18: Each call returns a reader of the whole message, and so does the stream."""
        read: list[Any] = []

        def handle(args: Any) -> None:
            for _ in range(2):
                read.append(args.get_data_reader().read_string(2))
                read.append(self.successResultOf(args.get_data_stream().read(9)))

        made = Recorded(handle)
        made.accept()
        made.receive(text("ab"))
        self.assertEqual(read, ["ab", b"ab", "ab", b"ab"])

    def test_pieces_may_split_a_character(self) -> None:
        """W15: With ``PARTIAL_MESSAGE`` pieces arrive as they come, the last one is marked."""
        complete: list[bool] = []
        made = Recorded(
            lambda args: complete.append(args.is_message_complete),
            receive_mode=MessageWebSocketReceiveMode.PARTIAL_MESSAGE,
        )
        made.accept()
        encoded = ACCENT.encode()
        made.receive(encode_frame(Opcode.TEXT, encoded[:1], is_final=False))
        made.receive(encode_frame(Opcode.CONTINUATION, encoded[1:], is_final=True))
        self.assertEqual((made.events, complete), ([encoded[:1], encoded[1:]], [False, True]))
        self.failureResultOf(made.socket.receive(), LocalProtocolError)

    def test_pieces_cannot_be_received_without_handlers(self) -> None:
        """A caller of `receive`, or a loop, would take a piece for a message."""
        made = Served(MessageWebSocket)
        made.socket.control.receive_mode = MessageWebSocketReceiveMode.PARTIAL_MESSAGE
        made.connect()
        made.accept()
        made.receive(text("a"))
        self.failureResultOf(made.socket.receive(), LocalProtocolError)

        async def receive_one() -> object:
            async for piece in made.socket:
                return piece
            return None

        self.failureResultOf(Deferred.fromCoroutine(receive_one()), LocalProtocolError)

    def test_default_mode_is_whole_messages(self) -> None:
        """W15, W16: The numbers are those of WinRT."""
        made = Served(MessageWebSocket)
        self.assertEqual(made.socket.control.receive_mode, 0)
        self.assertEqual(MessageWebSocketReceiveMode.PARTIAL_MESSAGE, 1)
        self.assertEqual((BINARY, UTF8), (0, 1))

    def test_handlers_are_fixed_by_connect(self) -> None:
        """W19: A later change raises 0x8000000E, even once it is closed."""
        made = Recorded()
        message_received = made.socket.message_received

        def check(when: str) -> None:
            for change in (message_received.add, message_received.remove):
                with self.assertRaises(LocalProtocolError, msg=when) as caught:
                    change(made.record)
                self.assertEqual(caught.exception.hresult, 0x8000_000E, when)

        check("connecting")
        made.accept()
        check("connected")
        made.socket.close()
        check("closing")
        made.lose()
        check("closed")

    def test_failures_of_receiving_are_events(self) -> None:
        """W20: Reading raises 0x80072EFE after a loss, also if too much came; no ``closed``."""
        made = Recorded()
        made.accept()
        made.receive(text("a"))
        made.reset()
        first, error = made.events
        self.assertEqual(first, "a")
        self.assertEqual(error.hresult, 0x8007_2EFE)
        self.assertIs(WebSocketError.get_status(error), WebErrorStatus.CONNECTION_ABORTED)
        self.assertEqual(made.closed, [])
        made = Recorded(max_message_size=1)
        made.accept()
        made.receive(text("ab"))
        (error,) = made.events
        self.assertEqual(error.code, 1009)
        made.lose()
        self.assertEqual((len(made.events), made.closed), (1, []))

    def test_messages_wait_for_handlers(self) -> None:
        """Reading stops while a handler runs; then the next message is delivered."""
        waits: list[Deferred[None]] = []

        async def handle(_args: Any) -> None:
            waits.append(Deferred())
            await waits[-1]

        made = Recorded(handle)
        made.accept()
        made.receive(text("a") + text("b") + text("c"))
        self.assertEqual(made.events, ["a"])
        self.assertFalse(made.is_reading)
        waits[0].callback(None)
        self.assertEqual(made.events, ["a", "b"])
        made.reset()
        waits[1].callback(None)
        waits[2].callback(None)
        self.assertEqual(made.events[:3], ["a", "b", "c"])
        self.assertIsInstance(made.events[3], BrokenError)

    def test_handler_that_fails_closes_with_1011(self) -> None:
        """The error is logged; no further message is delivered."""

        async def handle(_args: Any) -> None:
            raise ValueError("wrong")

        for failing in (handle, lambda args: args.nothing):
            made = Recorded(failing)
            made.accept()
            with capturedLogs():
                made.receive(text("a") + text("b"))
            self.assertEqual(made.events, ["a"])
            self.assertEqual(made.frames(), [("close", b"\x03\xf3")])
        self.assertEqual(len(self.flushLoggedErrors(ValueError, AttributeError)), 2)

    def test_receive_is_refused_with_handlers(self) -> None:
        """The messages go to them, also those behind the message that a handler has got."""
        refused: list[Deferred[Any]] = []
        made: Recorded = Recorded(lambda _: refused.append(made.socket.receive()))
        made.accept()
        self.failureResultOf(made.socket.receive(), LocalProtocolError)
        made.receive(text("a") + text("b"))
        self.assertEqual(made.events, ["a", "b"])
        for one in refused:
            self.failureResultOf(one, LocalProtocolError)

    def test_handlers_may_answer(self) -> None:
        """Answers to the messages of one read leave together."""
        made: Recorded = Recorded(lambda args: made.socket.send(args.data))
        made.accept()
        made.receive(text("a") + text("b"))
        self.assertEqual(made.sent().count(b"\x81\x81"), 2)


class PingTests(SynchronousTestCase):
    """Pings of the application, and at intervals."""

    def test_ping_gives_the_round_trip(self) -> None:
        """In seconds; cancelled or lost pings end."""
        made = served(MessageWebSocket)
        pinging = made.socket.ping()
        self.assertEqual(made.frames(), [("ping", b"\0\0\0\1")])
        made.reactor.advance(0.25)
        made.receive(pong(b"\0\0\0\1"))
        self.assertEqual(self.successResultOf(pinging), 0.25)
        waiting = made.socket.ping()
        made.reset()
        self.failureResultOf(waiting, BrokenError)
        self.failureResultOf(made.socket.ping(), BrokenError)

    def test_silent_server_is_given_up(self) -> None:
        """By default a ping leaves after 20 s; 20 s later the connection is aborted."""
        made = Served(MessageWebSocket)
        made.connect()
        made.accept()
        receiving = made.socket.receive()
        made.reactor.advance(20)
        self.assertEqual(made.frames(), [("ping", b"")])
        made.reactor.advance(20)
        self.assertTrue(made.is_aborted)
        made.reset()
        failure = self.failureResultOf(receiving, BrokenError)
        self.assertIs(SocketError.get_status(failure), SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_clock_stands_while_nobody_receives(self) -> None:
        """The client does not read then, so it sees no sign of life."""
        made = Served(MessageWebSocket)
        made.connect()
        made.accept()
        made.receive(text("a"))
        for _ in range(10):
            made.reactor.advance(20)
        self.assertFalse(made.is_aborted)
