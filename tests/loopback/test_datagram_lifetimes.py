"""
Closed datagram sockets, ports, streams and messages are freed with the last reference to them.

The garbage collector is off in all of these tests. Only an exception that the application keeps may
keep a socket in memory.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.internet.protocol import DatagramProtocol as PlainProtocol
from twisted.internet.task import deferLater
from zope.interface import implementer

from tests.lifetimes import Lifetimes
from tests.loopback.contract import OnEveryReactor, turns
from twsock import (
    ClosedError,
    DatagramSocket,
    DatagramSocketMessageReceivedEventArgs,
    EndpointPair,
    HostName,
    SocketError,
)
from twsock.datagram.port import listen_datagrams
from twsock.datagram.runs import Run
from twsock.protocols import DatagramEcho, DatagramProtocol

HOST, GROUP = "127.0.0.1", "224.3.0.5"

#: Seconds after which a datagram that should have come is missed.
PATIENCE = 120

#: How often each conversation is held: what stays once could be made once.
_TIMES = 3

Message = DatagramSocketMessageReceivedEventArgs


@implementer(IHostnameResolver, IHostResolution)
class SilentResolver:
    """A resolver that never answers and keeps no reference to the caller."""

    name = ""

    def resolveHostName(self, receiver: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        receiver.resolutionBegan(self)
        return self

    def cancel(self) -> None:
        """Do nothing."""


class LifetimeCase(OnEveryReactor):
    """Checks that no object is left after a conversation."""

    def check(self, converse: Callable[[], Awaitable[None]]) -> None:
        """Run a conversation a few times; fail if objects of twsock are left."""

        async def work(reactor: Any) -> None:
            self.reactor = reactor
            await self.converse_once(converse)  # What is made once is made now.
            lifetimes = Lifetimes()
            try:
                for _ in range(_TIMES):
                    await self.converse_once(converse)
                self.assertEqual(lifetimes.retained_objects(), {})
            finally:
                lifetimes.stop()

        self.conduct(work)

    async def converse_once(self, converse: Callable[[], Awaitable[None]]) -> None:
        await converse()
        await turns(self.reactor)
        self.flushLoggedErrors(ValueError)

    async def bound(self, host: str | None = HOST) -> DatagramSocket:
        made = DatagramSocket(self.reactor)
        await made.bind_endpoint(host, "")
        return made

    def address(self, made: DatagramSocket) -> tuple[str, int]:
        return HOST, int(made.information.local_port)


class SocketLifetimeTests(LifetimeCase):
    """A `DatagramSocket` with all its objects."""

    def test_a_planted_cycle_is_found(self) -> None:
        """The check finds a reference cycle made on purpose."""

        async def converse() -> None:
            made = await self.bound()
            planted: list[Any] = [made]
            planted.append(planted)
            await made.close()

        self.maxDiff = None
        error = self.assertRaises(AssertionError, self.check, converse)
        self.assertIn("DatagramSocket'", str(error))
        self.assertIn("DatagramPort'", str(error))
        gc.collect()

    def test_a_socket_that_was_never_opened_is_freed(self) -> None:
        """Closed or not, used or not."""

        async def converse() -> None:
            DatagramSocket(self.reactor)
            made = DatagramSocket(self.reactor)
            made.message_received.add(lambda *_: None)
            made.control.outbound_unicast_hop_limit = 5
            await self.failure_of(made.output_stream.write(b"too early"))
            await self.failure_of(made.receive())
            await made.close()

        self.check(converse)

    def test_a_socket_with_handlers_is_freed(self) -> None:
        """The handlers refer to the socket, answer in every way, wait, and raise."""

        async def converse() -> None:
            client, server = await self.bound(), DatagramSocket(self.reactor)
            answered: list[Deferred[None]] = []

            @server.message_received.add
            async def answer(_: DatagramSocket, message: Message) -> None:
                await message.reply(message.data)
                await deferLater(self.reactor, 0)
                stream = await server.get_output_stream(message.endpoint_pair)
                await stream.write(message.data_reader.read_string(5).encode())
                await server.send_to(message.data, message.address)
                await stream.close()

            @server.message_received.add
            def fail_at_once(_: DatagramSocket, message: Message) -> None:
                raise ValueError("wrong")

            @server.message_received.add
            async def fail_later(_: DatagramSocket, message: Message) -> None:
                error = SocketError("later")
                await deferLater(self.reactor, 0)
                raise error

            await server.bind_service_name("")
            await client.send_to(b"Hello", self.address(server))
            for _ in range(3):
                await client.receive_from(timeout=PATIENCE)
            await turns(self.reactor)
            for each in (client, server):
                await each.close()
            del answered

        self.check(converse)

    def test_a_socket_closed_during_waits_is_freed(self) -> None:
        """Each waiter gets its own exception, and may catch it."""

        async def converse() -> None:
            made = await self.bound()
            stream = await made.get_output_stream(HOST, 9)
            waits: list[Deferred[Any]] = [made.receive(), stream.write(b"x"), stream.flush()]
            self.reactor.installNameResolver(SilentResolver())
            looking = made.get_output_stream("slow.example", 9)
            await made.close()
            for written in waits[1:]:
                await written
            for wait in (waits[0], looking):
                await self.failure_of(wait)
            async for _ in made:
                raise AssertionError("it is closed")
            for _ in range(2):
                await self.failure_of(made.receive())
                await self.failure_of(stream.write(b"too late"))
                await self.failure_of(made.send_to(b"too late", (HOST, 9)))

        self.check(converse)

    def test_a_socket_with_a_refusing_peer_is_freed(self) -> None:
        """Its sends fail too."""

        async def converse() -> None:
            gone, made = await self.bound(), await self.bound()
            port = gone.information.local_port
            await made.connect(HOST, port)
            await gone.close()
            for _ in range(3):
                await made.output_stream.write(b"Hello")
                await self.failure_of(made.receive_from(timeout=PATIENCE))
                await self.failure_of(made.output_stream.write(bytes(70_000)))
                made.output_stream.write(bytes(70_000))
            await made.close()

        self.check(converse)

    def test_a_socket_that_cannot_be_bound_or_connected_is_freed(self) -> None:
        """For several reasons; it is used afterwards, or not."""

        async def converse() -> None:
            other, made = await self.bound(), DatagramSocket(self.reactor)
            taken = other.information.local_port
            await self.failure_of(made.bind_endpoint(HOST, taken))
            await self.failure_of(made.bind_endpoint("192.0.2.1", ""))
            await self.failure_of(made.connect(GROUP, 9))
            pair = EndpointPair(HostName("192.0.2.1"), "", HostName(HOST), "9")
            await self.failure_of(made.connect(pair))
            await self.failure_of(made.get_output_stream("fe80::1%no-such-interface", 9))
            await self.failure_of(made.bind_service_name("", "no-such-interface"))
            await made.bind_endpoint(HOST, "")
            await self.failure_of(made.bind_endpoint(HOST, ""))
            await self.failure_of(made.connect("::1", 9))
            for each in (other, made):
                await each.close()

        self.check(converse)

    def test_a_socket_with_cancelled_operations_is_freed(self) -> None:
        """Waits, writes and lookups; by their Deferreds, timeouts and ``cancel_io``."""

        async def converse() -> None:
            made = await self.bound()
            stream = await made.get_output_stream(HOST, 9)
            self.reactor.installNameResolver(SilentResolver())
            for operation in (
                made.receive(),
                stream.write(b"x"),
                made.get_output_stream("slow.example", 9),
            ):
                operation.cancel()
                try:
                    await operation
                except CancelledError:
                    pass
            await self.failure_of(made.receive(timeout=0))
            pending: list[Deferred[Any]] = [made.receive(), stream.write(b"x")]
            await made.cancel_io()
            for operation in pending:
                await self.failure_of(operation)
            await made.close()

        self.check(converse)

    def test_a_socket_with_undelivered_messages_is_freed(self) -> None:
        """The close drops them, even if the application keeps the socket."""
        kept: list[DatagramSocket] = []

        async def converse() -> None:
            made, client = await self.bound(), await self.bound()
            for _ in range(10):
                await client.send_to(bytes(10_000), self.address(made))
            message = await made.receive(timeout=PATIENCE)
            await turns(self.reactor)
            left = [weakref.ref(each) for each in gc.get_objects() if type(each) is Message]
            self.assertEqual(len(left), 10)
            del message
            await made.close()
            self.assertEqual([each() for each in left], [None] * 10)
            kept.append(made)
            await client.close()
            kept.clear()

        self.check(converse)

    def test_a_socket_that_joined_a_group_is_freed(self) -> None:
        """It watches the interfaces until it is closed."""

        async def converse() -> None:
            made = DatagramSocket(self.reactor)
            made.control.multicast_only = True
            made.multicast_group_changed.add(lambda *_: made.information)
            await made.bind_service_name("", "lo")
            made.join_multicast_group(GROUP)
            stream = await made.get_output_stream(GROUP, made.information.local_port)
            await stream.write(b"Hello")
            message = await made.receive(timeout=PATIENCE)
            await self.failure_of(message.reply(b"not here"))
            await made.close()

        self.check(converse)

    def test_a_closed_socket_still_has_its_properties(self) -> None:
        """Its options, information, streams and events; the kernel socket is closed."""

        async def converse() -> None:
            made = await self.bound()
            stream = await made.get_output_stream(HOST, 9)
            control, information, event = made.control, made.information, made.message_received
            port = information.local_port
            await made.close()
            gone = weakref.ref(made)
            del made
            self.assertIsNone(gone())
            self.assertEqual(information.local_port, port)
            self.assertEqual((control.max_datagram, list(event)), (65_535, []))
            self.assertIsInstance(await self.failure_of(stream.write(b"x")), ClosedError)

        self.check(converse)

    async def failure_of(self, operation: Deferred[Any]) -> SocketError:
        """Await a Deferred that must fail; return an equal error without frames."""
        try:
            result = await operation
        except SocketError as error:
            return error.copy()
        raise AssertionError(f"succeeded with {result!r}")


class Answering(DatagramProtocol):
    """Answers, and refers to its port as any protocol does."""

    def datagram_received(self, data: bytes, source: Any) -> None:
        if data == b"raise":
            raise ValueError("wrong")
        self.send(data, source)


class AnsweringRuns(DatagramProtocol):
    """Sends runs back, and one that cannot be sent."""

    def run_received(self, run: Run) -> None:
        self.transport.reply(run)
        self.transport.send_run(run.data, run.segment_size, ("0.0.0.0", 1))


class PlainAnswering(PlainProtocol):
    """The same, as a protocol for Twisted's ports."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.transport.write(datagram, addr)  # type: ignore[union-attr]


