"""
The limit on the bytes of all connections, under many hostile peers: protocols and sockets.

The limits are small here, and so are the kernel's buffers, which would hide what waits behind them.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogPublisher

from tests.loopback.contract import OnEveryReactor
from tests.loopback.reactors import on_every_reactor, receive_exactly
from tests.loopback.test_unread_output import PEM, UPGRADE, shrink
from tests.tls.peer import trusting
from twsock import BrokenError, SocketError, SocketProtectionLevel, StreamSocketListener
from twsock.protocols import FrameEcho, LineEcho, StreamServerFactory, UpgradePolicy, UpgradeToSsl
from twsock.stream.protocol import StreamProtocol
from twsock.tls import Certificate, ServerOptions
from twsock.wire import encode_frame

LIMIT = 1024 * 1024
#: The bytes that each attacker makes the server hold, a tenth of the limit.
LARGE = 100_000
ATTACKERS = 20
IMPLICIT = UpgradeToSsl(UPGRADE.tls, UpgradePolicy.IMPLICIT)

Address = tuple[str, int]
Attack = Callable[[socket.socket], object]


def send_a_part(connection: socket.socket) -> None:
    """Send a frame without its last bytes."""
    connection.sendall(encode_frame(bytes(LARGE))[:-1])


def send_a_part_of_a_line(connection: socket.socket) -> None:
    connection.sendall(bytes(LARGE))


def send_and_never_read(connection: socket.socket) -> None:
    """Send frames, and do not read the echoes."""
    connection.sendall(encode_frame(bytes(LARGE)) * 2)


def connect(address: Address, tls: ssl.SSLContext | None = None) -> socket.socket:
    """Connect, with small buffers of the kernel."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(address)
    return connection if tls is None else tls.wrap_socket(connection, server_hostname="localhost")


class Measured(StreamProtocol):
    """Adds up what all connections hold, after each read."""

    open_ones: ClassVar[set[StreamProtocol]]
    sums: ClassVar[list[int]]

    def connectionMade(self) -> None:
        shrink(self._transport)
        self.open_ones.add(self)
        super().connectionMade()

    def connection_lost(self, error: SocketError | None) -> None:
        self.open_ones.discard(self)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.sums.append(sum(one.buffered for one in self.open_ones))


