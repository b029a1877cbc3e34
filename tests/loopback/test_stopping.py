"""A port that stops serves the peers in the kernel's queue; it does not reset them."""

from __future__ import annotations

import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.task import deferLater

from tests.loopback.contract import OnEveryReactor, turns
from tests.loopback.reactors import connect as connect_plain
from tests.loopback.reactors import on_every_reactor
from tests.sockets.stream.test_listener import echo, listen
from tests.tls.peer import SERVER, ClientPeer, client_context, twisted_options
from twsock import StreamSocketListener
from twsock.protocols import FrameEchoFactory, LineEchoFactory, UpgradeToSsl
from twsock.services.stream import stream_service
from twsock.stream.listening.proxy_endpoint import ProxyEndpoint
from twsock.stream.upgrade import UpgradePolicy
from twsock.tls.certificates import Certificate
from twsock.tls.server import ServerOptions, ServerTls
from twsock.wire import encode_frame

FRAME = encode_frame(b"x")
OPTIONS = ServerOptions([Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())])
TLS = ServerTls(OPTIONS)
#: With TLS 1.2 a client sends its first message a round trip after the server's handshake is done.
CONTEXTS = (
    client_context(),
    client_context(version=ssl.TLSVersion.TLSv1_2),
)


def queue(address: Any, count: int, question: bytes = b"x") -> list[socket.socket]:
    """Connect and send while the reactor does not run: all of it waits in the kernel."""
    peers = []
    for _ in range(count):
        if isinstance(address, str):
            peer = socket.socket(socket.AF_UNIX)
            peer.settimeout(60)
            peer.connect(address)
        else:
            peer = connect_plain(address)
        peer.sendall(question)
        peers.append(peer)
    return peers


async def read_all(reactor: Any, peer: socket.socket) -> bytes | None:
    """Read to the end while the reactor runs; return None for a reset."""
    received = b""
    peer.setblocking(False)
    while True:
        try:
            chunk = peer.recv(1 << 16)
        except BlockingIOError:
            await deferLater(reactor, 0.01)
            continue
        except ConnectionError:
            return None
        if not chunk:
            return received
        received += chunk


async def finish(reactor: Any, peers: list[socket.socket]) -> list[bytes | None]:
    """Return the bytes that each peer receives, and close it."""
    answers = []
    for peer in peers:
        answers.append(await read_all(reactor, peer))
        peer.close()
    return answers


def port_of(listener: StreamSocketListener) -> tuple[str, int]:
    return "127.0.0.1", int(listener.information.local_port)