class PortLifetimeTests(LifetimeCase):
    """A port and its protocol."""

    def test_a_port_with_any_protocol_is_freed(self) -> None:
        """Protocols of twsock and for Twisted, on all addresses and on one."""

        async def converse() -> None:
            for make in (Answering, AnsweringRuns, PlainAnswering, DatagramEcho):
                for interface in ("0.0.0.0", HOST):
                    port = listen_datagrams(self.reactor, make(), 0, interface)
                    await self.ask(port.getHost().port)
                    await port.stopListening()

        self.check(converse)

    def test_a_port_closed_by_its_protocol_is_freed(self) -> None:
        """During a run, with answers in the queue."""

        async def converse() -> None:
            class Closing(DatagramProtocol):
                def datagram_received(self, data: bytes, source: Any) -> None:
                    self.send(data, source)
                    self.transport.stopListening()

            port = listen_datagrams(self.reactor, Closing(), 0, "0.0.0.0")
            await self.ask(port.getHost().port)

        self.check(converse)

    async def ask(self, port: int) -> None:
        """Get an answer to each of several datagrams, of which the first fails its handler."""
        client = await self.bound()
        await client.connect(HOST, port)
        for data in (b"raise", b"Hello"):
            client.output_stream.write(data)
        await client.output_stream.flush()
        await client.receive_from(timeout=PATIENCE)
        await turns(self.reactor)
        await client.close()


for case in (SocketLifetimeTests, PortLifetimeTests):
    globals().update(case.makeTestCaseClasses())
del case
