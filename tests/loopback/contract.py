"""
The contract of every stream: one mixin for TCP, UNIX sockets, TLS, memory and WebSockets.

The claims are those of trio's testing package for streams, and those that twsock adds. They are in
two parts. `ByteStreamContract` holds for the streams of WebSockets, too. `StreamContract` adds the
claims that a WebSocket cannot keep: it has no half-close, as the close frame ends both directions
(:rfc:`6455`, section 5.5.1: no data follows it, and the peer answers with its own); and no
``cancel_io``, as a message that has begun has to be sent to its end.
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import deferLater

from tests.leaks import Leaks, freeze_objects
from tests.loopback.reactors import PATIENCE, REACTORS, ClosingBuilder
from twsock import (
    BrokenError,
    BusyError,
    ClosedError,
    EndOfStreamError,
    InputStreamOptions,
    SocketError,
    SocketErrorStatus,
    StreamSocket,
)
from twsock.sockets import InputStream

MIB = 1024 * 1024


class Stream(typing.Protocol):
    """One end of a connection: a `StreamSocket`, or a WebSocket of a byte stream."""

    @property
    def input_stream(self) -> InputStream:
        """The receiving side."""

    @property
    def output_stream(self) -> Any:
        """The sending side: that of a stream, or of a WebSocket."""

    @property
    def is_open(self) -> bool:
        """Whether bytes can be sent."""

    def close(self) -> Deferred[None]:
        """Send what is queued, then end in order."""

    def abort(self) -> Deferred[None]:
        """End at once."""


#: Called with the two ends.
Conversation = Callable[[Any, Any], Awaitable[None]]


class OnEveryReactor(ClosingBuilder):
    """Runs a coroutine on a reactor of its own, and checks what it leaves."""

    _reactors = REACTORS

    def conduct(self, work: Callable[[Any], Awaitable[None]]) -> None:
        """
        Run to the end; fail on an error, a leak, or a timeout.

        :param work: called with the reactor.
        """
        freeze_objects()
        reactor = self.buildReactor()
        ended: list[BaseException | None] = []

        async def run() -> None:
            leaks = Leaks(reactor)
            await work(reactor)
            await turns(reactor)
            found = leaks.found()
            if found:
                raise AssertionError(f"left behind: {found}")

        def end(failure: Any) -> None:
            ended.append(getattr(failure, "value", None))
            reactor.stop()

        reactor.callWhenRunning(lambda: ensureDeferred(run()).addBoth(end))
        self.runReactor(reactor, timeout=PATIENCE)
        if ended[0] is not None:
            raise ended[0]


async def turns(reactor: Any, count: int = 5) -> None:
    """Let the reactor run some turns."""
    for _ in range(count):
        await deferLater(reactor, 0)


async def failure_of(operation: Deferred[Any]) -> SocketError:
    """Await a call that has to fail; return its error."""
    try:
        result = await operation
    except SocketError as error:
        return error
    raise AssertionError(f"succeeded with {result!r}")


class ByteStreamContract(OnEveryReactor):
    """The claims about two ends of a connection, also if it is a WebSocket."""

    #: Whether an abort differs from an end in order if no byte was under way.
    has_resets = True

    async def make_pair(self, reactor: Any) -> tuple[Stream, Stream]:
        """Connect two sockets."""
        raise NotImplementedError

    def make_bytes(self, size: int) -> bytes:
        """Return bytes for a claim about room, whose values do not matter."""
        return bytes(size)

    def converse(self, conversation: Conversation) -> None:
        """Let two connected sockets converse; then end both, in whatever state they are."""

        async def work(reactor: Any) -> None:
            self.reactor = reactor
            near, far = await self.make_pair(reactor)
            try:
                await conversation(near, far)
            finally:
                await near.abort()
                await far.abort()

        self.conduct(work)

    def test_bytes_arrive_in_order(self) -> None:
        """In both directions."""

        async def conversation(near: Stream, far: Stream) -> None:
            for one, other in ((near, far), (far, near)):
                for number in range(100):
                    one.output_stream.write(b"%3d" % number)
                whole = b"".join(b"%3d" % number for number in range(100))
                self.assertEqual(
                    await other.input_stream.receive_exactly(300),
                    whole,
                    "from near to far" if one is near else "from far to near",
                )

        self.converse(conversation)

    def test_an_empty_write_is_not_an_end(self) -> None:
        """It returns 0, and the peer receives nothing."""

        async def conversation(near: Stream, far: Stream) -> None:
            self.assertEqual(await near.output_stream.write(b""), 0)
            await near.output_stream.send_all(b"x")
            self.assertEqual(await far.input_stream.receive_some(), b"x")

        self.converse(conversation)

    def test_a_read_returns_no_more_than_its_size(self) -> None:
        """The rest is for the next read."""

        async def conversation(near: Stream, far: Stream) -> None:
            await near.output_stream.send_all(b"abc")
            self.assertEqual(await far.input_stream.receive_exactly(1), b"a")
            self.assertEqual(await far.input_stream.receive_some(1), b"b")
            self.assertEqual(await far.input_stream.read(1), b"c")

        self.converse(conversation)

    def test_a_second_read_is_refused(self) -> None:
        """The first read is not disturbed."""

        async def conversation(near: Stream, far: Stream) -> None:
            first = far.input_stream.receive_some()
            self.assertIsInstance(await failure_of(far.input_stream.receive_some()), BusyError)
            near.output_stream.write(b"x")
            self.assertEqual(await first, b"x")

        self.converse(conversation)

    def test_closing_ends_the_peers_read(self) -> None:
        """The peer reads the end of the stream, with each kind of read."""

        async def conversation(near: Stream, far: Stream) -> None:
            read = far.input_stream.receive_some()
            near.close()
            self.assertEqual(await read, b"")
            self.assertEqual(await far.input_stream.read(4), b"")
            partial = far.input_stream.read(4, InputStreamOptions.PARTIAL)
            self.assertEqual(await partial, b"")
            error = await failure_of(far.input_stream.receive_exactly(4))
            self.assertIsInstance(error, EndOfStreamError)

        self.converse(conversation)

    def test_closing_ends_a_read_of_this_end(self) -> None:
        """The read fails, and does not hang."""

        async def conversation(near: Stream, far: Stream) -> None:
            read = near.input_stream.receive_some()
            near.close()
            self.assertIsInstance(await failure_of(read), ClosedError)

        self.converse(conversation)

    def test_closing_twice_is_harmless(self) -> None:
        """While the first close is under way, and when it is done."""

        async def conversation(near: Stream, far: Stream) -> None:
            closing, again = near.close(), near.close()
            await far.close()
            await closing
            await again
            await near.close()
            await near.abort()
            self.assertFalse(near.is_open)

        self.converse(conversation)

    def test_after_closing_every_call_is_refused(self) -> None:
        """Reads, writes and flushes."""

        async def conversation(near: Stream, far: Stream) -> None:
            near.close()
            for name, operation in (
                ("read", near.input_stream.receive_some()),
                ("write", near.output_stream.write(b"x")),
                ("flush", near.output_stream.flush()),
            ):
                self.assertIsInstance(await failure_of(operation), ClosedError, f"{name=}")

        self.converse(conversation)

    def test_bytes_sent_before_closing_arrive(self) -> None:
        """All of them, however many, although no write was awaited."""

        async def conversation(near: Stream, far: Stream) -> None:
            for _ in range(16):
                near.output_stream.write(self.make_bytes(256 * 1024))
            near.close()
            received = 0
            async for chunk in far.input_stream:
                received += len(chunk)
            self.assertEqual(received, 4 * MIB)

        self.converse(conversation)

    def test_closing_with_unread_input_delivers_what_was_sent(self) -> None:
        """The end is in order, although bytes were not read."""

        async def conversation(near: Stream, far: Stream) -> None:
            writing = far.output_stream.write(self.make_bytes(100_000))
            await turns(self.reactor)
            await near.output_stream.write(b"answer")
            near.close()
            self.assertEqual(await far.input_stream.receive_exactly(6), b"answer")
            self.assertEqual(await far.input_stream.receive_some(), b"")
            await writing

        self.converse(conversation)

    def test_an_abort_ends_every_wait_at_both_ends(self) -> None:
        """At once."""

        async def conversation(near: Stream, far: Stream) -> None:
            here, there = near.input_stream.receive_some(), far.input_stream.receive_some()
            await near.abort()
            self.assertIsInstance(await failure_of(here), ClosedError)
            if self.has_resets:
                self.assertIsInstance(await failure_of(there), BrokenError)
            else:
                self.assertEqual(await there, b"")

        self.converse(conversation)

    def test_a_cancelled_read_takes_nothing(self) -> None:
        """The next read gets the bytes."""

        async def conversation(near: Stream, far: Stream) -> None:
            read = far.input_stream.receive_exactly(4)
            near.output_stream.write(b"ab")
            await near.output_stream.flush()
            await turns(self.reactor)
            read.cancel()
            with self.assertRaises(CancelledError):
                await read
            near.output_stream.write(b"cd")
            self.assertEqual(await far.input_stream.receive_exactly(4), b"abcd")

        self.converse(conversation)

    def test_a_flush_waits_for_a_peer_that_does_not_read(self) -> None:
        """
        It ends when the peer has read; this end receives only a bounded number of bytes unread.
        """

        async def conversation(near: Stream, far: Stream) -> None:
            for _ in range(160):
                near.output_stream.write(self.make_bytes(100_000))
            flush = near.output_stream.flush()
            await turns(self.reactor, 50)
            self.assertFalse(flush.called)
            self.assertLess(far.input_stream.buffered, 300_000)
            received = 0
            while received < 16_000_000:
                received += len(await far.input_stream.receive_some())
            self.assertTrue(await flush)

        self.converse(conversation)

    def test_a_flush_fails_when_the_connection_is_lost(self) -> None:
        """It does not hang."""

        async def conversation(near: Stream, far: Stream) -> None:
            near.output_stream.write(self.make_bytes(16 * MIB))
            flush = near.output_stream.flush()
            await turns(self.reactor)
            await far.abort()
            self.assertIsInstance(await failure_of(flush), BrokenError)

        self.converse(conversation)

    def test_both_directions_carry_megabytes_at_once(self) -> None:
        """Neither direction waits for the other."""

        async def send(one: Stream) -> None:
            for _ in range(64):
                await one.output_stream.write(self.make_bytes(65_536))

        async def receive(one: Stream) -> int:
            received = 0
            while received < 4 * MIB:
                received += len(await one.input_stream.receive_some())
            return received

        async def conversation(near: Stream, far: Stream) -> None:
            sending = [ensureDeferred(send(one)) for one in (near, far)]
            receiving = [ensureDeferred(receive(one)) for one in (near, far)]
            for pending in sending:
                await pending
            self.assertEqual([await pending for pending in receiving], [4 * MIB] * 2)

        self.converse(conversation)

    def test_a_loop_of_writes_does_not_starve_its_reader(self) -> None:
        """Both ends run in one reactor."""

        async def send(one: Stream) -> None:
            for _ in range(2000):
                await one.output_stream.write(b"0123456789")

        async def conversation(near: Stream, far: Stream) -> None:
            sending = ensureDeferred(send(near))
            self.assertFalse(sending.called)
            self.assertEqual(len(await far.input_stream.receive_exactly(20_000)), 20_000)
            await sending

        self.converse(conversation)


class StreamContract(ByteStreamContract):
    """The claims about two ends of a connection that is no WebSocket."""

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        raise NotImplementedError

    def test_cancel_io_leaves_the_connection_usable(self) -> None:
        """It ends every wait with `OPERATION_ABORTED`, and nothing else."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            read = far.input_stream.receive_some()
            write = far.output_stream.write(b"never")
            await far.cancel_io()
            for name, pending in (("read", read), ("write", write)):
                status = (await failure_of(pending)).status
                self.assertIs(status, SocketErrorStatus.OPERATION_ABORTED, f"{name=}, {status=}")
            far.output_stream.write(b"pong")
            self.assertEqual(await near.input_stream.receive_some(), b"pong")
            near.output_stream.write(b"ping")
            self.assertEqual(await far.input_stream.receive_some(), b"ping")

        self.converse(conversation)

    def test_a_closed_output_leaves_the_input_open(self) -> None:
        """The peer reads the end of the stream, and its answer arrives."""

        async def conversation(near: StreamSocket, far: StreamSocket) -> None:
            near.output_stream.write(b"question")
            await near.output_stream.close()
            question = b"".join([chunk async for chunk in far.input_stream])
            far.output_stream.write(b"answer to " + question)
            await far.output_stream.close()
            answer = b"".join([chunk async for chunk in near.input_stream])
            self.assertEqual(answer, b"answer to question")

        self.converse(conversation)
