"""An operation starts at once, and its error keeps nothing alive."""

from __future__ import annotations

import gc
import weakref

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import ClosedError
from twsock.sockets.operation import start_operation


class Thing:
    """What must not be kept alive."""


class OperationTests(SynchronousTestCase):
    """Coroutines that were started."""

    def test_it_starts_without_being_awaited(self) -> None:
        """Up to where it waits."""
        wait: Deferred[int] = Deferred()
        begun: list[int] = []

        async def work() -> int:
            begun.append(1)
            return await wait

        operation = start_operation(work())
        self.assertEqual(begun, [1])
        wait.callback(5)
        self.assertEqual(self.successResultOf(operation), 5)

    def test_its_error_keeps_nothing_alive(self) -> None:
        """Neither what is in its own frames, nor in those of who awaits it and catches it."""
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

    def test_an_error_of_the_code_keeps_its_traceback(self) -> None:
        """Only what is reported of sockets is known well enough without."""

        async def work() -> None:
            raise ZeroDivisionError

        failure = self.failureResultOf(start_operation(work()), ZeroDivisionError)
        self.assertIn("in work", failure.getTraceback())
        self.assertIsNotNone(failure.value.__traceback__)
