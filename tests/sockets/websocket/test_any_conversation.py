"""Whatever happens in whatever order, each Deferred fires, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests import THOROUGH
from tests.sockets.websocket.accepted import Accepted
from tests.sockets.websocket.connected import Served, binary, close, ping, pong, text
from tests.websocket.connections import Recorder, connected
from tests.websocket.frame_bytes import pieces
from tests.websocket.test_beside_websockets import (
    LIMIT,
    Outcome,
    decode_with_ours,
    streams,
)
from twsock import (
    MessageWebSocket,
    ServerMessageWebSocket,
    ServerStreamWebSocket,
    SocketError,
    StreamWebSocket,
)
from twsock.sockets.websocket.server import ServerWebSocket
from twsock.websocket import CloseCode
from twsock.websocket.frames import Opcode, encode_frame

#: The decoder itself is compared to that of ``websockets`` with more.
_EXAMPLES: Final = 600 if THOROUGH else 100

Step = Callable[["Conversation"], object]


class FromListener:
    """A WebSocket of a listener, with the calls of `Served`."""

    def __init__(self, kind: type[Any]) -> None:
        self._accepted = Accepted(is_stream=kind is ServerStreamWebSocket)
        self.socket = self._accepted.open()
        self.reactor = self._accepted.reactor
        self.transport = self._accepted.transport
        self.closed: list[Any] = []
        self.socket.closed.add(lambda _, args: self.closed.append(args))

    def receive(self, data: bytes) -> None:
        """Deliver frames of a server as those of a client: a key of zeros changes no byte."""
        frames = b""
        while len(data) >= 2 and data[1] < 126:
            end = 2 + data[1]
            frames += bytes((data[0], data[1] | 0x80)) + bytes(4) + data[2:end]
            data = data[end:]
        self._accepted.receive(frames + data)

    def turn(self) -> None:
        """Let the reactor run one turn."""
        self.reactor.advance(0)

    def end(self) -> None:
        """Deliver the client's FIN."""
        self._accepted.protocol.readConnectionLost()

    def lose(self) -> None:
        """Report the loss of the connection, after an end in order."""
        self._accepted.lose(is_clean=True)

    def reset(self) -> None:
        """Report a reset by the client."""
        self._accepted.lose()


class Conversation:
    """One WebSocket, and all Deferreds that its calls have returned."""

    def __init__(self, kind: type[Any]) -> None:
        self.made: Any
        self.pending: list[Deferred[Any]]
        if issubclass(kind, ServerWebSocket):
            self.made = FromListener(kind)
            self.pending = [self.made.socket.output_stream.flush()]
        else:
            self.made = Served(kind)
            self.pending = [self.made.connect()]
            self.made.accept()
        self.is_over = False

    def call(self, operation: Deferred[Any]) -> None:
        """Record a call of the application."""
        self.pending.append(operation)

    def receive(self, data: bytes) -> None:
        """Let bytes arrive, unless the connection has ended."""
        if not self.is_over:
            self.made.receive(data)

    def end(self, how: str) -> None:
        """Let the connection end, once."""
        if not self.is_over:
            self.is_over = how != "end"
            getattr(self.made, how)()

    def make_room(self, has_room: bool) -> None:
        """Let the transport be full, or have room again."""
        producer = self.made.transport.producer
        if producer is not None:
            (producer.resumeProducing if has_room else producer.pauseProducing)()

    def read(self) -> Deferred[Any]:
        """Ask for what comes next."""
        socket = self.made.socket
        if isinstance(socket, (MessageWebSocket, ServerMessageWebSocket)):
            return socket.receive()
        stream: Deferred[Any] = socket.input_stream.receive_some()
        return stream


def arrives(data: bytes) -> Step:
    """Return a step in which bytes arrive."""
    return lambda conversation: conversation.receive(data)


STEPS: dict[str, Step] = {
    "receive": lambda c: c.call(c.read()),
    "cancel": lambda c: c.pending[-1].cancel(),
    "write": lambda c: c.call(c.made.socket.output_stream.write(b"abc")),
    "send_all": lambda c: c.call(c.made.socket.output_stream.send_all(b"abc")),
    "flush": lambda c: c.call(c.made.socket.output_stream.flush()),
    "ping": lambda c: c.call(c.made.socket.ping()),
    "close": lambda c: c.call(c.made.socket.close(1000)),
    "abort": lambda c: c.call(c.made.socket.abort()),
    "full": lambda c: c.make_room(False),
    "room": lambda c: c.make_room(True),
    "turn": lambda c: c.made.turn(),
    "second": lambda c: c.made.reactor.advance(1),
    "minute": lambda c: c.made.reactor.pump([10] * 6),
    "FIN": lambda c: c.end("end"),
    "loss": lambda c: c.end("lose"),
    "reset": lambda c: c.end("reset"),
    "text": arrives(text("a")),
    "messages": arrives(text("a") + ping(b"b") + binary(b"c") + text("d")),
    "part": arrives(text("a", is_final=False)),
    "rest": arrives(encode_frame(Opcode.CONTINUATION, b"b")),
    "their ping": arrives(ping(b"x")),
    "their pong": arrives(pong(b"\0\0\0\1")),
    "their close": arrives(text("e") + close(4000)),
    "violation": arrives(text("f") + b"\xff\xff"),
    "half a frame": arrives(text("abc")[:3]),
}


