"""Messages of one server connection, with its limits, its handlers and its end."""

from __future__ import annotations

import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.memory import synchronous_pair
from tests.websocket.connections import (
    END,
    REQUEST,
    Connected,
    Recorder,
    binary,
    close,
    connected,
    ping,
    pong,
    text,
)
from twsock.errors import (
    BrokenError,
    ClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    SocketErrorStatus,
)
from twsock.websocket.broadcast import broadcast
from twsock.websocket.close_frame import CloseCode, WebSocketViolation, encode_close
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.factory import WebSocketFactory
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.messages import MessageDecoder
from twsock.websocket.protocol import WebSocketProtocol

#: A text frame with a byte that is not UTF-8, as a client sends it.
BAD_TEXT = encode_frame(Opcode.TEXT, b"\xff", key=b"\0\0\0\0")


class Waiting(Recorder):
    """Answers each text when the test calls `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Deferred[None]] = []

    async def text_received(self, text: str) -> None:
        self.events.append(text)
        self.waits.append(Deferred())
        try:
            await self.waits[-1]
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise
        self.send_text(text)

    def go_on(self) -> None:
        """Let the handler that waits answer."""
        self.waits.pop(0).callback(None)


class Collecting(Recorder):
    """Records pieces of messages."""

    def fragment_received(self, data: bytes, is_text: bool, is_complete: bool) -> Any:
        self.events.append((data, is_text, is_complete))


class EchoingPieces(Recorder):
    """Records and echoes pieces of messages."""

    def fragment_received(self, data: bytes, is_text: bool, is_complete: bool) -> Any:
        self.binary_received(data)


class MessageTests(SynchronousTestCase):
    """Messages reach the handlers, and answers leave together."""

    def test_messages_of_one_read_are_answered_in_one_send(self) -> None:
        """Text and binary messages reach their methods in order."""
        made = connected(Recorder)
        made.receive(text("a") + binary(b"b") + text("\u20ac"))
        self.assertEqual(made.protocol.events, ["made", "a", b"b", "\u20ac"])
        self.assertEqual(made.frames(), [("text", "a"), ("binary", b"b"), ("text", "\u20ac")])
        self.assertEqual(made.factory.counters.messages, 3)

    def test_sent_messages_are_counted(self) -> None:
        """Each message once, whether it is compressed, cut, sent in pieces or to many."""
        for settings in (
            {},
            {"max_fragment_size": 2},
            {"compression": DeflateSettings(min_size=0)},
        ):
            offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            arguments: Any = settings
            made = Connected(Recorder, **arguments)
            made.receive(REQUEST + offer + END + text("hello") + binary(b"hello") + ping())
            made.protocol.send_fragment(b"a", is_text=True, is_complete=False)
            made.protocol.send_fragment(b"b", is_text=True, is_complete=True)
            broadcast([made.protocol], "c")
            self.assertEqual(made.factory.counters.messages_sent, 4, settings)

    @given(st.lists(st.text(max_size=200) | st.binary(max_size=200)), st.integers(1, 50))
    def test_any_cut_gives_the_same_answers(self, messages: list[str | bytes], step: int) -> None:
        """The answers do not depend on how the stream is cut."""
        made = connected(Recorder)
        sent = b"".join(text(m) if isinstance(m, str) else binary(m) for m in messages)
        made.receive(sent, step)
        self.assertEqual([payload for _, payload in made.frames()], messages)

    def test_pings_between_fragments_are_answered(self) -> None:
        """A control frame may be within a message."""
        made = connected(Recorder)
        first = text("ab", is_final=False)
        last = encode_frame(Opcode.CONTINUATION, b"c", key=b"abcd")
        made.receive(first + ping(b"p") + last)
        self.assertEqual(made.frames(), [("pong", b"p"), ("text", "abc")])

    def test_messages_can_be_pushed(self) -> None:
        """Outside a handler, a message is sent at once."""
        made = connected(Recorder)
        made.protocol.send_binary(b"x" * 200)
        self.assertEqual(made.sent(), b"\x82\x7e\x00\xc8" + b"x" * 200)

    def test_all_bytes_of_a_buffer_are_sent(self) -> None:
        """Also if the items of a ``memoryview`` have several bytes, and if bytes are skipped."""
        for view, expected in (
            (memoryview(b"abcdefgh").cast("I"), b"abcdefgh"),
            (memoryview(b"abcdefgh")[::2], b"aceg"),
            (bytearray(b"x" * 200), b"x" * 200),
        ):
            made = connected(Recorder)
            made.protocol.send_binary(view)
            made.protocol.send_fragment(view, is_text=False, is_complete=False)
            made.protocol.send_fragment(view, is_text=False, is_complete=True)
            broadcast([made.protocol], view)
            self.assertEqual(
                made.frames(),
                [("binary", expected), ("binary", expected * 2), ("binary", expected)],
                view,
            )

    def test_what_is_no_buffer_is_refused(self) -> None:
        """A text or a number sends nothing."""
        made = connected(Recorder)
        refused: tuple[Any, ...] = ("text", 5, None)
        for value in refused:
            self.assertRaises(TypeError, made.protocol.send_binary, value)
            self.assertRaises(TypeError, made.protocol.send_fragment, value, True, True)
        self.assertEqual(made.frames(), [])

    def test_message_types_without_a_handler_are_refused(self) -> None:
        """The code 1003 says so."""
        for message in (text("a"), binary(b"b")):
            made = connected(WebSocketProtocol)
            made.receive(message)
            ((kind, payload),) = made.frames()
            assert isinstance(payload, bytes)
            self.assertEqual((kind, payload[:2]), ("close", b"\x03\xeb"))
            self.assertTrue(made.is_ending)

    def test_pieces_are_delivered_as_they_arrive(self) -> None:
        """With `fragment_received` no message is collected."""
        made = connected(Collecting)
        made.receive(text("ab", is_final=False))
        made.receive(encode_frame(Opcode.CONTINUATION, b"c", key=b"abcd") + binary(b"d") + ping())
        expected = [(b"ab", True, False), (b"c", True, True), (b"d", False, True)]
        self.assertEqual(made.protocol.events[1:], expected)
        self.assertEqual(made.frames(), [("pong", b"")])

    def test_large_messages_are_sent_in_fragments_if_so_set(self) -> None:
        """``max_fragment_size`` divides them."""
        made = connected(Recorder, max_fragment_size=2)
        made.receive(text("abc"))
        self.assertEqual(made.sent(), b"\x01\x02ab\x80\x01c")

    def test_pieces_can_be_answered_with_pieces(self) -> None:
        """As in the WebSocket sample, the answer copies FIN from the frame that it answers."""

        class Echoing(Recorder):
            def fragment_received(self, data: bytes, is_text: bool, is_complete: bool) -> Any:
                self.send_fragment(b'You said: "%b"' % data, is_text, is_complete)

        made = connected(Echoing)
        made.receive(text("one", is_final=False) + ping(b"p"))
        made.receive(encode_frame(Opcode.CONTINUATION, b"two", key=b"abcd"))
        self.assertEqual(
            made.sent(),
            b'\x01\x0fYou said: "one"' + b"\x8a\x01p" + b'\x80\x0fYou said: "two"',
        )

    def test_no_message_is_sent_within_another(self) -> None:
        """Small and large ones; a ping is, and after the last piece all are."""
        made = connected(Recorder)
        send = made.protocol.send_fragment
        send(b"\xc3", is_text=True, is_complete=False)
        for size in (0, 1, 200):
            self.assertRaises(LocalProtocolError, made.protocol.send_binary, bytes(size))
            self.assertRaises(LocalProtocolError, made.protocol.send_text, "x" * size)
        self.assertRaises(LocalProtocolError, send, b"", is_text=False, is_complete=True)
        self.assertRaises(LocalProtocolError, send, b"(", is_text=True, is_complete=True)
        send(b"", is_text=True, is_complete=False)
        send(b"\xa9", is_text=True, is_complete=True)
        made.protocol.send_binary(b"b")
        self.assertEqual(
            made.sent(), b"\x01\x01\xc3" + b"\x00\x00" + b"\x80\x01\xa9" + b"\x82\x01b"
        )

    def test_pieces_need_an_open_websocket(self) -> None:
        """Before the handshake, and after a close, they are refused as messages are."""
        made = Connected(Recorder)
        with self.assertRaisesRegex(LocalProtocolError, "handshake is not done"):
            made.protocol.send_fragment(b"a", is_text=True, is_complete=True)
        made = connected(Recorder)
        made.protocol.close()
        with self.assertRaises(ClosedError):
            made.protocol.send_fragment(b"a", is_text=True, is_complete=True)

    def test_sending_before_the_handshake_is_an_error(self) -> None:
        """The connection is open, and the WebSocket is not."""
        made = Connected(Recorder)
        self.assertFalse(made.protocol.is_open)
        with self.assertRaisesRegex(LocalProtocolError, "handshake is not done"):
            made.protocol.send_text("a")

    def test_wrong_limit_of_a_class_ends_the_connection(self) -> None:
        """A class attribute out of bounds is found when the connection is made."""

        class Wrong(Recorder):
            max_payload = -1

        with self.assertRaisesRegex(ValueError, "max_message_size is 0"):
            Connected(Wrong)


class HandlerTests(SynchronousTestCase):
    """Handlers that take their time, and handlers that fail."""

    def test_next_message_waits_for_the_handler(self) -> None:
        """Messages are handled one after the other."""
        made = connected(Waiting)
        made.receive(text("a") + text("b"))
        self.assertEqual(made.protocol.events, ["made", "a"])
        made.protocol.go_on()
        self.assertEqual(made.protocol.events, ["made", "a", "b"])
        self.assertEqual(made.frames(), [("text", "a")])

    def test_reading_pauses_while_a_handler_runs(self) -> None:
        """At most 64 KiB besides one read wait in memory."""
        made = connected(Waiting)
        made.receive(text("a"))
        made.receive(binary(b"x" * 70_000))
        self.assertEqual(made.transport.producerState, "paused")
        made.protocol.go_on()
        self.assertEqual(made.transport.producerState, "producing")

    def test_lost_connection_cancels_the_handler(self) -> None:
        """`closed` is called before the cancellation."""
        made = connected(Waiting)
        made.receive(text("a"))
        made.reset()
        self.assertEqual(made.protocol.events, ["made", "a", (1006, ""), "CancelledError"])
        self.assertIsInstance(made.protocol.lost[0], BrokenError)

    def test_close_frame_behind_a_handled_message_waits(self) -> None:
        """A message in front of a close frame is still answered."""
        made = connected(Waiting)
        made.receive(text("a") + close(4000, "bye"))
        self.assertEqual(made.frames(), [])
        made.protocol.go_on()
        self.assertEqual(made.frames(), [("text", "a"), ("close", b"\x0f\xa0bye")])

    def test_failed_handler_closes_with_1011(self) -> None:
        """The answers before it are sent, the error is logged once, and nothing follows."""

        class Failing(Recorder):
            def binary_received(self, data: bytes) -> None:
                raise RuntimeError("secret")

        made = connected(Failing)
        made.receive(text("a") + binary(b"") + text("b"))
        self.assertEqual(made.frames(), [("text", "a"), ("close", b"\x03\xf3")])
        self.assertTrue(made.is_ending)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        made.lose()
        self.assertEqual(made.protocol.events, ["made", "a", (1011, "")])

    def test_handler_may_find_a_violation(self) -> None:
        """The code and reason of the application are sent."""

        class Strict(Recorder):
            def text_received(self, text: str) -> None:
                raise WebSocketViolation(CloseCode.POLICY_VIOLATION, "no text today")

        made = connected(Strict)
        made.receive(text("a"))
        self.assertEqual(made.frames(), [("close", b"\x03\xf0no text today")])
        self.assertEqual(made.factory.counters.violations, 1)

    def test_failed_hooks_are_logged(self) -> None:
        """An error in `closed` does not keep `connection_lost` from being called."""

        class Failing(Recorder):
            def closed(self, code: int, reason: str) -> None:
                raise RuntimeError("no")

        made = connected(Failing)
        made.lose()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(made.protocol.lost, [None])

    def test_failed_connection_made_closes(self) -> None:
        """The handshake was answered, so a close frame follows."""

        class Failing(Recorder):
            def connection_made(self) -> None:
                raise RuntimeError("no")

        made = Connected(Failing)
        made.receive(REQUEST + END)
        self.assertTrue(made.sent().endswith(b"\x88\x02\x03\xf3"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class ClosingAtOnce(Recorder):
    """Closes when a piece of a message arrives."""

    def fragment_received(self, data: bytes, is_text: bool, is_complete: bool) -> Any:
        self.events.append(data)
        self.close()


class WaitingForPieces(Recorder):
    """Handles one piece at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.handled: Deferred[None] = Deferred()

    def fragment_received(self, data: bytes, is_text: bool, is_complete: bool) -> Any:
        self.events.append(data)
        return self.handled


