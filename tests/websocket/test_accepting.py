"""A server's handshake: nothing of the application runs before `accept`, and `accept` decides."""

from __future__ import annotations

import time
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.connections import END, REQUEST, Connected, Recorder, connected, text
from twsock.errors import LocalProtocolError
from twsock.websocket.handshake import Acceptance, refuse
from twsock.websocket.http_message import Request

OFFER = b"Sec-WebSocket-Protocol: chat, superchat\r\n"


class Deciding(Recorder):
    """Accepts what the test has put into `choice`."""

    choice: Any = None

    def accept(self, request: Request) -> Any:
        self.events.append(("accept", request.path))
        if isinstance(self.choice, Exception):
            raise self.choice
        return self.choice


class Asking(Recorder):
    """Decides in a coroutine, when the test fires a Deferred."""

    def __init__(self) -> None:
        super().__init__()
        self.wait: Deferred[Any] = Deferred()

    async def accept(self, request: Request) -> Any:
        self.events.append("asked")
        try:
            return await self.wait
        except BaseException as error:
            self.events.append(type(error).__name__)
            raise


class AcceptTests(SynchronousTestCase):
    """What `accept` may return."""

    def decide(self, choice: Any, request: bytes = REQUEST + END) -> Connected[Deciding]:
        """Connect a client to a server that decides so."""
        made = Connected(Deciding)
        made.protocol.choice = choice
        made.receive(request)
        return made

    def test_accepted_request_is_answered_with_the_key(self) -> None:
        """The example of RFC 6455, section 1.3."""
        made = self.decide(None)
        self.assertIn(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", made.sent())
        self.assertEqual(made.protocol.events, [("accept", "/chat"), "made"])

    def test_subprotocol_is_that_of_the_application(self) -> None:
        """A name that the client offers is agreed."""
        made = self.decide("superchat", REQUEST + OFFER + END)
        self.assertIn(b"Sec-WebSocket-Protocol: superchat\r\n", made.sent())
        self.assertEqual(made.protocol.subprotocol, "superchat")

    def test_subprotocol_that_was_not_offered_is_an_error_of_the_application(self) -> None:
        """The client receives the status 500, and the error is logged."""
        made = self.decide("other", REQUEST + OFFER + END)
        self.assertTrue(made.sent().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertTrue(made.is_ending)

    def test_rules_choose_the_subprotocol_otherwise(self) -> None:
        """None accepts what the rules have chosen."""
        made = Connected(Deciding, subprotocols=["superchat", "chat"])
        made.receive(REQUEST + OFFER + END)
        self.assertEqual(made.protocol.subprotocol, "superchat")

    def test_refusal_has_the_status_of_the_application(self) -> None:
        """Nothing else of the application is called, not even when the connection is lost."""
        made = self.decide(refuse(401, "log in first", [("WWW-Authenticate", "Basic")]))
        self.assertTrue(made.sent().startswith(b"HTTP/1.1 401 "))
        self.assertTrue(made.is_ending)
        made.receive(text("too late"))
        made.lose()
        self.assertEqual(made.protocol.events, [("accept", "/chat")])
        self.assertEqual(made.protocol.lost, [])

    def test_acceptance_adds_header_fields(self) -> None:
        """An `Acceptance` replaces that of the rules."""

        class Adding(Recorder):
            def accept(self, request: Request) -> Acceptance:
                return Acceptance(request, headers=(("Set-Cookie", "a=b"),))

        made = Connected(Adding)
        made.receive(REQUEST + END)
        self.assertIn(b"Set-Cookie: a=b\r\n", made.sent())
        self.assertTrue(made.protocol.is_open)

    def test_error_of_the_application_is_status_500(self) -> None:
        """The traceback is logged, and not sent."""
        made = self.decide(RuntimeError("secret"))
        sent = made.sent()
        self.assertTrue(sent.startswith(b"HTTP/1.1 500 "))
        self.assertNotIn(b"secret", sent)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(made.factory.counters.handler_errors, 1)

    def test_a_web_socket_is_not_handed_over(self) -> None:
        """It has more state than its bytes."""
        connected = self.decide(None)
        self.assertRaisesRegex(LocalProtocolError, "more state", connected.protocol.detach)

    def test_closing_while_judging_refuses(self) -> None:
        """`close` before the handshake is done ends the connection without a close frame."""

        class Closing(Recorder):
            def accept(self, request: Request) -> None:
                self.close(4000, "no")

        made = Connected(Closing)
        with capturedLogs() as events:
            made.receive(REQUEST + END)
        self.assertEqual((made.sent(), list(events)), (b"", []))
        self.assertTrue(made.is_ending)


class RequestTests(SynchronousTestCase):
    """Requests that the application does not see."""

    def test_request_may_arrive_in_pieces(self) -> None:
        """The handshake and the first message are handled, however the stream is cut."""
        for step in (1, 7, 0):
            made = Connected(Recorder)
            made.receive(REQUEST + END + text("Hello"), step)
            self.assertEqual(made.protocol.events, ["made", "Hello"], str(step))
            self.assertTrue(made.sent().endswith(b"\x81\x05Hello"), str(step))
            self.assertEqual(made.factory.counters.messages, 1, str(step))

    def test_refused_request_does_not_reach_the_application(self) -> None:
        """A foreign origin is refused by the rules."""
        made = Connected(Deciding)
        made.receive(REQUEST + b"Origin: http://evil.example\r\n" + END)
        self.assertTrue(made.sent().startswith(b"HTTP/1.1 403 "))
        self.assertEqual(made.protocol.events, [])
        self.assertTrue(made.is_ending)

    def test_refusals_have_the_date(self) -> None:
        """RFC 9110, section 6.6.1: the time of day, not that of the reactor's clock."""
        for request in (REQUEST + b"Origin: http://evil.example\r\n" + END, b"\x16\x03\x01\x00"):
            made = Connected(Deciding)
            before = int(time.time())
            made.receive(request)
            head = made.sent().partition(b"\r\n")[2].partition(b"\r\n\r\n")[0]
            date = message_from_bytes(head)["Date"]
            self.assertIsNotNone(date, head)
            seconds = parsedate_to_datetime(date).timestamp()
            self.assertTrue(before <= seconds <= time.time(), f"{date}, not {before}")

    def test_what_is_no_http_is_refused(self) -> None:
        """The connection ends with the status 400."""
        made = Connected(Deciding)
        made.receive(b"\x16\x03\x01\x00")
        self.assertTrue(made.sent().startswith(b"HTTP/1.1 400 "))
        self.assertEqual(made.protocol.events, [])

    def test_too_large_head_is_refused(self) -> None:
        """More than 16 KiB without an end are the status 431."""
        made = Connected(Deciding)
        made.receive(REQUEST + b"X: " + b"y" * 20_000)
        self.assertTrue(made.sent().startswith(b"HTTP/1.1 431 "))

    def test_other_settings_of_the_factory_apply(self) -> None:
        """A path that is not served is the status 404, and another host 421."""
        for settings, status in (
            ({"path": "/other"}, b"404"),
            ({"hosts": ["other.example"]}, b"421"),
        ):
            made = Connected(Deciding, **settings)
            made.receive(REQUEST + END)
            self.assertEqual(made.sent()[:12], b"HTTP/1.1 " + status)

    def test_loopback_address_serves_this_machine_only(self) -> None:
        """A page that makes its name point to 127.0.0.1 is refused: DNS rebinding."""
        for host, name, status in (
            ("127.0.0.1", b"example.com", b"421"),
            ("127.0.0.1", b"localhost:1338", b"101"),
            ("192.0.2.1", b"example.com", b"101"),
        ):
            made = Connected(Deciding, host)
            made.receive(REQUEST.replace(b"example.com", name) + END)
            self.assertEqual(made.sent()[:12], b"HTTP/1.1 " + status, f"{host}, {name!r}")


class DeadlineTests(SynchronousTestCase):
    """The handshake has one absolute deadline."""

    def test_slow_request_is_aborted(self) -> None:
        """A byte every second does not extend the 10 seconds."""
        made = Connected(Recorder)
        for byte in REQUEST[:9]:
            made.receive(bytes([byte]))
            made.clock.advance(1)
        self.assertFalse(made.is_aborted)
        made.clock.advance(1)
        self.assertTrue(made.is_aborted)

    def test_done_handshake_has_no_deadline(self) -> None:
        """The deadline ends with the answer."""
        made = connected(Recorder)
        made.clock.advance(19)
        self.assertTrue(made.protocol.is_open)

    def test_slow_application_is_within_the_deadline(self) -> None:
        """The coroutine of `accept` is cancelled with the connection."""
        made = Connected(Asking, handshake_timeout=3)
        made.receive(REQUEST + END)
        made.clock.advance(3)
        self.assertTrue(made.is_aborted)
        made.lose()
        self.assertEqual(made.protocol.events, ["asked", "CancelledError"])
        self.assertEqual(made.clock.getDelayedCalls(), [])


class AsynchronousTests(SynchronousTestCase):
    """`accept` takes its time."""

    def test_messages_wait_for_the_decision(self) -> None:
        """What the client sends early is handled after the answer."""
        made = Connected(Asking)
        made.receive(REQUEST + END + text("a"))
        made.receive(text("b"))
        self.assertEqual((made.protocol.events, made.sent()), (["asked"], b""))
        made.protocol.wait.callback(None)
        self.assertEqual(made.protocol.events, ["asked", "made", "a", "b"])
        self.assertTrue(made.sent().endswith(b"\r\n\r\n\x81\x01a\x81\x01b"))

    def test_refusal_may_come_late(self) -> None:
        """The status is that of the application."""
        made = Connected(Asking)
        made.receive(REQUEST + END)
        made.protocol.wait.callback(refuse(503, "not now"))
        self.assertTrue(made.sent().startswith(b"HTTP/1.1 503 "))
        self.assertTrue(made.is_ending)

    def test_failure_may_come_late(self) -> None:
        """The status is 500."""
        made = Connected(Asking)
        made.receive(REQUEST + END)
        made.protocol.wait.errback(RuntimeError("no"))
        self.assertTrue(made.sent().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_lost_connection_cancels_the_decision(self) -> None:
        """The application is not called after that."""
        made = Connected(Asking)
        made.receive(REQUEST + END)
        made.reset()
        self.assertEqual(made.protocol.events, ["asked", "CancelledError"])
        self.assertEqual(made.protocol.lost, [])

    def test_peer_that_ends_is_not_accepted(self) -> None:
        """A client that has ended its output cannot use a WebSocket."""
        made = Connected(Asking)
        made.receive(REQUEST + END)
        made.end()
        self.assertTrue(made.is_ending)
        made.protocol.wait.callback(None)
        self.assertEqual(made.sent(), b"")
