"""WebSockets on real connections, with the peer ``websockets`` and with hostile raw peers."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
)
from websockets.asyncio.client import connect as connect_asyncio
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect
from websockets.sync.client import connect as connect_websocket

from tests.loopback.reactors import PATIENCE, EveryReactor, connect, receive_all, receive_exactly
from tests.tls.peer import SERVER, client_context, twisted_options
from tests.websocket.connections import binary, close, ping, text
from twsock.protocols import UpgradePolicy, UpgradeToSsl, WebSocketEcho, WebSocketFactory
from twsock.stream import ProxyEndpoint
from twsock.tls import Certificate, ServerOptions, ServerTls
from twsock.websocket import CloseCode

MIB = 1024 * 1024
Address = tuple[str, int]

PEM = SERVER.private_key_and_cert_chain_pem.bytes()
IMPLICIT = UpgradeToSsl(
    ServerTls(ServerOptions([Certificate.from_pem(PEM)])), UpgradePolicy.IMPLICIT
)

#: What a connection holds at most in one direction, besides one read and one message.
HIGH_WATER = 64 * 1024
ONE_READ = 128_000


class Measured(WebSocketEcho):
    """An echo that notes the most bytes that it has held."""

    most = 0

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        Measured.most = max(Measured.most, self.buffered)


class Leaving(WebSocketEcho):
    """An echo that closes when it receives "leave"."""

    def text_received(self, text: str) -> None:
        if text == "leave":
            self.close(CloseCode.SERVICE_RESTART, "back soon")
        else:
            super().text_received(text)


def dial(address: Address, **options: Any) -> Any:
    """Connect with ``websockets``, which needs no thread of its own to be closed in order."""
    return connect_websocket(
        f"ws://{address[0]}:{address[1]}/", compression=None, max_size=None, **options
    )


@contextmanager
def raw(address: Address) -> Iterator[socket.socket]:
    """Connect a plain socket whose handshake is done."""
    with connect(address) as peer:
        peer.sendall(request(address))
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            head += receive_exactly(peer, 1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield peer


def request(address: Address) -> bytes:
    """Return the request of a handshake."""
    return (
        f"GET / HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def send_without_reading(peer: socket.socket, piece: bytes, total: int) -> int:
    """Send until the other end stops reading; return how many bytes it took."""
    peer.settimeout(0.2)
    sent = 0
    try:
        while sent < total:
            sent += peer.send(piece)
    except TimeoutError:
        pass
    return sent


def reset(peer: socket.socket) -> None:
    """Reset the connection."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class WebSocketBuilder(EveryReactor):
    """Serves WebSockets."""

    make_factory = WebSocketFactory


