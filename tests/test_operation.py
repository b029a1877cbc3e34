"""An operation starts at once, and its error keeps no object in memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import ClosedError
from twsock.operation import Operation, fail, start_operation


class Thing:
    """An object that an error must not keep in memory."""


class OperationTests(SynchronousTestCase):
    """Coroutines that were started as operations."""

    def test_a_coroutine_starts_without_being_awaited(self) -> None:
        """It runs up to its first wait."""
        wait: Deferred[int] = Deferred()
        begun: list[int] = []

        async def work() -> int:
            begun.append(1)
            return await wait

        operation = start_operation(work())
        self.assertEqual(begun, [1])
        wait.callback(5)
        self.assertEqual(self.successResultOf(operation), 5)

    def test_an_error_keeps_no_object_in_memory(self) -> None:
        """Neither objects in its own frames, nor those in frames of the awaiting code."""
        gc.disable()
        self.addCleanup(gc.enable)
        wait: Deferred[None] = Deferred()
        references: list[weakref.ref[Thing]] = []

        async def work() -> None:
            thing = Thing()
            references.append(weakref.ref(thing))
            try:
                await wait
            except ValueError as error:
                raise ClosedError("closed") from error

        async def caller() -> str:
            thing = Thing()
            references.append(weakref.ref(thing))
            try:
                await start_operation(work())
            except ClosedError as error:
                return str(error)
            return ""

        calling = Deferred.fromCoroutine(caller())
        wait.errback(ValueError())
        self.assertEqual(self.successResultOf(calling), "closed")
        self.assertEqual([reference() for reference in references], [None, None])

    def test_a_programming_error_keeps_its_traceback(self) -> None:
        """Only `SocketError` and ``CancelledError`` lose their frames."""

        async def work() -> None:
            raise ZeroDivisionError

        failure = self.failureResultOf(start_operation(work()), ZeroDivisionError)
        self.assertIn("in work", failure.getTraceback())
        self.assertIsNotNone(failure.value.__traceback__)

    def test_a_failed_operation_can_be_awaited(self) -> None:
        """The error keeps no object in memory. A second await returns None."""
        gc.disable()
        self.addCleanup(gc.enable)

        async def never() -> None:
            raise ClosedError("closed")

        made: list[Callable[[], Deferred[None]]] = [
            lambda: fail(ClosedError("closed")),
            lambda: start_operation(never()),
        ]
        for make in made:
            references: list[weakref.ref[Thing]] = []

            async def caller(make: Any = make, references: Any = references) -> Any:
                thing = Thing()
                references.append(weakref.ref(thing))
                operation = make()
                try:
                    await operation
                except ClosedError as error:
                    return str(error), await operation
                return None

            calling = Deferred.fromCoroutine(caller())
            self.assertEqual(self.successResultOf(calling), ("closed", None), make)
            self.assertIsNone(references[0](), make)

    def test_an_unhandled_failure_is_logged(self) -> None:
        """Twisted logs it as for any Deferred."""
        gc.collect()
        fail(ClosedError("closed"))
        gc.collect()
        self.assertEqual(len(self.flushLoggedErrors(ClosedError)), 1)

    def test_a_pending_operation_can_be_awaited_and_cancelled(self) -> None:
        """It behaves as any Deferred."""
        operation: Operation[int] = Operation()

        async def caller() -> int:
            return await operation

        calling = Deferred.fromCoroutine(caller())
        self.assertNoResult(calling)
        operation.callback(5)
        self.assertEqual(self.successResultOf(calling), 5)
        cancelled: Operation[int] = Operation()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