class Breaking(Recorder):
    """Raises the error of another protocol."""

    def text_received(self, text: str) -> Any:
        raise RemoteProtocolError("what the text says is wrong")


class PieceTests(SynchronousTestCase):
    """Handlers of pieces wait as those of messages do."""

    def test_piece_waits_for_the_handler_of_the_last_one(self) -> None:
        """Although both came in one read."""
        made = connected(WaitingForPieces)
        rest = encode_frame(Opcode.CONTINUATION, b"b", key=b"abcd")
        made.receive(text("a", is_final=False) + rest)
        self.assertEqual(made.protocol.events, ["made", b"a"])
        made.protocol.handled.callback(None)
        self.assertEqual(made.protocol.events, ["made", b"a", b"b"])


class ViolationTests(SynchronousTestCase):
    """What the peer does wrong is answered with a close frame."""

    def test_violation_follows_the_answers_before_it(self) -> None:
        """A message in front of a violation in the same read is delivered and answered."""
        made = connected(Recorder)
        made.receive(text("a") + BAD_TEXT + text("b"))
        first, (kind, payload) = made.frames()
        assert isinstance(payload, bytes)
        self.assertEqual((first, kind, payload[:2]), (("text", "a"), "close", b"\x03\xef"))
        self.assertTrue(made.is_ending)
        self.assertEqual(made.factory.counters.violations, 1)

    def test_too_large_message_is_refused_at_its_header(self) -> None:
        """The code is 1009; no byte of the message is needed."""
        made = connected(Recorder, max_message_size=10)
        made.receive(binary(b"x" * 11)[:7])
        ((kind, payload),) = made.frames()
        assert isinstance(payload, bytes)
        self.assertEqual((kind, payload[:2]), ("close", b"\x03\xf1"))

    def test_fragments_are_limited(self) -> None:
        """The limit is that of the factory; the code is 1008."""
        made = connected(Recorder, max_fragments=2)
        more = encode_frame(Opcode.CONTINUATION, b"", is_final=False, key=b"abcd")
        made.receive(text("", is_final=False) + more)
        self.assertEqual(made.sent(), b"")
        made.receive(more)
        self.assertEqual(made.frames()[0][1][:2], b"\x03\xf0")

    def test_default_limit_is_one_mebibyte(self) -> None:
        """A message of 1 MiB is accepted, one byte more is not."""
        size = 1024 * 1024
        made = connected(Recorder)
        made.receive(binary(b"x" * size))
        self.assertEqual(len(made.protocol.events[-1]), size)
        made.sent()
        made.receive(binary(b"x" * (size + 1))[:14])
        self.assertTrue(made.is_ending)

    def test_unmasked_frames_are_refused(self) -> None:
        """A client masks its frames (section 5.1)."""
        made = connected(Recorder)
        made.receive(b"\x81\x01a")
        self.assertEqual(made.frames()[0][1][:2], b"\x03\xea")

    def test_violation_is_one_log_line(self) -> None:
        """The line has the peer and the reason, and no payload."""
        made = connected(Recorder)
        with capturedLogs() as lines:
            made.receive(BAD_TEXT)
            made.receive(BAD_TEXT)
        self.assertEqual([line["log_level"] for line in lines], [LogLevel.warn])
        self.assertIn("not UTF-8", formatEvent(lines[0]))

    def test_violation_of_another_protocol_closes_with_1008(self) -> None:
        """The application found it in a message."""
        made = connected(Breaking)
        made.receive(text("a"))
        self.assertEqual(made.frames(), [("close", b"\x03\xf0")])


