"""What an application does to the transport comes after what it sent before."""

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
    """In a handler, whose answers are collected."""

    def handle(self, act: Any, frames: bytes = FRAME) -> Connected[Any]:
        """Let a handler answer, act on its transport, and answer again."""

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

    def test_a_write_keeps_its_place(self) -> None:
        """Between the answers before and after it."""
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

    def test_an_end_comes_after_the_answers(self) -> None:
        """They are sent first."""
        connected = self.handle(lambda transport: transport.loseConnection())
        self.assertEqual(connected.sent(), encode_frame(b"before"))
        self.assertTrue(connected.transport.disconnecting)

    def test_an_end_is_the_end_for_every_message(self) -> None:
        """What was received already is not handled, nor is what comes later."""
        for act, sent in (
            (lambda transport: transport.loseConnection(), encode_frame(b"before")),
            (lambda transport: transport.abortConnection(), b""),
        ):
            connected = self.handle(act, FRAME * 3)
            connected.receive(FRAME)
            self.assertEqual(connected.protocol.received, [b"x"], f"{sent=}")
            self.assertEqual(connected.sent(), sent, f"{sent=}")
            self.assertTrue(connected.protocol.transport.disconnecting, f"{sent=}")

    def test_a_protocol_that_ends_is_seen_at_its_transport(self) -> None:
        """Code written for Twisted asks there."""
        connected = self.handle(lambda _: None)
        self.assertFalse(connected.protocol.transport.disconnecting)
        connected.protocol.close()
        self.assertTrue(connected.protocol.transport.disconnecting)

    def test_an_end_before_the_connection_is_made_is_the_transports(self) -> None:
        """Where a subclass refuses its peer there is no answer to wait for."""
        for name in ("loseConnection", "abortConnection"):
            protocol = FrameEcho()
            transport = StringTransport()
            protocol.transport = transport
            self.assertFalse(protocol.transport.disconnecting)
            protocol.transport.write(b"go away")
            getattr(protocol.transport, name)()
            self.assertTrue(protocol.transport.disconnecting, name)
            self.assertEqual(transport.value(), b"go away")

    def test_tls_before_the_connection_is_made_is_the_transports(self) -> None:
        """Nothing was received that could be left over."""
        protocol, transport = FrameEcho(), StringTransport()
        started: list[object] = []
        transport.startTLS = started.append  # type: ignore[attr-defined]
        protocol.transport = transport
        protocol.transport.startTLS("settings")
        self.assertEqual(started, ["settings"])

    def test_tls_starts_after_the_answers(self) -> None:
        """A go-ahead leaves in plaintext."""
        self.handle(lambda transport: transport.startTLS(None))
        self.assertEqual(self.calls, [encode_frame(b"before")])

    def test_tls_does_not_start_over_plaintext(self) -> None:
        """A frame behind the request is never taken for one that came encrypted."""
        connected = self.handle(lambda transport: transport.startTLS(None), FRAME * 2)
        self.assertEqual(self.calls, [])
        self.assertEqual(len(connected.protocol.received), 1)
        self.assertTrue(connected.transport.disconnected)

    def test_it_is_the_transport_in_every_other_way(self) -> None:
        """Its interfaces, its attributes, also those that are set."""
        connected = Connected(FrameEcho)
        transport: Any = connected.protocol.transport
        self.assertTrue(ITransport.providedBy(transport))
        self.assertEqual(transport.getPeer(), connected.transport.getPeer())
        transport.mark = "set"
        self.assertEqual(connected.transport.mark, "set")  # type: ignore[attr-defined]
        self.assertIs(connected.protocol.transport, transport)

    def test_it_can_be_kept_when_the_connection_is_gone(self) -> None:
        """It says of the transport what that says, and does nothing."""
        connected = self.handle(lambda _: None)
        transport = connected.protocol.transport
        connected.sent()
        connected.lose()
        self.assertEqual(transport.getPeer(), connected.transport.getPeer())
        transport.loseConnection()
        transport.abortConnection()
        transport.startTLS(None)
        self.assertEqual(self.calls, [])