class InteroperationTests(WebSocketBuilder):
    """``websockets`` as the peer."""

    def test_messages_of_all_kinds_come_back(self) -> None:
        """Text, binary, empty and large messages; pings; codes and reasons."""

        def peer(address: Address) -> None:
            with dial(address) as client:
                for message in ("Hello", "", "\U0001f600" * 1000, b"", b"\0\xff", b"x" * MIB):
                    client.send(message)
                    self.assertEqual(client.recv(), message)
                for number in range(500):
                    client.send(str(number))
                self.assertEqual([client.recv() for _ in range(500)], [*map(str, range(500))])
                self.assertTrue(client.ping().wait(PATIENCE))
                client.send(["frag", "men", "ted"])
                self.assertEqual(client.recv(), "fragmented")
                client.close(4000, "enough")
                self.assertEqual(client.close_code, 4000)

        factory = self.serve(WebSocketEcho, peer)
        self.assertEqual(factory.counters.violations, 0)
        self.assertEqual(factory.counters.messages, 507)

    def test_server_may_close(self) -> None:
        """The client receives code and reason."""

        def peer(address: Address) -> None:
            with dial(address) as client:
                client.send("leave")
                with self.assertRaises(ConnectionClosed) as caught:
                    client.recv()
                received = caught.exception.rcvd
                assert received is not None
                self.assertEqual((received.code, received.reason), (1012, "back soon"))

        self.serve(Leaving, peer)

    def test_refusals_are_http(self) -> None:
        """The client receives the status."""

        def peer(address: Address) -> None:
            for options, status in (
                ({"origin": "http://evil.example"}, 403),
                ({"additional_headers": {"Host": "evil.example"}}, 400),
                ({"subprotocols": ["other"]}, 400),
            ):
                with self.assertRaises(InvalidStatus, msg=str(options)) as caught:
                    dial(address, **options)
                self.assertEqual(caught.exception.response.status_code, status, str(options))
            with dial(address, subprotocols=["chat"], origin=f"http://127.0.0.1:{address[1]}") as c:
                self.assertEqual(c.subprotocol, "chat")

        self.serve(WebSocketEcho, peer, subprotocols=["chat"])

    def test_every_stream_endpoint_carries_websockets(self) -> None:
        """TLS of Twisted and of twsock, UNIX sockets, and PROXY headers."""

        def echo(client: ClientConnection) -> None:
            with client:
                client.send("Hello")
                self.assertEqual(client.recv(), "Hello")

        async def echo_over_tls(port: int) -> None:
            # With asyncio: the client with threads reads and writes one TLS session at once, which
            # OpenSSL does not permit.
            uri = f"wss://127.0.0.1:{port}/"
            async with connect_asyncio(uri, ssl=client_context(), compression=None) as client:
                await client.send("Hello")
                self.assertEqual(await client.recv(), "Hello")

        def over_tls(address: Address) -> None:
            asyncio.run(echo_over_tls(address[1]))

        def over_proxy(address: Address) -> None:
            plain = connect(address)
            plain.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            echo(connect_websocket("ws://server.example/", sock=plain, compression=None))

        self.serve(WebSocketEcho, over_tls, upgrade=IMPLICIT)
        self.serve(
            WebSocketEcho,
            over_tls,
            lambda reactor: SSL4ServerEndpoint(
                reactor, 0, twisted_options(PEM), interface="127.0.0.1"
            ),
        )
        self.serve(
            WebSocketEcho,
            over_proxy,
            lambda reactor: ProxyEndpoint(
                reactor, TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            ),
        )
        with TemporaryDirectory() as folder:
            path = str(Path(folder, "socket"))
            self.serve(
                WebSocketEcho,
                lambda _: echo(unix_connect(path, compression=None)),
                lambda reactor: UNIXServerEndpoint(reactor, path),
            )