class CloseTests(SynchronousTestCase):
    """The end of a WebSocket: one close frame, one deadline, and the server ends TCP first."""

    def test_no_piece_arrives_after_close(self) -> None:
        """The pieces that came in the same read are dropped."""
        made = connected(ClosingAtOnce)
        rest = encode_frame(Opcode.CONTINUATION, b"b", key=b"abcd")
        made.receive(text("a", is_final=False) + rest + binary(b"c"))
        self.assertEqual(made.protocol.events, ["made", b"a"])

    def test_peer_that_closes_is_answered_with_its_code(self) -> None:
        """The server then ends the connection; what follows is dropped."""
        made = connected(Recorder)
        made.receive(text("a") + close(1001, "away") + text("b"))
        self.assertEqual(made.frames(), [("text", "a"), ("close", b"\x03\xe9away")])
        self.assertTrue(made.is_ending)
        made.receive(close() * 1000)
        self.assertEqual(made.sent(), b"")
        made.lose()
        self.assertEqual(made.protocol.events, ["made", "a", (1001, "away")])
        self.assertEqual(made.protocol.lost, [None])

    def test_empty_close_frame_is_1005(self) -> None:
        """The answer is an empty close frame."""
        made = connected(Recorder)
        made.receive(close(1005))
        self.assertEqual(made.sent(), b"\x88\x00")
        made.lose()
        self.assertEqual(made.protocol.events[-1], (1005, ""))

    def test_codes_with_a_name_are_members(self) -> None:
        """Whichever end has closed; other codes are plain integers."""
        codes: list[Any] = []

        class Ending(Recorder):
            def closed(self, code: int, reason: str) -> None:
                codes.append(code)

        for code, kind in ((1001, CloseCode), (4000, int)):
            here = connected(Ending)
            here.protocol.close(code)
            here.receive(close(code))
            here.lose()
            there = connected(Ending)
            there.receive(close(code))
            there.lose()
            self.assertEqual([(each, type(each)) for each in codes], [(code, kind)] * 2)
            codes.clear()

    def test_close_awaits_the_peers_close_frame(self) -> None:
        """Messages that still arrive are dropped, and pings are not answered."""
        made = connected(Recorder)
        closed = made.protocol.close(4001, "enough")
        self.assertEqual(made.frames(), [("close", b"\x0f\xa1enough")])
        made.receive(text("late") + ping())
        self.assertFalse(made.is_ending)
        made.receive(close(4001))
        self.assertEqual(made.sent(), b"")
        self.assertTrue(made.is_ending)
        self.assertNoResult(closed)
        made.lose()
        self.successResultOf(closed)
        self.assertEqual(made.protocol.events, ["made", (4001, "enough")])

    def test_second_close_changes_nothing(self) -> None:
        """Only the first call sends a close frame."""
        made = connected(Recorder)
        made.protocol.close(4001)
        made.protocol.close(4002)
        self.assertEqual(made.frames(), [("close", b"\x0f\xa1")])

    def test_no_traffic_extends_the_deadline(self) -> None:
        """Five seconds after the close frame the connection ends, whatever the peer sends."""
        made = connected(Recorder)
        made.protocol.close()
        for _ in range(39):
            made.clock.advance(0.125)
            made.receive(text("more"))
        self.assertFalse(made.is_ending)
        made.clock.advance(0.125)
        self.assertTrue(made.is_ending)
        made.clock.advance(0)
        self.assertTrue(made.is_aborted)

    def test_end_of_tcp_has_the_rest_of_the_deadline(self) -> None:
        """A peer that answers late and does not end has no five seconds more."""
        made = connected(Recorder)
        made.protocol.close()
        made.clock.advance(4)
        made.receive(close())
        self.assertTrue(made.is_ending)
        made.clock.advance(0.9)
        self.assertFalse(made.is_aborted)
        made.clock.advance(0.1)
        self.assertTrue(made.is_aborted)

    def test_close_timeout_is_that_of_the_factory(self) -> None:
        """With 0 the connection ends in the next turn."""
        made = connected(Recorder, close_timeout=0)
        made.protocol.close()
        made.clock.advance(0)
        self.assertTrue(made.is_ending)

    def test_close_does_not_wait_for_a_handler(self) -> None:
        """The peer's close frame is found behind messages that no handler takes any more."""
        made = connected(Waiting)
        made.receive(text("a") + text("b"))
        made.protocol.close()
        self.assertEqual(made.frames(), [("close", b"\x03\xe8")])
        made.receive(text("c") + close())
        self.assertTrue(made.is_ending)
        with self.assertRaises(ClosedError):
            made.protocol.send_text("x")

    def test_close_reads_on(self) -> None:
        """Reading had paused while a handler ran; the peer's close frame has to be found."""
        made = connected(Waiting)
        made.receive(text("a"))
        made.receive(binary(b"x" * 70_000))
        self.assertEqual(made.transport.producerState, "paused")
        made.protocol.close()
        self.assertEqual(made.transport.producerState, "producing")

    def test_close_reads_on_while_the_output_is_full(self) -> None:
        """A peer that sends all before it reads has to come to its close frame."""
        made = connected(Recorder)
        made.transport.producer.pauseProducing()
        made.receive(text("a"))
        self.assertEqual(made.transport.producerState, "paused")
        made.protocol.close()
        for _ in range(40):
            made.receive(binary(b"x" * 60_000))
            self.assertEqual(made.transport.producerState, "producing")
            self.assertLess(made.protocol.held_bytes, 100)
        made.receive(close())
        self.assertTrue(made.is_ending)
        self.assertEqual(made.protocol.events[:2], ["made", "a"])
        self.assertNotIn(b"x" * 60_000, made.protocol.events)

    def test_close_within_a_handler_drops_the_rest(self) -> None:
        """Messages behind it in the same read are not delivered; a close frame is."""

        class Closing(Recorder):
            def text_received(self, text: str) -> None:
                super().text_received(text)
                self.close()

        made = connected(Closing)
        made.receive(text("a") + text("b") + close())
        self.assertEqual(made.frames(), [("text", "a"), ("close", b"\x03\xe8")])
        self.assertEqual(made.protocol.events, ["made", "a"])
        self.assertTrue(made.is_ending)

    def test_violation_while_closing_ends_at_once(self) -> None:
        """No second close frame is sent."""
        made = connected(Recorder)
        made.protocol.close()
        made.sent()
        made.receive(BAD_TEXT)
        self.assertEqual(made.sent(), b"")
        self.assertTrue(made.is_ending)

    def test_violation_behind_a_running_handler_ends_a_close(self) -> None:
        """The handler does not hide it."""
        made = connected(Waiting)
        made.receive(text("a") + BAD_TEXT)
        made.protocol.close()
        self.assertTrue(made.is_ending)

    def test_wrong_code_or_reason_is_an_error_of_the_caller(self) -> None:
        """Nothing is sent."""
        made = connected(Recorder)
        for code, reason in ((1006, ""), (999, ""), (1000, "x" * 124), (1005, "x")):
            with self.assertRaises(ValueError, msg=f"{code}"):
                made.protocol.close(code, reason)
        self.assertTrue(made.protocol.is_open)
        self.assertEqual(made.sent(), b"")

    def test_end_without_a_close_frame_is_1006(self) -> None:
        """All answers are sent, then the connection ends without a close frame."""
        made = connected(Recorder)
        made.receive(text("a") + text("b")[:3])
        made.end()
        self.assertEqual(made.frames(), [("text", "a")])
        self.assertTrue(made.is_ending)
        made.lose()
        self.assertEqual(made.protocol.events, ["made", "a", (1006, "")])

    def test_end_while_closing_ends_the_connection(self) -> None:
        """The close frame that is awaited cannot come any more."""
        made = connected(Recorder)
        made.protocol.close()
        made.end()
        self.assertTrue(made.is_ending)

    def test_abort_sends_no_close_frame(self) -> None:
        """The Deferred fires when the connection is lost."""
        made = connected(Recorder)
        aborted = made.protocol.abort()
        self.assertEqual((made.sent(), made.is_aborted), (b"", True))
        made.lose()
        self.successResultOf(aborted)
        self.assertEqual(made.protocol.events[-1], (1006, ""))

    def test_transport_of_the_application_closes_the_websocket(self) -> None:
        """``loseConnection`` is `close`, and ``abortConnection`` is `abort`."""
        made = connected(Recorder)
        made.protocol.transport.loseConnection()
        self.assertEqual(made.frames(), [("close", b"\x03\xe8")])
        made.protocol.transport.abortConnection()
        self.assertTrue(made.is_aborted)

    def test_sending_after_the_end_says_why(self) -> None:
        """`ClosedError` names the code; `BrokenError` the loss."""
        made = connected(Recorder)
        made.receive(close(4003))
        with self.assertRaisesRegex(ClosedError, "code 4003"):
            made.protocol.send_text("x")
        made = connected(Recorder)
        made.reset()
        with self.assertRaises(BrokenError):
            made.protocol.send_text("x")

    def test_lost_connection_leaves_nothing(self) -> None:
        """No delayed call stays, in whatever state the connection is lost."""
        for begin in (
            lambda made: None,
            lambda made: made.protocol.close(),
            lambda made: made.receive(close()),
            lambda made: made.receive(BAD_TEXT),
            lambda made: made.end(),
        ):
            made = connected(Recorder)
            begin(made)
            made.reset()
            self.assertEqual(made.clock.getDelayedCalls(), [])
            self.assertEqual(len(made.factory.group), 0)


