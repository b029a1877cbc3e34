"""
Ends of TLS connections: clean if and only if close_notify was read.

The peer is Python's ``ssl``, and the test decides when each byte is sent. Every claim holds for
both versions, and for both roles if they differ.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint

from tests.loopback.contract import failure_of, turns
from tests.loopback.reactors import connect, on_every_reactor, receive_all
from tests.loopback.test_tls import (
    ClientCase,
    Level,
    Status,
    make_context,
    plain_server,
    with_key,
)
from tests.loopback.tls_wire import Wire
from tests.tls.peer import SERVER, client_context
from twsock import BrokenError, ClosedError, SocketError, StreamSocket, StreamSocketListener
from twsock.protocols import (
    FrameProtocol,
    StreamServerFactory,
    UpgradePolicy,
    UpgradeToSsl,
)
from twsock.tls.server import ServerOptions, ServerTls
from twsock.wire import encode_frame

LEVELS = (Level.TLS12, Level.TLS13)

#: More bytes than the kernel takes for a peer that does not read.
TOO_MUCH = 64 * 1024 * 1024

Serve = Callable[[Wire], None]


class PeerSignal(threading.Event):
    """An event between the thread of the reactor and that of the peer; each wait has a timeout."""

    def await_it(self) -> None:
        if not self.wait(60):
            raise TimeoutError("the other thread sent no signal in time")


class EndCase(ClientCase):
    """Connects a socket to a peer in a thread."""

    def against(
        self,
        serve: Serve,
        conversation: Callable[[Any, StreamSocket], Awaitable[None]],
        *,
        close_timeout: float = 60.0,
    ) -> None:
        """Let a client socket converse with a peer, once in each version."""

        def run(connection: socket.socket) -> None:
            serve(Wire(connection, make_context()))

        async def work(reactor: Any) -> None:
            for level in LEVELS:
                with plain_server(run) as server:
                    client = StreamSocket(reactor, close_timeout=close_timeout)
                    client.control.trust_roots = self.client(reactor).control.trust_roots
                    await client.connect("localhost", server.port, level)
                    await conversation(reactor, client)
                    await client.abort()
                self.assertEqual(server.seen, [], f"{level=}")

        self.conduct(work)

    async def close_with_bytes_queued(self, client: StreamSocket) -> None:
        """Close with more bytes written than the kernel takes, and wait for the deadline."""
        write = client.output_stream.write(bytes(TOO_MUCH))
        closing = client.close()
        self.assertIsInstance(await failure_of(write), SocketError)
        await closing
        await client.wait_closed()


class InputTests(EndCase):
    """The end of the input, for each way in which the peer ends."""

    @on_every_reactor
    def test_close_notify_followed_by_a_close_is_a_clean_end(self) -> None:
        """Go's clients do so: the bytes are read, then the end of the stream, at each read."""

        def serve(peer: Wire) -> None:
            peer.send(b"last words", ends=True)
            peer.close()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            chunks = [chunk async for chunk in client.input_stream]
            self.assertEqual(b"".join(chunks), b"last words")
            await client.close()

        self.against(serve, conversation)

    def test_an_output_closed_during_a_handshake_ends_after_it(self) -> None:
        """Bytes that waited are sent first; the input stays open."""

        def serve(connection: socket.socket) -> None:
            peer = Wire(connection, make_context())
            if peer.receive_to_the_end() != b"last words":
                raise AssertionError("something is missing")
            peer.send(b"answer", ends=True)

        async def work(reactor: Any) -> None:
            with plain_server(serve) as server:
                client = StreamSocket(reactor)
                client.control.trust_roots = self.client(reactor).control.trust_roots
                await client.connect("localhost", server.port)
                upgrading = client.upgrade_to_ssl(Level.TLS13, "localhost")
                writing = client.output_stream.write(b"last words")
                ending = client.output_stream.close()
                self.assertIsInstance(
                    await failure_of(client.output_stream.write(b"x")), ClosedError
                )
                await upgrading
                self.assertEqual(await writing, 10)
                await ending
                late = client.output_stream.write(b"x")
                self.assertTrue(late.called)
                self.assertIsInstance(await failure_of(late), ClosedError)
                self.assertEqual(await client.input_stream.receive_exactly(6), b"answer")
                await client.close()
            self.assertEqual(server.seen, [])

        self.conduct(work)

    @on_every_reactor
    def test_a_reset_behind_close_notify_is_a_clean_end(self) -> None:
        """The stream had ended before TCP failed."""
        signal = PeerSignal()

        def serve(peer: Wire) -> None:
            peer.send(b"last words", ends=True)
            signal.await_it()
            signal.clear()
            peer.reset()

        async def conversation(reactor: Any, client: StreamSocket) -> None:
            self.assertEqual(await client.input_stream.receive_exactly(10), b"last words")
            signal.set()
            await client.wait_closed()
            for attempt in range(2):
                self.assertEqual(await client.input_stream.receive_some(), b"", f"{attempt=}")
            self.assertIsInstance(await failure_of(client.output_stream.write(b"x")), SocketError)

        self.against(serve, conversation)

    @on_every_reactor
    def test_a_fin_without_close_notify_is_a_truncation(self) -> None:
        """An attacker on the path can send FIN: the bytes may be only half of the message."""

        def serve(peer: Wire) -> None:
            peer.send(b"half")
            peer.close()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            self.assertEqual(await client.input_stream.receive_exactly(4), b"half")
            for attempt in range(2):
                error = await failure_of(client.input_stream.receive_some())
                self.assertIsInstance(error, BrokenError, f"{attempt=}")

        self.against(serve, conversation)

    def test_a_fin_without_close_notify_after_our_end_is_a_truncation(self) -> None:
        """The client has closed its output, and still reads."""

        def serve(peer: Wire) -> None:
            peer.receive_to_the_end()
            peer.send(b"half")
            peer.close()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            await client.output_stream.close()
            self.assertEqual(await client.input_stream.receive_exactly(4), b"half")
            self.assertIsInstance(await failure_of(client.input_stream.receive_some()), BrokenError)

        self.against(serve, conversation)

    def test_a_reset_without_close_notify_has_the_kernels_reason(self) -> None:
        """The status is that of a reset."""

        def serve(peer: Wire) -> None:
            peer.receive_exactly(1)
            peer.reset()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            await client.output_stream.write(b"x")
            error = await failure_of(client.input_stream.receive_some())
            self.assertIsInstance(error, BrokenError)
            self.assertIs(error.status, Status.CONNECTION_RESET_BY_PEER)

        self.against(serve, conversation)

    def test_bytes_behind_close_notify_are_ignored(self) -> None:
        """Whatever they are (RFC 8446, section 6.1)."""

        def serve(peer: Wire) -> None:
            peer.send(b"all", ends=True)
            peer.send_raw(b"\x17\x03\x03\0\4evil" * 1000)
            peer.receive_to_the_end()
            peer.close()

        async def conversation(reactor: Any, client: StreamSocket) -> None:
            self.assertEqual(await client.input_stream.receive_exactly(3), b"all")
            self.assertEqual(await client.input_stream.receive_some(), b"")
            await turns(reactor)
            self.assertTrue(client.is_open)
            await client.close()
            await client.wait_closed()

        self.against(serve, conversation)


