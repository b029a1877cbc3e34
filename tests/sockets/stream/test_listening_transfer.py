"""Listeners that change their owner: no connection is refused, reset or lost; on every reactor."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.contract import OnEveryReactor, failure_of, turns
from tests.loopback.test_tls import root, with_key
from tests.tls.peer import SERVER
from twsock import (
    ClosedError,
    LocalProtocolError,
    SocketErrorStatus,
    SocketProtectionLevel,
    StreamSocket,
    StreamSocketListener,
    WebSocketListener,
)
from twsock.handover import DetachedListener
from twsock.tls.server import ServerOptions

HOST = "127.0.0.1"

#: How often the listener changes its owner while connections arrive.
HANDOVERS = 30


async def listening(reactor: Any, **parameters: Any) -> StreamSocketListener:
    """Make a listener that is bound to a free port."""
    made = StreamSocketListener(reactor, **parameters)
    await made.bind_endpoint(HOST, "")
    return made


async def connected(reactor: Any, number: str, data: bytes = b"x") -> StreamSocket:
    """Connect, and send."""
    made = StreamSocket(reactor)
    await made.connect(HOST, number, timeout=60)
    await made.output_stream.write(data)
    return made


async def finish(near: StreamSocket, far: StreamSocket) -> bytes:
    """Return what has arrived at the far end, and close both."""
    data = await far.input_stream.receive_some()
    await far.close()
    await near.close()
    await near.wait_closed()
    await far.wait_closed()
    return data


class Failing(socket.socket):
    """A listening socket that the process cannot use."""

    def setblocking(self, flag: bool) -> None:
        raise OSError(24, "Too many open files")


class ListenerTests(OnEveryReactor):
    """``detach``, ``from_socket`` and ``bind_socket``."""

    def test_no_connection_is_lost_between_two_owners(self) -> None:
        """Those that wait for ``accept`` stay, those in the kernel's queue move."""

        async def work(reactor: Any) -> None:
            first = await listening(reactor)
            number = first.information.local_port
            waiting = await connected(reactor, number, b"waiting")
            while not len(first):
                await turns(reactor, 1)
            detached = first.detach()
            queued = await connected(reactor, number, b"queued")
            self.assertEqual(await finish(waiting, await first.accept()), b"waiting")
            self.assertIsInstance(await failure_of(first.accept()), ClosedError)
            again = StreamSocketListener.from_socket(reactor, detached, max_connections=5)
            self.assertEqual(again.information.local_port, number)
            self.assertEqual(detached.sockets[0].fileno(), -1)
            self.assertEqual(await finish(queued, await again.accept()), b"queued")
            await again.close()
            await first.close()

        self.conduct(work)

    def test_handlers_go_on_and_the_next_owner_has_its_own(self) -> None:
        """Accepted connections stay with the listener that accepted them."""

        async def work(reactor: Any) -> None:
            first, second = StreamSocketListener(reactor), StreamSocketListener(reactor)
            may_end: Deferred[None] = Deferred()

            async def handle(owner: StreamSocketListener, args: Any) -> None:
                async with args.socket as far:
                    await far.input_stream.receive_some()
                    if owner is first:
                        await may_end
                    await far.output_stream.write(b"1" if owner is first else b"2")

            for one in (first, second):
                one.connection_received.add(handle)
            await first.bind_endpoint(HOST, "")
            number = first.information.local_port
            early = await connected(reactor, number)
            while not len(first):
                await turns(reactor, 1)
            detached = first.detach()
            late = await connected(reactor, number)
            await second.bind_socket(detached)
            self.assertEqual(await late.input_stream.receive_some(), b"2")
            may_end.callback(None)
            self.assertEqual(await early.input_stream.receive_some(), b"1")
            await early.close()
            await late.close()
            self.assertEqual(await first.close_all(60), 0)
            self.assertEqual(await second.close_all(60), 0)

        self.conduct(work)

    def test_a_handshake_under_way_is_finished(self) -> None:
        """``accept`` waits for it after ``detach``, and then reports the end."""

        async def work(reactor: Any) -> None:
            first = await listening(reactor, tls=ServerOptions([with_key(SERVER)]))
            number = first.information.local_port
            near = StreamSocket(reactor)
            near.control.trust_roots = [root()]
            await near.connect(HOST, number)
            silent = StreamSocket(reactor)
            await silent.connect(HOST, number)
            while len(first) < 2:
                await turns(reactor, 1)
            detached = first.detach()
            accepting = first.accept()
            await near.upgrade_to_ssl(SocketProtectionLevel.SSL, HOST)
            far = await accepting
            ending = first.accept()
            await silent.abort()
            self.assertIsInstance(await failure_of(ending), ClosedError)
            await near.close()
            await far.close()
            await near.wait_closed()
            await far.wait_closed()
            detached.close()
            await first.close()

        self.conduct(work)

    def test_a_refused_detach_changes_nothing(self) -> None:
        """A pending ``accept`` would never fire."""

        async def work(reactor: Any) -> None:
            first = StreamSocketListener(reactor)
            with self.assertRaisesRegex(LocalProtocolError, "not bound"):
                first.detach()
            await first.bind_endpoint(HOST, "")
            accepting = first.accept()
            with self.assertRaisesRegex(LocalProtocolError, "cancel_io"):
                first.detach()
            first.cancel_io()
            error = await failure_of(accepting)
            self.assertIs(error.status, SocketErrorStatus.OPERATION_ABORTED)
            first.detach().close()
            self.assertRaises(ClosedError, first.detach)
            self.assertIsInstance(await failure_of(first.accept()), ClosedError)

        self.conduct(work)

    def test_a_storm_of_connects_meets_no_refusal(self) -> None:
        """Each connection is answered by one of the owners."""

        async def work(reactor: Any) -> None:
            is_over, served = False, 0
            owners = [await self.serving(reactor, None)]
            number = owners[0].information.local_port

            async def connect() -> None:
                nonlocal served
                while not is_over:
                    near = await connected(reactor, number)
                    self.assertEqual(await near.input_stream.receive_exactly(1), b"x")
                    await near.close()
                    await near.wait_closed()
                    served += 1

            storm = gatherResults(
                [Deferred.fromCoroutine(connect()) for _ in range(8)], consumeErrors=True
            )
            for _ in range(HANDOVERS):
                before = served
                while served < before + 4:
                    await turns(reactor, 1)
                detached = owners[-1].detach()
                await turns(reactor, 2)
                owners.append(await self.serving(reactor, detached))
            is_over = True
            await storm
            for owner in owners:
                self.assertEqual(await owner.close_all(60), 0)

        self.conduct(work)

    async def serving(
        self, reactor: Any, detached: DetachedListener | None
    ) -> StreamSocketListener:
        """Make a listener that echoes a byte, and closes."""
        made = StreamSocketListener(reactor)

        async def echo(_: StreamSocketListener, args: Any) -> None:
            async with args.socket as far:
                await far.output_stream.write(await far.input_stream.receive_exactly(1))

        made.connection_received.add(echo)
        if detached is None:
            await made.bind_endpoint(HOST, "")
        else:
            await made.bind_socket(detached)
        return made

    def test_the_options_are_those_of_the_next_owner(self) -> None:
        """Accepted connections inherit them."""

        async def work(reactor: Any) -> None:
            first = await listening(reactor)
            second = StreamSocketListener(reactor)
            second.control.outbound_buffer_size_in_bytes = 65_536
            await second.bind_socket(first.detach())
            detached = second.detach()
            one = detached.sockets[0]
            # Linux doubles it.
            self.assertGreaterEqual(one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), 65_536)
            self.assertLessEqual(one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), 131_072)
            detached.close()

        self.conduct(work)

    def test_all_sockets_are_continued_or_none(self) -> None:
        """If the second fails, the first is closed again, and the listener is not bound."""

        async def work(reactor: Any) -> None:
            one = socket.create_server((HOST, 0))
            other = Failing(fileno=socket.create_server((HOST, 0)).detach())
            with one, other:
                made = StreamSocketListener(reactor)
                error = await failure_of(made.bind_socket(DetachedListener((one, other))))
                self.assertIn("Too many open files", str(error))
                self.assertNotIn(-1, (one.fileno(), other.fileno()))
                await made.bind_endpoint(HOST, "")
                await made.close()

        self.conduct(work)

    def test_a_listener_of_websockets_moves(self) -> None:
        """Its sockets are those of any listener."""

        async def work(reactor: Any) -> None:
            first = WebSocketListener(reactor)
            await first.bind_endpoint(HOST, "")
            number = first.information.local_port
            again = WebSocketListener.from_socket(reactor, first.detach())
            self.assertEqual(again.information.local_port, number)
            await again.close()

        self.conduct(work)