class DrainTests(SynchronousTestCase):
    """A server that ends says so to its peers."""

    def test_drained_peer_receives_1001(self) -> None:
        """What it has sent is answered first."""
        made = connected(Waiting)
        made.receive(text("a"))
        drained = made.factory.drain(10)
        self.assertEqual(made.frames(), [])
        made.protocol.go_on()
        first, (kind, payload) = made.frames()
        assert isinstance(payload, bytes)
        self.assertEqual((first, kind, payload[:2]), (("text", "a"), "close", b"\x03\xe9"))
        made.receive(close(1001))
        made.lose()
        self.assertEqual(self.successResultOf(drained), 0)

    def test_drain_ends_a_handshake(self) -> None:
        """No request is awaited any more."""
        made = Connected(Recorder)
        drained = made.factory.drain(10)
        self.assertTrue(made.is_ending)
        made.lose()
        self.assertEqual(self.successResultOf(drained), 0)

    def test_the_first_message_after_a_request_of_the_drain_is_answered(self) -> None:
        """The connection was just accepted, so its request and its message are on their way."""
        made = Connected(Recorder)
        made.protocol.was_queued = True
        made.factory.drain(10)
        made.clock.advance(0.9)
        made.receive(REQUEST + END)
        self.assertIn(b"HTTP/1.1 101 ", made.sent())
        made.clock.advance(0.9)
        self.assertEqual(made.frames(), [])
        made.receive(text("a"))
        self.assertEqual([kind for kind, _ in made.frames()], ["text", "close"])

    def test_a_drain_waits_a_second_for_the_first_message_after_a_request(self) -> None:
        """Then the WebSocket is closed in order."""
        made = Connected(Recorder)
        made.protocol.was_queued = True
        made.factory.drain(10)
        made.receive(REQUEST + END)
        self.assertIn(b"HTTP/1.1 101 ", made.sent())
        made.clock.advance(1)
        self.assertEqual([kind for kind, _ in made.frames()], ["close"])

    def test_peer_that_does_not_close_is_aborted(self) -> None:
        """The deadline of the drain counts."""
        made = connected(Recorder)
        drained = made.factory.drain(2)
        made.clock.advance(2)
        self.assertTrue(made.is_aborted)
        made.lose()
        self.assertEqual(self.successResultOf(drained), 1)