class OutputTests(EndCase):
    """The end of the output."""

    @on_every_reactor
    def test_after_the_peers_end_answers_arrive(self) -> None:
        """The peer has closed its output, and reads what is written later."""

        def serve(peer: Wire) -> None:
            peer.send(b"question", ends=True)
            answers.append(peer.receive_to_the_end())
            peer.close()

        async def conversation(reactor: Any, client: StreamSocket) -> None:
            question = b"".join([chunk async for chunk in client.input_stream])
            await turns(reactor, 20)
            for word in (b"answer to ", question):
                await client.output_stream.write(word)
                await turns(reactor)
            await client.close()

        answers: list[bytes] = []
        self.against(serve, conversation)
        self.assertEqual(answers, [b"answer to question"] * 2)

    def test_data_that_arrives_after_the_output_ended_is_read(self) -> None:
        """All of it; close_notify is sent once."""

        def serve(peer: Wire) -> None:
            peer.send(bytes(100_000))
            peer.receive_to_the_end()
            peer.send(bytes(100_000), ends=True)
            peer.close()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            await client.input_stream.receive_exactly(1)
            await client.output_stream.close()
            await client.output_stream.close()
            received = 1 + sum([len(chunk) async for chunk in client.input_stream])
            self.assertEqual(received, 200_000)

        self.against(serve, conversation)

    def test_writing_after_the_output_ended_is_refused(self) -> None:
        """The connection is not affected."""

        def serve(peer: Wire) -> None:
            self.assertEqual(peer.receive_to_the_end(), b"")
            peer.send(b"answer", ends=True)
            peer.close()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            await client.output_stream.close()
            self.assertIsInstance(await failure_of(client.output_stream.write(b"x")), ClosedError)
            self.assertEqual(await client.input_stream.receive_exactly(6), b"answer")

        self.against(serve, conversation)


