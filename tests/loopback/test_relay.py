"""Two connections that are relayed to each other, on every reactor: bytes, ends, resets, cancel."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.task import deferLater
from typing_extensions import override

from tests import THOROUGH
from tests.loopback.contract import MIB, OnEveryReactor, failure_of, turns
from tests.loopback.memory import memory_pair
from tests.loopback.reactors import VARIANT_REACTORS
from tests.loopback.test_contract import connect_narrow
from tests.loopback.test_tls import Level
from tests.loopback.test_tls_contract import upgrade
from twsock import (
    BrokenError,
    BusyError,
    ClosedError,
    RelayedBytes,
    SocketErrorStatus,
    StreamSocket,
    StreamSocketListener,
    relay,
)
from twsock.sockets import Relay
from twsock.sockets.stream.input import READ_AHEAD_LIMIT
from twsock.stream.counters import Counters

_RESET = SocketErrorStatus.CONNECTION_RESET_BY_PEER


class Ends(NamedTuple):
    """The ends of two connections: client ↔ left, relayed to right ↔ server."""

    client: StreamSocket
    left: StreamSocket
    right: StreamSocket
    server: StreamSocket


Conversation = Callable[[Ends, Relay], Coroutine[Deferred[Any], Any, None]]


@functools.lru_cache(4)
def pattern(size: int, seed: int = 0) -> bytes:
    """Return bytes that differ at each place, the same for the same seed."""
    return random.Random(seed).randbytes(size)


async def send(sender: StreamSocket, data: bytes, piece: int = MIB) -> None:
    """Send bytes in pieces, then end the output."""
    for start in range(0, len(data), piece):
        await sender.output_stream.write(data[start : start + piece])
    await sender.output_stream.close()


async def receive(receiver: StreamSocket) -> bytes:
    """Receive until the end; return a hash of the bytes."""
    received = hashlib.sha256()
    async for chunk in receiver.input_stream:
        received.update(chunk)
    return received.digest()


async def together(*work: Coroutine[Deferred[Any], Any, Any]) -> list[Any]:
    """Run coroutines at the same time; return their results."""
    done: list[Any] = await gatherResults([Deferred.fromCoroutine(each) for each in work])
    return done


class RelayContract(OnEveryReactor):
    """The claims about a relay."""

    size = 2 * MIB

    #: Whether an abort differs from an end in order if no byte was under way.
    has_resets = True

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        """Connect two sockets."""
        raise NotImplementedError

    async def make_ends(self, reactor: Any) -> Ends:
        """Make both connections."""
        return Ends(*await self.make_pair(reactor), *await self.make_pair(reactor))

    def converse(self, conversation: Conversation) -> None:
        """Relay two connections while their far ends converse; then end all."""

        async def work(reactor: Any) -> None:
            self.reactor = reactor
            ends = await self.make_ends(reactor)
            try:
                relaying = relay(ends.left, ends.right)
                await conversation(ends, relaying)
            finally:
                relaying.addErrback(lambda failure: failure.trap(CancelledError))
                relaying.cancel()
                for each in ends:
                    await each.abort()

        self.conduct(work)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the reactor run until a condition holds."""
        while not condition():
            await deferLater(self.reactor, 0.001)

    def test_bytes_arrive_equal_in_both_directions(self) -> None:
        """At the same time, and they are counted."""
        there, back = pattern(self.size, 1), pattern(self.size + 1, 2)
        left, right = Counters(), Counters()

        async def conversation(ends: Ends, relaying: Relay) -> None:
            ends.left.count_in(left)
            ends.right.count_in(right)
            _, _, at_server, at_client = await together(
                send(ends.client, there),
                send(ends.server, back),
                receive(ends.server),
                receive(ends.client),
            )
            self.assertEqual(at_server, hashlib.sha256(there).digest())
            self.assertEqual(at_client, hashlib.sha256(back).digest())
            self.assertEqual(await relaying, RelayedBytes(len(there), len(back)))
            self.assertEqual(relaying.relayed, RelayedBytes(len(there), len(back)))
            self.assertIsNone(relaying.failed_socket)
            self.assertFalse(ends.left.is_open or ends.right.is_open)
            counted = (left.bytes_received, right.bytes_sent)
            self.assertEqual(counted, (len(there), len(there)))
            counted = (right.bytes_received, left.bytes_sent)
            self.assertEqual(counted, (len(back), len(back)))

        self.converse(conversation)

    def test_the_left_end_is_passed_on_and_the_answer_follows(self) -> None:
        """The other direction stays open, whichever peer ends first."""

        async def conversation(ends: Ends, relaying: Relay) -> None:
            await self.end_first(ends.client, ends.server)
            self.assertEqual(await relaying, RelayedBytes(7, 6))

        self.converse(conversation)

    def test_the_right_end_is_passed_on_and_the_answer_follows(self) -> None:
        """The other direction stays open, whichever peer ends first."""

        async def conversation(ends: Ends, relaying: Relay) -> None:
            await self.end_first(ends.server, ends.client)
            self.assertEqual(await relaying, RelayedBytes(6, 7))

        self.converse(conversation)

    async def end_first(self, first: StreamSocket, second: StreamSocket) -> None:
        """Send a question and an end, then an answer and an end."""
        await first.output_stream.write(b"request")
        await first.output_stream.close()
        self.assertEqual(await second.input_stream.read(100), b"request")
        await second.output_stream.write(b"answer")
        await second.output_stream.close()
        self.assertEqual(await first.input_stream.read(100), b"answer")

    def test_what_was_received_and_written_before_comes_first(self) -> None:
        """Bytes that the application had not read, and writes that it had queued."""

        async def work(reactor: Any) -> None:
            ends = await self.make_ends(reactor)
            await ends.client.output_stream.write(b"early ")
            while ends.left.input_stream.buffered < 6:
                await turns(reactor)
            ends.right.output_stream.write(b"header ")
            relaying = relay(ends.left, ends.right)
            await ends.client.output_stream.write(b"late")
            self.assertEqual(
                await ends.server.input_stream.receive_exactly(17), b"header early late"
            )
            relaying.cancel()
            self.assertIsInstance(await self.error_of(relaying), CancelledError)
            for each in ends:
                await each.abort()

        self.conduct(work)

    async def error_of(self, relaying: Relay) -> BaseException | None:
        """Return the error with which a relay has failed."""
        try:
            await relaying
        except BaseException as error:  # noqa: BLE001 - returned
            return error.with_traceback(None)
        return None

    def test_a_reset_of_the_client_reaches_the_server(self) -> None:
        """It is not an end in order; the relay names the socket."""

        async def conversation(ends: Ends, relaying: Relay) -> None:
            await self.reset(ends.client, ends.server, relaying)
            self.assertIs(relaying.failed_socket, ends.left if self.has_resets else None)

        self.converse(conversation)

    def test_a_reset_of_the_server_reaches_the_client(self) -> None:
        """It is not an end in order; the relay names the socket."""

        async def conversation(ends: Ends, relaying: Relay) -> None:
            await self.reset(ends.server, ends.client, relaying)
            self.assertIs(relaying.failed_socket, ends.right if self.has_resets else None)

        self.converse(conversation)

    async def reset(self, first: StreamSocket, second: StreamSocket, relaying: Relay) -> None:
        """Abort one far end after some bytes; the other one sees a broken connection."""
        await first.output_stream.write(b"some")
        self.assertEqual(await second.input_stream.receive_exactly(4), b"some")
        await first.abort()
        # Without a reset (UNIX sockets) an abort is an end in order, and so is what the other sees.
        if self.has_resets:
            self.assertIsInstance(await failure_of(second.input_stream.receive_some()), BrokenError)
            self.assertIsInstance(await failure_of(relaying), BrokenError)

    def test_a_slow_reader_stops_the_sender(self) -> None:
        """Little is held in memory, and everything arrives when the reader goes on."""
        data = pattern(8 * MIB)

        async def conversation(ends: Ends, relaying: Relay) -> None:
            sending = Deferred.fromCoroutine(send(ends.client, data))
            await self.until_stopped(ends, relaying)
            self.assertFalse(sending.called)
            self.assertLessEqual(ends.left.input_stream.buffered, 4 * READ_AHEAD_LIMIT)
            self.assertLess(relaying.relayed.left_to_right, 6 * MIB)
            self.assertEqual(await receive(ends.server), hashlib.sha256(data).digest())
            await sending

        self.converse(conversation)

    async def until_stopped(self, ends: Ends, relaying: Relay) -> None:
        """Wait until nothing more is passed on, for so many turns that it is no coincidence."""
        same, before = 0, -1
        while same < 50:
            await deferLater(self.reactor, 0.001)
            now = relaying.relayed.left_to_right
            transport = ends.left.input_stream.transport
            is_paused = transport is not None and not transport.is_reading
            same = same + 1 if now == before and is_paused else 0
            before = now

    def test_cancelling_a_blocked_relay_loses_nothing(self) -> None:
        """What was read is sent, the rest can be read, and both sockets can be used at once."""
        data = pattern(8 * MIB)

        async def conversation(ends: Ends, relaying: Relay) -> None:
            sending = Deferred.fromCoroutine(send(ends.client, data))
            await self.until_stopped(ends, relaying)
            relaying.cancel()
            self.assertIsInstance(await self.error_of(relaying), CancelledError)
            ends.right.output_stream.write(b"after")
            passed = relaying.relayed.left_to_right
            rest, at_server = await together(
                receive(ends.left), read_all(ends.server, passed + len(b"after"))
            )
            await sending
            self.assertEqual(rest, hashlib.sha256(data[passed:]).digest())
            self.assertEqual(at_server == data[:passed] + b"after", True)
            await ends.left.output_stream.write(b"back")
            self.assertEqual(await ends.client.input_stream.receive_exactly(4), b"back")

        self.converse(conversation)

    def test_cancel_io_leaves_both_sockets_open(self) -> None:
        """The relay fails with its status; a new one can begin."""

        async def conversation(ends: Ends, relaying: Relay) -> None:
            await ends.left.cancel_io()
            error = await failure_of(relaying)
            self.assertIs(error.status, SocketErrorStatus.OPERATION_ABORTED)
            again = relay(ends.left, ends.right)
            await self.end_first(ends.client, ends.server)
            await again

        self.converse(conversation)

    def test_closing_one_socket_aborts_both(self) -> None:
        """The peers do not take it for an end in order."""

        async def conversation(ends: Ends, relaying: Relay) -> None:
            await ends.left.close()
            self.assertIsInstance(await failure_of(relaying), ClosedError)
            await ends.right.wait_closed()
            if self.has_resets:
                for each in (ends.client, ends.server):
                    error = await failure_of(each.input_stream.receive_some())
                    self.assertIsInstance(error, BrokenError)

        self.converse(conversation)

    def test_other_reads_are_refused_and_writes_wait(self) -> None:
        """Until the relay is done."""

        async def conversation(ends: Ends, relaying: Relay) -> None:
            self.assertIsInstance(await failure_of(ends.left.input_stream.read(1)), BusyError)
            write = ends.left.output_stream.write(b"later")
            ends.server.output_stream.write(b"first ")
            self.assertEqual(await ends.client.input_stream.receive_exactly(6), b"first ")
            self.assertNoResult(write)
            relaying.cancel()
            await self.error_of(relaying)
            self.assertEqual(await ends.client.input_stream.receive_exactly(5), b"later")

        self.converse(conversation)


