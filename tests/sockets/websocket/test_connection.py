"""The connection of a WebSocket reports each event once, in order."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.sockets.websocket.connected import (
    URI,
    Aborting,
    Served,
    binary,
    close,
    ping,
    served,
    text,
)
from twsock import (
    BrokenError,
    ClosedError,
    LocalProtocolError,
    MessageWebSocket,
    SocketError,
    WebSocketClosedError,
)
from twsock.websocket.frames import Opcode, encode_frame


@implementer(IStreamClientEndpoint)
class InMemory:
    """An endpoint that connects at once."""

    def __init__(self, made: Served[Any]) -> None:
        self.made = made

    def connect(self, protocolFactory: Any) -> Any:  # noqa: N803 - the name of Twisted
        self.made.protocol = protocolFactory.buildProtocol(None)
        self.made.transport = Aborting()
        self.made.protocol.makeConnection(self.made.transport)
        return succeed(self.made.protocol)


def close_again(_written: int, made: Served[MessageWebSocket]) -> None:
    """Close a WebSocket that is being closed."""
    made.socket.close(4002)


class EndTests(SynchronousTestCase):
    """Ends that no other test has."""

    def test_violation_while_closing_is_answered_by_the_end(self) -> None:
        """One close frame was sent already."""
        made = served(MessageWebSocket)
        made.socket.close(1000)
        made.receive(b"\xff\xff")
        self.assertEqual(made.frames(), [("close", b"\x03\xe8")])
        self.assertTrue(made.transport.disconnecting)
        made.lose()

    def test_answers_precede_the_close_frame(self) -> None:
        """Messages in front of a violation or close frame of the same read are answered first."""
        for end, expected in ((b"\xff\xff", b"\x03\xea"), (close(4000), b"\x0f\xa0")):
            made = served(MessageWebSocket)

            async def echo(made: Any = made) -> None:
                async for message in made.socket:
                    made.socket.send(message)

            echoing = Deferred.fromCoroutine(echo())
            made.receive(text("a") + end)
            self.failureResultOf(echoing, SocketError)
            answer, (kind, payload) = made.frames()
            self.assertEqual(answer, ("text", "a"))
            self.assertEqual((kind, payload[:2]), ("close", expected))

    def test_nothing_behind_a_close_frame_counts(self) -> None:
        """RFC 6455, section 1.4."""
        made = served(MessageWebSocket)
        receiving = made.socket.receive()
        made.receive(close(1000) + text("a") + close(4000) + b"\xff")
        self.failureResultOf(receiving, WebSocketClosedError)
        made.receive(ping())
        self.assertEqual(made.frames(), [("close", b"\x03\xe8")])
        made.end()
        made.lose()
        self.assertEqual(made.closed, [(1000, "")])

    def test_server_ends_tcp_first(self) -> None:
        """The client waits for it, until the deadline."""
        made = served(MessageWebSocket)
        made.receive(close(1000))
        self.assertFalse(made.transport.disconnecting)
        made.reactor.advance(4.9)
        self.assertFalse(made.transport.disconnecting)
        made.reactor.advance(0.2)
        self.assertTrue(made.transport.disconnecting)

    def test_abort_in_a_callback_drops_the_rest(self) -> None:
        """No further message is delivered."""
        made = Served(MessageWebSocket)
        events: list[Any] = []

        def handle(_: object, args: Any) -> None:
            events.append(args.data)
            made.socket.abort()

        made.socket.message_received.add(handle)
        made.connect()
        made.accept(behind=text("a") + text("b"))
        made.receive(text("c"))
        made.reset()
        self.assertEqual(events, ["a"])
        self.assertTrue(made.is_aborted)

    def test_close_in_a_callback_drops_the_rest(self) -> None:
        """The close frame of the server, in the same read, is taken."""
        made = served(MessageWebSocket)

        async def receive() -> None:
            await made.socket.receive()
            made.socket.close(4000)

        receiving = Deferred.fromCoroutine(receive())
        made.receive(text("a") + text("b") + close(4000))
        self.successResultOf(receiving)
        self.assertEqual(made.frames(), [("close", b"\x0f\xa0")])
        self.assertEqual(made.closed, [(4000, "")])
        made.end()
        self.assertTrue(made.transport.disconnecting)

    def test_close_in_a_handler_of_closed_changes_nothing(self) -> None:
        """The first close frame is that of the server; `closed` is raised once (W24)."""
        made = served(MessageWebSocket)
        made.socket.closed.add(lambda websocket, _: websocket.close(4001))
        made.receive(close(4000))
        self.assertEqual(made.closed, [(4000, "")])
        self.assertEqual(made.frames(), [("close", b"\x0f\xa0")])

    def test_close_in_a_callback_of_another_close_changes_nothing(self) -> None:
        """A write and a receive end before the first call of `close` has returned."""

        async def read(made: Served[MessageWebSocket]) -> None:
            async with made.socket:  # Closes with 1000 at the end of the block.
                async for _ in made.socket:
                    pass

        made = served(MessageWebSocket)
        writing = made.socket.output_stream.write(b"x")
        writing.addCallback(close_again, made)
        reading = Deferred.fromCoroutine(read(made))
        made.socket.close(1001, "bye")
        self.assertEqual(made.closed, [(1001, "bye")])
        self.assertEqual(made.frames(), [("binary", b"x"), ("close", b"\x03\xe9bye")])
        made.receive(close(1001))
        made.lose()
        self.successResultOf(reading)

    def test_close_in_a_callback_of_a_violation_changes_nothing(self) -> None:
        """The close frame names the broken rule."""
        made = served(MessageWebSocket)
        writing = made.socket.output_stream.write(b"x")
        writing.addCallback(close_again, made)
        made.receive(b"\xff\xff")
        self.assertEqual(made.closed, [])
        _, (kind, payload) = made.frames()
        self.assertEqual((kind, payload[:2]), ("close", b"\x03\xea"))
        made.lose()

    def test_block_that_ends_with_the_close_aborts_nothing(self) -> None:
        """A reset could destroy the close frame."""

        async def read(made: Served[MessageWebSocket]) -> None:
            async with made.socket:
                await made.socket.receive()

        def close_here(made: Served[MessageWebSocket]) -> None:
            made.socket.close(4001, "bye")

        def close_there(made: Served[MessageWebSocket]) -> None:
            made.receive(close(4001, "bye"))

        def violate(made: Served[MessageWebSocket]) -> None:
            made.receive(b"\xff\xff")

        for end in (close_here, close_there, violate):
            made = served(MessageWebSocket)
            reading = Deferred.fromCoroutine(read(made))
            end(made)
            self.assertFalse(made.is_aborted, end.__name__)
            self.assertEqual([kind for kind, _ in made.frames()], ["close"], end.__name__)
            self.assertNoResult(reading)
            made.lose()
            self.failureResultOf(reading, SocketError)

    def test_ping_needs_an_open_websocket(self) -> None:
        """It fails with the reason, also once all was reported."""
        made = Served(MessageWebSocket)
        made.connect()
        made.answer_tcp()
        self.failureResultOf(made.socket.ping(), LocalProtocolError)
        made = served(MessageWebSocket)
        made.reset()
        self.failureResultOf(made.socket.ping(), BrokenError)
        made = served(MessageWebSocket)
        made.socket.close(1000)
        self.failureResultOf(made.socket.ping(), ClosedError)
        made.receive(close(1000))
        made.lose()
        self.failureResultOf(made.socket.ping(), ClosedError)

    def test_close_in_the_failure_of_a_ping_starts_no_deadline(self) -> None:
        """Also if a violation had been received and not been pulled."""
        made = served(MessageWebSocket)
        pinging = made.socket.ping()
        pinging.addErrback(lambda _: made.socket.close(4000))
        made.receive(text("a") + text("b") + b"\xff\xff")
        made.reset()
        self.assertEqual(made.reactor.getDelayedCalls(), [])

    def test_lost_websocket_may_be_closed_and_aborted(self) -> None:
        """A close or abort after the loss drops messages that nobody has taken."""
        for end in ("close", "abort"):
            made = served(MessageWebSocket)
            made.receive(text("a") + text("b"))
            made.reset()
            self.successResultOf(getattr(made.socket, end)())
            self.failureResultOf(made.socket.receive(), ClosedError, BrokenError)
            self.assertEqual(made.closed, [])

    def test_held_bytes_are_counted(self) -> None:
        """Received bytes that nobody took, and bytes that wait to be sent, count."""
        made = Served(MessageWebSocket)
        connecting = made.socket.connect_endpoint(InMemory(made), URI)
        made.receive(made.response(made.request()))
        self.successResultOf(connecting)
        made.receive(binary(b"ab") + binary(b"cd"))
        self.assertEqual(made.protocol.held_bytes, 2 + 4)
        made.socket.output_stream.write(b"e")
        self.assertEqual(made.protocol.held_bytes, 2 + 4 + 7)
        made.protocol.drop_input()
        self.assertEqual(made.protocol.held_bytes, 2 + 7)

    def test_close_behind_a_failed_send_aborts(self) -> None:
        """No close frame can be sent, and the peer may never end the connection."""
        made = Served(MessageWebSocket)
        made.socket.connect_endpoint(InMemory(made), URI)
        made.receive(made.response(made.request()))
        made.protocol.stream.output_broke(OSError(errno.EPIPE, "Broken pipe"))
        self.assertFalse(made.transport.is_aborted)
        closing = made.socket.close()
        self.assertTrue(made.transport.is_aborted)
        made.lose()
        self.successResultOf(closing)

    def test_bytes_that_arrive_within_a_callback_are_taken(self) -> None:
        """A transport in memory delivers within a send."""
        made = served(MessageWebSocket)
        received: list[Any] = []

        async def receive() -> None:
            async for message in made.socket:
                received.append(message)
                if message == "a":
                    made.receive(text("c"))

        receiving = Deferred.fromCoroutine(receive())
        made.receive(text("a") + text("b"))
        made.receive(close())
        self.successResultOf(receiving)
        self.assertEqual(received, ["a", "b", "c"])

    def test_compressed_frame_without_an_agreement_is_a_violation(self) -> None:
        """RFC 6455, section 5.2."""
        made = served(MessageWebSocket)
        made.receive(encode_frame(Opcode.TEXT, b"a", is_compressed=True))
        ((kind, payload),) = made.frames()
        self.assertEqual((kind, payload[:2]), ("close", b"\x03\xea"))
        self.failureResultOf(made.socket.send("a"), BrokenError)


class OpeningEndTests(SynchronousTestCase):
    """Ends before the handshake is done."""

    def test_close_in_the_tls_handshake_fails_the_connect(self) -> None:
        """Nothing stays open."""
        made = Served(MessageWebSocket)
        connecting = made.connect("wss://127.0.0.1/")
        self.assertEqual(made.reactor.tcpClients[-1][1], 443)
        made.answer_tcp()
        made.socket.close()
        self.failureResultOf(connecting, ClosedError)