class CloseTests(EndCase):
    """`close` waits for the kernel, and not for the peer."""

    @on_every_reactor
    def test_a_close_does_not_wait_for_a_peer_that_never_answers(self) -> None:
        """The peer keeps its side open."""
        signal = PeerSignal()

        def serve(peer: Wire) -> None:
            signal.await_it()
            signal.clear()
            self.assertEqual(peer.receive_to_the_end(), b"all of it")
            peer.close()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            async with client:
                client.output_stream.write(b"all of it")
            signal.set()
            await client.wait_closed()

        self.against(serve, conversation, close_timeout=3600)

    def bytes_for_a_slow_peer(self, unread: int = 0) -> list[int]:
        """
        Write 600,000 bytes and close; the peer reads when the deadline has passed.

        :param unread: the number of bytes that the peer sends first; this end reads one of them.
        :returns: the number of bytes that the peer received, for each version.
        """
        signal = PeerSignal()
        received: list[int] = []

        def serve(peer: Wire) -> None:
            if unread:
                peer.send(bytes(unread))
            signal.await_it()
            signal.clear()
            received.append(len(peer.receive_to_the_end()))
            peer.close()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            if unread:
                await client.input_stream.receive_exactly(1)
            client.output_stream.write(bytes(600_000))
            await client.close()
            await client.wait_closed()
            signal.set()

        self.against(serve, conversation, close_timeout=0.05)
        return received

    def test_a_slow_peer_receives_what_is_with_the_kernel(self) -> None:
        """Also after the deadline, when this end is closed."""
        self.assertEqual(self.bytes_for_a_slow_peer(), [600_000] * 2)

    def test_a_slow_peer_with_unread_data_receives_what_is_with_the_kernel(self) -> None:
        """Unread input does not turn the close into a reset."""
        self.assertEqual(self.bytes_for_a_slow_peer(unread=200_000), [600_000] * 2)

    @on_every_reactor
    def test_bytes_queued_at_the_deadline_end_in_a_reset(self) -> None:
        """A clean end would hide that they are lost."""
        signal = PeerSignal()

        def serve(peer: Wire) -> None:
            signal.await_it()
            signal.clear()
            with self.assertRaises(ConnectionResetError):
                peer.receive_to_the_end()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            await self.close_with_bytes_queued(client)
            signal.set()

        self.against(serve, conversation, close_timeout=0.05)

    def test_an_abort_is_no_clean_end(self) -> None:
        """No close_notify is sent before the reset."""
        signal = PeerSignal()

        def serve(peer: Wire) -> None:
            peer.send(b"go")
            signal.await_it()
            signal.clear()
            with self.assertRaises(ConnectionResetError):
                peer.receive_to_the_end()

        async def conversation(_reactor: Any, client: StreamSocket) -> None:
            await client.input_stream.receive_exactly(2)
            await client.output_stream.write(b"half of it")
            await client.abort()
            signal.set()

        self.against(serve, conversation)


