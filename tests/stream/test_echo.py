"""The echo protocols send back each whole message."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected
from twsock.protocols import FrameEcho, FrameEchoFactory, LineEcho, LineEchoFactory
from twsock.wire import encode_frame

GREETING = "Hello, World!"


class FrameEchoTests(SynchronousTestCase):
    """`FrameEcho` sends frames back unchanged."""

    def test_the_guides_exchange_comes_back(self) -> None:
        """The 17 bytes of the sockets guide come back."""
        connected = Connected(FrameEcho)
        connected.receive(b"\x00\x00\x00\x0dHello, World!")
        self.assertEqual(connected.sent(), b"\x00\x00\x00\x0dHello, World!")

    def test_a_run_of_frames_comes_back_in_one_write(self) -> None:
        """Whole frames are answered in one write; a partial frame is answered when it is whole."""
        connected = Connected(FrameEcho)
        stream = b"".join(encode_frame(bytes([n]) * n) for n in range(50))
        connected.receive(stream[:-3])
        self.assertEqual(connected.sent(), stream[: -(4 + 49)])
        connected.receive(stream[-3:])
        self.assertEqual(connected.sent(), stream[-(4 + 49) :])

    def test_frames_and_bytes_are_counted(self) -> None:
        """The counters count frames and payload bytes, not reads."""
        connected = Connected(FrameEcho)
        connected.receive(encode_frame(b"a") * 7)
        self.assertEqual(connected.factory.counters.messages, 7)
        self.assertEqual(connected.factory.counters.bytes_received, 35)
        self.assertEqual(connected.factory.counters.bytes_sent, 35)

    def test_frames_before_a_violation_come_back(self) -> None:
        """Frames before a bad header are answered, then the connection ends."""
        connected = Connected(FrameEcho, max_payload=10)
        connected.receive(encode_frame(b"a") + b"\x00\x00\x00\x0b")
        self.assertEqual(connected.sent(), encode_frame(b"a"))
        self.assertTrue(connected.transport.disconnected)

    def test_the_factory_passes_its_limits_to_the_echo(self) -> None:
        """`FrameEchoFactory` builds `FrameEcho` with the limits that the factory was given."""
        factory = FrameEchoFactory(None, max_payload=3)
        built = factory.buildProtocol(None)
        self.assertIsInstance(built, FrameEcho)
        assert built is not None
        self.assertEqual(built.max_payload, 3)


class LineEchoTests(SynchronousTestCase):
    """`LineEcho` sends lines back, each ended by CRLF."""

    def test_the_guides_exchange_comes_back(self) -> None:
        """The 15 bytes of the sockets guide come back."""
        connected = Connected(LineEcho)
        connected.receive(GREETING.encode() + b"\r\n")
        self.assertEqual(connected.sent(), GREETING.encode() + b"\r\n")

    def test_bare_line_feeds_come_back_as_crlf(self) -> None:
        """A line that ended in LF is answered with CRLF."""
        connected = Connected(LineEcho)
        connected.receive(b"a\nb\r\nc\n")
        self.assertEqual(connected.sent(), b"a\r\nb\r\nc\r\n")

    def test_the_factory_builds_line_echoes(self) -> None:
        """`LineEchoFactory` builds `LineEcho`."""
        self.assertIsInstance(LineEchoFactory(None).buildProtocol(None), LineEcho)
