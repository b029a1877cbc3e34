"""A listener accepts WebSockets on real connections, and ends them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.trial.unittest import SynchronousTestCase

from tests.lifetimes import Lifetimes
from tests.loopback.contract import OnEveryReactor, failure_of, turns
from tests.loopback.reactors import on_every_reactor
from tests.sockets.websocket.accepted import REQUEST, Accepted, binary
from tests.sockets.websocket.test_server import echo
from tests.tls.peer import AUTHORITY, SERVER
from twsock import (
    Certificate,
    LocalProtocolError,
    MessageWebSocket,
    StreamSocket,
    StreamWebSocket,
    WebSocketClosedError,
    WebSocketListener,
)
from twsock.tls import ServerOptions

CERTIFICATE = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())
ROOT = Certificate.from_pem(AUTHORITY.cert_pem.bytes())


async def listen(reactor: Any, handler: Any = None, **options: Any) -> WebSocketListener:
    """Listen on a free port of 127.0.0.1."""
    listener = WebSocketListener(reactor, **options)
    if handler is not None:
        listener.connection_received.add(handler)
    await listener.bind_endpoint("127.0.0.1", "")
    return listener


def uri(listener: WebSocketListener, scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{listener.information.local_port}/"


class WebSocketListenerTests(OnEveryReactor):
    """On sockets of the kernel."""

    has_variants = True

    @on_every_reactor
    def test_messages_are_echoed(self) -> None:
        """Text and binary messages, empty and large; then the listener closes with 1001."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, echo)
            near = MessageWebSocket(reactor)
            await near.connect(uri(listener))
            for message in ("Hello", b"", "", b"x" * 1_000_000, "\U0001f600"):
                await near.send(message)
                self.assertEqual(await near.receive(timeout=30), message)
            self.assertGreaterEqual(await near.ping(), 0)
            ending = listener.close_all(30)
            failure: Any = await failure_of(near.receive(timeout=30))
            self.assertIsInstance(failure, WebSocketClosedError)
            self.assertEqual(failure.code, 1001)
            await near.close()
            self.assertEqual(await ending, 0)
            self.assertEqual(len(listener), 0)

        self.conduct(work)

    @on_every_reactor
    def test_sockets_are_accepted_one_by_one(self) -> None:
        """Without a handler, ``async for`` takes them; a server may send first."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            near = MessageWebSocket(reactor)
            await near.connect(uri(listener))
            async for accepted in listener:
                await accepted.send("first")
                accepted.close(4000, "enough")  # Its end waits until the client has read.
                break
            self.assertEqual(await near.receive(timeout=30), "first")
            failure: Any = await failure_of(near.receive(timeout=30))
            self.assertEqual((failure.code, failure.reason), (4000, "enough"))
            await near.close()
            await listener.close_all(30)

        self.conduct(work)

    @on_every_reactor
    def test_tls_comes_before_the_request(self) -> None:
        """The WebSocket is secure when the application gets it."""

        async def work(reactor: Any) -> None:
            seen: list[bool] = []

            async def serve(listener: Any, args: Any) -> None:
                seen.append(args.socket.is_secure)
                await echo(listener, args)

            listener = await listen(reactor, serve, tls=ServerOptions([CERTIFICATE]))
            near = MessageWebSocket(reactor)
            near.control.trust_roots = [ROOT]
            await near.connect(uri(listener, "wss"))
            await near.send("Hello")
            self.assertEqual(await near.receive(timeout=30), "Hello")
            self.assertEqual(seen, [True])
            await near.close()
            await listener.close_all(30)

        self.conduct(work)

    @on_every_reactor
    def test_streams_are_echoed_through_a_unix_socket(self) -> None:
        """As through any endpoint of Twisted; the stream has no boundaries."""

        async def work(reactor: Any) -> None:
            async def serve(_listener: Any, args: Any) -> None:
                async with args.socket as accepted:
                    async for chunk in accepted.input_stream:
                        await accepted.output_stream.send_all(chunk)

            with TemporaryDirectory() as folder:
                path = str(Path(folder, "socket"))
                listener = WebSocketListener(reactor, is_stream=True)
                listener.connection_received.add(serve)
                await listener.listen(UNIXServerEndpoint(reactor, path))
                near = StreamWebSocket(reactor)
                endpoint = UNIXClientEndpoint(reactor, path)
                await near.connect_endpoint(endpoint, "ws://localhost/")
                await near.output_stream.write(b"x" * 100_000)
                read = near.input_stream.receive_exactly(100_000, timeout=30)
                self.assertEqual(await read, b"x" * 100_000)
                await near.close()
                await listener.close_all(30)

        self.conduct(work)

    @on_every_reactor
    def test_loss_cancels_the_handler(self) -> None:
        """A handler that waits for something else ends."""

        async def work(reactor: Any) -> None:
            started: Deferred[None] = Deferred()
            ended: Deferred[BaseException] = Deferred()

            async def serve(_listener: Any, _args: Any) -> None:
                started.callback(None)
                try:
                    await Deferred()
                except CancelledError as error:
                    ended.callback(error)
                    raise

            listener = await listen(reactor, serve)
            near = MessageWebSocket(reactor)
            await near.connect(uri(listener))
            await started
            await near.abort()
            self.assertIsInstance(await ended, CancelledError)
            await listener.close_all(30)

        self.conduct(work)

    @on_every_reactor
    def test_failing_handler_closes_with_1011(self) -> None:
        """The error is logged; the client learns that the server failed."""

        async def work(reactor: Any) -> None:
            async def serve(_listener: Any, args: Any) -> None:
                await args.socket.receive()
                raise ZeroDivisionError

            listener = await listen(reactor, serve)
            near = MessageWebSocket(reactor)
            await near.connect(uri(listener))
            await near.send("a")
            failure: Any = await failure_of(near.receive(timeout=30))
            self.assertEqual(failure.code, 1011)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            await near.close()
            await listener.close_all(30)

        self.conduct(work)

    @on_every_reactor
    def test_client_that_never_reads_is_bounded(self) -> None:
        """An echo holds at most its high water and a few messages; then it stops reading."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, echo)
            raw = StreamSocket(reactor)
            await raw.connect("127.0.0.1", listener.information.local_port)
            await raw.output_stream.write(REQUEST)
            frame = b"\x82\xfe\x10\x00\x00\x00\x00\x00" + bytes(4096)
            for _ in range(4_000):
                if raw.output_stream.is_full:
                    break
                raw.output_stream.write(frame)
                await turns(reactor, 1)
            await turns(reactor, 50)
            (accepted,) = listener.sockets
            self.assertLess(accepted.output_stream.unsent, 1024 * 1024)
            await raw.abort()
            await listener.close_all(30)

        self.conduct(work)

    @on_every_reactor
    def test_nothing_outlives_the_connections(self) -> None:
        """Closed and aborted WebSockets die without the garbage collector."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)

            async def converse() -> None:
                for end in ("close", "abort"):
                    near = MessageWebSocket(reactor)
                    await near.connect(uri(listener))
                    accepted = await listener.accept(timeout=30)
                    await near.send("a")
                    await accepted.receive(timeout=30)
                    await getattr(near, end)()
                    await accepted.wait_closed()
                await turns(reactor, 20)

            await converse()
            lifetimes = Lifetimes()
            try:
                left = await lifetimes.settle(converse, 1024 * 1024)
                self.assertEqual(lifetimes.retained_objects(), {})
                self.assertLess(left, 1024 * 1024)
            finally:
                lifetimes.stop()
            await listener.close_all(30)

        self.conduct(work)


class LimitTests(SynchronousTestCase):
    """Parameters of a listener."""

    def test_numbers_out_of_bounds_are_refused(self) -> None:
        """At once."""
        cases: list[dict[str, Any]] = [
            {"max_message_size": -1}, {"max_unsent": 0}, {"request_timeout": 0},
            {"ping_interval": 0}, {"max_fragments": 0}, {"close_timeout": -1},
            {"receive_mode": 2},
        ]  # fmt: skip
        for options in cases:
            with self.assertRaises(ValueError, msg=options):
                Accepted(**options)

    def test_replacing_certificates_needs_tls(self) -> None:
        """A listener without TLS has none."""
        one = Accepted()
        self.assertRaises(LocalProtocolError, one.listener.replace_certificates, [CERTIFICATE])

    def test_sum_of_received_bytes_is_limited(self) -> None:
        """Incomplete messages, and messages that the application does not take, count."""
        for frames in (binary(bytes(1001))[:-1], binary(bytes(600)) * 2):
            one = Accepted(max_buffered=1000)
            one.open()
            one.receive(binary(bytes(200)))
            self.assertFalse(one.transport.is_aborted, len(frames))
            one.receive(frames)
            self.assertTrue(one.transport.is_aborted, len(frames))

    def test_sum_of_unsent_bytes_is_limited(self) -> None:
        """Those of messages, until the kernel has them."""
        one = Accepted(max_buffered=1000)
        accepted = one.open()
        one.transport.producer.pauseProducing()
        for _ in range(3):
            accepted.send(bytes(300))
            one.reactor.advance(0)
        self.assertFalse(one.transport.is_aborted)
        accepted.send(bytes(300))
        one.reactor.advance(0)
        self.assertTrue(one.transport.is_aborted)

    def test_limit_of_the_sum_spares_small_connections(self) -> None:
        """The one that holds most is aborted."""
        small = Accepted(max_buffered=1000)
        small.open()
        small.receive(binary(bytes(300)))
        large = small.accept_another()
        large.receive(REQUEST)
        large.receive(binary(bytes(800)))
        self.assertTrue(large.transport.is_aborted)
        self.assertFalse(small.transport.is_aborted)

    def test_tls_handshake_has_its_own_deadline(self) -> None:
        """Silence ends the connection; ``request_timeout`` begins behind the handshake."""
        one = Accepted(tls=ServerOptions([CERTIFICATE]), handshake_timeout=3, request_timeout=30)
        one.receive(b"\x16\x03\x01")
        one.reactor.advance(2.9)
        self.assertFalse(one.transport.is_aborted)
        one.reactor.advance(0.1)
        self.assertTrue(one.transport.is_aborted)

    def test_listener_waits_for_no_tls_handshake(self) -> None:
        """No WebSocket was accepted, so there is nothing to close in order."""
        one = Accepted(tls=ServerOptions([CERTIFICATE]))
        one.receive(b"\x16\x03\x01")
        one.listener.close_all(30)
        self.assertTrue(one.transport.is_aborted)


globals().update(WebSocketListenerTests.makeTestCaseClasses())