class ArgumentTests(SynchronousTestCase):
    """What is wrong before anything has changed."""

    def test_what_does_not_listen_is_refused(self) -> None:
        """At once; the listener can be bound to another socket."""
        near, far = socket.socketpair()
        with near, far:
            listener = StreamSocketListener(MemoryReactorClock())
            self.assertRaises(ValueError, listener.bind_socket, near)
            self.assertRaises(
                ValueError, StreamSocketListener.from_socket, MemoryReactorClock(), near
            )
            self.successResultOf(listener.bind_endpoint(HOST, 1))

    def test_a_bound_listener_takes_no_socket(self) -> None:
        """The sockets stay open."""
        with socket.create_server((HOST, 0)) as one:
            listener = StreamSocketListener(MemoryReactorClock())
            self.successResultOf(listener.bind_endpoint(HOST, 1))
            self.failureResultOf(listener.bind_socket(one), LocalProtocolError)
            self.assertNotEqual(one.fileno(), -1)

    def test_a_value_can_be_closed(self) -> None:
        """Closing twice is harmless."""
        one = socket.create_server((HOST, 0))
        value = DetachedListener((one,))
        value.close()
        value.close()
        self.assertEqual(one.fileno(), -1)


globals().update(ListenerTests.makeTestCaseClasses())
