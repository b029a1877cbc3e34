"""
The transport that an application sees: its calls keep their place among the messages sent before.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ITransport
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, FrameRecorder
from twsock.protocols import FrameEcho
from twsock.wire import encode_frame

FRAME = encode_frame(b"x")


class OrderTests(SynchronousTestCase):
    """Calls to the transport in a handler, while the answers of the handler are collected."""

    def handle(self, act: Any, frames: bytes = FRAME) -> Connected[Any]:
        """Let a handler answer, call its transport, and answer again."""

        class Acting(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                self.received.append(payload)
                self.send_frame(b"before")
                act(self.transport)
                if self.is_open and not self.transport.disconnecting:
                    self.send_frame(b"after")

        connected = Connected(Acting)
        connected.transport.startTLS = lambda *_: calls.append(connected.transport.value())  # type: ignore[attr-defined]
        calls: list[bytes] = []
        self.calls = calls
        connected.receive(frames)
        return connected

    def test_a_write_to_the_transport_keeps_its_place(self) -> None:
        """
        Bytes that a handler writes to its transport are sent between the answers before and after
        them.
        """
        for name, act in (
            ("write", lambda transport: transport.write(b"raw")),
            ("writeSequence", lambda transport: transport.writeSequence([b"r", b"aw"])),
        ):
            connected = self.handle(act)
            self.assertEqual(
                connected.sent(),
                encode_frame(b"before") + b"raw" + encode_frame(b"after"),
                f"{name=}",
            )

    def test_losing_the_connection_sends_the_answers_first(self) -> None:
        """`loseConnection` in a handler ends the connection after the answers were sent."""
        connected = self.handle(lambda transport: transport.loseConnection())
        self.assertEqual(connected.sent(), encode_frame(b"before"))
        self.assertTrue(connected.transport.disconnecting)

    def test_an_ended_connection_handles_no_further_message(self) -> None:
        """Messages that were received before the end, or arrive after it, are not handled."""
        for act, sent in (
            (lambda transport: transport.loseConnection(), encode_frame(b"before")),
            (lambda transport: transport.abortConnection(), b""),
        ):
            connected = self.handle(act, FRAME * 3)
            connected.receive(FRAME)
            self.assertEqual(connected.protocol.received, [b"x"], f"{sent=}")
            self.assertEqual(connected.sent(), sent, f"{sent=}")
            self.assertTrue(connected.protocol.transport.disconnecting, f"{sent=}")

    def test_a_protocol_that_closes_is_disconnecting_at_its_transport(self) -> None:
        """
        ``transport.disconnecting``, which code written for Twisted reads, is true after `close`.
        """
        connected = self.handle(lambda _: None)
        self.assertFalse(connected.protocol.transport.disconnecting)
        connected.protocol.close()
        self.assertTrue(connected.protocol.transport.disconnecting)

    def test_an_end_before_the_connection_is_made_goes_to_the_transport(self) -> None:
        """A subclass that refuses its peer in `makeConnection` has no answers to send first."""
        for name in ("loseConnection", "abortConnection"):
            protocol = FrameEcho()
            transport = StringTransport()
            protocol.transport = transport
            self.assertFalse(protocol.transport.disconnecting, f"{name=}")
            protocol.transport.write(b"go away")
            getattr(protocol.transport, name)()
            self.assertTrue(protocol.transport.disconnecting, name)
            self.assertEqual(transport.value(), b"go away", f"{name=}")

    def test_start_tls_before_the_connection_is_made_goes_to_the_transport(self) -> None:
        """No input can be left over then."""
        protocol, transport = FrameEcho(), StringTransport()
        started: list[object] = []
        transport.startTLS = started.append  # type: ignore[attr-defined]
        protocol.transport = transport
        protocol.transport.startTLS("settings")
        self.assertEqual(started, ["settings"])

    def test_start_tls_begins_after_the_answers(self) -> None:
        """`startTLS` sends earlier answers, such as a go-ahead, in plaintext."""
        self.handle(lambda transport: transport.startTLS(None))
        self.assertEqual(self.calls, [encode_frame(b"before")])

    def test_start_tls_with_plaintext_behind_the_request_is_refused(self) -> None:
        """A frame behind the request in the same read is never handled as if it came encrypted."""
        connected = self.handle(lambda transport: transport.startTLS(None), FRAME * 2)
        self.assertEqual(self.calls, [])
        self.assertEqual(len(connected.protocol.received), 1)
        self.assertTrue(connected.transport.disconnected)

    def test_other_attributes_are_those_of_the_transport(self) -> None:
        """
        Interfaces and attributes are those of the real transport; setting an attribute sets it
        there.
        """
        connected = Connected(FrameEcho)
        transport: Any = connected.protocol.transport
        self.assertTrue(ITransport.providedBy(transport))
        self.assertEqual(transport.getPeer(), connected.transport.getPeer())
        transport.mark = "set"
        self.assertEqual(connected.transport.mark, "set")  # type: ignore[attr-defined]
        self.assertIs(connected.protocol.transport, transport)

    def test_a_kept_transport_of_a_lost_connection_does_nothing(self) -> None:
        """Its attributes still answer, and its methods do nothing."""
        connected = self.handle(lambda _: None)
        transport = connected.protocol.transport
        connected.sent()
        connected.lose()
        self.assertEqual(transport.getPeer(), connected.transport.getPeer())
        transport.loseConnection()
        transport.abortConnection()
        transport.startTLS(None)
        self.assertEqual(self.calls, [])
