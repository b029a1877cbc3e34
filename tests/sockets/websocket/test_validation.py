"""Handlers may reject the certificate of a server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twsock import LocalProtocolError, SocketError
from twsock.sockets import WebSocketInformation
from twsock.sockets.event import Event
from twsock.sockets.websocket.validation import Deferral, validate


class ValidationTests(SynchronousTestCase):
    """Decisions of handlers."""

    def validate(self, *handlers: Any) -> Deferred[None]:
        """Ask handlers."""
        event: Event[Any] = Event("server_custom_validation_requested", lambda: False)
        for handler in handlers:
            event.add(handler)
        return Deferred.fromCoroutine(validate(event, self, WebSocketInformation()))

    def assert_rejected(self, validating: Deferred[None]) -> None:
        """Check the error of a rejection."""
        error: Any = self.failureResultOf(validating, SocketError).value
        self.assertEqual(error.hresult, 0x800C_000E)

    def test_connect_goes_on_unless_rejected(self) -> None:
        """W28: There is no call to accept; one handler that rejects is enough."""
        self.successResultOf(self.validate())
        self.successResultOf(self.validate(lambda *_: None, lambda *_: None))
        self.assert_rejected(self.validate(lambda _, args: args.reject(), lambda *_: None))

    def test_deferrals_are_awaited(self) -> None:
        """W28: All of them, of all handlers; then a rejection counts."""
        taken: list[Any] = []

        def defer(owner: object, args: Any) -> None:
            self.assertIs(owner, self)
            taken.append((args.get_deferral(), args))

        validating = self.validate(defer, defer)
        taken[0][0].complete()
        self.assertNoResult(validating)
        taken[1][1].reject()
        taken[1][0].complete()
        self.assert_rejected(validating)

    def test_deferral_is_completed_once(self) -> None:
        """W28: A second `complete` raises; `close` may be repeated, and completes."""
        completed: Deferred[None] = Deferred()
        deferral = Deferral(completed)
        deferral.close()
        self.successResultOf(completed)
        deferral.close()
        self.assertRaises(LocalProtocolError, deferral.complete)

    def test_coroutines_are_awaited(self) -> None:
        """A coroutine needs no deferral; its error rejects the certificate, too."""
        wait: Deferred[None] = Deferred()

        async def check(_: object, args: Any) -> None:
            await wait
            args.reject()

        validating = self.validate(check)
        self.assertNoResult(validating)
        wait.callback(None)
        self.assert_rejected(validating)

        async def fail(*_: object) -> None:
            raise ValueError("wrong")

        self.failureResultOf(self.validate(fail), ValueError)

    def test_facts_of_the_certificate_are_in_the_argument(self) -> None:
        """W28: Those of the information."""
        seen: list[Any] = []
        self.successResultOf(self.validate(lambda _, args: seen.append(args)))
        (args,) = seen
        self.assertIsNone(args.server_certificate)
        self.assertEqual(args.server_intermediate_certificates, ())
        self.assertEqual(args.server_certificate_errors, ())
        self.assertEqual(args.server_certificate_error_severity, 0)
