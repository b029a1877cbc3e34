"""Datagram sockets behave alike on every reactor, and leave nothing behind."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.loopback.contract import OnEveryReactor, failure_of, turns
from twsock import (
    BusyError,
    ClosedError,
    DatagramSocket,
    DatagramSocketMessageReceivedEventArgs,
    DataWriter,
    EndpointPair,
    HostName,
    SocketError,
    SocketErrorStatus,
)
from twsock.sockets.datagram.message_queue import MAX_MESSAGES

GREETING = b"Hello, World!"
LOCALHOST = "127.0.0.1"

#: Seconds after which a datagram that should have come is missed.
PATIENCE = 120

Message = DatagramSocketMessageReceivedEventArgs
Handler = Callable[[DatagramSocket, Message], Any]


class DatagramCase(OnEveryReactor):
    """Creates sockets on a reactor of its own."""

    def run_with(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine on every reactor."""

        async def run(reactor: Any) -> None:
            self.reactor = reactor
            await work()

        self.conduct(run)

    @asynccontextmanager
    async def bound(
        self, handler: Handler | None = None, host: str | None = LOCALHOST
    ) -> AsyncIterator[DatagramSocket]:
        """Bind a socket to a free port."""
        async with DatagramSocket(self.reactor) as made:
            if handler is not None:
                made.message_received.add(handler)
            await made.bind_endpoint(host, "")
            yield made

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[DatagramSocket, DatagramSocket]]:
        """Connect two sockets to each other."""
        async with self.bound() as near, self.bound() as far:
            await near.connect(LOCALHOST, far.information.local_port)
            await far.connect(LOCALHOST, near.information.local_port)
            yield near, far

    async def take(self, made: DatagramSocket) -> bytes:
        data, _ = await made.receive_from(timeout=PATIENCE)
        return data


