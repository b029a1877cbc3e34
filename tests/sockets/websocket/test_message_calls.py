"""Messages are received and sent one by one, by clients and servers alike."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import Accepted, close, masked, text
from twsock import BusyError, LocalProtocolError, SocketMessageType, WebSocketClosedError
from twsock.sockets.websocket.message_calls import choose_by
from twsock.sockets.websocket.server import ServerMessageWebSocketControl
from twsock.websocket.close_frame import WebSocketViolation
from twsock.websocket.frames import Opcode


async def collect(websocket: Any) -> list[str | bytes]:
    """Receive messages until the WebSocket closes."""
    return [message async for message in websocket]


class MessageCallsTests(SynchronousTestCase):
    """The calls of a server's WebSocket; those of a client are in test_message_socket.py."""

    def test_message_is_sent_in_frames(self) -> None:
        """Until the last frame, other messages fail."""
        one = Accepted()
        accepted = one.open()
        accepted.send_nonfinal_frame(b"a")
        self.failureResultOf(accepted.send("x"), LocalProtocolError)
        accepted.send_final_frame(b"b")
        accepted.output_stream.flush()
        self.assertEqual(one.frames(), [(Opcode.BINARY, b"ab")])

    def test_iteration_ends_in_order_and_raises_other_codes(self) -> None:
        """1000, 1001 and no code end it."""
        for code, is_error in ((1000, False), (1001, False), (4000, True)):
            one = Accepted()
            accepted = one.open(text("a") + close(code))
            collecting = ensureDeferred(collect(accepted))
            if is_error:
                self.failureResultOf(collecting, WebSocketClosedError)
            else:
                self.assertEqual(self.successResultOf(collecting), ["a"], code)

    def test_loop_that_is_left_takes_no_further_message(self) -> None:
        """The messages behind it go to the next receive, and to the next loop."""

        async def receive_one() -> object:
            async for message in accepted:
                return message
            return None

        one = Accepted()
        accepted = one.open(text("a") + text("b") + text("c") + text("d"))
        self.assertEqual(self.successResultOf(ensureDeferred(receive_one())), "a")
        self.assertEqual(self.successResultOf(accepted.receive()), "b")
        self.assertEqual(self.successResultOf(ensureDeferred(receive_one())), "c")
        collecting = ensureDeferred(collect(accepted))
        one.receive(close())
        self.assertEqual(self.successResultOf(collecting), ["d"])

    def test_cancelled_loop_takes_nothing(self) -> None:
        """The next loop gets the next message."""
        one = Accepted()
        accepted = one.open()
        looping = ensureDeferred(collect(accepted))
        looping.cancel()
        self.failureResultOf(looping, CancelledError)
        collecting = ensureDeferred(collect(accepted))
        one.receive(text("a") + close())
        self.assertEqual(self.successResultOf(collecting), ["a"])

    def test_loop_is_refused_while_a_receive_is_pending(self) -> None:
        """Also within the event that brings the message which the receive waits for."""
        one = Accepted()
        accepted = one.open()
        pinged = accepted.ping()
        ((_, payload),) = one.frames()
        receiving = accepted.receive()
        self.failureResultOf(ensureDeferred(collect(accepted)), BusyError)
        looping: list[Deferred[Any]] = []
        pinged.addCallback(lambda _: looping.append(ensureDeferred(collect(accepted))))
        one.receive(masked(Opcode.PONG, payload) + text("a"))
        self.failureResultOf(looping[0], BusyError)
        self.assertEqual(self.successResultOf(receiving), "a")

    def test_malformed_close_frame_behind_a_message_is_answered(self) -> None:
        """In one read with a message that a loop takes: it ends with the violation."""
        for payload, code in ((b"\x03", 1002), (b"\x03\xed", 1002), (b"\x03\xe8\xff", 1007)):
            one = Accepted()
            accepted = one.open()
            collecting = ensureDeferred(collect(accepted))
            one.receive(text("a") + masked(Opcode.CLOSE, payload))
            self.assertEqual(self.failureResultOf(collecting, WebSocketViolation).value.code, code)
            ((opcode, sent),) = one.frames()
            self.assertEqual((opcode, sent[:2]), (Opcode.CLOSE, code.to_bytes(2, "big")))
            self.assertTrue(one.transport.disconnecting, payload)

    def test_close_in_the_callback_of_a_ping_keeps_the_peers_close_frame(self) -> None:
        """A message, the pong and the close frame come in one read; no deadline is awaited."""
        one = Accepted()
        accepted = one.open()
        pinged = accepted.ping()
        ((_, payload),) = one.frames()
        pinged.addCallback(lambda _: accepted.close(4000) and None)
        collecting = ensureDeferred(collect(accepted))
        one.receive(text("a") + masked(Opcode.PONG, payload) + close())
        self.failureResultOf(collecting, WebSocketClosedError)
        self.assertEqual(one.frames(), [(Opcode.CLOSE, b"\x0f\xa0")])
        self.assertTrue(one.transport.disconnecting)

    def test_opcode_is_that_of_the_chosen_type(self) -> None:
        """At the time of the write."""
        control = ServerMessageWebSocketControl()
        choose = choose_by(control)
        self.assertIs(choose(), Opcode.BINARY)
        control.message_type = SocketMessageType.UTF8
        self.assertIs(choose(), Opcode.TEXT)
