"""Handlers of a listener end with their connections, and a listener ends with its handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransportWithDisconnection
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.contract import OnEveryReactor, turns
from tests.loopback.reactors import on_every_reactor
from tests.sockets.stream.test_listener import connect, listen
from twsock import StreamSocket, StreamSocketListener

Args = Any


class Endless:
    """Handlers that wait for ever. :ivar ended: the errors that ended them, in order."""

    def __init__(self) -> None:
        self.started = 0
        self.ended: list[str] = []

    async def __call__(self, _listener: StreamSocketListener, _args: Args) -> None:
        self.started += 1
        try:
            await Deferred()
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise


class LoggedCase(OnEveryReactor):
    """Records log events."""

    has_variants = True

    def setUp(self) -> None:
        super().setUp()
        self.events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(self.events.append)
        self.addCleanup(publisher.removeObserver, self.events.append)

    def serious(self) -> list[str]:
        """Return the texts of warnings and errors."""
        levels = (LogLevel.warn, LogLevel.error, LogLevel.critical)
        return [formatEvent(event) for event in self.events if event["log_level"] in levels]


class LossTests(LoggedCase):
    """A lost connection ends its handlers."""

    @on_every_reactor
    def test_a_reset_cancels_every_handler_of_the_connection(self) -> None:
        """And none of another; no failure is logged."""
        handler, others = Endless(), Endless()

        def second(_listener: StreamSocketListener, _args: Args) -> Deferred[None]:
            return Deferred(lambda _: others.ended.append("cancelled"))

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            listener.connection_received.add(handler)
            listener.connection_received.add(second)
            await listener.bind_endpoint("127.0.0.1", "")
            near, other = await connect(reactor, listener), await connect(reactor, listener)
            await turns(reactor, 20)
            await near.abort()
            await turns(reactor, 20)
            self.assertEqual((handler.ended, others.ended), (["CancelledError"], ["cancelled"]))
            self.assertEqual(len(listener), 1)
            await other.abort()
            await turns(reactor, 20)
            self.assertEqual(len(handler.ended), 2)
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)
        self.assertEqual(self.serious(), [])

    def test_an_abort_by_this_end_cancels_its_handlers(self) -> None:
        """Whichever code called it."""
        handler = Endless()

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, handler)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            await listener.sockets[0].abort()
            await turns(reactor)
            self.assertEqual(handler.ended, ["CancelledError"])
            await near.abort()
            await listener.close_all(0)

        self.conduct(work)
        self.assertEqual(self.serious(), [])

    @on_every_reactor
    def test_a_peer_that_ended_its_output_is_answered(self) -> None:
        """A half-closed connection is not lost."""

        async def work(reactor: Any) -> None:
            async def answer(_listener: StreamSocketListener, args: Args) -> None:
                async with args.socket as accepted:
                    question = b"".join([chunk async for chunk in accepted.input_stream])
                    await deferLater(reactor, 0.05)
                    await accepted.output_stream.send_all(b"answer to " + question)

            listener = await listen(reactor, answer)
            near = await connect(reactor, listener)
            near.output_stream.write(b"question")
            await near.output_stream.close()
            received = b"".join([chunk async for chunk in near.input_stream])
            self.assertEqual(received, b"answer to question")
            await near.close()
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)

    @on_every_reactor
    def test_a_reset_after_the_peers_end_is_noticed(self) -> None:
        """Even if nothing is read or written."""
        handler = Endless()

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, handler)
            near = await connect(reactor, listener)
            await near.output_stream.close()
            await turns(reactor, 20)
            self.assertEqual((handler.started, handler.ended), (1, []))
            await near.abort()
            while not handler.ended:
                await deferLater(reactor, 0.01)
            self.assertEqual(handler.ended, ["CancelledError"])
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)
        self.assertEqual(self.serious(), [])

    def test_a_handler_continues_after_an_orderly_end(self) -> None:
        """
        It closed the connection, or its output after the peer's; now it stores the received bytes.
        """
        stored: list[bytes] = []

        async def end_by_closing(accepted: StreamSocket) -> None:
            await accepted.close()

        async def end_by_halves(accepted: StreamSocket) -> None:
            await accepted.output_stream.close()

        async def work(reactor: Any) -> None:
            for end in (end_by_closing, end_by_halves):

                async def store(_: object, args: Args, end: Any = end) -> None:
                    received = b"".join([chunk async for chunk in args.socket.input_stream])
                    await end(args.socket)
                    await args.socket.wait_closed()
                    await deferLater(reactor, 0.05)
                    stored.append(received)

                listener = await listen(reactor, store)
                near = await connect(reactor, listener)
                near.output_stream.write(b"data")
                await near.close()
                await near.wait_closed()
                self.assertEqual(await listener.close_all(5), 0, end)

        self.conduct(work)
        self.assertEqual(stored, [b"data"] * 2)

    def test_the_error_of_a_cancelled_handler_is_no_failure(self) -> None:
        """Whatever it is, no traceback is logged."""

        async def clean_up_badly(_listener: StreamSocketListener, _args: Args) -> None:
            try:
                await Deferred()
            finally:
                raise ZeroDivisionError

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, clean_up_badly)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            await near.abort()
            await turns(reactor, 20)
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)
        self.assertEqual(self.flushLoggedErrors(), [])
        [line] = self.serious()
        self.assertIn("ZeroDivisionError", line)
        self.assertFalse([event for event in self.events if "log_failure" in event])

    def test_a_handler_that_fails_cancels_the_others(self) -> None:
        """Those of its connection, which is aborted."""
        handler = Endless()

        async def read(_listener: StreamSocketListener, args: Args) -> None:
            await args.socket.input_stream.receive_exactly(10)

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            listener.connection_received.add(handler)
            listener.connection_received.add(read)
            await listener.bind_endpoint("127.0.0.1", "")
            near = await connect(reactor, listener)
            await near.close()
            await near.wait_closed()
            await turns(reactor)
            self.assertEqual(handler.ended, ["CancelledError"])
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)


class CloseAllTests(LoggedCase):
    """Closing a listener waits for its handlers."""

    @on_every_reactor
    def test_close_all_waits_for_handlers_whose_sockets_are_closed(self) -> None:
        """They return before the deadline."""
        done: list[bool] = []

        async def work(reactor: Any) -> None:
            async def store(_listener: StreamSocketListener, args: Args) -> None:
                async with args.socket as accepted:
                    await accepted.input_stream.receive_some()
                await args.socket.wait_closed()
                await deferLater(reactor, 0.05)
                done.append(True)

            listener = await listen(reactor, store)
            near = await connect(reactor, listener)
            near.output_stream.write(b"x")
            await near.close()
            await near.wait_closed()
            await turns(reactor, 20)
            self.assertEqual(len(listener), 0)
            self.assertEqual(done, [])
            self.assertEqual(await listener.close_all(5), 0)
            self.assertEqual(done, [True])

        self.conduct(work)

    @on_every_reactor
    def test_at_the_deadline_handlers_are_cancelled(self) -> None:
        """
        Those of open connections, and those that continued after them; also with a deadline of 0.
        """
        for timeout in (0.05, 0):
            handler = Endless()

            async def work(reactor: Any, timeout: float = timeout, handler: Any = handler) -> None:
                async def go_on(listener: StreamSocketListener, args: Args) -> None:
                    if handler.started:
                        await args.socket.close()
                    await handler(listener, args)

                listener = await listen(reactor, go_on)
                open_one, closed = (
                    await connect(reactor, listener),
                    await connect(reactor, listener),
                )
                await turns(reactor, 20)
                await closed.close()
                await closed.wait_closed()
                await turns(reactor, 20)
                self.assertEqual(len(listener), 1)
                self.assertEqual(await listener.close_all(timeout), 1)
                self.assertEqual(handler.ended, ["CancelledError"] * 2)
                await open_one.abort()

            self.conduct(work)
        self.assertEqual(self.serious(), [])

    def test_a_cancelled_handler_may_end_later(self) -> None:
        """A block around its socket aborts the socket, which takes a turn of the reactor."""
        ended: list[bool] = []

        async def work(reactor: Any) -> None:
            async def clean_up(_listener: StreamSocketListener, args: Args) -> None:
                try:
                    async with args.socket:
                        await Deferred()
                finally:
                    await deferLater(reactor, 0.01)
                    ended.append(True)

            listener = await listen(reactor, clean_up)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            await listener.close_all(0)
            self.assertEqual(ended, [True])
            await near.abort()

        self.conduct(work)

    def test_a_handler_that_ignores_the_cancellation_is_not_waited_for(self) -> None:
        """After half a second; one line is logged."""
        waits: list[Deferred[None]] = []

        async def swallow(_listener: StreamSocketListener, _args: Args) -> None:
            for _ in range(2):
                waits.append(Deferred())
                try:
                    await waits[-1]
                except CancelledError:
                    pass

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, swallow)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            self.assertEqual(await listener.close_all(0), 1)
            self.assertEqual(len(waits), 2)
            waits[-1].callback(None)
            await near.abort()

        self.conduct(work)
        [line] = self.serious()
        self.assertIn("1 handler", line)

    def test_a_handler_that_returned_is_not_waited_for(self) -> None:
        """Other code may have its socket, which is drained as any other."""
        kept: list[StreamSocket] = []

        async def keep(_listener: StreamSocketListener, args: Args) -> None:
            kept.append(args.socket)

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, keep)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            closing = listener.close_all(5)
            self.assertEqual(await kept[0].input_stream.receive_some(), b"")
            self.assertFalse(closing.called)
            await kept[0].close()
            await near.close()
            self.assertEqual(await closing, 0)

        self.conduct(work)

    def test_a_handler_may_end_its_listener(self) -> None:
        """Its own connection may still be open; the deadline ends the wait."""
        counts: list[int] = []

        async def end(listener: StreamSocketListener, _args: Args) -> None:
            counts.append(await listener.close_all(0.05))

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, end)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            while not counts:
                await deferLater(reactor, 0.01)
            self.assertEqual(await listener.close_all(0), 0)
            await near.abort()

        self.conduct(work)
        self.assertEqual(counts, [1])

    def test_an_error_in_a_cancellation_does_not_affect_other_handlers(self) -> None:
        """It is logged, and the other handlers are cancelled."""
        handler = Endless()

        def raise_error(_: object) -> None:
            raise ZeroDivisionError

        waits: list[Deferred[None]] = []

        def refuse(_listener: StreamSocketListener, _args: Args) -> Deferred[None]:
            waits.append(Deferred(raise_error))
            return waits[-1]

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            listener.connection_received.add(refuse)
            listener.connection_received.add(handler)
            await listener.bind_endpoint("127.0.0.1", "")
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            await near.abort()
            await turns(reactor, 20)
            self.assertEqual(handler.ended, ["CancelledError"])
            waits[0].callback(None)
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)
        [line] = self.serious()
        self.assertIn("could not be cancelled", line)


class MemoryTests(SynchronousTestCase):
    """A transport in memory may end within the call of a handler."""

    def connect(self, handler: Callable[..., Any]) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.listener = StreamSocketListener(self.reactor)
        self.listener.connection_received.add(handler)
        self.successResultOf(self.listener.bind_service_name(1337))
        self.transport = StringTransportWithDisconnection()
        factory: Any = self.reactor.tcpServers[0][1]
        self.transport.protocol = factory.buildProtocol(None)
        self.transport.protocol.makeConnection(self.transport)

    def test_a_handler_that_aborts_is_cancelled_where_it_waits(self) -> None:
        """At its first step, and at a later one."""
        for steps in (0, 1):
            go_on: Deferred[None] = Deferred()
            ended: list[str] = []

            async def abort(_: object, args: Args, steps: int = steps, go_on: Any = go_on) -> None:
                if steps:
                    await go_on
                args.socket.abort()
                try:
                    await Deferred()
                except CancelledError:
                    ended.append("cancelled")  # noqa: B023 - awaited within the loop
                    raise

            self.connect(abort)
            go_on.callback(None)
            self.reactor.advance(0)
            self.assertEqual(ended, ["cancelled"], steps)
            self.successResultOf(self.listener.close_all(5))
            self.assertEqual(self.reactor.getDelayedCalls(), [], steps)


for case in (LossTests, CloseAllTests):
    globals().update(case.makeTestCaseClasses())
del LoggedCase, LossTests, CloseAllTests