class AnyConversationTests(SynchronousTestCase):
    """Steps in any order, for all kinds of WebSockets."""

    @given(
        st.sampled_from(
            (MessageWebSocket, StreamWebSocket, ServerMessageWebSocket, ServerStreamWebSocket)
        ),
        st.lists(st.sampled_from(sorted(STEPS)), max_size=12),
    )
    def test_each_deferred_fires(self, kind: type[Any], steps: list[str]) -> None:
        """At the latest when the connection is lost; then no delayed call is left."""
        conversation = Conversation(kind)
        for step in steps:
            STEPS[step](conversation)
        conversation.call(conversation.made.socket.close(1000))
        conversation.end("lose")
        conversation.made.turn()
        for operation in conversation.pending:
            self.assertTrue(operation.called, steps)
            operation.addErrback(self.check_error)
        self.assertEqual(conversation.made.reactor.getDelayedCalls(), [], steps)
        self.assertLessEqual(len(conversation.made.closed), 1, steps)

    def check_error(self, failure: Failure) -> None:
        """Check that an error is documented."""
        failure.trap(SocketError, CancelledError)

    @given(st.binary(max_size=300), st.integers(1, 20))
    def test_any_bytes_end_the_connect(self, data: bytes, step: int) -> None:
        """As a response, and in its place the end."""
        made = Served(MessageWebSocket)
        connecting = made.connect()
        made.answer_tcp()
        made.receive(data, step)
        made.reset()
        self.failureResultOf(connecting, SocketError)
        self.assertEqual(made.reactor.getDelayedCalls(), [])

    @given(st.binary(max_size=300), st.integers(1, 20))
    def test_any_bytes_are_messages_or_a_violation(self, data: bytes, step: int) -> None:
        """Behind the response; each message can be received, then the end."""
        for kind in (MessageWebSocket, StreamWebSocket):
            conversation = Conversation(kind)
            conversation.receive(data)
            conversation.end("reset")
            for _ in range(len(data) + 1):
                reading = conversation.read()
                self.assertTrue(reading.called)
                reading.addErrback(self.check_error)


def collect_in_a_loop(socket: Any) -> list[str | bytes]:
    """Return a list to which a loop adds each message that it receives."""
    collected: list[str | bytes] = []

    async def loop() -> None:
        async for message in socket:
            collected.append(message)  # noqa: PERF401 - at once, and kept if the loop fails

    ensureDeferred(loop()).addErrback(lambda failure: failure.trap(SocketError) and None)
    return collected


def collect_one_by_one(socket: Any) -> list[str | bytes]:
    """Return a list to which the callback of each receive adds its message."""
    collected: list[str | bytes] = []

    def received(message: str | bytes) -> None:
        collected.append(message)
        ask()

    def ask() -> None:
        socket.receive().addCallbacks(received, lambda failure: failure.trap(SocketError) and None)

    ask()
    return collected


class SameMessagesTests(SynchronousTestCase):
    """However an application receives, it gets the messages that the decoder finds."""

    @settings(max_examples=_EXAMPLES)
    @given(streams(is_server=False), st.integers(1, 300), st.sampled_from((0, 1, 2)))
    def test_of_a_client(self, stream: bytes, step: int, way: int) -> None:
        """In a loop, by callbacks, and by handlers."""
        made = Served(MessageWebSocket)
        made.socket.control.max_message_size = LIMIT
        collected: list[Any] = []
        if way == 2:
            made.socket.message_received.add(
                lambda _, args: collected.append(args.data) if args.error is None else None
            )
        made.connect()
        made.accept()
        if way < 2:
            collected = (collect_in_a_loop, collect_one_by_one)[way](made.socket)
        made.receive(stream, step)
        closes = [payload for kind, payload in made.frames() if kind == "close"]
        self.assert_same(decode_with_ours(stream, step, is_server=False), collected, closes)

    @settings(max_examples=_EXAMPLES)
    @given(streams(is_server=True), st.integers(1, 300), st.booleans())
    def test_of_an_awaitable_server(self, stream: bytes, step: int, is_loop: bool) -> None:
        """In a loop and by callbacks."""
        one = Accepted(max_message_size=LIMIT)
        collected = (collect_in_a_loop if is_loop else collect_one_by_one)(one.open())
        for piece in pieces(stream, step):
            one.receive(piece)
        closes = [payload for opcode, payload in one.frames() if opcode is Opcode.CLOSE]
        self.assert_same(decode_with_ours(stream, step, is_server=True), collected, closes)

    @settings(max_examples=_EXAMPLES)
    @given(streams(is_server=True), st.integers(1, 300))
    def test_of_a_protocol(self, stream: bytes, step: int) -> None:
        """By the methods of the protocol."""
        made = connected(Recorder, max_message_size=LIMIT)
        made.receive(stream, step)
        collected = [event for event in made.protocol.events if isinstance(event, str | bytes)]
        closes = [payload for kind, payload in made.frames() if kind == "close"]
        self.assert_same(decode_with_ours(stream, step, is_server=True), collected[1:], closes)

    def assert_same(self, expected: Outcome, collected: list[Any], closes: list[Any]) -> None:
        """The messages are these, and one close frame was sent, with this code."""
        encoded = [each.encode() if isinstance(each, str) else each for each in collected]
        data = [payload for opcode, payload in expected.messages if opcode < Opcode.CLOSE]
        self.assertEqual(encoded, data)
        code = abs(expected.code)
        sent = b"" if code == CloseCode.NO_STATUS_RECEIVED else code.to_bytes(2, "big")
        self.assertEqual([payload[:2] for payload in closes], [sent])