class PingTests(SynchronousTestCase):
    """Pings of this end."""

    def test_failing_pings_may_cancel_each_other(self) -> None:
        """A callback of the first cancels the second, which then has no other error."""
        made = connected(Recorder)
        first, second = made.protocol.ping(), made.protocol.ping()
        first.addErrback(lambda _: second.cancel())
        made.protocol.close()
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_connections_that_end_together_may_close_each_other(self) -> None:
        """Their pings are due in one round; whichever is first closes the other one."""
        factory = Connected(Recorder).factory
        clock: Any = factory.group.clock
        made = []
        for _ in range(2):
            one = Connected(Recorder, clock=clock, factory=factory)
            one.receive(REQUEST + END)
            made.append(one)
        made[0].protocol.ping().addErrback(lambda _: made[1].protocol.close())
        made[1].protocol.ping().addErrback(lambda _: made[0].protocol.close())
        clock.advance(20)
        clock.advance(20)
        self.assertEqual(sorted([one.is_aborted for one in made]), [False, True])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_ping_gives_the_round_trip(self) -> None:
        """The Deferred fires with seconds."""
        made = connected(Recorder)
        pinged = made.protocol.ping()
        ((kind, payload),) = made.frames()
        assert isinstance(payload, bytes)
        made.clock.advance(0.25)
        made.receive(pong(b"other"))
        self.assertNoResult(pinged)
        made.receive(pong(payload))
        self.assertEqual((kind, self.successResultOf(pinged)), ("ping", 0.25))

    def test_pong_answers_earlier_pings_too(self) -> None:
        """A peer may answer only the newest ping."""
        made = connected(Recorder)
        pings = [made.protocol.ping() for _ in range(3)]
        payloads = [payload for _, payload in made.frames()]
        assert isinstance(payloads[1], bytes)
        made.receive(pong(payloads[1]))
        self.assertEqual([self.successResultOf(p) for p in pings[:2]], [0, 0])
        self.assertNoResult(pings[2])
        made.lose()
        self.failureResultOf(pings[2], BrokenError)

    def test_cancelled_ping_is_forgotten(self) -> None:
        """Its pong is ignored."""
        made = connected(Recorder)
        pinged = made.protocol.ping()
        pinged.addErrback(lambda _: None)
        pinged.cancel()
        made.receive(pong(b"\0\0\0\1"))
        self.assertTrue(made.protocol.is_open)

    def test_closed_websocket_fails_its_pings(self) -> None:
        """The reason is the close; a later ping fails at once."""
        made = connected(Recorder)
        pinged = made.protocol.ping()
        made.protocol.close()
        self.failureResultOf(pinged, ClosedError)
        self.failureResultOf(made.protocol.ping(), ClosedError)

    def test_close_in_the_failure_of_a_ping_changes_nothing(self) -> None:
        """The connection is lost: no deadline starts, and the code is that of the loss."""
        made = connected(Recorder, ping_interval=None)
        made.protocol.ping().addErrback(lambda _: made.protocol.close())
        made.reset()
        self.assertEqual(made.protocol.events, ["made", (1006, "")])
        self.assertEqual(made.clock.getDelayedCalls(), [])

    def test_ping_before_the_handshake_fails(self) -> None:
        """Nothing is sent, and the handshake goes on."""
        made = Connected(Recorder)
        self.failureResultOf(made.protocol.ping(), LocalProtocolError)
        self.assertEqual(made.sent(), b"")
        made.receive(REQUEST + END)
        self.assertTrue(made.protocol.is_open)
        self.assertNoResult(made.protocol.ping())

    def test_silent_peer_is_given_up(self) -> None:
        """After 20 seconds a ping leaves, and after 40 the connection is aborted."""
        made = connected(Recorder)
        made.clock.advance(20)
        self.assertEqual(made.frames(), [("ping", b"")])
        made.clock.advance(20)
        self.assertTrue(made.is_aborted)
        made.lose()
        (error,) = made.protocol.lost
        assert error is not None
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_any_byte_is_a_sign_of_life(self) -> None:
        """A part of a long message counts as well as a pong."""
        made = connected(Recorder)
        message = binary(b"x" * 100)
        for second in range(10):
            made.clock.advance(20)
            made.receive(message[second : second + 1])
        self.assertFalse(made.is_aborted)
        self.assertEqual(made.frames(), [("ping", b"")] * 10)

    def test_the_clock_stands_while_nothing_is_read(self) -> None:
        """A handler that takes minutes does not end the connection of its peer."""
        made = connected(Waiting)
        made.receive(text("a"))
        made.receive(binary(b"x" * 70_000))
        for _ in range(10):
            made.clock.advance(20)
        self.assertFalse(made.is_aborted)

    def test_peer_that_has_ended_cannot_keep_a_handler(self) -> None:
        """No pong can come any more, so the handler is cancelled after the timeout."""
        made = connected(Waiting)
        made.receive(text("a"))
        made.end()
        self.assertFalse(made.is_ending)
        made.clock.advance(20)
        made.clock.advance(20)
        self.assertTrue(made.is_aborted)
        made.lose()
        self.assertEqual(made.protocol.events[-1], "CancelledError")

    def test_pings_can_be_turned_off(self) -> None:
        """None for the interval sends none."""
        made = connected(Recorder, ping_interval=None)
        self.assertEqual(made.clock.getDelayedCalls(), [])


