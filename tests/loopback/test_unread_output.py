"""Pushes to a peer that does not read are bounded, for every kind of connection."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import (
    Certificate as PublicCertificate,
)
from twisted.internet.ssl import (
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogPublisher

from tests.loopback.contract import OnEveryReactor, turns
from tests.loopback.reactors import connect, on_every_reactor, receive_exactly
from tests.tls.peer import AUTHORITY, SERVER, trusting, twisted_options
from twsock import BrokenError, SocketError
from twsock.protocols import FrameProtocol, StreamServerFactory, UpgradePolicy, UpgradeToSsl
from twsock.tls import Certificate, ServerOptions, ServerTls
from twsock.wire import encode_frame

PEM = SERVER.private_key_and_cert_chain_pem.bytes()
UPGRADE = UpgradeToSsl(ServerTls(ServerOptions([Certificate.from_pem(PEM)])), UpgradePolicy.ALLOWED)

MAX_UNSENT = 256 * 1024
FRAME = bytes(16 * 1024)
#: Far more bytes than the kernel has room for.
ENOUGH = 64 * 1024 * 1024 // len(FRAME)

Peer = Callable[[Any], socket.socket]


def silent(address: Any) -> socket.socket:
    """Connect, and send nothing."""
    return connect(address)


def silent_on_unix(address: Any) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


def secure(address: Any) -> socket.socket:
    """Connect with TLS from the first byte."""
    return trusting().wrap_socket(connect(address), server_hostname="localhost")


def upgraded(address: Any) -> socket.socket:
    """Connect, then begin TLS at a boundary."""
    connection = connect(address)
    return trusting().wrap_socket(connection, server_hostname="localhost")


def without_a_hello(address: Any) -> socket.socket:
    """Ask for TLS, and send nothing more."""
    connection = connect(address)
    connection.sendall(encode_frame(b"STARTTLS"))
    receive_exactly(connection, len(encode_frame(b"OK")))
    return connection


class Pushed(FrameProtocol):
    """A protocol for pushes; answers nothing."""

    max_unsent = MAX_UNSENT
    #: Fire with the protocol, and with the reason of its end.
    events: ClassVar[dict[str, Deferred[Any]]]

    def connection_made(self) -> None:
        if "made" in self.events:
            self.events["made"].callback(self)

    def connection_secured(self) -> None:
        self.events["secured"].callback(self)

    def connection_lost(self, error: SocketError | None) -> None:
        self.events["lost"].callback(error)

    def frame_received(self, payload: bytes) -> None:
        """Ignore the frame."""


class PushTests(OnEveryReactor):
    """Messages without a request."""

    has_variants = True

    def push_to(
        self,
        peer: Peer,
        make_endpoint: Callable[[Any], Any] | None = None,
        upgrade: UpgradeToSsl | None = None,
        event: str = "made",
        push: Callable[[Any], object] = lambda protocol: protocol.send_frame(FRAME),
        prepare: Callable[[Any], object] = lambda protocol: None,
    ) -> None:
        """
        Push until the connection ends; require the end at the bound, with one event in the log.

        :param peer: connects to an address, in a thread.
        :param event: the event of the protocol after which the pushes begin.
        """
        logged: list[Any] = []
        note: Any = logged.append
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

        async def work(reactor: Any) -> None:
            events = {name: Deferred[Any]() for name in (event, "lost")}
            protocol_class = type("Watched", (Pushed,), {"events": events})
            factory = StreamServerFactory(reactor, protocol_class, upgrade=upgrade)
            port = await factory.listen((make_endpoint or any_port)(reactor))
            pool = reactor.getThreadPool()
            with await deferToThreadPool(reactor, pool, peer, address_of(port)):
                protocol = await events[event]
                prepare(protocol)
                await turns(reactor)
                unsent = [0]
                for number in range(ENOUGH):
                    push(protocol)
                    if not protocol.is_open:
                        break
                    unsent.append(protocol.unsent)
                    if not number % 8:
                        await turns(reactor, 1)
                self.assertGreaterEqual(unsent[-1], MAX_UNSENT)
                # Encrypted bytes are a few more.
                self.assertLess(max(unsent), MAX_UNSENT + 2 * len(FRAME))
                self.assertFalse(protocol.is_full)
                self.assertIsInstance(await events["lost"], BrokenError)
                self.assertEqual(protocol.unsent, 0)
            stopping: Any = port.stopListening()
            await stopping
            self.assertEqual(factory.counters.unsent_limit_aborts, 1)

        self.conduct(work)
        warnings = [event for event in logged if event["log_level"].name == "warn"]
        self.assertEqual([event["limit"] for event in warnings], [MAX_UNSENT])

    @on_every_reactor
    def test_in_plaintext_a_push_above_the_bound_aborts(self) -> None:
        """The push that crosses `max_unsent` is queued; the next one aborts."""
        self.push_to(silent)

    def test_on_unix_sockets_a_push_above_the_bound_aborts(self) -> None:
        """A peer without an address has the same bound."""
        with TemporaryDirectory() as folder:
            path = str(Path(folder, "socket"))
            self.push_to(silent_on_unix, lambda reactor: UNIXServerEndpoint(reactor, path))

    def test_writes_to_the_transport_above_the_bound_abort(self) -> None:
        """Bytes written to the transport itself count as messages do."""
        self.push_to(silent, push=lambda protocol: protocol.transport.write(FRAME))
        self.push_to(silent, push=lambda protocol: protocol.transport.writeSequence([FRAME]))

    def test_on_a_tls_endpoint_a_push_above_the_bound_aborts(self) -> None:
        """Bytes that wait encrypted count."""
        self.push_to(secure, tls_endpoint)

    def test_on_a_tls_endpoint_before_the_handshake_a_push_above_the_bound_aborts(self) -> None:
        """Bytes that the TLS engine holds for a silent peer count."""
        self.push_to(silent, tls_endpoint)

    def test_under_tls_of_the_application_a_push_above_the_bound_aborts(self) -> None:
        """Bytes in an engine of Twisted that was started later count."""
        options = twisted_options(PEM)
        self.push_to(silent, prepare=lambda protocol: protocol.transport.startTLS(options))

    @on_every_reactor
    def test_after_an_upgrade_a_push_above_the_bound_aborts(self) -> None:
        """Bytes that wait below the TLS engine count."""
        self.push_to(upgraded, upgrade=UPGRADE, event="secured")

    def test_during_a_handshake_a_push_above_the_bound_aborts(self) -> None:
        """Bytes for a peer that asked for TLS and sends no more count."""
        self.push_to(without_a_hello, upgrade=UPGRADE)


class Mutual(FrameProtocol):
    """Pushes many bytes to its peer, and reads the peer's pushes."""

    max_unsent = 1 << 30
    count = 100
    received = 0
    done: Deferred[None]
    #: Both ends.
    made: ClassVar[list[Any]]

    def connection_made(self) -> None:
        self.done = Deferred()
        self.made.append(self)

    def push(self) -> None:
        shrink(self.transport)
        for _ in range(self.count):
            self.send_frame(FRAME * 4)

    def frame_received(self, payload: bytes) -> None:
        self.received += 1
        if self.received == self.count:
            self.done.callback(None)