class ListenerTests(OnEveryReactor):
    """`StreamSocketListener`, with handlers and without."""

    has_variants = True

    @on_every_reactor
    def test_queued_requests_are_answered_within_the_drain(self) -> None:
        """Of both families, and on a UNIX socket."""

        async def work(reactor: Any) -> None:
            for host in ("127.0.0.1", "::1") if socket.has_ipv6 else ("127.0.0.1",):
                listener = StreamSocketListener(reactor)
                listener.connection_received.add(echo)
                await listener.bind_endpoint(host, "")
                peers = queue((host, int(listener.information.local_port)), 5)
                closing = listener.close_all(5)
                self.assertEqual(await finish(reactor, peers), [b"x"] * 5, f"{host=}")
                self.assertEqual(await closing, 0, f"{host=}")
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder, "socket"))
                listener = StreamSocketListener(reactor)
                listener.connection_received.add(echo)
                await listener.listen(UNIXServerEndpoint(reactor, path))
                peers = queue(path, 5)
                closing = listener.close_all(5)
                self.assertEqual(await finish(reactor, peers), [b"x"] * 5)
                self.assertEqual(await closing, 0)

        self.conduct(work)

    def test_queued_connections_above_the_limit_are_reset(self) -> None:
        """Their number is bounded by the kernel's queue."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, echo, max_connections=2)
            peers = queue(port_of(listener), 5)
            closing = listener.close_all(5)
            await turns(reactor)
            self.assertEqual(len(listener), 2)
            self.assertEqual(await finish(reactor, peers), [b"x"] * 2 + [None] * 3)
            self.assertEqual(await closing, 0)

        self.conduct(work)

    def test_closing_the_listener_passes_queued_connections_to_handlers(self) -> None:
        """These connections stay open, as all accepted ones do."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, echo)
            peers = queue(port_of(listener), 3)
            await listener.close()
            self.assertEqual(len(listener), 3)
            for peer in peers:
                peer.shutdown(socket.SHUT_WR)
            self.assertEqual(await finish(reactor, peers), [b"x"] * 3)

        self.conduct(work)

    def test_without_a_handler_queued_connections_are_reset(self) -> None:
        """As connections that were accepted and not taken."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            peers = queue(port_of(listener), 3)
            await listener.close()
            self.assertEqual(len(listener), 0)
            self.assertEqual(await finish(reactor, peers), [None] * 3)

        self.conduct(work)


class FactoryTests(OnEveryReactor):
    """Factories as the services use them: the port stops, then the factory is drained."""

    has_variants = True

    @on_every_reactor
    def test_queued_requests_are_answered_within_the_drain(self) -> None:
        """Frames and lines."""

        async def work(reactor: Any) -> None:
            for make, question, answer in (
                (FrameEchoFactory, FRAME * 2, FRAME * 2),
                (LineEchoFactory, b"x\n", b"x\r\n"),
            ):
                factory = make(reactor)
                port: Any = await factory.listen(any_port(reactor))
                peers = queue(("127.0.0.1", port.getHost().port), 5, question)
                await port.stopListening()
                draining = factory.drain(5)
                self.assertEqual(await finish(reactor, peers), [answer] * 5, f"{make=}")
                self.assertEqual(await draining, 0, f"{make=}")

        self.conduct(work)

    def test_queued_connections_above_the_limit_are_reset(self) -> None:
        """The others are answered."""

        async def work(reactor: Any) -> None:
            factory = FrameEchoFactory(reactor, max_connections=2)
            port: Any = await factory.listen(any_port(reactor))
            peers = queue(("127.0.0.1", port.getHost().port), 5, FRAME)
            await port.stopListening()
            self.assertEqual(len(factory.group), 2)
            draining = factory.drain(5)
            self.assertEqual(await finish(reactor, peers), [FRAME] * 2 + [None] * 3)
            self.assertEqual(await draining, 0)

        self.conduct(work)

    def test_behind_a_proxy_queued_requests_with_a_whole_header_are_answered(self) -> None:
        """A partial header is not awaited."""

        async def work(reactor: Any) -> None:
            factory = FrameEchoFactory(reactor)
            port: Any = await factory.listen(ProxyEndpoint(reactor, any_port(reactor)))
            address = "127.0.0.1", port.getHost().port
            header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"
            peers = queue(address, 3, header + FRAME) + queue(address, 1, header[:9])
            await port.stopListening()
            draining = factory.drain(5)
            self.assertEqual(await finish(reactor, peers), [FRAME] * 3 + [None])
            self.assertEqual(await draining, 0)

        self.conduct(work)

    def test_a_queued_peer_has_a_second_for_its_first_request(self) -> None:
        """Its connection was established, so the request may be on its way."""

        async def work(reactor: Any) -> None:
            factory = FrameEchoFactory(reactor)
            port: Any = await factory.listen(any_port(reactor))
            talking, silent = queue(("127.0.0.1", port.getHost().port), 2, b"")
            await port.stopListening()
            draining = factory.drain(5)
            await turns(reactor)
            self.assertEqual(len(factory.group), 2)
            talking.sendall(FRAME)
            self.assertEqual(await finish(reactor, [talking, silent]), [FRAME, b""])
            self.assertEqual(await draining, 0)

        self.conduct(work)

    def test_a_drain_accepts_the_queue_of_a_port_that_has_not_closed_yet(self) -> None:
        """A port closes in the next turn of the reactor."""

        async def work(reactor: Any) -> None:
            for timeout, answer in ((5, FRAME), (0, None)):
                factory = FrameEchoFactory(reactor)
                port: Any = await factory.listen(any_port(reactor))
                peers = queue(("127.0.0.1", port.getHost().port), 3, FRAME)
                closing = port.stopListening()
                draining = factory.drain(timeout)
                self.assertEqual(await finish(reactor, peers), [answer] * 3, f"{timeout=}")
                self.assertEqual(await draining, 0, f"{timeout=}")
                await closing

        self.conduct(work)

    def test_a_port_that_stops_after_the_drain_resets_its_queue(self) -> None:
        """A factory that drains accepts no connection."""

        async def work(reactor: Any) -> None:
            factory = FrameEchoFactory(reactor)
            port: Any = await factory.listen(any_port(reactor))
            peers = queue(("127.0.0.1", port.getHost().port), 2, FRAME)
            await factory.drain(5)
            await port.stopListening()
            self.assertEqual(await finish(reactor, peers), [None] * 2)

        self.conduct(work)


class ServiceTests(OnEveryReactor):
    """The services that ``twistd`` runs."""

    _reactors = ["twisted.internet.epollreactor.EPollReactor"]

    def test_queued_requests_are_answered_before_the_service_has_stopped(self) -> None:
        """On each of its endpoints."""

        async def work(reactor: Any) -> None:
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder, "socket"))
                service = stream_service(reactor, ["tcp:0:interface=127.0.0.1", f"unix:{path}"])
                service.startService()
                tcp: Any = service.ports[0]
                peers = queue(("127.0.0.1", tcp.getHost().port), 5, FRAME)
                peers += queue(path, 5, FRAME)
                stopping: Any = service.stopService()
                self.assertEqual(await finish(reactor, peers), [FRAME] * 10)
                await stopping

        self.conduct(work)


class SecureTests(OnEveryReactor):
    """Clients whose ClientHello has arrived when the server stops."""

    has_variants = True

    @on_every_reactor
    def test_a_listener_finishes_the_handshake(self) -> None:
        """The handler reads the message behind it."""

        async def work(reactor: Any) -> None:
            for context in CONTEXTS:
                listener = await listen(reactor, echo, tls=OPTIONS)
                clients = [SecureClient(context) for _ in range(3)]
                sockets = [queue(port_of(listener), 1, each.hello())[0] for each in clients]
                closing = listener.close_all(10)
                await self.assert_answered(reactor, clients, sockets)
                self.assertEqual(await closing, 0, f"{context.maximum_version=}")

        self.conduct(work)

    def test_a_factory_finishes_the_handshake(self) -> None:
        """
        With TLS from the first byte, after a ClientHello in the middle, and under Twisted's own
        TLS.
        """
        pem = SERVER.private_key_and_cert_chain_pem.bytes()

        async def work(reactor: Any) -> None:
            options = twisted_options(pem)
            by_twisted = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
            for endpoint, upgrade in (
                (any_port(reactor), UpgradeToSsl(TLS, UpgradePolicy.IMPLICIT)),
                (any_port(reactor), UpgradeToSsl(TLS, UpgradePolicy.REQUIRED)),
                (by_twisted, None),
            ):
                for context in CONTEXTS:
                    factory = FrameEchoFactory(reactor, upgrade=upgrade)
                    port: Any = await factory.listen(endpoint)
                    address = "127.0.0.1", port.getHost().port
                    clients = [SecureClient(context) for _ in range(3)]
                    sockets = [queue(address, 1, each.hello())[0] for each in clients]
                    await port.stopListening()
                    draining = factory.drain(10)
                    await self.assert_answered(reactor, clients, sockets)
                    self.assertEqual(await draining, 0, f"{upgrade=}, {context.maximum_version=}")

        self.conduct(work)

    def test_a_client_with_the_go_ahead_is_awaited(self) -> None:
        """Its handshake follows the answer."""

        async def work(reactor: Any) -> None:
            factory = FrameEchoFactory(reactor, upgrade=UpgradeToSsl(TLS))
            port: Any = await factory.listen(any_port(reactor))
            address = "127.0.0.1", port.getHost().port
            sockets = queue(address, 3, encode_frame(b"STARTTLS"))
            await port.stopListening()
            draining = factory.drain(10)
            clients = [SecureClient(CONTEXTS[0]) for _ in sockets]
            for number, (client, connection) in enumerate(zip(clients, sockets, strict=True)):
                connection.setblocking(False)
                await deferLater(reactor, 0.2)  # several looks of the drain
                self.assertEqual(connection.recv(6), encode_frame(b"OK"), f"{number=}")
                connection.sendall(client.hello())
            await self.assert_answered(reactor, clients, sockets)
            self.assertEqual(await draining, 0)

        self.conduct(work)

    def test_a_silent_client_reads_a_clean_end_at_once(self) -> None:
        """As without TLS: there is no reset, and no wait for a handshake."""

        async def work(reactor: Any) -> None:
            for upgrade in (
                UpgradeToSsl(TLS, UpgradePolicy.IMPLICIT),
                UpgradeToSsl(TLS, UpgradePolicy.REQUIRED),
            ):
                factory = FrameEchoFactory(reactor, upgrade=upgrade)
                port: Any = await factory.listen(any_port(reactor))
                peers = queue(("127.0.0.1", port.getHost().port), 2, b"")
                await port.stopListening()
                draining = factory.drain(3600)
                self.assertEqual(await finish(reactor, peers), [b"", b""], f"{upgrade.policy=}")
                self.assertEqual(await draining, 0, f"{upgrade.policy=}")
            listener = await listen(reactor, echo, tls=OPTIONS)
            peers = queue(port_of(listener), 2, b"")
            closing = listener.close_all(3600)
            self.assertEqual(await finish(reactor, peers), [b"", b""])
            self.assertEqual(await closing, 0)

        self.conduct(work)

    async def assert_answered(
        self, reactor: Any, clients: list[SecureClient], sockets: list[socket.socket]
    ) -> None:
        for number, (client, connection) in enumerate(zip(clients, sockets, strict=True)):
            self.assertEqual(await client.converse(reactor, connection, FRAME), FRAME, f"{number=}")
            connection.close()


class SecureClient(ClientPeer):
    """Sends one request when its handshake is done, and closes when it has the answer."""

    async def converse(self, reactor: Any, connection: socket.socket, question: bytes) -> bytes:
        connection.setblocking(False)
        has_asked = False
        while len(self.received) < len(question):
            try:
                chunk = connection.recv(1 << 16)
            except BlockingIOError:
                await deferLater(reactor, 0.01)
                continue
            if not chunk:
                break
            connection.sendall(self.take(chunk))
            if self.is_done and not has_asked:
                has_asked = True
                connection.sendall(self.say(question))
        return self.received


def any_port(reactor: Any) -> TCP4ServerEndpoint:
    return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")


for case in (ListenerTests, FactoryTests, ServiceTests, SecureTests):
    globals().update(case.makeTestCaseClasses())
del ListenerTests, FactoryTests, ServiceTests, SecureTests
