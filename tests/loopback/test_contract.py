"""The contract of streams, for TCP, UNIX sockets and transports in memory, on every reactor."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.task import deferLater

from tests.loopback.contract import OnEveryReactor, StreamContract, failure_of, turns
from tests.loopback.memory import memory_pair, synchronous_pair
from tests.loopback.reactors import VARIANT_REACTORS
from twsock import (
    BrokenError,
    SocketErrorStatus,
    StreamSocket,
    StreamSocketListener,
)


async def connect_tcp(reactor: Any) -> tuple[StreamSocket, StreamSocket]:
    """Connect over 127.0.0.1."""
    async with StreamSocketListener(reactor) as listener:
        await listener.bind_endpoint("127.0.0.1", "")
        near = StreamSocket(reactor)
        await near.connect("127.0.0.1", listener.information.local_port)
        return near, await listener.accept()


async def connect_narrow(reactor: Any) -> tuple[StreamSocket, StreamSocket]:
    """Connect over 127.0.0.1; each connection has at most 1 MiB in the kernel."""
    size = 256 * 1024  # Linux doubles it.
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as near:
        for each in (listening, near):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        near.connect(listening.getsockname())
        with listening.accept()[0] as far:
            return (
                StreamSocket.from_socket(reactor, near),
                StreamSocket.from_socket(reactor, far),
            )


class TcpContract(StreamContract):
    """TCP over loopback."""

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        return await connect_tcp(reactor)

    def test_a_reset_is_reported_after_the_readable_bytes(self) -> None:
        """The bytes come first, then the status, at each read."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            await near.output_stream.write(b"last words")
            await turns(self.reactor)
            await near.abort()
            await turns(self.reactor)
            self.assertEqual(await far.input_stream.receive_exactly(10), b"last words")
            for attempt in range(2):
                error = await failure_of(far.input_stream.receive_some())
                self.assertIsInstance(error, BrokenError, f"{attempt=}")
                self.assertIs(
                    error.status,
                    SocketErrorStatus.CONNECTION_RESET_BY_PEER,
                    f"{attempt=}, {error.status=}",
                )

        self.converse(conversation)


class UnixContract(StreamContract):
    """UNIX sockets."""

    has_resets = False

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        path = self.mktemp()[-60:].replace("/", "_")
        async with StreamSocketListener(reactor) as listener:
            await listener.listen(UNIXServerEndpoint(reactor, path))
            near = StreamSocket(reactor)
            await near.connect_endpoint(UNIXClientEndpoint(reactor, path))
            return near, await listener.accept()


class AdoptedContract(StreamContract):
    """Python's sockets that were connected before."""

    has_resets = False

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = socket.socketpair()
        return StreamSocket.from_socket(reactor, near), StreamSocket.from_socket(reactor, far)


class MemoryContract(StreamContract):
    """Transports in memory, adopted from Twisted."""

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = memory_pair(reactor)
        return (
            StreamSocket.from_transport(reactor, near),
            StreamSocket.from_transport(reactor, far),
        )


class SynchronousContract(StreamContract):
    """Transports in memory that call the other end before they return."""

    _reactors = VARIANT_REACTORS

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = synchronous_pair(reactor)
        return (
            StreamSocket.from_transport(reactor, near),
            StreamSocket.from_transport(reactor, far),
        )


class PlantedLeaks(OnEveryReactor):
    """The leak check of every conversation finds what a test plants."""

    def assert_found(self, kind: str, plant: Any, uproot: Any) -> None:
        planted: list[Any] = []

        async def work(reactor: Any) -> None:
            planted.append(plant(reactor))
            reactor.addSystemEventTrigger("before", "shutdown", uproot, reactor, planted[0])

        error = self.assertRaises(AssertionError, self.conduct, work)
        self.assertIn(kind, str(error))

    def test_an_open_descriptor_is_found(self) -> None:
        """A socket that was not closed."""
        self.assert_found(
            "file descriptor", lambda _: socket.socket(), lambda _, leak: leak.close()
        )

    def test_a_delayed_call_is_found(self) -> None:
        """A timer that was not cancelled."""
        self.assert_found(
            "delayed call",
            lambda reactor: reactor.callLater(60, int),
            lambda _, leak: leak.cancel(),
        )

    def test_a_wait_that_never_ends_is_found(self) -> None:
        """Also if only the wait itself refers to its Deferred."""

        async def wait() -> None:
            await Deferred()

        self.assert_found(
            "unfired Deferred",
            lambda _: Deferred.fromCoroutine(wait()),
            lambda _, leak: leak.addErrback(lambda _: None).cancel(),
        )

    def test_an_open_connection_is_found(self) -> None:
        """A socket of twsock that was not closed: its reader and its descriptor."""

        async def work(reactor: Any) -> None:
            near, far = await connect_tcp(reactor)
            reactor.addSystemEventTrigger("before", "shutdown", near.abort)
            reactor.addSystemEventTrigger("before", "shutdown", far.abort)
            await deferLater(reactor, 0)

        error = self.assertRaises(AssertionError, self.conduct, work)
        self.assertIn("reader", str(error))


for case in (
    TcpContract,
    UnixContract,
    AdoptedContract,
    MemoryContract,
    SynchronousContract,
    PlantedLeaks,
):
    globals().update(case.makeTestCaseClasses())