class MutualTests(OnEveryReactor):
    """Two ends that push to each other, and answer nothing."""

    has_variants = True

    def exchange(
        self,
        server: Callable[[Any], Any],
        client: Callable[[Any, int], Any],
        is_secure: bool = False,
    ) -> None:
        """
        Let both push more than the kernel takes, before either reads; require that all arrives.
        """

        async def work(reactor: Any) -> None:
            ends: list[Any] = []
            protocol_class = type("Met", (Mutual,), {"made": ends})
            factory = StreamServerFactory(reactor, protocol_class)
            port: Any = await factory.listen(server(reactor))
            connecting = client(reactor, port.getHost().port)
            near = await connecting.connect(Factory.forProtocol(protocol_class))
            while len(ends) < 2 or {end.is_secure for end in ends} != {is_secure}:
                await turns(reactor, 1)
            for end in ends:
                end.push()
            for end in ends:
                await end.done
            near.close()
            while len(factory.group):
                await turns(reactor, 1)
            await port.stopListening()

        self.conduct(work)

    @on_every_reactor
    def test_mutual_pushes_in_plaintext_all_arrive(self) -> None:
        """Neither end waits for the other to read."""
        self.exchange(
            any_port, lambda reactor, port: TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        )

    def test_mutual_pushes_under_tls_all_arrive(self) -> None:
        """As in plaintext."""
        root = PublicCertificate.loadPEM(AUTHORITY.cert_pem.bytes())
        options = optionsForClientTLS("localhost", trustRootFromCertificates([root]))
        self.exchange(
            tls_endpoint,
            lambda reactor, port: SSL4ClientEndpoint(reactor, "127.0.0.1", port, options),
            is_secure=True,
        )


def shrink(transport: Any) -> None:
    """Make the kernel's send buffer small."""
    while hasattr(transport, "transport"):
        transport = transport.transport
    transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def any_port(reactor: Any) -> Any:
    return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")


def tls_endpoint(reactor: Any) -> Any:
    options = twisted_options(PEM)
    return SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")


def address_of(port: Any) -> Any:
    host = port.getHost()
    return host.name if hasattr(host, "name") else (host.host, host.port)


for _case in (PushTests, MutualTests):
    globals().update(_case.makeTestCaseClasses())