class CompressionTests(SynchronousTestCase):
    """Messages are compressed if the factory wants it and the client offers it."""

    OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

    def compressing(self, **settings: Any) -> Connected[Recorder]:
        """Return a connection with compression."""
        made = Connected(Recorder, compression=DeflateSettings(**settings))
        made.receive(REQUEST + self.OFFER + END)
        self.assertIn(b"Sec-WebSocket-Extensions: permessage-deflate; ", made.sent())
        return made

    def test_settings_still_hold_after_a_message_in_pieces(self) -> None:
        """Small messages are compressed, or divided, as before."""
        made = self.compressing(min_size=1)
        made.protocol.send_fragment(b"a", False, True)
        made.protocol.send_fragment(b"a", False, False)
        made.protocol.send_fragment(b"b", False, True)
        made.sent()
        made.protocol.send_binary(b"z" * 100)
        self.assertEqual(made.sent()[0], 0xC2)
        dividing = connected(Recorder, max_fragment_size=10)
        dividing.protocol.send_fragment(b"a", False, False)
        dividing.protocol.send_fragment(b"b", False, True)
        dividing.sent()
        dividing.protocol.send_text("z" * 11)
        self.assertEqual(dividing.sent(), b"\x01\x0azzzzzzzzzz\x80\x01z")

    def test_large_answers_are_compressed(self) -> None:
        """Small ones are not."""
        made = self.compressing()
        made.receive(text("x" * 255) + text("y" * 256))
        sent = made.sent()
        self.assertEqual(sent[:4], b"\x81\x7e\x00\xff")
        self.assertEqual(sent[4 + 255], 0xC1)
        self.assertLess(len(sent), 300)

    def test_threshold_is_that_of_the_settings(self) -> None:
        """With 1, a message of one byte stays as it is, and one of 100 alike bytes does not."""
        made = self.compressing(min_size=1)
        made.protocol.send_binary(b"z" * 100)
        self.assertEqual(made.sent()[0], 0xC2)

    def test_compressed_messages_are_handled(self) -> None:
        """A bomb is refused at the limit, and nothing of it is delivered."""
        made = self.compressing()
        deflater = zlib.compressobj(wbits=-15)
        small = deflater.compress(b"Hello") + deflater.flush(zlib.Z_SYNC_FLUSH)
        frame = encode_frame(Opcode.TEXT, small[:-4], is_compressed=True, key=b"abcd")
        deflater = zlib.compressobj(wbits=-15)
        large = deflater.compress(bytes(1 << 24)) + deflater.flush(zlib.Z_SYNC_FLUSH)
        bomb = encode_frame(Opcode.BINARY, large[:-4], is_compressed=True, key=b"abcd")
        made.receive(frame + bomb)
        first, (kind, payload) = made.frames()
        assert isinstance(payload, bytes)
        self.assertEqual((first, kind, payload[:2]), (("text", "Hello"), "close", b"\x03\xf1"))

    def test_compression_is_off_unless_asked_for(self) -> None:
        """The offer is not answered, and a compressed frame is a violation."""
        made = Connected(Recorder)
        made.receive(REQUEST + self.OFFER + END)
        self.assertNotIn(b"Extensions", made.sent())
        made.receive(encode_frame(Opcode.TEXT, b"x", is_compressed=True, key=b"abcd"))
        self.assertEqual(made.frames()[0][1][:2], b"\x03\xea")