async def read_all(receiver: StreamSocket, count: int) -> bytes:
    """Receive a number of bytes, more than one read may ask for."""
    received = bytearray()
    while len(received) < count:
        chunk = await receiver.input_stream.receive_some()
        if not chunk:
            break
        received += chunk
    return bytes(received)


class TcpRelays(RelayContract):
    """TCP on both sides: the bytes are spliced where the system has it."""

    size = (64 if THOROUGH else 16) * MIB

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        return await connect_narrow(reactor)

    def test_a_reset_while_bytes_are_spliced_reaches_the_server(self) -> None:
        """After many bytes, some of them in the pipe."""
        data = pattern(8 * MIB)

        async def conversation(ends: Ends, relaying: Relay) -> None:
            sending = Deferred.fromCoroutine(send(ends.client, data))
            sending.addErrback(lambda failure: failure.trap(ClosedError) and None)
            await self.until_stopped(ends, relaying)
            await ends.client.abort()
            received = read_all(ends.server, len(data))
            error = await failure_of(Deferred.fromCoroutine(received))
            self.assertIs(error.status, _RESET)
            self.assertIsInstance(await failure_of(relaying), BrokenError)
            await sending

        self.converse(conversation)

    def test_a_reset_of_a_blocked_reader_reaches_the_sender(self) -> None:
        """The sender's writes fail."""
        data = pattern(8 * MIB)

        async def conversation(ends: Ends, relaying: Relay) -> None:
            sending = Deferred.fromCoroutine(send(ends.client, data))
            await self.until_stopped(ends, relaying)
            await ends.server.abort()
            self.assertIsInstance(await failure_of(sending), BrokenError)
            self.assertIsInstance(await failure_of(relaying), BrokenError)
            self.assertIs(relaying.failed_socket, ends.right)

        self.converse(conversation)

    def test_bytes_are_copied_where_no_pipe_can_be_made(self) -> None:
        """The process has too many open files, or the system no splice."""

        def refuse(_flags: int) -> tuple[int, int]:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(os, "pipe2", refuse)
        data = pattern(8 * MIB)

        async def conversation(ends: Ends, relaying: Relay) -> None:
            _, received = await together(send(ends.client, data), receive(ends.server))
            self.assertEqual(received, hashlib.sha256(data).digest())
            self.assertEqual(relaying.relayed, RelayedBytes(len(data), 0))

        self.converse(conversation)

    def test_small_writes_after_large_ones_arrive(self) -> None:
        """The way changes back and forth."""
        data = b"".join(
            pattern(size, size) for _ in range(3) for size in (2 * MIB, *([100] * 40), 3 * MIB)
        )

        async def conversation(ends: Ends, relaying: Relay) -> None:
            place = 0
            for _ in range(3):
                for size in (2 * MIB, *([100] * 40), 3 * MIB):
                    piece = data[place : place + size]
                    place += size
                    _, received = await together(
                        write(ends.client, piece), read_all(ends.server, size)
                    )
                    self.assertEqual(received == piece, True, f"{place=}")

        self.converse(conversation)


