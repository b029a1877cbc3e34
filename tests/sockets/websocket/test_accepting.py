"""A server judges the request before anything of the application runs."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import REQUEST, Accepted, text
from twsock import BrokenError
from twsock.websocket import refuse
from twsock.websocket.frames import Opcode


class AcceptingTests(SynchronousTestCase):
    """The handshake of a server's WebSocket."""

    def test_accepted_request_brings_a_socket(self) -> None:
        """The application gets the WebSocket with the whole request, however it is cut."""
        one = Accepted()
        for index in range(len(REQUEST)):
            self.assertEqual(one.sockets, [])
            one.receive(REQUEST[index : index + 1])
        request = one.socket.information.request
        self.assertEqual(request.target, "/chat")
        self.assertEqual(request.header("Upgrade"), "websocket")
        self.assertTrue(one.socket.is_open)

    def test_refused_requests_reach_no_application(self) -> None:
        """Host, origin, path, subprotocol and version are judged by the rules, in each request."""
        judged: list[Any] = []
        cases: list[tuple[bytes, bytes, dict[str, Any], bytes]] = [
            (b"Host: 127.0.0.1", b"Host: evil.example", {}, b"421"),
            (b"\r\n\r\n", b"\r\nOrigin: http://evil.example\r\n\r\n", {}, b"403"),
            (b"/chat", b"/other", {"path": "/chat"}, b"404"),
            (b"\r\n\r\n", b"\r\n\r\n", {"subprotocols": ["chat"]}, b"400"),
            (b"Version: 13", b"Version: 12", {}, b"426"),
            (b"Host:", b"Host :", {}, b"400"),
            (b"Host:", b"A: 1\r\n" * 100 + b"Host:", {}, b"431"),
            (b"Host:", b"A: " + b"x" * 16_384 + b"\r\nHost:", {}, b"431"),
        ]
        for old, new, options, status in cases:
            one = Accepted(judge=judged.append, **options)
            one.receive(REQUEST.replace(old, new))
            self.assertEqual(one.sent()[9:12], status, status)
            self.assertEqual((one.sockets, judged), ([], []), status)
            self.assertTrue(one.transport.disconnecting, status)

    def test_hook_refuses_a_request(self) -> None:
        """With a status of its own."""
        one = Accepted(judge=lambda _: refuse(401, "who are you?"))
        one.receive(REQUEST)
        self.assertEqual(one.sent()[9:12], b"401")
        self.assertEqual(one.sockets, [])

    def test_hook_chooses_a_subprotocol(self) -> None:
        """One that the client offers."""
        one = Accepted(judge=lambda _: "b")
        one.receive(REQUEST.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: a, b\r\n\r\n"))
        self.assertIn(b"Sec-WebSocket-Protocol: b\r\n", one.sent())
        self.assertEqual(one.socket.information.protocol, "b")

    def test_slow_hook_delays_the_answer(self) -> None:
        """Messages behind the request wait, and are delivered after it."""
        decision: Deferred[None] = Deferred()
        one = Accepted(judge=lambda _: decision)
        one.receive(REQUEST)
        one.receive(text("early"))
        self.assertEqual((one.sent(), one.sockets), (b"", []))
        decision.callback(None)
        self.assertEqual(self.successResultOf(one.socket.receive()), "early")

    def test_bytes_that_wait_for_the_hook_are_bounded(self) -> None:
        """Above 16 KiB nothing more is read; the decision continues reading."""
        decision: Deferred[None] = Deferred()
        one = Accepted(judge=lambda _: decision)
        one.receive(REQUEST)
        one.receive(text("x" * 16_384))
        self.assertEqual(one.transport.producerState, "paused")
        decision.callback(None)
        self.assertEqual(len(self.successResultOf(one.socket.receive())), 16_384)
        self.assertEqual(one.transport.producerState, "producing")

    def test_failing_hook_answers_500(self) -> None:
        """At once and later; the error is logged, and reaches no client."""

        def raise_now(_request: object) -> None:
            raise ZeroDivisionError("secret")

        async def raise_later(_request: object) -> None:
            raise ZeroDivisionError("secret")

        def decide_wrongly(_request: object) -> Any:
            return True

        for hook in (raise_now, raise_later, decide_wrongly):
            one = Accepted(judge=hook)
            one.receive(REQUEST)
            sent = one.sent()
            self.assertEqual(sent[9:12], b"500", hook)
            self.assertNotIn(b"secret", sent, hook)
            self.assertTrue(one.transport.disconnecting, hook)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, TypeError)), 1, hook)

    def test_loss_cancels_the_hook(self) -> None:
        """The application gets no WebSocket."""
        decision: Deferred[None] = Deferred()
        one = Accepted(judge=lambda _: decision)
        one.receive(REQUEST)
        failed: list[Any] = []
        decision.addErrback(failed.append)
        one.lose()
        self.assertEqual(one.sockets, [])
        self.assertEqual(len(one.listener), 0)
        self.assertTrue(decision.called)

    def test_slow_request_is_aborted(self) -> None:
        """``request_timeout`` is absolute: bytes do not extend it."""
        one = Accepted(request_timeout=10)
        one.receive(REQUEST[:10])
        one.reactor.advance(9)
        one.receive(REQUEST[10:20])
        self.assertFalse(one.transport.is_aborted)
        one.reactor.advance(1)
        self.assertTrue(one.transport.is_aborted)

    def test_hook_that_fails_after_the_deadline_answers_nothing(self) -> None:
        """Before the loss is reported; its error is logged, unless the connection is the reason."""
        for error, is_logged in ((BrokenError("no answer"), False), (ZeroDivisionError(), True)):
            decision: Deferred[None] = Deferred()
            one = Accepted(judge=lambda _, decision=decision: decision, request_timeout=10)
            one.receive(REQUEST)
            one.reactor.advance(10)
            self.assertTrue(one.transport.is_aborted)
            decision.errback(error)
            self.assertIsNone(self.successResultOf(decision), error)
            one.lose()
            self.assertEqual(one.sent(), b"", error)
            self.assertEqual(len(self.flushLoggedErrors()), is_logged, error)

    def test_request_that_ends_after_the_deadline_is_not_judged(self) -> None:
        """A transport may deliver bytes between an abort and the loss."""
        judged: list[object] = []
        one = Accepted(judge=judged.append, request_timeout=10)
        one.receive(REQUEST[:-1])
        one.reactor.advance(10)
        one.receive(REQUEST[-1:])
        self.assertEqual(judged, [])

    def test_end_before_the_request_ends_the_connection(self) -> None:
        """In order, as after a check whether the port is open; no waiting for the deadline."""
        for head in (b"", REQUEST[:40]):
            one = Accepted()
            one.receive(head)
            one.protocol.readConnectionLost()
            self.assertTrue(one.transport.disconnecting, head)
            self.assertFalse(one.transport.is_aborted, head)

    def test_bytes_behind_a_refusal_are_dropped(self) -> None:
        """A second request has no second answer, and is no error."""
        one = Accepted(judge=lambda _: refuse(403, "no"))
        one.receive(REQUEST)
        one.sent()
        one.receive(REQUEST)
        self.assertEqual((one.sent(), one.sockets), (b"", []))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_client_may_end_while_the_hook_decides(self) -> None:
        """Its messages are received, and then the connection ends."""
        decision: Deferred[None] = Deferred()
        one = Accepted(judge=lambda _: decision)
        one.receive(REQUEST + text("a"))
        one.protocol.readConnectionLost()
        decision.callback(None)
        self.assertEqual(self.successResultOf(one.socket.receive()), "a")
        self.failureResultOf(one.socket.receive(), BrokenError)
        self.assertTrue(one.transport.disconnecting)

    def test_error_of_another_connection_aborts(self) -> None:
        """A handler that fails with it has no answer for its client: a close would say it had."""

        def fail(_listener: object, _args: object) -> None:
            raise BrokenError("the database is gone")

        one = Accepted(fail)
        one.receive(REQUEST)
        self.assertTrue(one.transport.is_aborted)

    def test_drain_before_the_request_closes(self) -> None:
        """The listener does not wait for a request that has not begun."""
        one = Accepted()
        one.listener.close_all(5)
        self.assertTrue(one.transport.disconnecting)

    def test_ping_is_answered_while_nothing_is_received(self) -> None:
        """A message that waits does not hide the ping in front of it."""
        one = Accepted()
        one.open()
        one.receive(b"\x89\x80\x00\x00\x00\x00" + text("a"))
        self.assertEqual(one.frames(), [(Opcode.PONG, b"")])

    def test_cancelled_hook_error_is_not_logged(self) -> None:
        """Only errors other than the cancellation are."""
        one = Accepted(judge=lambda _: Deferred())
        one.receive(REQUEST)
        one.lose()
        self.assertEqual(self.flushLoggedErrors(CancelledError), [])
