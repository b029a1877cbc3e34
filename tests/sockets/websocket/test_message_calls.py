"""Messages are received and sent one by one, by clients and servers alike."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import Accepted, close, text
from twsock import LocalProtocolError, SocketMessageType, WebSocketClosedError
from twsock.sockets.websocket.message_calls import choose_by
from twsock.sockets.websocket.server import ServerMessageWebSocketControl
from twsock.websocket.frames import Opcode


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

            async def collect(accepted: object = accepted) -> list[object]:
                return [message async for message in accepted]  # type: ignore[attr-defined]

            collecting = ensureDeferred(collect())
            if is_error:
                self.failureResultOf(collecting, WebSocketClosedError)
            else:
                self.assertEqual(self.successResultOf(collecting), ["a"], code)

    def test_opcode_is_that_of_the_chosen_type(self) -> None:
        """At the time of the write."""
        control = ServerMessageWebSocketControl()
        choose = choose_by(control)
        self.assertIs(choose(), Opcode.BINARY)
        control.message_type = SocketMessageType.UTF8
        self.assertIs(choose(), Opcode.TEXT)