class PlainCloseTests(EndCase):
    """The same claims about the end of TCP."""

    @on_every_reactor
    def test_bytes_queued_at_the_deadline_end_in_a_reset(self) -> None:
        """A clean end would hide that they are lost."""
        signal = PeerSignal()

        def serve(connection: socket.socket) -> None:
            signal.await_it()
            with self.assertRaises(ConnectionResetError):
                receive_all(connection)

        async def work(reactor: Any) -> None:
            with plain_server(serve) as server:
                client = StreamSocket(reactor, close_timeout=0.05)
                await client.connect("127.0.0.1", server.port)
                await self.close_with_bytes_queued(client)
                signal.set()
            self.assertEqual(server.seen, [])

        self.conduct(work)

    def test_data_of_a_slow_peer_after_our_end_causes_no_reset(self) -> None:
        """It is read and dropped before the socket is closed."""
        signal = PeerSignal()

        def serve(connection: socket.socket) -> None:
            connection.sendall(bytes(200_000))
            signal.await_it()
            received.append(len(receive_all(connection)))

        async def work(reactor: Any) -> None:
            with plain_server(serve) as server:
                client = StreamSocket(reactor, close_timeout=0.05)
                await client.connect("127.0.0.1", server.port)
                await client.input_stream.receive_exactly(1)
                client.output_stream.write(bytes(600_000))
                await client.close()
                await client.wait_closed()
                signal.set()
            self.assertEqual(server.seen, [])

        received: list[int] = []
        self.conduct(work)
        self.assertEqual(received, [600_000])


class ListenerTests(EndCase):
    """The same claims about accepted connections."""

    def test_a_client_that_closes_at_once_is_read_to_its_end(self) -> None:
        """Its request is read, and then the end of the stream, at each read."""
        ends: list[bytes | SocketError] = []

        async def work(reactor: Any) -> None:
            async with StreamSocketListener(
                reactor, tls=ServerOptions([with_key(SERVER)])
            ) as listener:
                await listener.bind_endpoint("127.0.0.1", "")
                port = int(listener.information.local_port)
                for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3) * 10:
                    thread = threading.Thread(target=self.ask, args=(port, version))
                    thread.start()
                    await self.read(await listener.accept(), ends)
                    thread.join(60)

        self.conduct(work)
        self.assertEqual(ends, [b"request"] * 20)

    @on_every_reactor
    def test_a_handler_is_cancelled_when_its_peer_is_gone_after_its_end(self) -> None:
        """The input had ended in order."""
        signal = PeerSignal()
        ends: list[str] = []
        gone: Deferred[None]

        async def handle(_listener: object, args: Any) -> None:
            try:
                ends.extend([chunk.decode() async for chunk in args.socket.input_stream])
                signal.set()
                await Deferred()
            except CancelledError:
                ends.append("cancelled")
                gone.callback(None)
                raise

        def ask(port: int) -> None:
            context = client_context()
            peer = Wire(connect(("127.0.0.1", port)), context, "localhost")
            peer.send(b"request", ends=True)
            signal.await_it()
            peer.reset()

        async def work(reactor: Any) -> None:
            nonlocal gone
            gone = Deferred()
            listener = StreamSocketListener(reactor, tls=ServerOptions([with_key(SERVER)]))
            listener.connection_received.add(handle)
            await listener.bind_endpoint("127.0.0.1", "")
            port = int(listener.information.local_port)
            thread = threading.Thread(target=ask, args=(port,))
            thread.start()
            await gone
            self.assertEqual(await listener.close_all(10), 0)
            thread.join(60)

        self.conduct(work)
        self.assertEqual(ends, ["request", "cancelled"])

    async def read(self, accepted: StreamSocket, ends: list[bytes | SocketError]) -> None:
        try:
            ends.append(b"".join([chunk async for chunk in accepted.input_stream]))
        except SocketError as error:
            ends.append(error)
        await accepted.close()
        await accepted.wait_closed()

    def ask(self, port: int, version: ssl.TLSVersion) -> None:
        connection = connect(("127.0.0.1", port))
        peer = Wire(connection, client_context(version=version), "localhost")
        peer.send(b"request", ends=True)
        peer.close()


class Recorder(FrameProtocol):
    """Answers each message some turns later, and records how the connection ended."""

    ended: Deferred[SocketError | None]

    async def frame_received(self, payload: bytes) -> None:
        await turns(self.clock, 20)
        self.send_frame(b"answer to " + payload)

    def connection_lost(self, error: SocketError | None) -> None:
        self.ended.callback(error)


