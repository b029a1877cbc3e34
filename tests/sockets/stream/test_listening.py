"""Listeners of streams and of WebSockets take connections alike."""

from __future__ import annotations

import tempfile
from typing import Any

from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.contract import OnEveryReactor, failure_of
from tests.loopback.test_tls import root, with_key
from tests.tls.peer import SERVER
from twsock import (
    BusyError,
    ClosedError,
    LocalProtocolError,
    MessageWebSocket,
    RemoteProtocolError,
    SocketProtectionLevel,
    StreamSocket,
    StreamSocketListener,
    WebSocketListener,
)
from twsock.tls.server import ServerOptions


class SocketListenerTests(SynchronousTestCase):
    """What does not depend on the kind of the sockets; for more see test_listener.py."""

    def test_waits_for_connections_are_refused_in_wrong_states(self) -> None:
        """Before binding, with a handler, twice at once, and after the close."""
        for kind in (StreamSocketListener, WebSocketListener):
            reactor: Any = MemoryReactorClock()
            listener: Any = kind(reactor)
            self.failureResultOf(listener.accept(), LocalProtocolError)
            listener.bind_endpoint("127.0.0.1", 1338)
            waiting = listener.accept()
            self.failureResultOf(listener.accept(), BusyError)
            self.failureResultOf(listener.bind_endpoint("127.0.0.1", 1338), LocalProtocolError)
            self.assertRaises(LocalProtocolError, listener.connection_received.add, print)
            listener.close()
            self.failureResultOf(waiting, ClosedError)
            self.failureResultOf(listener.accept(), ClosedError)


class CountersTests(OnEveryReactor):
    """The numbers of a listener."""

    def test_a_listener_of_streams_counts(self) -> None:
        """Connections, bytes, and the time of a handler, also if it fails."""

        async def work(reactor: Any) -> None:
            async def answer(_listener: Any, args: Any) -> None:
                async with args.socket as far:
                    await far.output_stream.send_all(await far.input_stream.receive_exactly(3))
                    await deferLater(reactor, 0.002)
                raise ZeroDivisionError

            listener = StreamSocketListener(reactor)
            listener.connection_received.add(answer)
            await listener.bind_endpoint("127.0.0.1", "")
            async with StreamSocket(reactor) as near:
                await near.connect("127.0.0.1", listener.information.local_port)
                near.output_stream.write(b"abc")
                await near.input_stream.receive_exactly(3)
            await listener.close_all(5)
            counters = listener.counters
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual((counters.accepted, counters.ended), (1, 1))
            self.assertEqual((counters.bytes_received, counters.bytes_sent), (3, 3))
            self.assertEqual(counters.handler_errors, 1)
            self.assertEqual(sum(counters.handler_seconds.counts), 1)
            self.assertGreaterEqual(counters.handler_seconds.total, 0.002)

        self.conduct(work)

    def test_errors_of_handlers_are_counted_by_their_cause(self) -> None:
        """A rule that the peer broke is a violation."""

        async def work(reactor: Any) -> None:
            def refuse(_listener: Any, _args: Any) -> None:
                raise RemoteProtocolError("this request is wrong")

            listener = StreamSocketListener(reactor)
            listener.connection_received.add(refuse)
            await listener.bind_endpoint("127.0.0.1", "")
            async with StreamSocket(reactor) as near:
                await near.connect("127.0.0.1", listener.information.local_port)
                await failure_of(near.input_stream.receive_exactly(1))
            await listener.close_all(5)
            counters = listener.counters
            self.assertEqual((counters.violations, counters.handler_errors), (1, 0))

        self.conduct(work)

    def test_sent_bytes_are_counted_in_any_way_that_they_leave(self) -> None:
        """A file that the kernel sends, and large writes that wait for room."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        self.addCleanup(file.close)
        file.write(bytes(100_000))
        file.flush()
        size = 100_000 + 4 * 1_000_000

        async def work(reactor: Any) -> None:
            async def answer(_listener: Any, args: Any) -> None:
                async with args.socket as far:
                    far.output_stream.send_file(file)
                    for _ in range(4):
                        await far.output_stream.write(bytes(1_000_000))

            listener = StreamSocketListener(reactor)
            listener.connection_received.add(answer)
            await listener.bind_endpoint("127.0.0.1", "")
            async with StreamSocket(reactor) as near:
                await near.connect("127.0.0.1", listener.information.local_port)
                received = [len(chunk) async for chunk in near.input_stream]
            await listener.close_all(5)
            self.assertEqual((sum(received), listener.counters.bytes_sent), (size, size))

        self.conduct(work)

    def test_a_listener_counts_upgrades(self) -> None:
        """A handshake that is done, and one that fails, by its reason."""

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor, tls=ServerOptions([with_key(SERVER)]))
            await listener.bind_endpoint("127.0.0.1", "")
            port = listener.information.local_port
            async with StreamSocket(reactor) as near:
                near.control.trust_roots = [root()]
                await near.connect("127.0.0.1", port, SocketProtectionLevel.SSL)
                await (await listener.accept()).close()
            async with StreamSocket(reactor) as near:
                await near.connect("127.0.0.1", port)
                near.output_stream.write(b"no handshake at all")
                await failure_of(near.input_stream.receive_exactly(1000))
            await listener.close_all(5)
            counters = listener.counters
            self.assertEqual(counters.upgrades, 1)
            self.assertEqual(sum(counters.handshake_seconds.counts), 1)
            self.assertEqual(sum(counters.upgrade_failures.values()), 1, counters.upgrade_failures)

        self.conduct(work)

    def test_a_listener_of_web_sockets_counts(self) -> None:
        """Bytes, refused requests and codes of ends."""

        async def work(reactor: Any) -> None:
            listener = WebSocketListener(reactor, path="/chat")
            await listener.bind_endpoint("127.0.0.1", "")
            address = f"ws://127.0.0.1:{listener.information.local_port}"
            near = MessageWebSocket(reactor)
            await near.connect(f"{address}/chat")
            far = await listener.accept()
            await near.send("hello")
            self.assertEqual(await far.receive(), "hello")
            await near.close(1001)
            await failure_of(MessageWebSocket(reactor).connect(f"{address}/other"))
            await listener.close_all(5)
            counters = listener.counters
            self.assertEqual(counters.closes, {1001: 1})
            self.assertEqual(counters.refused_requests, {404: 1})
            self.assertGreater(counters.bytes_received, 100)
            self.assertGreater(counters.bytes_sent, 100)

        self.conduct(work)


globals().update(CountersTests.makeTestCaseClasses())
del CountersTests
