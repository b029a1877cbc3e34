"""Files that are sent, on every reactor and over every kind of transport."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, BinaryIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from typing_extensions import override

from tests.loopback.contract import MIB, OnEveryReactor, failure_of
from tests.loopback.memory import memory_pair
from tests.loopback.reactors import VARIANT_REACTORS
from tests.loopback.test_contract import connect_narrow
from tests.loopback.test_relay import pattern, read_all, receive, together
from tests.loopback.test_tls import Level
from tests.loopback.test_tls_contract import upgrade
from twsock import BrokenError, ClosedError, FileTooShortError, StreamSocket

Conversation = Callable[[StreamSocket, StreamSocket], Coroutine[Deferred[Any], Any, None]]


class SendFileContract(OnEveryReactor):
    """The claims about files that are sent."""

    size = 4 * MIB

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        """Connect two sockets."""
        raise NotImplementedError

    def converse(self, conversation: Conversation) -> None:
        """Let two connected sockets converse; then end both."""
        self.data = pattern(self.size)
        self.path = Path(self.mktemp())
        self.path.write_bytes(self.data)

        async def work(reactor: Any) -> None:
            self.reactor = reactor
            near, far = await self.make_pair(reactor)
            try:
                await conversation(near, far)
            finally:
                await near.abort()
                await far.abort()

        self.conduct(work)

    def opened(self) -> BinaryIO:
        """Open the file."""
        return self.path.open("rb")

    async def until_stopped(self, sending: Any) -> None:
        """Wait until nothing more of a file is sent, for many turns."""
        same, before = 0, -1
        while same < 50:
            await deferLater(self.reactor, 0.001)
            same = same + 1 if sending.sent == before else 0
            before = sending.sent

    def test_a_file_keeps_its_place_among_writes(self) -> None:
        """Behind earlier writes, before later ones and the end; it is counted."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            near.output_stream.write(b"header")
            with self.opened() as file:
                sending: Any = near.output_stream.send_file(file)
                again = near.output_stream.send_file(file, 5, 10)
            near.output_stream.write(b"trailer")
            flushing = near.output_stream.flush()
            closing = near.output_stream.close()
            expected = b"header" + self.data + self.data[5:15] + b"trailer"
            self.assertEqual(await receive(far), hashlib.sha256(expected).digest())
            self.assertEqual((await sending, sending.sent), (self.size, self.size))
            self.assertEqual((await again, await flushing), (10, True))
            await closing

        self.converse(conversation)

    def test_a_part_and_nothing_can_be_sent(self) -> None:
        """From an offset to the end of the file, and at the end of it."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                self.assertEqual(await near.output_stream.send_file(file, self.size - 3), 3)
                self.assertEqual(await near.output_stream.send_file(file, self.size), 0)
                self.assertEqual(await near.output_stream.send_file(file, 0, 0), 0)
                self.assertEqual(file.tell(), 0)
            await near.output_stream.write(b".")
            self.assertEqual(await far.input_stream.receive_exactly(4), self.data[-3:] + b".")

        self.converse(conversation)

    def test_a_short_file_is_refused_and_nothing_sent(self) -> None:
        """The error has both numbers; the stream stays usable."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                error: Any = await failure_of(near.output_stream.send_file(file, 1, self.size))
            self.assertIsInstance(error, FileTooShortError)
            self.assertEqual((error.wanted, error.available), (self.size, self.size - 1))
            await near.output_stream.write(b"x")
            self.assertEqual(await far.input_stream.receive_exactly(1), b"x")

        self.converse(conversation)

    def test_a_file_that_is_shortened_meanwhile_aborts(self) -> None:
        """The peer can't take later bytes for the missing ones."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                sending: Any = near.output_stream.send_file(file)
            later = near.output_stream.write(b"later")
            await self.until_stopped(sending)
            os.truncate(self.path, 1000)
            reading = Deferred.fromCoroutine(read_all(far, self.size))
            self.assertIsInstance(await failure_of(sending), FileTooShortError)
            self.assertIsInstance(await failure_of(later), FileTooShortError)
            self.assertIsInstance(await failure_of(reading), BrokenError)

        self.converse(conversation)

    def test_cancelling_stops_at_a_known_place(self) -> None:
        """Later writes are sent behind it."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                sending: Any = near.output_stream.send_file(file)
            await self.until_stopped(sending)
            sending.cancel()
            later = near.output_stream.write(b"later")
            closing = near.output_stream.close()
            expected = self.data[: sending.sent] + b"later"
            self.assertEqual(await receive(far), hashlib.sha256(expected).digest())
            await later
            await closing
            with self.assertRaises(CancelledError):
                await sending

        self.converse(conversation)

    def test_a_queued_file_is_withdrawn(self) -> None:
        """Nothing of it is sent."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                first = near.output_stream.send_file(file)
                second = near.output_stream.send_file(file)
            second.cancel()
            closing = near.output_stream.close()
            self.assertEqual(await receive(far), hashlib.sha256(self.data).digest())
            await first
            await closing
            with self.assertRaises(CancelledError):
                await second

        self.converse(conversation)

    def test_close_sends_the_file_to_its_end(self) -> None:
        """A close of the socket right behind the call; later writes are refused."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                sending = near.output_stream.send_file(file)
            near.output_stream.write(b"trailer")
            closing = near.close()
            self.assertIsInstance(await failure_of(near.output_stream.write(b"x")), ClosedError)
            expected = hashlib.sha256(self.data + b"trailer").digest()
            self.assertEqual(await receive(far), expected)
            self.assertEqual(await sending, self.size)
            await far.close()
            await closing
            self.assertFalse(near.was_lost)

        self.converse(conversation)

    def test_a_lost_connection_fails_the_file(self) -> None:
        """And the writes behind it."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                sending: Any = near.output_stream.send_file(file)
            later = near.output_stream.write(b"later")
            await self.until_stopped(sending)
            await far.abort()
            self.assertIsInstance(await failure_of(sending), BrokenError)
            self.assertIsInstance(await failure_of(later), BrokenError)

        self.converse(conversation)

    def test_a_file_that_the_kernel_cannot_send_is_copied(self) -> None:
        """As on a file system without sendfile, and on systems that do not have it."""

        def refuse(*_arguments: Any) -> int:
            raise OSError(22, "Invalid argument")

        self.patch(os, "sendfile", refuse)

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                sending = near.output_stream.send_file(file)
            _, received = await together(wait(sending), read_all(far, self.size))
            self.assertEqual(received == self.data, True)

        self.converse(conversation)

    def test_both_directions_at_once(self) -> None:
        """Each end sends the file to the other."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            with self.opened() as file:
                sendings = [each.output_stream.send_file(file) for each in (near, far)]
            at_near, at_far = await together(read_all(near, self.size), read_all(far, self.size))
            self.assertEqual(at_near == self.data and at_far == self.data, True)
            self.assertEqual([await each for each in sendings], [self.size] * 2)

        self.converse(conversation)


async def wait(sending: Deferred[Any]) -> Any:
    """Await a Deferred."""
    return await sending


class TcpFiles(SendFileContract):
    """TCP: the kernel sends the file."""

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        return await connect_narrow(reactor)


class TlsFiles(SendFileContract):
    """TLS 1.3: the file is read and encrypted."""

    _reactors = VARIANT_REACTORS

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = await connect_narrow(reactor)
        await upgrade(near, far, Level.TLS13)
        return near, far


class MemoryFiles(SendFileContract):
    """Transports in memory."""

    _reactors = VARIANT_REACTORS

    @override
    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = memory_pair(reactor)
        return (
            StreamSocket.from_transport(reactor, near),
            StreamSocket.from_transport(reactor, far),
        )


for case in (TcpFiles, TlsFiles, MemoryFiles):
    globals().update(case.makeTestCaseClasses())