class ProtocolTests(EndCase):
    """The same claims about protocols with TLS from the first byte."""

    def serving(
        self,
        ask: Callable[[Wire], None],
        protocol: type[Recorder] = Recorder,
        **limits: Any,
    ) -> list[SocketError | None]:
        """Serve a client in each version; return how each connection ended."""
        ends: list[SocketError | None] = []
        problems: list[BaseException] = []
        upgrade = UpgradeToSsl(ServerTls(ServerOptions([with_key(SERVER)])), UpgradePolicy.IMPLICIT)

        def run(port: int, version: ssl.TLSVersion) -> None:
            try:
                connection = connect(("127.0.0.1", port))
                with connection:
                    ask(Wire(connection, client_context(version=version), "localhost"))
            except BaseException as problem:  # noqa: BLE001 - the test fails with it
                problems.append(problem)

        async def work(reactor: Any) -> None:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):

                class Serving(protocol):  # type: ignore[misc, valid-type]
                    ended: Deferred[SocketError | None] = Deferred()

                factory = StreamServerFactory(reactor, Serving, upgrade=upgrade, **limits)
                endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
                port: Any = await factory.listen(endpoint)
                thread = threading.Thread(target=run, args=(port.getHost().port, version))
                thread.start()
                ends.append(await Serving.ended)
                await factory.drain(0)
                await port.stopListening()
                thread.join(60)

        self.conduct(work)
        self.assertEqual(problems, [])
        return ends

    @on_every_reactor
    def test_after_the_clients_end_every_answer_is_sent_before_ours(self) -> None:
        """The client has closed its output, and reads the answers of later turns."""

        def ask(peer: Wire) -> None:
            peer.send(encode_frame(b"one") + encode_frame(b"two"), ends=True)
            answers = encode_frame(b"answer to one") + encode_frame(b"answer to two")
            self.assertEqual(peer.receive_to_the_end(), answers)

        self.assertEqual(self.serving(ask), [None, None])

    def test_a_client_that_closes_at_once_is_a_clean_end(self) -> None:
        """Its socket can't read the server's close_notify, which is no failure."""

        def ask(peer: Wire) -> None:
            peer.send(b"", ends=True)
            peer.close()

        self.assertEqual(self.serving(ask), [None, None])

    def test_a_fin_without_close_notify_after_our_close_is_a_clean_end(self) -> None:
        """The server's own close has succeeded."""

        class Closing(Recorder):
            async def frame_received(self, payload: bytes) -> None:
                self.send_frame(payload)
                self.close()

        def ask(peer: Wire) -> None:
            peer.send(encode_frame(b"last"))
            self.assertEqual(peer.receive_to_the_end(), encode_frame(b"last"))
            peer.close()

        self.assertEqual(self.serving(ask, Closing), [None, None])

    def test_a_message_after_the_output_ended_is_an_error(self) -> None:
        """As on TCP; it is not dropped in silence."""

        class Late(Recorder):
            async def frame_received(self, payload: bytes) -> None:
                self.transport.loseWriteConnection()
                self.send_frame(payload)

        def ask(peer: Wire) -> None:
            peer.send(encode_frame(b"question"))
            self.assertEqual(peer.receive_to_the_end(), b"")
            peer.send(b"", ends=True)

        for number, error in enumerate(self.serving(ask, Late)):
            self.assertIsInstance(error, BrokenError, f"{number=}")
            self.assertIs(
                getattr(error, "status", None), Status.CONNECTION_RESET_BY_PEER, f"{number=}"
            )

    @on_every_reactor
    def test_a_fin_without_close_notify_is_a_truncation(self) -> None:
        """The server still reads."""

        def ask(peer: Wire) -> None:
            peer.send(encode_frame(b"first"))
            peer.receive_exactly(4)
            peer.close()

        for number, error in enumerate(self.serving(ask)):
            self.assertIsInstance(error, BrokenError, f"{number=}")


for case in (
    InputTests,
    OutputTests,
    CloseTests,
    PlainCloseTests,
    ListenerTests,
    ProtocolTests,
):
    globals().update(case.makeTestCaseClasses())