async def write(sender: StreamSocket, data: bytes) -> None:
    """Write once."""
    await sender.output_stream.write(data)


class UnixRelays(RelayContract):
    """UNIX sockets on both sides."""

    _reactors = VARIANT_REACTORS
    has_resets = False

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = socket.socketpair()
        return StreamSocket.from_socket(reactor, near), StreamSocket.from_socket(reactor, far)


class MixedRelays(RelayContract):
    """TCP on the left, a UNIX socket on the right."""

    _reactors = VARIANT_REACTORS
    has_resets = False

    @override
    async def make_ends(self, reactor: Any) -> Ends:
        client, left = await connect_narrow(reactor)
        path = self.mktemp()[-60:].replace("/", "_")
        async with StreamSocketListener(reactor) as listener:
            await listener.listen(UNIXServerEndpoint(reactor, path))
            right = StreamSocket(reactor)
            await right.connect_endpoint(UNIXClientEndpoint(reactor, path))
            return Ends(client, left, right, await listener.accept())


class TlsRelays(RelayContract):
    """TLS on the left, TCP on the right: a proxy that ends TLS."""

    _reactors = VARIANT_REACTORS

    @override
    async def make_ends(self, reactor: Any) -> Ends:
        client, left = await connect_narrow(reactor)
        await upgrade(client, left, Level.TLS13)
        return Ends(client, left, *await connect_narrow(reactor))


class TlsOnTheRightRelays(RelayContract):
    """TCP on the left, TLS 1.3 on the right."""

    _reactors = VARIANT_REACTORS

    @override
    async def make_ends(self, reactor: Any) -> Ends:
        right, server = await connect_narrow(reactor)
        await upgrade(right, server, Level.TLS13)
        return Ends(*await connect_narrow(reactor), right, server)


class MemoryRelays(RelayContract):
    """Transports in memory."""

    _reactors = VARIANT_REACTORS

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = memory_pair(reactor)
        return (
            StreamSocket.from_transport(reactor, near),
            StreamSocket.from_transport(reactor, far),
        )


for case in (TcpRelays, UnixRelays, MixedRelays, TlsRelays, TlsOnTheRightRelays, MemoryRelays):
    globals().update(case.makeTestCaseClasses())