class HostileTests(WebSocketBuilder):
    """Raw peers that do what no library does."""

    def test_requests_and_messages_may_come_together(self) -> None:
        """A peer that does not wait for the answer is served."""

        def peer(address: Address) -> None:
            with connect(address) as client:
                client.sendall(request(address) + text("a") + close(1001))
                received = receive_all(client)
            self.assertTrue(received.endswith(b"\r\n\r\n\x81\x01a\x88\x02\x03\xe9"), received)

        self.serve(WebSocketEcho, peer)

    def test_server_ends_tcp_first(self) -> None:
        """After both close frames the client receives FIN, although it has not closed."""

        def peer(address: Address) -> None:
            with raw(address) as client:
                client.sendall(close(1000, "bye"))
                self.assertEqual(receive_all(client), b"\x88\x05\x03\xe8bye")

        self.serve(WebSocketEcho, peer)

    def test_flood_of_close_frames_is_answered_once(self) -> None:
        """What follows the first one is read and dropped, so no reset destroys the answer."""

        def peer(address: Address) -> None:
            with raw(address) as client:
                client.sendall(close(1000) * 100_000)
                client.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_all(client), b"\x88\x02\x03\xe8")

        self.serve(WebSocketEcho, peer)

    def test_violation_is_answered_although_more_follows(self) -> None:
        """The messages before it are answered, then its close frame arrives."""

        def peer(address: Address) -> None:
            with raw(address) as client:
                client.sendall(text("a") + b"\x81\x01a" + binary(bytes(MIB)))
                client.shutdown(socket.SHUT_WR)
                received = receive_all(client)
            self.assertTrue(received.startswith(b"\x81\x01a\x88"), received)
            self.assertEqual(received[5:7], b"\x03\xea")

        factory = self.serve(WebSocketEcho, peer)
        self.assertEqual(factory.counters.violations, 1)

    def test_half_closed_peer_gets_every_answer(self) -> None:
        """The connection then ends without a close frame."""

        def peer(address: Address) -> None:
            with raw(address) as client:
                client.sendall(binary(b"x" * 65_536) * 20)
                client.shutdown(socket.SHUT_WR)
                received = receive_all(client)
            self.assertEqual(len(received), 20 * (65_536 + 10))

        self.serve(WebSocketEcho, peer)

    def test_peer_that_does_not_read_is_not_read_from(self) -> None:
        """The server holds the high-water mark, one read and one message at most."""
        message = binary(b"x" * 1000)

        def peer(address: Address) -> None:
            with raw(address) as client:
                sent = send_without_reading(client, message * 100, 256 * MIB)
                self.assertLess(sent, 256 * MIB)
                reset(client)

        Measured.most = 0
        self.serve(Measured, peer)
        self.assertLess(Measured.most, HIGH_WATER + 2 * ONE_READ)

    def test_flood_of_pings_fills_no_memory(self) -> None:
        """A peer that reads no pong has one pong waiting."""

        def peer(address: Address) -> None:
            with raw(address) as client:
                send_without_reading(client, ping(b"x" * 125) * 500, 24 * MIB)
                reset(client)

        Measured.most = 0
        self.serve(Measured, peer)
        self.assertLess(Measured.most, HIGH_WATER + 2 * ONE_READ)

    def test_reset_of_a_peer_that_is_not_read_from_is_noticed(self) -> None:
        """A paused connection gets no event for a reset, so the pings have to find out."""
        cancelled: list[type] = []
        ended = threading.Event()

        class Endless(WebSocketEcho):
            async def text_received(self, text: str) -> None:  # type: ignore[override]
                try:
                    await Deferred()
                except BaseException as error:
                    cancelled.append(type(error))
                    ended.set()
                    raise

        def peer(address: Address) -> None:
            with raw(address) as client:
                client.sendall(text("a") + binary(bytes(200_000)))
                reset(client)
            # Before the drain of the server, which would abort the connection, too.
            self.assertTrue(ended.wait(PATIENCE))

        factory = self.serve(Endless, peer, ping_interval=0.1, ping_timeout=0.1)
        self.assertEqual(len(factory.group), 0)
        self.assertEqual(cancelled, [CancelledError])

    def test_slow_handshake_is_aborted(self) -> None:
        """A peer that sends half a request is reset."""

        def peer(address: Address) -> None:
            with connect(address) as client:
                client.sendall(request(address)[:50])
                with self.assertRaises(ConnectionError):
                    client.recv(1)

        self.serve(WebSocketEcho, peer, handshake_timeout=0.1)

    def test_close_without_an_answer_ends_at_the_deadline(self) -> None:
        """A peer that sends messages for ever cannot keep the connection."""

        def peer(address: Address) -> None:
            with raw(address) as client:
                client.sendall(text("leave"))
                with self.assertRaises(ConnectionError):
                    while True:
                        client.sendall(text("more") * 100)

        self.serve(Leaving, peer, close_timeout=0.1)

    def test_reset_in_each_state_leaves_nothing(self) -> None:
        """In the handshake, in a message, in both closes, and behind a violation."""

        def peer(address: Address) -> None:
            for head in (b"", request(address)[:50]):
                client = connect(address)
                client.sendall(head)
                reset(client)
            for sent in (b"", text("a")[:4], text("leave"), close(), b"\xff\xff", text("a") * 9999):
                with raw(address) as client:
                    client.sendall(sent)
                    if sent.endswith(text("leave")[-2:]):
                        receive_exactly(client, 4)
                    reset(client)

        factory = self.serve(Leaving, peer)
        self.assertEqual(len(factory.group), 0)
        self.assertEqual(factory.counters.handler_errors, 0)


for _builder in (InteroperationTests, HostileTests):
    globals().update(_builder.makeTestCaseClasses())
