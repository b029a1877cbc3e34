"""
The limits and times of WebSockets that set no option: protocols, awaitable servers, clients.

Each test fails if one of the three has another default.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import REQUEST, Accepted
from tests.sockets.websocket.connected import Served
from tests.websocket.connections import END, Connected, Recorder
from tests.websocket.connections import REQUEST as OPEN_REQUEST
from tests.websocket.frame_bytes import client_frame, server_frame
from twsock import MessageWebSocket

MIB = 1024 * 1024
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


class Kind:
    """One kind of WebSocket without any option, on a transport in memory."""

    #: Makes a frame of the peer.
    frame: Any = staticmethod(client_frame)
    max_message_size = MIB
    made: Any
    clock: Any

    def open(self) -> None:
        """Do the handshake; the peer of a server offers compression."""
        raise NotImplementedError

    def close(self) -> None:
        """Close this end."""
        raise NotImplementedError

    def send(self, data: bytes) -> None:
        """Send a message."""
        self.made.socket.send(data)

    def receive(self, data: bytes) -> None:
        """Deliver bytes of the peer."""
        self.made.receive(data)

    def frames(self) -> list[tuple[str, Any]]:
        """Return the messages and control frames that were sent since the last call."""
        self.clock.advance(0)
        found = self.made.frames()
        return [(getattr(kind, "name", kind).lower(), payload) for kind, payload in found]

    @property
    def has_ended(self) -> bool:
        """Whether this end has closed or aborted the transport."""
        self.clock.advance(0)
        return bool(self.made.transport.disconnecting) or self.is_aborted

    @property
    def is_aborted(self) -> bool:
        """Whether this end has aborted the transport."""
        return bool(self.made.transport.is_aborted)


class OfProtocol(Kind):
    """A `WebSocketProtocol` of a `WebSocketFactory`."""

    def __init__(self) -> None:
        self.made = Connected(Recorder)
        self.clock = self.made.clock

    def open(self) -> None:
        self.made.receive(OPEN_REQUEST + OFFER + END)
        self.response = self.made.sent()

    def close(self) -> None:
        self.made.protocol.close()

    def send(self, data: bytes) -> None:
        self.made.protocol.send_binary(data)

    @property
    def is_aborted(self) -> bool:
        return bool(self.made.is_aborted)


class OfListener(Kind):
    """A `ServerMessageWebSocket` of a `WebSocketListener`."""

    def __init__(self) -> None:
        self.made = Accepted()
        self.clock = self.made.reactor

    def open(self) -> None:
        self.made.receive(REQUEST[:-2] + OFFER + END)
        self.response = self.made.sent()

    def close(self) -> None:
        self.made.socket.close()


class OfClient(Kind):
    """A `MessageWebSocket`."""

    frame = staticmethod(server_frame)
    max_message_size = 16 * MIB

    def __init__(self) -> None:
        self.made = Served(MessageWebSocket)
        self.clock = self.made.reactor
        self.connecting = self.made.connect()
        self.made.answer_tcp()
        self.connecting.addErrback(lambda _: None)

    def open(self) -> None:
        request = self.made.request()
        self.response = repr(request).encode()
        self.made.receive(self.made.response(request))

    def close(self) -> None:
        self.made.socket.close()


def each_kind(*, is_open: bool = True) -> Iterator[Any]:
    """Make one of each kind."""
    for kind in (OfProtocol, OfListener, OfClient):
        made = kind()
        if is_open:
            made.open()
        yield made


class DefaultTests(SynchronousTestCase):
    """Nobody has to set an option to be safe."""

    def test_handshake_has_ten_seconds(self) -> None:
        """From the beginning; a byte each second does not extend them."""
        for one in each_kind(is_open=False):
            for byte in b"GET / HTT\r" if one.frame is client_frame else b"HTTP/1.1 \r":
                self.assertFalse(one.has_ended, one)
                one.receive(bytes((byte,)))
                one.clock.advance(1)
            self.assertTrue(one.is_aborted, one)

    def test_largest_message_is_refused_in_its_header(self) -> None:
        """1 MiB on servers and 16 MiB on clients."""
        for one in each_kind():
            header = one.frame(0x82, bytes(1), 8)
            size = one.max_message_size
            one.receive(header[:2] + size.to_bytes(8, "big") + header[10:-1])
            self.assertFalse(one.has_ended, one)
        for one in each_kind():
            header = one.frame(0x82, bytes(1), 8)
            size = one.max_message_size + 1
            one.receive(header[:2] + size.to_bytes(8, "big") + header[10:-1])
            self.assertEqual(one.frames()[-1][1][:2], b"\x03\xf1", one)

    def test_sum_of_fragments_has_the_same_limit(self) -> None:
        """The header of the fragment that exceeds it is enough."""
        for one in each_kind():
            one.receive(one.frame(0x02, b"x" * (one.max_message_size - 10)))
            one.receive(one.frame(0x00, b"x" * 10))
            self.assertFalse(one.has_ended, one)
            one.receive(one.frame(0x00, b"x"))
            self.assertEqual(one.frames()[-1][1][:2], b"\x03\xf1", one)

    def test_message_has_at_most_1024_fragments(self) -> None:
        """The next one closes with 1008."""
        for one in each_kind():
            one.receive(one.frame(0x02) + one.frame(0x00) * 1023)
            self.assertFalse(one.has_ended, one)
            one.receive(one.frame(0x00))
            self.assertEqual(one.frames()[-1][1][:2], b"\x03\xf0", one)

    def test_silent_peer_is_aborted_after_a_ping(self) -> None:
        """The ping leaves after 20 seconds, and has 20 seconds to be answered."""
        for one in each_kind():
            one.clock.advance(19)
            self.assertEqual(one.frames(), [], one)
            one.clock.advance(1)
            self.assertEqual(one.frames(), [("ping", b"")], one)
            one.clock.advance(19)
            self.assertFalse(one.has_ended, one)
            one.clock.advance(1)
            self.assertTrue(one.is_aborted, one)

    def test_any_byte_is_a_sign_of_life(self) -> None:
        """A peer that sends a large message slowly, and answers no ping, stays."""
        for one in each_kind():
            for byte in one.frame(0x82, bytes(200))[:20]:
                one.receive(bytes((byte,)))
                one.clock.pump([1] * 15)
                self.assertFalse(one.has_ended, one)

    def test_close_has_five_seconds(self) -> None:
        """Messages and pings of the peer do not extend them."""
        for one in each_kind():
            one.close()
            for _ in range(5):
                self.assertFalse(one.has_ended, one)
                one.receive(one.frame(0x81, b"a") + one.frame(0x89))
                one.clock.advance(1)
            self.assertTrue(one.has_ended, one)
            self.assertEqual([kind for kind, _ in one.frames()], ["close"], one)

    def test_compression_is_off(self) -> None:
        """A server does not accept an offer, a client makes none."""
        for one in each_kind():
            self.assertNotIn(b"Extensions", one.response, one)
            one.receive(one.frame(0xC2, b"x"))
            self.assertEqual(one.frames()[-1][1][:2], b"\x03\xea", one)

    def test_one_pong_waits_at_most(self) -> None:
        """Of the pings that arrive while the output is full, the newest is answered."""
        for one in each_kind():
            one.made.transport.producer.pauseProducing()
            one.send(b"x")
            one.frames()
            for number in range(100):
                one.receive(one.frame(0x89, b"%d" % number))
            one.made.transport.producer.resumeProducing()
            self.assertEqual(one.frames(), [("pong", b"99")], one)

    def test_unsent_output_of_an_awaitable_server_is_bounded(self) -> None:
        """At 16 MiB further messages fail."""
        one = OfListener()
        one.open()
        self.assertEqual(one.made.socket.output_stream.max_unsent, 16 * MIB)

    def test_pings_of_an_awaitable_server_can_be_turned_off(self) -> None:
        """Then a silent client stays."""
        one = Accepted(ping_interval=None)
        one.open()
        one.reactor.pump([20] * 10)
        self.assertEqual(one.frames(), [])
        self.assertFalse(one.transport.is_aborted)