class OutputTests(SynchronousTestCase):
    """A peer that does not read."""

    def fill(self, made: Connected[Any]) -> None:
        """Let the transport report a full buffer."""
        made.transport.producer.pauseProducing()

    def test_push_is_sent_at_once(self) -> None:
        """Text and binary messages, small and large."""
        made = connected(Recorder)
        for payload in (b"a", b"b" * 200):
            made.protocol.send_text(payload.decode())
            self.assertEqual(made.frames(), [("text", payload.decode())])
            made.protocol.send_binary(payload)
            self.assertEqual(made.frames(), [("binary", payload)])

    def test_peer_that_does_not_read_is_not_read_from(self) -> None:
        """Answers fill the output up to the high-water mark and one message."""
        made = connected(Recorder)
        self.fill(made)
        made.receive(text("a") + text("b"))
        self.assertEqual(made.transport.producerState, "paused")
        self.assertEqual(made.protocol.events, ["made", "a", "b", "paused"])
        made.transport.producer.resumeProducing()
        self.assertEqual(made.transport.producerState, "producing")
        self.assertEqual(made.protocol.events[-1], "resumed")

    def test_output_is_not_resumed_after_a_close(self) -> None:
        """A hook that sends would fail, and its failure would abort the close."""

        class Pushing(Recorder):
            def writing_resumed(self) -> None:
                super().writing_resumed()
                self.send_text("more")

        made = connected(Pushing)
        self.fill(made)
        made.protocol.send_text("pushed")
        made.protocol.close(4000)
        made.transport.producer.resumeProducing()
        self.assertEqual(made.protocol.events, ["made", "paused"])
        made.receive(close(4000))
        self.assertEqual(made.frames(), [("text", "pushed"), ("close", encode_close(4000, ""))])
        self.assertTrue(made.is_ending)
        self.assertFalse(made.is_aborted)

    def test_messages_of_one_read_wait_when_the_output_is_full(self) -> None:
        """Of 200 messages of 1 KB, those that fill the high-water mark are answered."""
        for protocol in (Recorder, EchoingPieces):
            made = connected(protocol)
            self.fill(made)
            made.receive(binary(b"x" * 1000) * 200)
            answered = made.protocol.events.count(b"x" * 1000)
            self.assertLess(answered, 70, protocol.__name__)
            made.transport.producer.resumeProducing()
            self.assertGreater(made.protocol.events.count(b"x" * 1000), answered)

    def test_one_pong_waits_at_most(self) -> None:
        """Of pings that arrive while the output is not empty, the newest is answered."""
        made = connected(Recorder)
        self.fill(made)
        made.protocol.send_binary(b"x")
        made.sent()
        for number in range(100):
            made.protocol.dataReceived(ping(b"%d" % number))
        self.assertEqual(made.sent(), b"")
        made.transport.producer.resumeProducing()
        self.assertEqual(made.frames(), [("pong", b"99")])

    def test_pushes_are_limited(self) -> None:
        """At ``max_unsent`` the connection is aborted."""
        made = connected(Recorder, max_unsent=70_000)
        self.fill(made)
        for _ in range(3):
            made.protocol.send_binary(b"x" * 40_000)
        self.assertTrue(made.is_aborted)
        self.assertEqual(made.factory.counters.unsent_limit_aborts, 1)

    def test_close_behind_full_output_has_its_deadline(self) -> None:
        """A peer that never reads cannot keep the connection."""
        made = connected(Recorder)
        self.fill(made)
        made.receive(text("a"))
        made.protocol.close()
        made.clock.advance(5)
        made.clock.advance(0)
        self.assertTrue(made.is_aborted)