class Mailbox:
    """
    A handler that records messages, and fires the waits for them.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting: Deferred[None] | None = None
        self.messages: list[Message] = []

    def __call__(self, _made: DatagramSocket, message: Message) -> None:
        self.messages.append(message)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def wait_for(self, count: int) -> list[Message]:
        """Wait until so many messages have arrived."""
        while len(self.messages) < count:
            self._waiting = Deferred()
            await self._waiting.addTimeout(PATIENCE, self._reactor)
        return self.messages


class GuideTests(DatagramCase):
    """The programs of the sockets guide and of the datagram sample."""

    def test_the_echo_page(self) -> None:
        """
        A.2: the request comes from a third socket. The server answers to its address, at a fixed
        port.
        """

        async def work() -> None:
            answers = Mailbox(self.reactor)
            async with (
                self.bound(answers, None) as client,
                DatagramSocket(self.reactor) as server,
                DatagramSocket(self.reactor) as sender,
            ):

                async def answer(made: DatagramSocket, message: Message) -> None:
                    text = message.data_reader.read_string(len(message.data))
                    output = await made.get_output_stream(
                        message.remote_address, client.information.local_port
                    )
                    async with DataWriter(output) as writer:
                        writer.write_string(text)
                        await writer.store()

                server.message_received.add(answer)
                await server.bind_service_name("")
                port = server.information.local_port
                output = await sender.get_output_stream(HostName("localhost"), port)
                await output.write(b"Hello, World!\r\n")
                (message,) = await answers.wait_for(1)
                self.assertEqual(message.data, b"Hello, World!\r\n")
                self.assertEqual(message.remote_port, port)
                self.assertNotEqual(sender.information.local_port, client.information.local_port)

        self.run_with(work)

    def test_the_sample_s_echo_answers_its_first_peer(self) -> None:
        """
        A.3.2: the stream to it is created once; the answer has the payload unchanged, and the port.
        """

        async def work() -> None:
            streams: list[Any] = []

            async def echo(made: DatagramSocket, message: Message) -> None:
                if not streams:
                    streams.append(
                        await made.get_output_stream(message.remote_address, message.remote_port)
                    )
                await streams[0].write(message.data)

            async with self.bound(echo) as server, DatagramSocket(self.reactor) as client:
                await client.connect("localhost", server.information.local_port)
                for data in (b"Hello", bytes(range(256)), b""):
                    writer = DataWriter(client.output_stream)
                    writer.write_bytes(data)
                    self.assertEqual(await writer.store(), len(data), data)
                    self.assertEqual(await self.take(client), data, f"{data=}")

        self.run_with(work)

    def test_the_sample_s_client_gets_the_error_of_a_closed_port(self) -> None:
        """A.3.3: the reader of the message raises. Then the client sends and receives as before."""

        async def work() -> None:
            told = Mailbox(self.reactor)
            async with self.bound() as gone, DatagramSocket(self.reactor) as client:
                port = gone.information.local_port
                client.message_received.add(told)
                await client.connect(LOCALHOST, port)
                await gone.close()
                await client.output_stream.write(b"Hello")
                (message,) = await told.wait_for(1)
                error = self.assertRaises(SocketError, getattr, message, "data_reader")
                self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
                async with DatagramSocket(self.reactor) as server:
                    await server.bind_endpoint(LOCALHOST, port)
                    await client.output_stream.write(b"again")
                    data, address = await server.receive_from(timeout=PATIENCE)
                    self.assertEqual(data, b"again")
                    await server.send_to(b"back", address)
                    self.assertEqual((await told.wait_for(2))[1].data, b"back")

        self.run_with(work)


class RefusalTests(DatagramCase):
    """ICMP errors, one after the other."""

    def test_each_icmp_error_is_reported_and_the_socket_stays_open(self) -> None:
        """For each way that a reactor reports an error of a descriptor."""

        async def work() -> None:
            async with self.bound() as gone, DatagramSocket(self.reactor) as made:
                await made.connect(LOCALHOST, gone.information.local_port)
                await gone.close()
                for number in range(5):
                    await made.output_stream.write(b"x")
                    error = await failure_of(made.receive_from(timeout=PATIENCE))
                    refused = SocketErrorStatus.CONNECTION_RESET_BY_PEER
                    self.assertIs(error.status, refused, f"{number=}: {error}")
                self.assertTrue(made.is_open)

        self.run_with(work)

    def test_a_batch_to_a_closed_port_succeeds(self) -> None:
        """Every write has been sent; the ICMP errors are reported separately."""

        async def work() -> None:
            async with self.bound() as gone, DatagramSocket(self.reactor) as made:
                await made.connect(LOCALHOST, gone.information.local_port)
                await gone.close()
                writes = [made.output_stream.write(bytes(size)) for size in (1, 5, 5, 3, 9)]
                self.assertTrue(await made.output_stream.flush())
                self.assertEqual([await write for write in writes], [1, 5, 5, 3, 9])
                error = await failure_of(made.receive_from(timeout=PATIENCE))
                self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

        self.run_with(work)

    def test_a_write_in_the_handler_of_an_icmp_error_is_sent(self) -> None:
        """Also if the next send gets the error before the reactor reports it."""

        async def work() -> None:
            told: list[Message] = []

            def again(made: DatagramSocket, message: Message) -> None:
                told.append(message)
                made.output_stream.write(b"again")

            async with self.bound() as gone, DatagramSocket(self.reactor) as made:
                port = gone.information.local_port
                made.message_received.add(again)
                await made.connect(LOCALHOST, port)
                await gone.close()
                await made.output_stream.write(b"into the void")
                async with DatagramSocket(self.reactor) as server:
                    await server.bind_endpoint(LOCALHOST, port)
                    await made.output_stream.write(b"heard")
                    self.assertEqual(await self.take(server), b"heard")
                    self.assertEqual(len(told), 1)
                    self.assertEqual(await self.take(server), b"again")

        self.run_with(work)


class OutputTests(DatagramCase):
    """The time at which datagrams are sent."""

    def test_writes_without_a_flush_leave_in_the_next_turn(self) -> None:
        """In order, one by one."""

        async def work() -> None:
            async with self.pair() as (near, far):
                writes = [near.output_stream.write(data) for data in (b"1", b"22", b"")]
                self.assertEqual([write.called for write in writes], [False] * 3)
                await deferLater(self.reactor, 0)
                self.assertEqual([write.called for write in writes], [True] * 3)
                self.assertEqual([await self.take(far) for _ in range(3)], [b"1", b"22", b""])

        self.run_with(work)

    def test_an_awaited_write_leaves_at_once(self) -> None:
        """In the same turn of the reactor."""

        async def work() -> None:
            async with self.pair() as (near, far):
                ahead: list[str] = []
                self.reactor.callLater(0, ahead.append, "a turn")
                await near.output_stream.write(GREETING)
                await near.output_stream.flush()
                self.assertEqual(ahead, [])
                self.assertEqual(await self.take(far), GREETING)

        self.run_with(work)

    def test_a_loop_of_awaited_writes_does_not_block_the_reactor(self) -> None:
        """It sends no more than the kernel has room for."""

        async def work() -> None:
            async with self.pair() as (near, far):
                received: list[bytes] = []

                async def collect() -> None:
                    while len(received) < 200:
                        received.append(await self.take(far))

                collecting = Deferred.fromCoroutine(collect())
                for number in range(200):
                    await near.output_stream.write(b"%d" % number)
                self.assertGreater(len(received), 0)
                await collecting
                self.assertEqual(received, [b"%d" % number for number in range(200)])

        self.run_with(work)

    def test_a_write_in_a_handler_need_not_be_awaited(self) -> None:
        """An echo of one line."""

        async def work() -> None:
            def echo(made: DatagramSocket, message: Message) -> None:
                made.send_to(message.data, message.address)

            async with self.bound(echo) as server, DatagramSocket(self.reactor) as client:
                await client.connect(LOCALHOST, server.information.local_port)
                for number in range(200):
                    client.output_stream.write(b"%d" % number)
                    self.assertEqual(await self.take(client), b"%d" % number, number)

        self.run_with(work)

    def test_streams_to_several_hosts_share_the_bound_port(self) -> None:
        """In both families; the resolver of the reactor looks names up."""

        async def work() -> None:
            async with (
                self.bound() as first,
                self.bound(host="::1") as second,
                self.bound(host=None) as sender,
            ):
                for host, receiver in ((LOCALHOST, first), ("::1", second)):
                    port = receiver.information.local_port
                    stream = await sender.get_output_stream(host, port)
                    await stream.write(GREETING)
                    data, address = await receiver.receive_from(timeout=PATIENCE)
                    self.assertEqual(data, GREETING, (host, receiver))
                    self.assertEqual(
                        address, (host, int(sender.information.local_port)), (host, receiver)
                    )

        self.run_with(work)


class ConnectTests(DatagramCase):
    """Arguments of connect."""

    def test_connect_accepts_names_host_names_and_pairs(self) -> None:
        """All lead to the same peer."""

        async def work() -> None:
            async with self.bound(host=None) as peer:
                port = peer.information.local_port
                local = HostName("127.0.0.3")
                address = ("", 0)
                for remote in (
                    ("localhost", port),
                    (HostName("localhost"), int(port)),
                    (HostName("::1"), port),
                    (EndpointPair(local, "", HostName(LOCALHOST), port),),
                ):
                    async with DatagramSocket(self.reactor) as made:
                        await made.connect(*remote)
                        await made.output_stream.write(GREETING)
                        data, address = await peer.receive_from(timeout=PATIENCE)
                        self.assertEqual(data, GREETING, remote)
                        self.assertEqual(str(address[1]), made.information.local_port, remote)
                self.assertEqual(address[0], "127.0.0.3")

        self.run_with(work)

    def test_a_connect_to_a_group_fails(self) -> None:
        """D11: ``HOST_NOT_FOUND``, through the Deferred."""

        async def work() -> None:
            async with DatagramSocket(self.reactor) as made:
                error = await failure_of(made.connect("224.3.0.5", 22113))
                self.assertIs(error.status, SocketErrorStatus.HOST_NOT_FOUND)
                self.assertFalse(made.is_open)

        self.run_with(work)

    def test_a_bind_to_a_port_in_use_can_be_repeated(self) -> None:
        """``ADDRESS_ALREADY_IN_USE``, until the port is free."""

        async def work() -> None:
            async with self.bound() as other, DatagramSocket(self.reactor) as made:
                port = other.information.local_port
                error = await failure_of(made.bind_service_name(port))
                self.assertIs(error.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
                await other.close()
                await made.bind_service_name(port)
                self.assertEqual(made.information.local_port, port)

        self.run_with(work)


class ReceiveTests(DatagramCase):
    """Received datagrams and pending waits."""

    def test_a_wait_ends_at_its_timeout_by_cancelling_or_with_the_socket(self) -> None:
        """None of them consumes a datagram."""

        async def work() -> None:
            async with self.pair() as (near, far):
                error = await failure_of(far.receive_from(timeout=0.01))
                self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
                waiting = far.receive_from(timeout=PATIENCE)
                self.assertIsInstance(await failure_of(far.receive()), BusyError)
                waiting.cancel()
                with self.assertRaises(CancelledError):
                    await waiting
                await near.output_stream.write(GREETING)
                self.assertEqual(await self.take(far), GREETING)
                waiting = far.receive_from(timeout=PATIENCE)
                await far.close()
                self.assertIsInstance(await failure_of(waiting), ClosedError)

        self.run_with(work)

    def test_a_loop_receives_until_the_socket_is_closed(self) -> None:
        """By any code."""

        async def work() -> None:
            async with self.pair() as (near, far):
                for data in (b"one", b"", b"end", b"late"):
                    near.output_stream.write(data)
                received = []
                async for message in far:
                    received.append(message.data)
                    if message.data == b"end":
                        await far.close()
                self.assertEqual(received, [b"one", b"", b"end"])

        self.run_with(work)

    def test_undelivered_datagrams_wait_in_the_queue_and_in_the_kernel(self) -> None:
        """More than the queue holds. None is lost, and the order is kept."""

        async def work() -> None:
            count = MAX_MESSAGES + 200
            async with self.pair() as (near, far):
                for number in range(count):
                    near.output_stream.write(b"%d" % number)
                    if number % 64 == 0:
                        await near.output_stream.flush()
                        await turns(self.reactor, 2)
                await near.output_stream.flush()
                await turns(self.reactor, 20)
                received = [await self.take(far) for _ in range(count)]
                self.assertEqual(received, [b"%d" % number for number in range(count)])
                self.assertEqual(far.information.dropped, 0)

        self.run_with(work)

    def test_slow_handlers_lose_no_datagram(self) -> None:
        """More run at a time than allowed; further datagrams wait in the kernel."""

        async def work() -> None:
            count, pending, done = 1300, [], []

            async def slow(_made: DatagramSocket, message: Message) -> None:
                gate: Deferred[None] = Deferred()
                pending.append(gate)
                await gate
                done.append(message.data)

            async with self.bound(slow) as receiver, DatagramSocket(self.reactor) as sender:
                await sender.connect(LOCALHOST, receiver.information.local_port)
                for number in range(count):
                    sender.output_stream.write(b"%d" % number)
                    if number % 64 == 0:
                        await sender.output_stream.flush()
                        await turns(self.reactor, 2)
                await turns(self.reactor, 20)
                self.assertTrue(1024 <= len(pending) < 1024 + 64, len(pending))
                while len(done) < count:
                    while pending:
                        pending.pop(0).callback(None)
                    await deferLater(self.reactor, 0)
                self.assertEqual(done, [b"%d" % number for number in range(count)])

        self.run_with(work)

    def test_a_datagram_that_is_too_long_is_flagged(self) -> None:
        """Other datagrams of the run are whole."""

        async def work() -> None:
            async with DatagramSocket(self.reactor) as far, DatagramSocket(self.reactor) as near:
                far.control.max_datagram = 10
                await far.bind_endpoint(LOCALHOST, "")
                await near.connect(LOCALHOST, far.information.local_port)
                for size in (10, 11, 11, 10):
                    near.output_stream.write(bytes(size))
                await near.output_stream.flush()
                messages = [await far.receive(timeout=PATIENCE) for _ in range(4)]
                flags = [message.is_truncated for message in messages]
                self.assertEqual(flags, [False, True, True, False])

        self.run_with(work)

    def test_a_peer_with_a_plain_socket_is_answered(self) -> None:
        """From the address that it sent to, for each way to answer."""

        async def work() -> None:
            box = Mailbox(self.reactor)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
                peer.bind((LOCALHOST, 0))
                peer.settimeout(PATIENCE)
                async with self.bound(box) as made:
                    port = int(made.information.local_port)
                    peer.sendto(b"ping", (LOCALHOST, port))
                    (message,) = await box.wait_for(1)
                    stream = await made.get_output_stream(
                        message.remote_address, message.remote_port
                    )
                    await stream.write(b"pong")
                    self.assertEqual(peer.recvfrom(9), (b"pong", (LOCALHOST, port)))

        self.run_with(work)


class CloseTests(DatagramCase):
    """The close of a socket."""

    def test_a_handler_may_close_the_socket(self) -> None:
        """Datagrams received with the current one are not delivered."""

        async def work() -> None:
            seen: list[bytes] = []
            ended: Deferred[None] = Deferred()

            def handler(made: DatagramSocket, message: Message) -> None:
                seen.append(message.data)
                made.close()
                ended.callback(None)

            async with self.bound(handler) as made, DatagramSocket(self.reactor) as sender:
                await sender.connect(LOCALHOST, made.information.local_port)
                sender.output_stream.write(b"one")
                sender.output_stream.write(b"two")
                await ended.addTimeout(PATIENCE, self.reactor)
                await turns(self.reactor)
                self.assertEqual(seen, [b"one"])

        self.run_with(work)

    def test_written_datagrams_are_sent_before_the_close(self) -> None:
        """Although no write was awaited."""

        async def work() -> None:
            async with self.pair() as (near, far):
                near.output_stream.write(b"one")
                near.output_stream.write(b"two")
                await near.close()
                await near.close()
                self.assertEqual([await self.take(far), await self.take(far)], [b"one", b"two"])

        self.run_with(work)


for _case in (GuideTests, RefusalTests, OutputTests, ConnectTests, ReceiveTests, CloseTests):
    globals().update(_case.makeTestCaseClasses())
