"""WebSockets of both roles end alike."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import Accepted, close, text
from twsock import BrokenError, ClosedError
from twsock.websocket.frames import Opcode


class AwaitableWebSocketTests(SynchronousTestCase):
    """The end of a server's WebSocket; that of a client is in test_client.py."""

    def test_close_waits_for_the_loss(self) -> None:
        """Only the first call sends a close frame; a pending receive fails."""
        one = Accepted()
        accepted = one.open()
        waiting = accepted.receive()
        closing = accepted.close(4000, "bye")
        accepted.close()
        self.failureResultOf(waiting, ClosedError)
        self.assertEqual(one.frames(), [(Opcode.CLOSE, b"\x0f\xa0bye")])
        self.assertNoResult(closing)
        one.receive(close(4000))
        one.lose(is_clean=True)
        self.successResultOf(closing)
        self.successResultOf(accepted.wait_closed())

    def test_close_has_one_deadline(self) -> None:
        """Traffic of the client does not extend it."""
        one = Accepted(close_timeout=5)
        one.open().close(1000)
        for _ in range(5):
            one.receive(b"\x89\x80\x00\x00\x00\x00")
            one.reactor.advance(1)
        self.assertTrue(one.transport.is_aborted)

    def test_block_with_an_error_aborts(self) -> None:
        """Without an error it closes with the code 1000."""

        async def use(accepted: object, error: Exception | None) -> None:
            async with accepted:  # type: ignore[attr-defined]
                if error is not None:
                    raise error

        one = Accepted()
        ensureDeferred(use(one.open(), None))
        self.assertEqual(one.frames(), [(Opcode.CLOSE, b"\x03\xe8")])
        other = Accepted()
        using = ensureDeferred(use(other.open(), ZeroDivisionError()))
        self.assertTrue(other.transport.is_aborted)
        other.lose()
        self.failureResultOf(using, ZeroDivisionError)

    def test_block_with_the_error_of_an_end_does_not_abort(self) -> None:
        """A client that has ended its output gets what was sent before."""

        async def answer(accepted: Any) -> None:
            async with accepted:
                async for message in accepted:
                    accepted.send(message)

        one = Accepted()
        answering = ensureDeferred(answer(one.open()))
        one.transport.producer.pauseProducing()
        one.receive(text("the kernel has this"))
        one.frames()
        one.receive(text("a") + text("b"))
        self.assertEqual(one.frames(), [])
        one.protocol.readConnectionLost()
        self.assertFalse(one.transport.is_aborted)
        self.assertEqual(one.frames(), [(Opcode.TEXT, "a"), (Opcode.TEXT, "b")])
        self.assertNoResult(answering)
        self.assertTrue(one.transport.disconnecting)
        one.lose(is_clean=True)
        self.failureResultOf(answering, BrokenError)

    def test_block_with_the_error_of_another_connection_aborts(self) -> None:
        """The WebSocket is open, and its peer has to notice."""

        async def use(accepted: Any) -> None:
            async with accepted:
                raise BrokenError("another connection")

        one = Accepted()
        using = ensureDeferred(use(one.open()))
        self.assertTrue(one.transport.is_aborted)
        one.lose()
        self.failureResultOf(using, BrokenError)

    def test_handler_that_is_freed_logs_nothing(self) -> None:
        """The pending receive does not resume the coroutine."""
        ended: list[object] = []

        async def serve(_listener: object, args: Any) -> None:
            try:
                async with args.socket as websocket:
                    async for message in websocket:
                        await websocket.send(message)
            finally:
                ended.append(self)

        one = Accepted(serve)
        one.open()
        one.receive(text("a"))
        del one
        gc.collect()
        self.assertEqual(len(ended), 1)

    def test_handlers_of_closed_get_the_first_close_frame(self) -> None:
        """The error of a handler is logged, and the others are called."""
        one = Accepted()
        accepted = one.open()
        got: list[object] = []

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        accepted.closed.add(fail)
        accepted.closed.add(lambda _, args: got.append((args.code, args.reason)))
        one.receive(close(4001))
        self.assertEqual(got, [(4001, "")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
