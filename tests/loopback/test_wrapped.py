"""Streams under TLS of Twisted and behind a PROXY header behave as on a plain socket."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from typing import Any

from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint, serverFromString
from twisted.internet.task import deferLater

from tests.loopback.reactors import (
    EveryReactor,
    connect,
    on_every_reactor,
    receive_all,
    receive_exactly,
)
from tests.tls.peer import SERVER, Peer, trusting, twisted_options
from twsock.protocols import FrameEcho, FrameProtocol, UpgradeToSsl
from twsock.stream.listening.proxy_endpoint import ProxyEndpoint
from twsock.tls.certificates import Certificate
from twsock.tls.server import ServerOptions, ServerTls
from twsock.wire import encode_frame

PEM = SERVER.private_key_and_cert_chain_pem.bytes()
UPGRADE_CERTIFICATE = Certificate.from_pem(PEM)

#: The largest piece of a TLS stream, in bytes.
RECORD = 16_384


def make_tls_endpoint(reactor: Any) -> SSL4ServerEndpoint:
    """Listen with TLS from the first byte."""
    return SSL4ServerEndpoint(reactor, 0, twisted_options(PEM), interface="127.0.0.1")


def make_proxied_endpoint(reactor: Any) -> Any:
    """Listen behind a proxy that sends a PROXY header."""
    return serverFromString(reactor, "haproxy:tcp:0:interface=127.0.0.1")


def make_own_proxied_endpoint(reactor: Any) -> ProxyEndpoint:
    """Listen behind a proxy with twsock's endpoint."""
    return ProxyEndpoint(reactor, TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))


def secure(connection: socket.socket) -> ssl.SSLSocket:
    """Be the client of a TLS handshake, verified by the standard library."""
    return trusting().wrap_socket(connection, server_hostname="localhost")


def send_until_stuck(connection: ssl.SSLSocket, stream: bytes) -> int:
    """Send without reading until no byte moves any more; return the number of bytes sent."""
    sent = 0
    while sent < len(stream):
        try:
            sent += connection.send(stream[sent : sent + RECORD])
        except ssl.SSLWantWriteError:
            if not select.select([], [connection], [], 0.2)[1]:
                break
    return sent


def exchange_the_rest(connection: ssl.SSLSocket, stream: bytes, sent: int) -> bytes:
    """Send the rest while reading all that comes back, in one thread as TLS requires."""
    received = bytearray()
    while len(received) < len(stream):
        unsent = [connection] if sent < len(stream) else []
        if not any(select.select([connection], unsent, [], 10)):
            break
        try:
            while chunk := connection.recv(RECORD):
                received += chunk
        except ssl.SSLWantReadError:
            pass
        try:
            if unsent:
                sent += connection.send(stream[sent : sent + RECORD])
        except ssl.SSLWantWriteError:
            pass
    return bytes(received)


class TlsTests(EveryReactor):
    """The server's transport is Twisted's TLS over TCP."""

    has_variants = True

    def test_frames_come_back(self) -> None:
        """Small and large frames are unchanged."""
        stream = b"".join(encode_frame(bytes(size)) for size in (0, 1, 70_000))

        def peer(address: tuple[str, int]) -> None:
            with secure(connect(address)) as connection:
                connection.sendall(stream)
                self.assertEqual(receive_exactly(connection, len(stream)), stream)

        self.serve(FrameEcho, peer, make_tls_endpoint)

    @on_every_reactor
    def test_a_peer_that_does_not_read_is_not_read_from(self) -> None:
        """Bytes queued below TLS pause the connection too, and none is lost."""
        stream = encode_frame(bytes(100_000)) * 200
        brakes: list[str] = []

        class Noted(FrameEcho):
            def writing_paused(self) -> None:
                brakes.append("paused")

            def writing_resumed(self) -> None:
                brakes.append("resumed")

        def peer(address: tuple[str, int]) -> None:
            plain = connect(address)
            # Twice 6 MiB in each direction would be room for all of it.
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
            with secure(plain) as connection:
                connection.setblocking(False)
                sent = send_until_stuck(connection, stream)
                self.assertLess(sent, len(stream))
                self.assertTrue(exchange_the_rest(connection, stream, sent) == stream)

        self.serve(Noted, peer, make_tls_endpoint)
        self.assertEqual(brakes[:2], ["paused", "resumed"])

    def test_a_close_sends_the_answer_first(self) -> None:
        """The peer reads the last answer, then the end."""

        class Once(FrameProtocol):
            def frame_received(self, payload: bytes) -> None:
                self.send_frame(b"enough")
                self.close()

        def peer(address: tuple[str, int]) -> None:
            with secure(connect(address)) as connection:
                connection.sendall(encode_frame(b"x"))
                self.assertEqual(receive_all(connection), encode_frame(b"enough"))

        # A wrapper has no half-close, so the end comes at the deadline.
        self.serve(Once, peer, make_tls_endpoint, close_timeout=0.5)