class Crowds(OnEveryReactor):
    """What all tests of the limit share."""

    has_variants = True

    @contextmanager
    def warnings(self) -> Iterator[list[Any]]:
        logged: list[Any] = []

        def note(event: Any) -> None:
            if event["log_level"].name == "warn":
                logged.append(event)

        observer: Any = note
        globalLogPublisher.addObserver(observer)
        try:
            yield logged
        finally:
            globalLogPublisher.removeObserver(observer)

    def crowd(
        self,
        address: Address,
        attack: Attack,
        hello: bytes,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Attack with one connection after the other, while an honest one continues."""
        with ExitStack() as stack:
            honest = stack.enter_context(connect(address, tls))
            for attempt in range(ATTACKERS):
                attacker = stack.enter_context(connect(address, tls))
                # This attacker may be reset, or another one.
                with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                    attack(attacker)
                honest.sendall(hello)
                self.assertEqual(receive_exactly(honest, len(hello)), hello, f"{attempt=}")


class ProtocolTests(Crowds):
    """The connections of a factory."""

    def serve(
        self,
        attack: Attack,
        protocol: type[StreamProtocol] = FrameEcho,
        hello: bytes = encode_frame(b"Hello"),
        upgrade: UpgradeToSsl | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Let echoes be attacked; the sum stays within the limit, and each abort is one event."""
        measured: Any = type("MeasuredEcho", (Measured, protocol), {"open_ones": set(), "sums": []})

        async def work(reactor: Any) -> None:
            factory = StreamServerFactory(
                reactor, measured, max_buffered=LIMIT, max_payload=2 * LARGE, upgrade=upgrade
            )
            port: Any = await factory.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
            address = "127.0.0.1", port.getHost().port
            pool = reactor.getThreadPool()
            await deferToThreadPool(reactor, pool, self.crowd, address, attack, hello, tls)
            while len(factory.group):
                await deferLater(reactor, 0.001)
            await port.stopListening()
            self.assertGreaterEqual(
                factory.counters.buffer_limit_aborts, ATTACKERS - LIMIT // LARGE - 1
            )
            self.assertLess(factory.counters.buffer_limit_aborts, ATTACKERS)
            self.assertEqual(factory.counters.accepted, ATTACKERS + 1)
            limit = factory.group.buffer_limit
            assert limit is not None
            self.assertEqual(limit.total, 0)
            self.assertEqual(len(warnings), factory.counters.buffer_limit_aborts)

        with self.warnings() as warnings:
            self.conduct(work)
        self.assertLessEqual(max(measured.sums), LIMIT)
        self.assertGreater(max(measured.sums), LIMIT - 3 * LARGE)
        for event in warnings:
            self.assertGreater(event["buffered"], LARGE // 2, f"{event=}")

    def test_above_the_limit_the_largest_partial_message_is_aborted(self) -> None:
        """The honest connection continues."""
        self.serve(send_a_part)
        self.serve(send_a_part_of_a_line, LineEcho, b"Hello\r\n")

    @on_every_reactor
    def test_unread_answers_count(self) -> None:
        """Output counts as input does."""
        self.serve(send_and_never_read)

    def test_under_tls_queued_and_decrypted_bytes_count(self) -> None:
        """Below the engine, and above it."""
        for attack in (send_a_part, send_and_never_read):
            self.serve(attack, upgrade=IMPLICIT, tls=trusting())


class SocketTests(Crowds):
    """The connections of a listener."""

    def serve(
        self, attack: Attack, handle: Callable[[Any], Any], tls: ServerOptions | None = None
    ) -> None:
        """Let sockets be attacked; the sum stays within the limit, and each abort is one event."""
        sums: list[int] = []
        reasons: list[str] = []

        async def handler(listener: StreamSocketListener, args: Any) -> None:
            try:
                await handle(args.socket)
            except BrokenError as error:
                reasons.append(str(error))
            finally:
                args.socket.abort()

        def measure(listener: StreamSocketListener) -> None:
            sums.append(
                sum(
                    each.input_stream.buffered + each.output_stream.unsent
                    for each in listener.sockets
                )
            )

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor, max_buffered=LIMIT, tls=tls)
            listener.control.outbound_buffer_size_in_bytes = 4096
            listener.connection_received.add(handler)
            await listener.bind_endpoint("127.0.0.1", "")
            address = "127.0.0.1", int(listener.information.local_port)
            pool = reactor.getThreadPool()
            hello = encode_frame(b"Hello")
            context = None if tls is None else trusting()
            done = deferToThreadPool(reactor, pool, self.crowd, address, attack, hello, context)
            while not done.called:
                measure(listener)
                await deferLater(reactor, 0)
            await done
            while len(listener):
                await deferLater(reactor, 0.001)
            await listener.close()

        with self.warnings() as warnings:
            self.conduct(work)
        aborted = [event for event in warnings if "total" in event]
        self.assertIn(len(aborted), range(ATTACKERS - LIMIT // LARGE - 1, ATTACKERS))
        told = [reason for reason in reasons if f"limit is {LIMIT}" in reason]
        self.assertEqual(len(told), len(aborted))
        self.assertLessEqual(max(sums), LIMIT)
        for event in aborted:
            self.assertGreater(event["buffered"], LARGE // 2, f"{event=}")

    @on_every_reactor
    def test_bytes_of_an_unfinished_read_count(self) -> None:
        """They were received for a read that is not complete."""
        self.serve(send_a_part, echo)

    def test_unread_writes_count(self) -> None:
        """Written bytes count until the kernel has them."""
        self.serve(send_and_never_read, echo)

    def test_writes_that_wait_for_a_handshake_count(self) -> None:
        """The peer sends no ClientHello, and the engine holds them."""
        most: list[int] = []

        async def write(accepted: Any, reactor: Any) -> None:
            certificate = Certificate.from_pem(PEM)
            level = SocketProtectionLevel.SSL
            upgrading = accepted.upgrade_to_ssl(level, certificate=certificate)
            upgrading.addErrback(lambda _: None)
            while accepted.is_open:
                writing = accepted.output_stream.write(bytes(LARGE))
                writing.addErrback(lambda _: None)
                most.append(accepted.output_stream.unsent)
                await deferLater(reactor, 0)

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor, max_buffered=LIMIT)
            await listener.bind_endpoint("127.0.0.1", "")
            with connect(("127.0.0.1", int(listener.information.local_port))):
                await write(await listener.accept(), reactor)
            await listener.close()

        with self.warnings() as warnings:
            self.conduct(work)
        self.assertEqual(len([event for event in warnings if "total" in event]), 1)
        self.assertIn(max(most), range(LIMIT, LIMIT + 2 * LARGE))

    def test_under_tls_unread_writes_count(self) -> None:
        """As in plaintext."""
        options = ServerOptions([Certificate.from_pem(PEM)])
        self.serve(send_a_part, echo, options)
        self.serve(send_and_never_read, echo, options)


async def echo(connection: Any) -> None:
    """Send frames back without awaiting the writes."""
    while header := await connection.input_stream.read(4):
        size = int.from_bytes(header, "big")
        payload = await connection.input_stream.receive_exactly(size)
        connection.output_stream.write(header + payload).addErrback(lambda _: None)


for _case in (ProtocolTests, SocketTests):
    globals().update(_case.makeTestCaseClasses())
