"""An operation starts at once, and its error keeps no object in memory."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from twisted.internet.defer import AlreadyCalledError, CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import ClosedError
from twsock.operation import Fired, Operation, fail, run_coroutine, start_operation


class Thing:
    """An object that an error must not keep in memory."""


class KeptError(Exception):
    """An error that a test can find in memory."""


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

    def test_an_operation_resumes_no_coroutine_that_was_abandoned(self) -> None:
        """The block fails the operation while the coroutine is being closed; nothing is logged."""

        async def wait(pending: Operation[None]) -> None:
            try:
                await pending
            finally:
                pending.errback(ClosedError("the block has ended"))

        for drives in (Deferred.fromCoroutine, lambda coroutine: coroutine.send(None)):
            waiting = wait(Operation())
            drives(waiting)
            waiting.close()
            del waiting
        gc.collect()  # Twisted logs a failure that nobody handles when it is freed.


class FiredTests(SynchronousTestCase):
    """A Deferred that has fired with a result."""

    def test_it_is_a_deferred_that_has_fired(self) -> None:
        """Callbacks run at once, it cannot be fired again, and cancelling changes nothing."""
        fired = Fired(5)
        self.assertIsInstance(fired, Deferred)
        fired.cancel()
        self.assertRaises(AlreadyCalledError, fired.callback, 6)
        self.assertEqual(self.successResultOf(fired.addCallback(str)), "5")

    def test_it_can_be_awaited(self) -> None:
        """Without waiting; a second await returns the same, as with ``succeed``."""
        fired = Fired(5)

        async def caller() -> list[int]:
            return [await fired, await fired]

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(caller())), [5, 5])

    def test_it_chains_as_any_deferred(self) -> None:
        """A callback may return it, and one of its own may return a Deferred that waits."""
        self.assertEqual(self.successResultOf(succeed(1).addCallback(lambda _: Fired(5))), 5)
        wait: Deferred[int] = Deferred()
        chained = Fired(1).addCallback(lambda _: wait)
        self.assertNoResult(chained)
        wait.callback(7)
        self.assertEqual(self.successResultOf(chained), 7)

    def test_an_await_gets_what_its_callbacks_made_of_it(self) -> None:
        """The await waits for a Deferred of a callback, and raises the error of another one."""
        wait: Deferred[int] = Deferred()
        chained: Deferred[int] = Fired(1).addCallback(lambda _: wait)
        failed = Fired(b"text").addCallback(int, 1)

        async def caller() -> int:
            with self.assertRaises(ValueError):
                await failed
            return await chained

        called = Deferred.fromCoroutine(caller())
        self.assertNoResult(called)
        wait.callback(7)
        self.assertEqual(self.successResultOf(called), 7)

    def test_it_has_what_twisted_gives_a_deferred(self) -> None:
        """A new release of Twisted may need more than it sets: compare the attributes."""
        theirs = succeed(5)
        ours = Fired(5)
        for name in vars(theirs):
            self.assertEqual(getattr(ours, name), getattr(theirs, name), name)


class RunCoroutineTests(SynchronousTestCase):
    """`run_coroutine` runs a coroutine until it waits or ends."""

    def test_a_coroutine_that_never_waits_ends_at_once(self) -> None:
        """A Deferred that has fired is no wait."""
        done: list[int] = []

        async def work() -> None:
            done.append(await succeed(5))

        self.assertIsNone(run_coroutine(work()))
        self.assertEqual(done, [5])

    def test_an_error_before_the_first_wait_is_raised(self) -> None:
        """The call raises the error of the coroutine, with its frames."""

        async def work() -> None:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, run_coroutine, work())

    def test_the_cancellation_of_a_task_before_the_first_wait_fails_the_deferred(self) -> None:
        """A cancellation is no `Exception`, so a raised one would end the caller, too."""

        async def work() -> None:
            raise asyncio.CancelledError

        working = run_coroutine(work())
        assert working is not None
        self.failureResultOf(working, asyncio.CancelledError)

    def test_a_coroutine_that_waits_gets_each_result(self) -> None:
        """Each wait returns a result or raises its error; the Deferred has the final result."""
        waits: list[Deferred[int]] = [Deferred(), Deferred(), succeed(3), Deferred()]

        async def work() -> list[object]:
            results: list[object] = []
            for wait in waits:
                try:
                    results.append(await wait)
                except ValueError as error:
                    results.append(str(error))
            return results

        working = run_coroutine(work())
        assert working is not None
        waits[0].callback(1)
        waits[1].errback(ValueError("second"))
        self.assertNoResult(working)
        waits[3].callback(4)
        self.assertEqual(self.successResultOf(working), [1, "second", 3, 4])

    def test_an_error_after_a_wait_fails_the_deferred(self) -> None:
        """The traceback names the coroutine."""
        wait: Deferred[None] = Deferred()

        async def work() -> None:
            await wait
            raise ZeroDivisionError

        working = run_coroutine(work())
        assert working is not None
        wait.callback(None)
        failure = self.failureResultOf(working, ZeroDivisionError)
        self.assertIn("in work", failure.getTraceback())

    def test_cancelling_cancels_the_wait(self) -> None:
        """The coroutine receives the error where it waits, and may handle it."""
        cancelled: list[object] = []
        wait: Deferred[None] = Deferred(cancelled.append)

        async def work() -> str:
            try:
                await wait
            except CancelledError:
                return "cleaned up"
            return "not cancelled"

        working = run_coroutine(work())
        assert working is not None
        working.cancel()
        self.assertEqual(cancelled, [wait])
        self.assertEqual(self.successResultOf(working), "cleaned up")

    def test_context_variables_are_those_of_the_coroutine(self) -> None:
        """The coroutine has a copy of its caller's context, and keeps it over a wait."""
        variable = ContextVar("variable", default="none")
        wait: Deferred[None] = Deferred()
        seen: list[str] = []

        async def work() -> None:
            seen.append(variable.get())
            variable.set("inside")
            await wait
            seen.append(variable.get())

        variable.set("outside")
        working = run_coroutine(work())
        assert working is not None
        seen.append(variable.get())
        wait.callback(None)
        self.successResultOf(working)
        self.assertEqual(seen, ["outside", "outside", "inside"])

    def test_a_variable_can_be_reset_after_a_wait(self) -> None:
        """Each step runs in one context, so the token of an earlier step is valid."""
        variable = ContextVar("variable", default="none")
        wait: Deferred[None] = Deferred()

        async def work() -> str:
            token = variable.set("inside")
            try:
                await wait
            finally:
                variable.reset(token)
            return variable.get()

        working: Any = run_coroutine(work())
        wait.callback(None)
        self.assertEqual(self.successResultOf(working), "none")
        wait = Deferred()
        working = run_coroutine(work())
        working.cancel()
        self.failureResultOf(working, CancelledError)

    def test_an_abandoned_coroutine_is_closed(self) -> None:
        """Its ``finally`` runs when no object refers to the awaited Deferred."""
        gc.disable()
        self.addCleanup(gc.enable)
        ended: list[str] = []
        waits: list[Deferred[None]] = [Deferred()]

        async def work() -> None:
            try:
                await waits[0]
            finally:
                ended.append("closed")

        working = run_coroutine(work())
        assert working is not None
        del working
        waits.clear()
        gc.collect()
        self.assertEqual(ended, ["closed"])

    def test_a_handled_error_is_not_kept(self) -> None:
        """During the next wait, no object refers to the error of the earlier wait."""
        gc.disable()
        self.addCleanup(gc.enable)
        waits: list[Deferred[None]] = [Deferred(), Deferred()]
        references: list[weakref.ref[BaseException]] = []

        async def work() -> None:
            try:
                await waits[0]
            except KeptError as error:
                references.append(weakref.ref(error))
            await waits[1]

        working = run_coroutine(work())
        assert working is not None
        waits[0].errback(KeptError())
        waits[0] = Deferred()
        self.assertIsNone(references[0]())
        waits[1].callback(None)
        self.successResultOf(working)