class BehindProxy(EveryReactor):
    """The server's transport is a wrapper."""

    has_variants = True

    #: Makes the endpoint from the reactor.
    make_endpoint: Any = None

    @on_every_reactor
    def test_frames_come_back_and_the_peer_is_the_real_one(self) -> None:
        """Frames follow the PROXY header; the peer is the address in the header."""
        peers: list[str] = []

        class Named(FrameEcho):
            def connection_lost(self, error: object) -> None:
                peers.append(self.peer)

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n")
                connection.sendall(encode_frame(b"x"))
                self.assertEqual(receive_exactly(connection, 5), encode_frame(b"x"))

        self.serve(Named, peer, self.make_endpoint)
        self.assertEqual(peers, ["192.0.2.1:1000"])

    def test_an_upgrade_behind_a_header_is_secure(self) -> None:
        """S16, S17: header and request are one segment; the protocol reports that it is secure."""
        secure: list[bool] = []

        class Noted(FrameEcho):
            upgrade = UpgradeToSsl(ServerTls(ServerOptions([UPGRADE_CERTIFICATE])))

            def connection_secured(self) -> None:
                secure.append(self.is_secure)

        def peer(address: tuple[str, int]) -> None:
            client = Peer()
            header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"
            with connect(address) as connection:
                connection.sendall(header + encode_frame(b"STARTTLS") + client.hello())
                self.assertEqual(receive_exactly(connection, 6), encode_frame(b"OK"))
                while not client.is_done:
                    connection.sendall(client.take(connection.recv(65536)))
                connection.sendall(client.say(encode_frame(b"inside")))
                while not client.received:
                    client.take(connection.recv(65536))
                self.assertEqual(client.received, encode_frame(b"inside"))

        self.serve(Noted, peer, self.make_endpoint)
        self.assertEqual(secure, [True])

    def test_a_close_with_unread_input_sends_the_answer_first(self) -> None:
        """No reset destroys the answer, as on a plain socket."""
        answer = encode_frame(bytes(1_000_000))

        class Once(FrameProtocol):
            def frame_received(self, payload: bytes) -> None:
                self.send_frame(bytes(1_000_000))
                self.close()

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n")
                connection.sendall(encode_frame(b"x") + bytes(300_000))
                self.assertEqual(receive_all(connection), answer)

        self.serve(Once, peer, self.make_endpoint, close_timeout=0.5)


class ProxiedTests(BehindProxy):
    """The wrapper is Twisted's."""

    make_endpoint = staticmethod(make_proxied_endpoint)

    @on_every_reactor
    def test_a_drain_does_not_wait_for_half_a_header(self) -> None:
        """Unread bytes in the kernel may be no message; then there is nothing to answer."""
        half_sent = threading.Event()

        class Draining(FrameEcho):
            def connection_made(self) -> None:
                half_sent.wait(60)
                self.drain()

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(b"PROXY TC")
                half_sent.set()
                self.assertEqual(receive_all(connection), b"")

        self.serve(Draining, peer, self.make_endpoint)


class ProxyEndpointTests(BehindProxy):
    """The wrapper is twsock's."""

    make_endpoint = staticmethod(make_own_proxied_endpoint)

    def test_a_header_may_arrive_in_pieces(self) -> None:
        """Twisted's wrapper aborts if the first piece is short."""

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                stream = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n" + encode_frame(b"x")
                for start in range(0, len(stream), 5):
                    connection.sendall(stream[start : start + 5])
                self.assertEqual(receive_exactly(connection, 5), encode_frame(b"x"))

        self.serve(FrameEcho, peer, self.make_endpoint)

    def test_connections_are_counted_by_the_address_of_the_client(self) -> None:
        """Health checks of the proxy itself take no client's place."""

        def peer(address: tuple[str, int]) -> None:
            with contextlib.ExitStack() as open_connections:
                for source, answer in (
                    (b"UNKNOWN", b"\0\0\0\1x"),
                    (b"TCP4 192.0.2.1 192.0.2.9 1 2", b"\0\0\0\1x"),
                    (b"TCP4 192.0.2.2 192.0.2.9 1 2", b"\0\0\0\1x"),
                    (b"TCP4 192.0.2.1 192.0.2.9 3 4", None),
                    (b"UNKNOWN", None),
                ):
                    connection = open_connections.enter_context(connect(address))
                    connection.sendall(b"PROXY " + source + b"\r\n" + encode_frame(b"x"))
                    if answer is None:
                        self.assertRaises(ConnectionResetError, connection.recv, 1)
                    else:
                        self.assertEqual(receive_exactly(connection, 5), answer, f"{source=}")

        self.serve(FrameEcho, peer, self.make_endpoint, max_connections_per_address=1)

    @on_every_reactor
    def test_after_a_peers_fin_every_answer_arrives(self) -> None:
        """As on a plain socket: under Twisted's wrapper FIN loses the connection."""

        class Late(FrameProtocol):
            async def frame_received(self, payload: bytes) -> None:
                assert self.group is not None
                # Long after the end of the peer's output was read.
                await deferLater(self.group.clock, 0.1)
                self.send_frame(payload)

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(b"PROXY UNKNOWN\r\n" + encode_frame(b"x"))
                connection.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_all(connection), encode_frame(b"x"))

        self.serve(Late, peer, self.make_endpoint)


cases: dict[str, Any] = {
    **TlsTests.makeTestCaseClasses(),
    **ProxiedTests.makeTestCaseClasses(),
    **ProxyEndpointTests.makeTestCaseClasses(),
}
globals().update(cases)