class Reacting(Protocol):
    """A raw peer that reacts within the call that delivers to it."""

    def __init__(self, reactions: list[str]) -> None:
        self.reactions = reactions
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.reactions:
            self.react(self.reactions.pop(0))

    def readConnectionLost(self) -> None:
        """React to the end of the server."""
        if self.reactions:
            self.react(self.reactions.pop(0))

    def react(self, reaction: str) -> None:
        """Do one thing to the connection."""
        transport: Any = self.transport
        if reaction == "end":
            transport.loseWriteConnection()
        elif reaction == "lose":
            transport.loseConnection()
        elif reaction == "abort":
            transport.abortConnection()
        else:
            transport.write(SENT[reaction])


#: What a raw peer sends.
SENT = {
    "text": text("a"),
    "run": text("a") * 3 + binary(b"b"),
    "ping": ping(b"p"),
    "close": close(4000, "bye"),
    "bad": BAD_TEXT,
    "leave": text("leave"),
    "fail": text("fail"),
}


class Talkative(Recorder):
    """Does several things within its methods."""

    def text_received(self, text: str) -> None:
        if text == "leave":
            self.close(4001, "left")
        elif text == "fail":
            raise RuntimeError("failed")
        else:
            super().text_received(text)
            self.ping().addErrback(lambda _: None)


class ReentranceTests(SynchronousTestCase):
    """On a transport in memory each call may cause any event before it returns."""

    @given(st.lists(st.sampled_from([*SENT, "end", "lose", "abort"]), max_size=8), st.data())
    def test_any_reaction_ends_once(self, reactions: list[str], data: st.DataObject) -> None:
        """
        At most one close frame is sent, nothing follows it, and one end is reported.

        No delayed call is left when the connection is lost.
        """
        clock = Clock()
        factory = WebSocketFactory(clock, Talkative)
        near, far = synchronous_pair(clock)
        peer = Reacting(reactions)
        server: Any = factory.buildProtocol(None)
        near.protocol, far.protocol = server, peer
        peer.makeConnection(far)
        server.makeConnection(near)
        far.write(REQUEST + END)
        step = data.draw(st.sampled_from(["close", "abort", "text", "leave", "bad", "drain"]))
        if step in SENT:
            peer.react(step)
        elif step == "drain":
            factory.drain(1)
        else:
            getattr(server, step)()
        clock.pump([1] * 45)  # The last pings of a peer that is silent are not answered.
        self.flushLoggedErrors(RuntimeError)
        self.assertEqual(clock.getDelayedCalls(), [], reactions)
        self.assertEqual(len(factory.group), 0)
        ends = [event for event in server.events if isinstance(event, tuple)]
        self.assertEqual(len(ends), 1)
        _, _, frames = peer.received.partition(b"\r\n\r\n")
        decoder = MessageDecoder(is_server=False, max_message_size=1 << 20)
        decoder.feed(frames)
        opcodes = [opcode for opcode, _, _ in decoder.messages()]
        self.assertLessEqual(opcodes.count(Opcode.CLOSE), 1)
        if Opcode.CLOSE in opcodes:
            # A decoder ignores what follows a close frame, so the bytes are looked at.
            end = frames.rindex(b"\x88")
            self.assertEqual(len(frames), end + 2 + frames[end + 1])
