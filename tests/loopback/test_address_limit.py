"""The limit on connections of one peer address, for factories and listeners."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.endpoints import TCP6ServerEndpoint, UNIXServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool

from tests.loopback.contract import OnEveryReactor
from tests.loopback.reactors import connect, receive_exactly
from tests.loopback.test_unread_output import (
    address_of,
    any_port,
    secure,
    silent_on_unix,
    tls_endpoint,
)
from twsock import StreamSocketListener
from twsock.protocols import FrameEcho, StreamServerFactory
from twsock.wire import encode_frame

HELLO = encode_frame(b"Hello")
LIMIT = 2

Connect = Callable[[Any], socket.socket]


def is_served(connection: socket.socket) -> bool:
    """Return whether a frame comes back."""
    try:
        connection.sendall(HELLO)
        return receive_exactly(connection, len(HELLO)) == HELLO
    except ConnectionError:
        return False


def connect_from(host: str) -> Connect:
    """Connect from another loopback address."""

    def from_there(address: Any) -> socket.socket:
        return socket.create_connection(address, timeout=10, source_address=(host, 0))

    return from_there


def ipv6_port(reactor: Any) -> Any:
    return TCP6ServerEndpoint(reactor, 0, interface="::1")


class ShareTests(OnEveryReactor):
    """An address has at most so many connections at once."""

    def attack(self, address: Any, peer: Connect, other: Connect | None, is_bounded: bool) -> None:
        """Connect as often as one address may, once more, and then in place of one that ended."""
        with ExitStack() as stack:
            taken = [stack.enter_context(peer(address)) for _ in range(LIMIT)]
            self.assertEqual([is_served(connection) for connection in taken], [True] * LIMIT)
            self.assertEqual(self.try_once(address, peer), not is_bounded)
            if other is not None:
                self.assertTrue(self.try_once(address, other))
            self.assertTrue(all(map(is_served, taken)))
            taken[0].close()
            while not self.try_once(address, peer):
                pass  # The server has not yet read the end of the first.

    def try_once(self, address: Any, peer: Connect) -> bool:
        try:
            with peer(address) as connection:
                return is_served(connection)
        except (ConnectionError, ssl.SSLError):  # in a TLS handshake
            return False

    def serve(
        self,
        peer: Connect,
        make_endpoint: Callable[[Any], Any] = any_port,
        other: Connect | None = None,
        is_bounded: bool = True,
    ) -> None:
        async def work(reactor: Any) -> None:
            factory = StreamServerFactory(reactor, FrameEcho, max_connections_per_address=LIMIT)
            port: Any = await factory.listen(make_endpoint(reactor))
            pool, address = reactor.getThreadPool(), address_of(port)
            await deferToThreadPool(reactor, pool, self.attack, address, peer, other, is_bounded)
            while len(factory.group):
                await deferLater(reactor, 0.001)
            await port.stopListening()
            self.assertEqual(factory.counters.refused > 0, is_bounded)

        self.conduct(work)

    def test_an_ipv4_address_above_its_limit_is_refused(self) -> None:
        """Another address is not affected."""
        self.serve(connect, other=connect_from("127.0.0.2"))

    def test_an_ipv6_network_above_its_limit_is_refused(self) -> None:
        """Its addresses count together."""
        self.serve(connect, ipv6_port)

    def test_on_a_tls_endpoint_an_address_above_its_limit_is_refused(self) -> None:
        """Before a handshake, which would cost more than a connection."""
        self.serve(secure, tls_endpoint)

    def test_peers_of_unix_sockets_are_not_counted(self) -> None:
        """They have no address, and are processes of this machine."""
        with TemporaryDirectory() as folder:
            path = str(Path(folder, "socket"))
            self.serve(
                silent_on_unix,
                lambda reactor: UNIXServerEndpoint(reactor, path),
                is_bounded=False,
            )

    def test_a_listener_refuses_an_address_above_its_limit(self) -> None:
        """It is bound to both families, where an IPv4 address may be a mapped one."""

        async def echo(_listener: object, args: Any) -> None:
            async with args.socket as accepted:
                async for chunk in accepted.input_stream:
                    await accepted.output_stream.send_all(chunk)

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor, max_connections_per_address=LIMIT)
            listener.connection_received.add(echo)
            await listener.bind_service_name("")
            pool, port = reactor.getThreadPool(), int(listener.information.local_port)
            address, other = ("127.0.0.1", port), connect_from("127.0.0.2")
            await deferToThreadPool(reactor, pool, self.attack, address, connect, other, True)
            while len(listener):
                await deferLater(reactor, 0.001)
            await listener.close()

        self.conduct(work)


globals().update(ShareTests.makeTestCaseClasses())
