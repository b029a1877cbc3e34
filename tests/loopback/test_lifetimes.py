"""
Nothing outlives its connection: buffers are freed at its loss, objects with the last reference.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, ReconnectingClientFactory
from twisted.internet.task import deferLater

from tests.lifetimes import Lifetimes
from tests.loopback.contract import OnEveryReactor, turns
from tests.loopback.reactors import on_every_reactor
from tests.tls.peer import AUTHORITY, SERVER
from twsock import (
    DatagramSocket,
    HostName,
    RemoteProtocolError,
    SocketError,
    SocketProtectionLevel,
    StreamSocket,
    StreamSocketListener,
)
from twsock.datagram.port import listen_datagrams
from twsock.protocols import DatagramEcho, FrameProtocol, LineProtocol, StreamServerFactory
from twsock.stream.client_upgrade import ClientUpgrade, UpgradeStyle
from twsock.stream.upgrade import UpgradePolicy, UpgradeToSsl
from twsock.tls.certificates import Certificate
from twsock.tls.client import ClientOptions
from twsock.tls.levels import choose_versions
from twsock.tls.server import ServerOptions, ServerTls

MIB = 1024 * 1024
CERTIFICATE = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
ROOT = Certificate.from_pem(AUTHORITY.cert_pem.bytes())
OPTIONS = ServerOptions([CERTIFICATE])
TLS = SocketProtectionLevel.TLS12
REQUEST = struct.pack(">I", 8) + b"STARTTLS"
#: A frame of 4 MiB without its last byte.
PARTIAL = struct.pack(">I", 4 * MIB) + bytes(4 * MIB - 1)

Converse = Callable[[int], Awaitable[None]]
Serve = Callable[[Any], AbstractAsyncContextManager[int]]


class Frames(FrameProtocol):
    """Handles frames in several ways, and keeps nothing."""

    async def frame_received(self, payload: bytes) -> None:
        """Raise, answer, or wait to be cancelled."""
        if payload == b"raise":
            raise ValueError("wrong")
        if payload == b"refuse":
            raise RemoteProtocolError("refused")
        if payload == b"wait":
            await Deferred()
        self.send_frame(payload)


class Lines(LineProtocol):
    """Handles lines at once, and keeps nothing."""

    def line_received(self, line: bytes) -> None:
        """Raise or answer."""
        if line == b"raise":
            raise ValueError("wrong")
        self.send_line(line)


class Client(FrameProtocol):
    """The client of an upgrade."""

    def __init__(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def frame_received(self, payload: bytes) -> None:
        """Ignore the frame."""

    def connection_lost(self, error: SocketError | None) -> None:
        """Record the end."""
        self.lost.callback(None)


async def all_ended(reactor: Any, group: Any) -> None:
    """Wait until a server has no connection left."""
    while len(group):
        await deferLater(reactor, 0.005)


def protocol(
    kind: type[FrameProtocol | LineProtocol], policy: UpgradePolicy = UpgradePolicy.OFF
) -> Serve:
    """Serve a protocol."""

    @asynccontextmanager
    async def serve(reactor: Any) -> Any:
        upgrade = UpgradeToSsl(ServerTls(OPTIONS), policy)
        factory = StreamServerFactory(reactor, kind, upgrade=upgrade)
        port: Any = await factory.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        serving.ended = lambda: all_ended(reactor, factory.group)
        yield port.getHost().port
        await factory.drain(1)
        await port.stopListening()

    serving: Any = serve
    return serve


def listener(handler: Callable[[StreamSocket], Any], tls: ServerOptions | None = None) -> Serve:
    """Serve sockets."""

    @asynccontextmanager
    async def serve(reactor: Any) -> Any:
        listening = StreamSocketListener(reactor, tls=tls)
        listening.connection_received.add(lambda _, args: handler(args.socket))
        await listening.bind_endpoint("127.0.0.1", "")
        serving.ended = lambda: all_ended(reactor, listening)
        yield int(listening.information.local_port)
        await listening.close_all(1)

    serving: Any = serve
    return serve


class LifetimeTests(OnEveryReactor):
    """Conversations after which no object of them may be left."""

    has_variants = True

    def check(self, serve: Any, converse: Converse, permitted: str = "") -> None:
        """
        Converse several times with a server that stays; fail on any object or buffer that is left.

        :param permitted: the name of a class of Twisted with cycles that twsock can't break.
        """

        async def work(reactor: Any) -> None:
            self.reactor = reactor
            async with serve(reactor) as port:
                # Objects that exist once are made now.
                await self.converse_once(serve, converse, port)
                lifetimes = Lifetimes()
                try:
                    left = await lifetimes.settle(
                        lambda: self.converse_times(3, serve, converse, port), MIB
                    )
                    retained = lifetimes.retained_objects()
                    retained.pop(permitted, None)
                    self.assertEqual(retained, {})
                    self.assertLess(left, MIB)
                finally:
                    lifetimes.stop()

        self.conduct(work)

    async def converse_times(self, count: int, serve: Any, converse: Converse, port: int) -> None:
        for _ in range(count):
            await self.converse_once(serve, converse, port)

    async def converse_once(self, serve: Any, converse: Converse, port: int) -> None:
        await converse(port)
        await serve.ended()
        await turns(self.reactor)

    async def connect(
        self, port: int, is_secure: bool = False, trusts: bool = True
    ) -> StreamSocket:
        peer = StreamSocket(self.reactor)
        if trusts:
            peer.control.trust_roots = [ROOT]
        if is_secure:
            await peer.connect("127.0.0.1", port, TLS)
        else:
            await peer.connect("127.0.0.1", port)
        return peer

    def sends(
        self, *pieces: bytes, ending: str = "abort", is_secure: bool = False, asks: bytes = b""
    ) -> Converse:
        """Make a peer that sends bytes, and then ends."""

        async def converse(port: int) -> None:
            peer = await self.connect(port, is_secure and not asks)
            if asks:
                await peer.output_stream.write(asks)
                await peer.input_stream.receive_exactly(6)
                await peer.upgrade_to_ssl(TLS, "127.0.0.1")
            for piece in pieces:
                await peer.output_stream.write(piece)
                await turns(self.reactor)
            await getattr(peer, ending)()
            await peer.wait_closed()

        return converse


class ProtocolLifetimes(LifetimeTests):
    """Connections of protocols."""

    @on_every_reactor
    def test_a_loss_in_the_middle_of_a_frame_leaves_nothing(self) -> None:
        """A reset or an end, with most of a frame received."""
        for ending in ("abort", "close"):
            self.check(protocol(Frames), self.sends(PARTIAL, ending=ending))

    def test_a_loss_in_the_middle_of_a_line_leaves_nothing(self) -> None:
        """A reset or an end, with most of a line received."""
        self.check(protocol(Lines), self.sends(b"x" * 60_000))

    def test_a_cancelled_handler_leaves_nothing(self) -> None:
        """Its error is consumed."""
        self.check(protocol(Frames), self.sends(b"\0\0\0\4wait"))

    def test_a_handler_that_raises_leaves_nothing(self) -> None:
        """An error that refers to the connection, or a violation; at once and in a coroutine."""
        self.check(protocol(Frames), self.sends(b"\0\0\0\5raise"))
        self.check(protocol(Lines), self.sends(b"raise\n"))
        self.check(protocol(Frames), self.sends(b"\0\0\0\6refuse"))
        self.check(protocol(Frames), self.sends(b"\xff\xff\xff\xff"))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 8)

    def test_tls_from_the_first_byte_leaves_nothing(self) -> None:
        """At both ends, for each kind of end."""
        for ending in ("abort", "close"):
            self.check(
                protocol(Frames, UpgradePolicy.IMPLICIT),
                self.sends(PARTIAL, ending=ending, is_secure=True),
            )

    def test_an_upgrade_on_request_leaves_nothing(self) -> None:
        """Also under a handler."""
        for piece in (PARTIAL, b"\0\0\0\4wait"):
            self.check(protocol(Frames, UpgradePolicy.ALLOWED), self.sends(piece, asks=REQUEST))

    def test_an_unfinished_handshake_leaves_nothing(self) -> None:
        """Plaintext in its place, or a client that goes away."""
        serve = protocol(Frames, UpgradePolicy.IMPLICIT)
        self.check(serve, self.sends(b"GET / HTTP/1.0\r\n"))
        self.check(serve, self.sends(b"\x16\x03\x01"))

    def test_a_failed_handshake_leaves_nothing(self) -> None:
        """The client does not trust the server; at both ends."""

        async def converse(port: int) -> None:
            try:
                await self.connect(port, is_secure=True, trusts=False)
            except SocketError:
                return
            self.fail("it was trusted")

        self.check(protocol(Frames, UpgradePolicy.IMPLICIT), converse)

    def test_a_client_protocol_leaves_nothing(self) -> None:
        """Its upgrade succeeds, meets an untrusted server, or is refused."""
        for roots, policy in (
            ([ROOT], UpgradePolicy.ALLOWED),
            (None, UpgradePolicy.ALLOWED),
            ([ROOT], UpgradePolicy.OFF),
        ):
            versions = choose_versions(TLS, TLS)
            options = ClientOptions(versions, HostName("127.0.0.1"), roots)
            settings = ClientUpgrade(options, style=UpgradeStyle.COMMAND)

            async def converse(port: int, settings: ClientUpgrade = settings) -> None:
                endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
                client: Any = await endpoint.connect(Factory.forProtocol(Client))
                try:
                    await client.upgrade_to_ssl(settings)
                    client.transport.write(b"\0\0\0\1x")
                    client.close()
                except SocketError:
                    pass
                await client.lost

            self.check(protocol(Frames, policy), converse)

    def test_a_client_that_reconnects_leaves_nothing(self) -> None:
        """Its factory continues with the connector of the lost connection."""

        async def converse(port: int) -> None:
            factory: Any = ReconnectingClientFactory()
            factory.noisy, factory.delay = False, 0.001
            made: list[FrameProtocol] = []
            third: Deferred[None] = Deferred()

            class Short(FrameProtocol):
                def connection_made(self) -> None:
                    made.append(self)
                    if len(made) == 3:
                        factory.stopTrying()
                        third.callback(None)
                    self.abort()

            factory.protocol = Short
            factory._connector = connector = self.reactor.connectTCP("127.0.0.1", port, factory)
            await third
            await turns(self.reactor)
            self.assertIs(factory._connector, connector)
            factory._connector = factory.connector = connector.factory = None
            Short.connection_made = None  # type: ignore[assignment,method-assign]

        self.check(protocol(Frames), converse)

    def test_buffers_of_kept_protocols_are_freed(self) -> None:
        """Undelivered input and unsent output, also those of a TLS engine."""
        kept: list[Frames] = []

        class Kept(Frames):
            def connection_made(self) -> None:
                kept.append(self)
                self.send_frame(bytes(8 * MIB))

        for policy in (UpgradePolicy.OFF, UpgradePolicy.IMPLICIT):
            is_secure = policy is UpgradePolicy.IMPLICIT

            async def work(
                reactor: Any, policy: UpgradePolicy = policy, is_secure: bool = is_secure
            ) -> None:
                self.reactor = reactor
                serve: Any = protocol(Kept, policy)
                async with serve(reactor) as port:
                    sends = self.sends(PARTIAL, is_secure=is_secure)
                    await self.converse_once(serve, sends, port)
                    lifetimes = Lifetimes()
                    try:
                        left = await lifetimes.settle(
                            lambda: self.converse_times(5, serve, sends, port), 2 * MIB
                        )
                        self.assertEqual((len(kept) > 1, len(kept) % 5), (True, 1))
                        self.assertLess(left, 2 * MIB)
                    finally:
                        lifetimes.stop()
                kept.clear()

            self.conduct(work)


async def read(stream_socket: StreamSocket) -> None:
    """Wait for more bytes than arrive."""
    await stream_socket.input_stream.receive_exactly(8 * MIB)


async def read_in_a_block(stream_socket: StreamSocket) -> None:
    """Do so in a block that closes the socket."""
    async with stream_socket:
        await stream_socket.input_stream.receive_exactly(8 * MIB)


async def read_and_catch(stream_socket: StreamSocket) -> None:
    """Catch the error twice: the second read fails at once."""
    for _ in range(2):
        try:
            await stream_socket.input_stream.receive_exactly(8 * MIB)
        except SocketError:
            pass
    await stream_socket.close()


async def write_much(stream_socket: StreamSocket) -> None:
    """Write more than the kernel takes, with and without awaiting it."""
    for _ in range(4):
        stream_socket.output_stream.write(bytes(4 * MIB))
    await stream_socket.output_stream.flush()


class SocketLifetimes(LifetimeTests):
    """Connections of awaitable sockets."""

    @on_every_reactor
    def test_a_pending_read_or_write_leaves_nothing(self) -> None:
        """The handler fails, or catches the error."""
        for handler in (read, read_in_a_block, read_and_catch):
            self.check(listener(handler), self.sends(PARTIAL))
        self.check(listener(write_much), self.sends(b"x"))

    def test_a_peer_that_ends_in_order_leaves_nothing(self) -> None:
        """It ends before the read is complete."""
        for handler in (read, read_in_a_block, read_and_catch):
            self.check(listener(handler), self.sends(b"x", ending="close"))

    def test_tls_from_the_first_byte_leaves_nothing(self) -> None:
        """At both ends."""
        for ending in ("abort", "close"):
            self.check(
                listener(read_in_a_block, OPTIONS),
                self.sends(PARTIAL, ending=ending, is_secure=True),
            )

    def test_an_upgrade_leaves_nothing(self) -> None:
        """If it succeeds, and if it fails."""

        async def upgrade(stream_socket: StreamSocket) -> None:
            await stream_socket.upgrade_to_ssl(TLS, certificate=CERTIFICATE)
            await stream_socket.input_stream.receive_exactly(8 * MIB)

        for trusts in (True, False):

            async def converse(port: int, trusts: bool = trusts) -> None:
                peer = await self.connect(port, trusts=trusts)
                waiting = peer.wait_closed()
                try:
                    await peer.upgrade_to_ssl(TLS, "127.0.0.1")
                    await peer.output_stream.write(PARTIAL)
                    await peer.abort()
                except SocketError:
                    pass
                await waiting

            self.check(listener(upgrade), converse)

    def test_a_failed_connect_leaves_nothing(self) -> None:
        """No server listens, or the connect is cancelled."""

        async def converse(port: int) -> None:
            for is_cancelled in (True, False):
                connecting = StreamSocket(self.reactor).connect("127.0.0.1", 1)
                if is_cancelled:
                    connecting.cancel()
                try:
                    await connecting
                except (SocketError, CancelledError):
                    pass

        # A failed attempt keeps a method of its own as an attribute.
        self.check(listener(read), converse, permitted="twisted.internet.tcp.Client")

    def test_buffers_of_closed_sockets_are_freed(self) -> None:
        """Until the close, received bytes can be read."""
        kept: list[StreamSocket] = []

        async def keep(stream_socket: StreamSocket) -> None:
            kept.append(stream_socket)
            stream_socket.output_stream.write(bytes(8 * MIB))
            async with stream_socket:
                await stream_socket.input_stream.receive_exactly(8 * MIB)

        async def work(reactor: Any) -> None:
            self.reactor = reactor
            serve: Any = listener(keep)
            async with serve(reactor) as port:
                lifetimes = Lifetimes()
                try:
                    left = await lifetimes.settle(
                        lambda: self.converse_times(10, serve, self.sends(PARTIAL), port), 4 * MIB
                    )
                    self.assertEqual((len(kept) > 0, len(kept) % 10), (True, 0))
                    self.assertLess(left, 4 * MIB)
                finally:
                    lifetimes.stop()
            kept.clear()

        self.conduct(work)


@asynccontextmanager
async def serve_nothing(_reactor: Any) -> Any:
    """Serve nothing."""
    yield 0


async def at_once() -> None:
    """Return at once."""


nothing: Any = serve_nothing
nothing.ended = at_once


class DatagramLifetimes(LifetimeTests):
    """Datagram sockets and ports, which end when they are closed."""

    def exchange(self, *, has_handlers: bool = False) -> Converse:
        """Make two sockets that send, and are closed while calls are pending."""

        async def converse(_port: int) -> None:
            server, client = DatagramSocket(self.reactor), DatagramSocket(self.reactor)
            if has_handlers:

                async def answer(_socket: DatagramSocket, args: Any) -> None:
                    await args.reply(args.data)
                    raise ValueError("wrong")

                server.message_received.add(answer)
            await server.bind_endpoint("127.0.0.1", "")
            await client.connect("127.0.0.1", server.information.local_port)
            await client.output_stream.write(bytes(60_000))
            await (client if has_handlers else server).receive_from()
            pending = client.receive_from()
            for _ in range(100):
                client.output_stream.write(bytes(60_000))
            flushing = client.output_stream.flush()
            await client.close()
            await server.close()
            for operation in (pending, flushing, client.output_stream.write(b"x")):
                try:
                    await operation
                except SocketError:
                    pass

        return converse

    @on_every_reactor
    def test_pending_calls_of_a_closed_socket_leave_nothing(self) -> None:
        """Reads, writes and flushes; awaited afterwards, or never."""
        self.check(nothing, self.exchange())

    def test_handlers_of_datagrams_leave_nothing(self) -> None:
        """They answer, or raise."""
        self.check(nothing, self.exchange(has_handlers=True))
        self.flushLoggedErrors(ValueError)

    def test_a_refused_datagram_leaves_nothing(self) -> None:
        """A message reports it; reading that message raises an error each time."""

        async def converse(_port: int) -> None:
            client = DatagramSocket(self.reactor)
            await client.connect("127.0.0.1", 1)
            await client.output_stream.write(b"x")
            message = await client.receive()
            for _ in range(2):
                try:
                    self.fail(message.data.decode())
                except SocketError:
                    pass
            await client.close()

        self.check(nothing, converse)

    def test_a_port_of_a_protocol_leaves_nothing(self) -> None:
        """It is stopped after it has answered."""

        async def converse(_port: int) -> None:
            port = listen_datagrams(self.reactor, DatagramEcho(), 0, "127.0.0.1")
            async with DatagramSocket(self.reactor) as client:
                await client.connect("127.0.0.1", port.getHost().port)
                await client.output_stream.write(b"x")
                await client.receive_from()
            port.stopListening()

        self.check(nothing, converse)

    def test_a_joined_group_leaves_nothing(self) -> None:
        """Nor does the watch of its interface."""

        async def converse(_port: int) -> None:
            member = DatagramSocket(self.reactor)
            member.control.multicast_only = True
            await member.bind_service_name("", "lo")
            member.join_multicast_group("224.3.0.99")
            await member.close()

        self.check(nothing, converse)


class PlantedCycles(LifetimeTests):
    """The check itself: it finds what a test plants."""

    def plant(self, plant: Callable[[StreamSocket], object]) -> str:
        """Converse with a handler that leaves objects behind; return what the check finds."""

        async def handle(stream_socket: StreamSocket) -> None:
            try:
                await stream_socket.input_stream.receive_exactly(8 * MIB)
            except SocketError:
                plant(stream_socket)
                raise

        return str(
            self.assertRaises(AssertionError, self.check, listener(handle), self.sends(PARTIAL))
        )

    @on_every_reactor
    def test_a_cycle_is_found(self) -> None:
        """A list that refers to itself and to a connection."""

        def plant(stream_socket: StreamSocket) -> None:
            cycle: list[object] = [stream_socket]
            cycle.append(cycle)

        self.assertIn("StreamSocket", self.plant(plant))

    def test_an_exception_in_its_own_frame_is_found(self) -> None:
        """A local variable that is not deleted."""

        def plant(stream_socket: StreamSocket) -> None:
            try:
                raise ValueError(stream_socket)
            except ValueError as error:
                kept = error  # noqa: F841 - the cycle: the frame, the error, its traceback

        self.assertIn("StreamSocket", self.plant(plant))

    def test_kept_bytes_are_found(self) -> None:
        """An application could keep them."""
        kept: list[bytes] = []
        self.assertIn("not less than", self.plant(lambda _: kept.append(bytes(MIB))))


for case in (ProtocolLifetimes, SocketLifetimes, DatagramLifetimes, PlantedCycles):
    globals().update(case.makeTestCaseClasses())
