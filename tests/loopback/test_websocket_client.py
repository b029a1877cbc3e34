"""WebSockets of clients on real connections: our own server, ``websockets``, and raw servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import (
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.portforward import ProxyFactory
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets

from tests.lifetimes import Lifetimes
from tests.loopback.contract import OnEveryReactor, failure_of, turns
from tests.loopback.reactors import on_every_reactor
from tests.tls.peer import AUTHORITY, SERVER, twisted_options
from twsock import (
    BrokenError,
    Certificate,
    ChainValidationResult,
    ClosedError,
    DataWriter,
    MessageWebSocket,
    MessageWebSocketReceiveMode,
    SocketMessageType,
    StreamWebSocket,
    WebErrorStatus,
    WebSocketClosedError,
    WebSocketError,
)
from twsock.protocols import (
    UpgradePolicy,
    UpgradeToSsl,
    WebSocketEcho,
    WebSocketFactory,
    WebSocketProtocol,
)
from twsock.tls import ClientCertificatePolicy, ServerOptions, ServerTls
from twsock.websocket import DeflateSettings

MIB = 1024 * 1024
CERTIFICATE = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
ROOT = Certificate.from_pem(AUTHORITY.cert_pem.bytes())
CLIENT = Certificate.from_pem(
    AUTHORITY.issue_cert("client@example.com").private_key_and_cert_chain_pem.bytes()
)


def secured(options: ServerOptions | None = None) -> UpgradeToSsl:
    """Return TLS from the first byte."""
    made = options or ServerOptions([CERTIFICATE])
    return UpgradeToSsl(ServerTls(made), UpgradePolicy.IMPLICIT)


class SampleServer(WebSocketProtocol):
    """Answers as the server of the official sample does."""

    def connection_made(self) -> None:
        self.send_text("EchoWebSocket Connected at: today")

    def text_received(self, text: str) -> None:
        self.send_text(f'You said: "{text}"')

    def binary_received(self, data: bytes) -> None:
        self.send_text(f"binary message received, size={len(data)} bytes")


class Sending(WebSocketProtocol):
    """Sends messages until the client reads no more."""

    made: list[Sending] = []
    sent = 0

    def connection_made(self) -> None:
        Sending.made.append(self)
        self.clock.callLater(0, self.writing_resumed)

    def writing_resumed(self) -> None:
        while not self.is_full and self.sent < 10_000:
            self.sent += 1
            self.send_binary(bytes(10_000))


class Tunnelled(Protocol):
    """The far side of a tunnel."""

    transport: Any

    def __init__(self, near: Proxying) -> None:
        self.near = near

    def dataReceived(self, data: bytes) -> None:
        self.near.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.near.transport.loseConnection()


class Proxying(Protocol):
    """An HTTP proxy that connects to any port of this machine."""

    transport: Any
    factory: Any
    far: Tunnelled | None = None
    requests: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        if self.far is not None:
            self.far.transport.write(data)
            return
        self.requests.append(data)
        port = int(data.split()[1].rpartition(b":")[2])
        endpoint = TCP4ClientEndpoint(self.factory.reactor, "127.0.0.1", port)
        connecting: Any = connectProtocol(endpoint, Tunnelled(self))
        connecting.addCallback(self.connected_to)

    def connected_to(self, far: Tunnelled) -> None:
        """Answer the request."""
        self.far = far
        self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def connectionLost(self, reason: Any = None) -> None:
        if self.far is not None:
            self.far.transport.loseConnection()


async def listen_as_proxy(reactor: Any, *, is_secure: bool) -> Any:
    """Start a proxy on 127.0.0.1; return its port."""
    factory: Any = Factory.forProtocol(Proxying)
    factory.reactor = reactor
    if not is_secure:
        return await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    options = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
    return await SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1").listen(factory)


class ClientTests(OnEveryReactor):
    """One client and one server on one reactor."""

    has_variants = True

    def use(
        self,
        work: Callable[[Any, int], Awaitable[None]],
        protocol: type[WebSocketProtocol] = WebSocketEcho,
        **settings: Any,
    ) -> None:
        """Serve a protocol on 127.0.0.1 while a coroutine runs with the port number."""

        async def serve(reactor: Any) -> None:
            factory = WebSocketFactory(reactor, protocol, **settings)
            endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            port: Any = await factory.listen(endpoint)
            await work(reactor, port.getHost().port)
            await factory.drain(1)
            await port.stopListening()
            await turns(reactor)

        self.conduct(serve)


class ConversationTests(ClientTests):
    """Messages and streams."""

    @on_every_reactor
    def test_messages_of_all_kinds_come_back(self) -> None:
        """Text, binary, empty and large ones; many at once; a ping."""

        async def work(reactor: Any, port: int) -> None:
            async with MessageWebSocket(reactor) as websocket:
                await websocket.connect(f"ws://127.0.0.1:{port}/")
                for message in ("Hello", "", "\U0001f600" * 1000, b"", b"\0\xff", b"x" * MIB):
                    await websocket.send(message)
                    self.assertEqual(await websocket.receive(), message)
                for number in range(2000):
                    websocket.send(str(number))
                self.assertEqual(
                    [await websocket.receive() for _ in range(2000)], [*map(str, range(2000))]
                )
                self.assertGreater(await websocket.ping(), 0)
            self.assertEqual(WebSocketError.get_status(await failure_of(websocket.receive())), 16)

        self.use(work)

    def test_stream_comes_back(self) -> None:
        """8 MiB each way, in messages of different sizes; the server ends it in order."""

        class Streamed(WebSocketEcho):
            def text_received(self, text: str) -> None:
                self.close(1000)

        async def work(reactor: Any, port: int) -> None:
            async with StreamWebSocket(reactor) as websocket:
                await websocket.connect(f"ws://127.0.0.1:{port}/")
                data = bytes(range(256)) * 4096
                for start in range(0, len(data), 70_000):
                    websocket.output_stream.write(data[start : start + 70_000])
                self.assertEqual(await websocket.input_stream.receive_exactly(len(data)), data)
                await websocket.close(1000)
                error = await failure_of(websocket.input_stream.read(1))
                self.assertIsInstance(error, ClosedError)

        self.use(work, Streamed)

    def test_scenarios_of_the_sample(self) -> None:
        """W29: Greeting, 23 bytes for "Hello World", 38 bytes for a binary message of 10 bytes."""

        async def work(reactor: Any, port: int) -> None:
            uri = f"ws://127.0.0.1:{port}/WebSocketSample/EchoWebSocket.ashx"
            websocket = MessageWebSocket(reactor)
            websocket.control.message_type = SocketMessageType.UTF8
            closed: list[Any] = []
            websocket.closed.add(lambda _, args: closed.append((args.code, args.reason)))
            await websocket.connect(uri)
            greeting = await websocket.receive()
            self.assertEqual(greeting, "EchoWebSocket Connected at: today")
            writer = DataWriter(websocket.output_stream)
            writer.write_string("Hello World")
            self.assertEqual(await writer.store(), 11)
            answer = await websocket.receive()
            self.assertEqual((answer, len(answer)), ('You said: "Hello World"', 23))
            await websocket.close(1000, "Closed due to user request.")
            self.assertEqual(closed, [(1000, "Closed due to user request.")])
            stream = StreamWebSocket(reactor)
            await stream.connect(uri)
            await stream.input_stream.receive_exactly(33)
            await stream.output_stream.write(bytes(range(10)))
            text = b"binary message received, size=10 bytes"
            self.assertEqual(len(text), 38)
            self.assertEqual(await stream.input_stream.receive_exactly(38), text)
            await stream.close(1000, "Closed due to user request.")

        self.use(work, SampleServer)

    def test_pieces_are_events(self) -> None:
        """W29: With partial messages, k frames and a final one are k + 1 events."""

        async def work(reactor: Any, port: int) -> None:
            websocket = MessageWebSocket(reactor)
            websocket.control.receive_mode = MessageWebSocketReceiveMode.PARTIAL_MESSAGE
            events: list[Any] = []
            websocket.message_received.add(
                lambda _, args: events.append((args.data, args.is_message_complete))
            )
            await websocket.connect(f"ws://127.0.0.1:{port}/")
            for part in (b"a", b"b", b"c"):
                websocket.send_nonfinal_frame(part)
            await websocket.send_final_frame(b"d")
            while sum(len(data) for data, _ in events) < 4:
                await turns(reactor, 1)
            expected = [(b"a", False), (b"b", False), (b"c", False), (b"d", True)]
            self.assertEqual(events, expected)
            await websocket.close()

        self.use(work, WebSocketEcho, max_fragment_size=1)

    def test_compressed_messages_come_back(self) -> None:
        """If both ends want it."""

        async def work(reactor: Any, port: int) -> None:
            async with MessageWebSocket(reactor) as websocket:
                websocket.control.compression = DeflateSettings()
                await websocket.connect(f"ws://127.0.0.1:{port}/")
                self.assertTrue(websocket.information.is_compressed)
                for message in ("a" * 100_000, b"b" * 300, "short"):
                    await websocket.send(message)
                    self.assertEqual(await websocket.receive(), message)

        self.use(work, compression=DeflateSettings())

    def test_reader_that_does_not_read_stops_the_server(self) -> None:
        """One message and the bytes of one read are in memory; then nothing is lost."""

        async def work(reactor: Any, port: int) -> None:
            Sending.made.clear()
            websocket = MessageWebSocket(reactor)
            await websocket.connect(f"ws://127.0.0.1:{port}/")
            sent = 0
            while not sent or sent != Sending.made[0].sent:
                sent = Sending.made[0].sent
                await turns(reactor, 200)
            self.assertLess(sent, 10_000)
            for _ in range(10_000):
                self.assertEqual(len(await websocket.receive()), 10_000)
            await websocket.close()
            Sending.made.clear()

        self.use(work, Sending)

    def test_server_that_does_not_read_stops_the_writer(self) -> None:
        """`send` waits; the close then ends at its deadline, and the wait fails."""
        made: list[WebSocketProtocol] = []

        class Deaf(WebSocketProtocol):
            def connection_made(self) -> None:
                self.transport.pauseProducing()
                made.append(self)

        async def work(reactor: Any, port: int) -> None:
            websocket = MessageWebSocket(reactor, close_timeout=0.05)
            await websocket.connect(f"ws://127.0.0.1:{port}/")
            while (sending := websocket.send(bytes(MIB))).called:
                pass
            flushing = websocket.output_stream.flush()
            await websocket.close()
            await failure_of(sending)
            await failure_of(flushing)
            # It does not notice the end, and the server would wait for it.
            await made[0].abort()

        self.use(work, Deaf)

    def test_unix_sockets_carry_websockets(self) -> None:
        """Through any endpoint of Twisted."""

        async def work(reactor: Any) -> None:
            with TemporaryDirectory() as folder:
                path = str(Path(folder, "socket"))
                factory = WebSocketFactory(reactor, WebSocketEcho)
                port: Any = await factory.listen(UNIXServerEndpoint(reactor, path))
                async with MessageWebSocket(reactor) as websocket:
                    endpoint = UNIXClientEndpoint(reactor, path)
                    await websocket.connect_endpoint(endpoint, "ws://server.example/")
                    await websocket.send("a")
                    self.assertEqual(await websocket.receive(), "a")
                await factory.drain(1)
                await port.stopListening()
                await turns(reactor)

        self.conduct(work)


class SecureTests(ClientTests):
    """WebSockets over TLS."""

    @on_every_reactor
    def test_both_kinds_connect_over_tls(self) -> None:
        """W1, W27: The server is verified; its certificate is in the information."""

        async def work(reactor: Any, port: int) -> None:
            for kind in (MessageWebSocket, StreamWebSocket):
                websocket: Any = kind(reactor)
                websocket.control.trust_roots = [ROOT]
                await websocket.connect(f"wss://127.0.0.1:{port}/")
                self.assertTrue(websocket.is_secure)
                self.assertEqual(
                    websocket.information.server_certificate.subject, CERTIFICATE.subject
                )
                await websocket.output_stream.write(b"Hello")
                if kind is MessageWebSocket:
                    self.assertEqual(await websocket.receive(), b"Hello")
                else:
                    self.assertEqual(await websocket.input_stream.receive_exactly(5), b"Hello")
                await websocket.close(1000)
                self.assertFalse(websocket.is_secure)

        self.use(work, upgrade=secured())

    def test_large_messages_pass_tls_inside_tls(self) -> None:
        """The endpoint has TLS of its own, to a proxy that decrypts it."""

        async def work(reactor: Any, port: int) -> None:
            outside = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
            forward: Any = ProxyFactory("127.0.0.1", port)
            proxy: Any = await SSL4ServerEndpoint(
                reactor, 0, outside, interface="127.0.0.1"
            ).listen(forward)
            authority = TwistedCertificate.loadPEM(AUTHORITY.cert_pem.bytes())
            roots = trustRootFromCertificates([authority])
            endpoint = wrapClientTLS(
                optionsForClientTLS("localhost", trustRoot=roots),
                TCP4ClientEndpoint(reactor, "127.0.0.1", proxy.getHost().port),
            )
            async with MessageWebSocket(reactor) as websocket:
                websocket.control.trust_roots = [ROOT]
                await websocket.connect_endpoint(endpoint, f"wss://localhost:{port}/")
                for message in ("Hello", b"x" * 300_000):
                    await websocket.send(message)
                    self.assertEqual(await websocket.receive(timeout=60), message)
            await proxy.stopListening()
            await turns(reactor, 50)

        self.use(work, upgrade=secured())

    def test_untrusted_server_is_refused(self) -> None:
        """W10, W27: The facts stay readable; the next connect ignores the error and succeeds."""

        async def work(reactor: Any, port: int) -> None:
            websocket = MessageWebSocket(reactor)
            uri = f"wss://127.0.0.1:{port}/"
            error = await failure_of(websocket.connect(uri))
            status = WebSocketError.get_status(error)
            self.assertIs(status, WebErrorStatus.CERTIFICATE_IS_INVALID)
            errors = websocket.information.server_certificate_errors
            self.assertTrue(errors)
            self.assertIsNotNone(websocket.information.server_certificate)
            websocket.control.ignorable_server_certificate_errors += errors
            await websocket.connect(uri)
            await websocket.send("a")
            self.assertEqual(await websocket.receive(), "a")
            await websocket.close()

        self.use(work, upgrade=secured())

    def test_handlers_judge_the_certificate(self) -> None:
        """W28: After the default validation, over TLS only; they can reject it."""
        asked: list[Any] = []

        async def work(reactor: Any, port: int) -> None:
            for rejects in (True, False):
                for errors in ((), (ChainValidationResult.UNTRUSTED,)):
                    websocket = MessageWebSocket(reactor)
                    websocket.control.trust_roots = None if errors else [ROOT]
                    websocket.control.ignorable_server_certificate_errors += errors

                    async def judge(_: object, args: Any, rejects: bool = rejects) -> None:
                        await turns(reactor)
                        asked.append(args.server_certificate.subject)
                        if rejects:
                            args.reject()

                    websocket.server_custom_validation_requested.add(judge)
                    connecting = websocket.connect(f"wss://127.0.0.1:{port}/")
                    if rejects:
                        error = await failure_of(connecting)
                        self.assertEqual(error.hresult, 0x800C_000E)
                        await websocket.abort()
                    else:
                        await connecting
                        await websocket.close()
            refused = MessageWebSocket(reactor)
            refused.server_custom_validation_requested.add(lambda *_: asked.append("refused"))
            await failure_of(refused.connect(f"wss://127.0.0.1:{port}/"))

        self.use(work, upgrade=secured())
        self.assertEqual(asked, [CERTIFICATE.subject] * 4)

    def test_client_certificate_is_shown(self) -> None:
        """W27: To a server that requires one."""
        options = ServerOptions(
            [CERTIFICATE],
            client_certificate=ClientCertificatePolicy.REQUIRED,
            client_authorities=[ROOT],
        )

        async def work(reactor: Any, port: int) -> None:
            for certificate in (CLIENT, None):
                websocket = StreamWebSocket(reactor)
                websocket.control.trust_roots = [ROOT]
                websocket.control.client_certificate = certificate
                connecting = websocket.connect(f"wss://127.0.0.1:{port}/")
                if certificate is None:
                    await failure_of(connecting)
                else:
                    await connecting
                    await websocket.close(1000)

        self.use(work, upgrade=secured(options))


class ProxyTests(ClientTests):
    """WebSockets through an HTTP proxy."""

    def check(self, scheme: str, proxy_scheme: str = "http", **settings: Any) -> None:
        """Converse through a proxy."""
        Proxying.requests.clear()

        async def work(reactor: Any, port: int) -> None:
            proxy = await listen_as_proxy(reactor, is_secure=proxy_scheme == "https")
            async with MessageWebSocket(reactor) as websocket:
                websocket.control.trust_roots = websocket.control.proxy_trust_roots = [ROOT]
                websocket.control.proxy = f"{proxy_scheme}://127.0.0.1:{proxy.getHost().port}"
                await websocket.connect(f"{scheme}://localhost:{port}/")
                self.assertEqual(websocket.is_secure, scheme == "wss")
                for message in ("Hello", b"x" * MIB):
                    await websocket.send(message)
                    self.assertEqual(await websocket.receive(), message)
            await proxy.stopListening()
            await turns(reactor, 50)

        self.use(work, **settings)
        (request,) = Proxying.requests
        self.assertTrue(request.startswith(b"CONNECT localhost:"), request)

    def test_tunnel_carries_websockets(self) -> None:
        """Over TCP."""
        self.check("ws")

    def test_tunnel_carries_tls(self) -> None:
        """The certificate is the one of the server."""
        self.check("wss", upgrade=secured())

    def test_proxy_with_tls_carries_websockets(self) -> None:
        """TLS ends at the proxy."""
        self.check("ws", "https")

    @on_every_reactor
    def test_proxy_with_tls_carries_tls(self) -> None:
        """TLS runs inside TLS."""
        self.check("wss", "https", upgrade=secured())


class HostileTests(OnEveryReactor):
    """Servers that do what no library does."""

    has_variants = True

    def serve(
        self, received: Callable[[Any, bytes], None], work: Callable[[Any, int], Awaitable[None]]
    ) -> None:
        """Serve what a function does with received bytes, while a coroutine runs."""

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                received(self.transport, data)

        async def conduct(reactor: Any) -> None:
            factory = Factory.forProtocol(Server)
            port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
            await work(reactor, port.getHost().port)
            await port.stopListening()
            await turns(reactor)

        self.conduct(conduct)

    def test_connect_fails_at_servers_of_other_kinds(self) -> None:
        """
        One that hangs up, one that resets, one that speaks another protocol.

        The timeout ends the wait for servers that say less than a response, and go on.
        """
        for received in (
            lambda transport, _: transport.loseConnection(),
            lambda transport, _: transport.abortConnection(),
            lambda transport, _: transport.write(b"SSH-2.0-x\r\n"),
            lambda transport, _: transport.write(b"\0"),
            lambda transport, data: transport.write(data),
            lambda transport, _: transport.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),
        ):

            async def work(reactor: Any, port: int) -> None:
                websocket = MessageWebSocket(reactor)
                for scheme in ("ws", "wss"):
                    uri = f"{scheme}://127.0.0.1:{port}/"
                    await failure_of(websocket.connect(uri, timeout=0.1))

            self.serve(received, work)

    def test_silent_server_fails_the_connect(self) -> None:
        """Within the timeout of the call."""

        async def work(reactor: Any, port: int) -> None:
            for scheme in ("ws", "wss"):
                websocket = MessageWebSocket(reactor)
                connecting = websocket.connect(f"{scheme}://127.0.0.1:{port}/", timeout=0.05)
                error = await failure_of(connecting)
                self.assertIs(WebSocketError.get_status(error), WebErrorStatus.TIMEOUT)

        self.serve(lambda *_: None, work)


class InteroperationTests(OnEveryReactor):
    """``websockets`` as the server, with its defaults: it compresses, and pings."""

    @contextmanager
    def served(self) -> Iterator[int]:
        """Serve an echo in a thread; return the port."""
        loop = asyncio.new_event_loop()
        started = threading.Event()
        ports: list[int] = []
        stop = asyncio.Event()

        async def echo(connection: ServerConnection) -> None:
            while (message := await connection.recv()) != "leave":
                await connection.send(message)
            await connection.close(4000, "left")

        async def serve() -> None:
            async with serve_websockets(echo, "127.0.0.1", 0) as server:
                ports.append(next(iter(server.sockets)).getsockname()[1])
                started.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        started.wait()
        try:
            yield ports[0]
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    def test_messages_come_back(self) -> None:
        """Plain and compressed, and its close has code and reason."""

        async def work(reactor: Any) -> None:
            with self.served() as port:
                for compression in (None, DeflateSettings(), DeflateSettings(max_window_bits=15)):
                    await self.converse(reactor, port, compression)

        self.conduct(work)

    async def converse(self, reactor: Any, port: int, compression: DeflateSettings | None) -> None:
        """Send messages, and let the server close."""
        websocket = MessageWebSocket(reactor)
        websocket.control.compression = compression
        websocket.control.max_fragment_size = 100_000
        await websocket.connect(f"ws://127.0.0.1:{port}/")
        for message in ("Hello", "", b"\0\xff", "\u20ac" * 1000, b"x" * MIB):
            await websocket.send(message)
            self.assertEqual(await websocket.receive(), message)
        await websocket.send("leave")
        error = await failure_of(websocket.receive())
        assert isinstance(error, WebSocketClosedError)
        self.assertEqual((error.code, error.reason), (4000, "left"))
        await websocket.wait_closed()


class LifetimeTests(ClientTests):
    """Nothing of a WebSocket outlives its connection."""

    def check(
        self,
        converse: Callable[[Any, int], Awaitable[None]],
        permitted: tuple[str, ...] = (),
        **settings: Any,
    ) -> None:
        """
        Converse several times with one server; fail on any object that is left.

        :param permitted: prefixes of classes with cycles that twsock can't break.
        """

        async def work(reactor: Any, port: int) -> None:
            await converse(reactor, port)
            await turns(reactor)
            lifetimes = Lifetimes()

            async def again() -> None:
                for _ in range(3):
                    await converse(reactor, port)
                    await turns(reactor, 20)

            try:
                left = await lifetimes.settle(again, MIB)
                retained = lifetimes.retained_objects()
                left_over = {name for name in retained if not name.startswith(permitted)}
                self.assertEqual(left_over, set(), retained)
                self.assertLess(left, MIB)
            finally:
                lifetimes.stop()

        self.use(work, **settings)

    @on_every_reactor
    def test_closed_websockets_leave_nothing(self) -> None:
        """Both kinds leave nothing over TCP, closed by this end or aborted."""

        async def converse(reactor: Any, port: int) -> None:
            for end in ("close", "abort"):
                message = MessageWebSocket(reactor)
                message.closed.add(lambda *_: None)
                await message.connect(f"ws://127.0.0.1:{port}/")
                await message.send(b"x" * 100_000)
                await message.receive()
                await getattr(message, end)()
                stream = StreamWebSocket(reactor)
                await stream.connect(f"ws://127.0.0.1:{port}/")
                await stream.output_stream.write(b"abc")
                await stream.input_stream.receive_exactly(2)
                await getattr(stream, end)()

        self.check(converse)

    def test_handlers_and_secure_websockets_leave_nothing(self) -> None:
        """Messages that nobody took leave nothing, too."""

        async def converse(reactor: Any, port: int) -> None:
            websocket = MessageWebSocket(reactor)
            websocket.control.trust_roots = [ROOT]
            websocket.message_received.add(lambda _, args: args.data)
            websocket.server_custom_validation_requested.add(lambda *_: None)
            await websocket.connect(f"wss://127.0.0.1:{port}/")
            await websocket.send("a")
            await websocket.ping()
            await websocket.close(1000)
            held = MessageWebSocket(reactor)
            held.control.trust_roots = [ROOT]
            await held.connect(f"wss://127.0.0.1:{port}/")
            held.send("a")
            await held.send("b")
            await turns(reactor, 20)
            await held.abort()

        self.check(converse, upgrade=secured())

    def test_proxies_leave_nothing(self) -> None:
        """TLS inside TLS, closed, aborted and refused by the proxy's certificate."""

        async def converse(reactor: Any, port: int) -> None:
            proxy = await listen_as_proxy(reactor, is_secure=True)
            for end in ("close", "abort", "refuse"):
                websocket = MessageWebSocket(reactor)
                websocket.control.proxy = f"https://127.0.0.1:{proxy.getHost().port}"
                websocket.control.trust_roots = [ROOT]
                websocket.control.proxy_trust_roots = [] if end == "refuse" else [ROOT]
                connecting = websocket.connect(f"wss://localhost:{port}/")
                if end == "refuse":
                    await failure_of(connecting)
                    continue
                await connecting
                await websocket.send(b"x" * 100_000)
                await websocket.receive()
                await getattr(websocket, end)()
            await proxy.stopListening()
            Proxying.requests.clear()
            await turns(reactor, 50)

        # The proxy is Twisted's own TLS.
        self.check(converse, permitted=("twisted.", "OpenSSL."), upgrade=secured())

    def test_failed_connects_leave_nothing(self) -> None:
        """A refusal, an untrusted server, a cancelled connect."""

        async def converse(reactor: Any, port: int) -> None:
            websocket = MessageWebSocket(reactor)
            await failure_of(websocket.connect(f"ws://127.0.0.1:{port}/other"))
            await failure_of(websocket.connect(f"wss://127.0.0.1:{port}/"))
            connecting = websocket.connect(f"ws://127.0.0.1:{port}/")
            websocket.close()
            self.assertIsInstance(await failure_of(connecting), ClosedError)
            lost = MessageWebSocket(reactor)
            await lost.connect(f"ws://127.0.0.1:{port}/")
            await lost.abort()
            self.assertNotIsInstance(await failure_of(lost.receive()), BrokenError)

        # Twisted keeps a client that was cancelled before its attempt began.
        self.check(converse, permitted=("twisted.internet.tcp.Client",), path="/")


for _builder in (
    ConversationTests,
    SecureTests,
    ProxyTests,
    HostileTests,
    InteroperationTests,
    LifetimeTests,
):
    globals().update(_builder.makeTestCaseClasses())
