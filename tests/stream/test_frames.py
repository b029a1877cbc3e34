"""A `FrameProtocol` hands frames to one method and answers with another."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, FrameRecorder, Recorder
from twsock.errors import ClosedError, LocalProtocolError
from twsock.protocols import FrameProtocol
from twsock.wire import FrameTooLargeError, encode_frame


class Shout(Recorder, FrameProtocol):
    """Answers in upper case."""

    def frame_received(self, payload: bytes) -> None:
        self.send_frame(payload.upper())


class FrameProtocolTests(SynchronousTestCase):
    """Frames in, frames out."""

    def test_a_frame_reaches_the_handler_without_its_header(self) -> None:
        """The handler gets the payload."""
        connected = Connected(FrameRecorder)
        connected.receive(b"\x00\x00\x00\x05Hello")
        self.assertEqual(connected.protocol.received, [b"Hello"])

    def test_frames_arrive_whatever_the_segmentation(self) -> None:
        """Byte by byte, the same frames come in the same order."""
        connected = Connected(FrameRecorder)
        connected.receive(encode_frame(b"a") + encode_frame(b"") + encode_frame(b"bc"), step=1)
        self.assertEqual(connected.protocol.received, [b"a", b"", b"bc"])

    def test_an_answer_has_its_header(self) -> None:
        """What is sent is one frame."""
        connected = Connected(Shout)
        connected.receive(encode_frame(b"Hello"))
        self.assertEqual(connected.sent(), b"\x00\x00\x00\x05HELLO")

    def test_a_large_answer_is_one_frame_too(self) -> None:
        """Header and payload stay together, above the size that is joined to its header."""
        connected = Connected(Shout)
        connected.receive(encode_frame(b"x" * 5000))
        self.assertEqual(connected.sent(), encode_frame(b"X" * 5000))

    def test_all_answers_to_one_read_leave_together(self) -> None:
        """A read with many frames causes one write."""
        connected = Connected(Shout)
        writes: list[bytes] = []
        connected.transport.write = writes.append  # type: ignore[method-assign]
        connected.receive(encode_frame(b"a") * 10)
        self.assertEqual(writes, [encode_frame(b"A") * 10])

    def test_an_answer_from_outside_leaves_at_once(self) -> None:
        """What is sent while nothing is being received does not wait for anything."""
        connected = Connected(Shout)
        connected.protocol.send_frame(b"news")
        self.assertEqual(connected.sent(), encode_frame(b"news"))

    def test_a_length_above_the_limit_aborts_at_the_prefix(self) -> None:
        """The connection is gone before a byte of the payload came, and one event tells of it."""
        connected = Connected(FrameRecorder, max_payload=5)
        connected.receive(encode_frame(b"12345") + b"\x00\x00\x00\x06")
        self.assertTrue(connected.transport.disconnected)
        self.assertEqual(connected.protocol.received, [b"12345"])
        self.assertEqual(connected.factory.counters.violations, 1)
        connected.lose()
        (error,) = connected.protocol.lost
        assert isinstance(error, FrameTooLargeError)
        self.assertEqual((error.announced, error.limit), (6, 5))

    def test_answers_before_a_violation_are_sent(self) -> None:
        """An error follows the answers to what came before it."""
        connected = Connected(Shout, max_payload=5)
        connected.receive(encode_frame(b"a") + b"\xff\xff\xff\xff")
        self.assertEqual(connected.sent(), encode_frame(b"A"))

    def test_the_class_may_set_the_limit(self) -> None:
        """A subclass carries its own limit where the factory names none."""

        class Small(FrameRecorder):
            max_payload = 1

        connected = Connected(Small)
        connected.receive(b"\x00\x00\x00\x02")
        self.assertTrue(connected.transport.disconnected)

    def test_sending_before_the_connection_is_the_callers_mistake(self) -> None:
        """A protocol that is not connected says so."""
        self.assertRaises(LocalProtocolError, Shout().send_frame, b"early")

    def test_sending_after_close_is_refused(self) -> None:
        """Nothing is dropped in silence."""
        connected = Connected(Shout)
        connected.protocol.close()
        self.assertRaises(ClosedError, connected.protocol.send_frame, b"late")

    def test_a_class_without_a_handler_is_the_callers_mistake(self) -> None:
        """The missing method is named in the log, and the connection does not hang."""
        connected = Connected(FrameProtocol)
        connected.receive(encode_frame(b"a"))
        (failure,) = self.flushLoggedErrors(NotImplementedError)
        self.assertIn("frame_received", str(failure.value))
        self.assertTrue(connected.transport.disconnected)
