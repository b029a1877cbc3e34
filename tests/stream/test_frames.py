"""A `FrameProtocol` receives and sends frames."""

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
    """A `FrameProtocol` between its transport and its handler."""

    def test_a_handler_receives_the_payload_without_the_header(self) -> None:
        """The handler is called with the payload only."""
        connected = Connected(FrameRecorder)
        connected.receive(b"\x00\x00\x00\x05Hello")
        self.assertEqual(connected.protocol.received, [b"Hello"])

    def test_frames_in_single_bytes_arrive_in_order(self) -> None:
        """Frames that arrive byte by byte are the same, in the same order."""
        connected = Connected(FrameRecorder)
        connected.receive(encode_frame(b"a") + encode_frame(b"") + encode_frame(b"bc"), step=1)
        self.assertEqual(connected.protocol.received, [b"a", b"", b"bc"])

    def test_an_answer_is_sent_with_its_header(self) -> None:
        """A sent payload is one frame on the wire."""
        connected = Connected(Shout)
        connected.receive(encode_frame(b"Hello"))
        self.assertEqual(connected.sent(), b"\x00\x00\x00\x05HELLO")

    def test_a_large_answer_is_one_frame(self) -> None:
        """Header and payload stay together, also above the size up to which they are joined."""
        connected = Connected(Shout)
        connected.receive(encode_frame(b"x" * 5000))
        self.assertEqual(connected.sent(), encode_frame(b"X" * 5000))

    def test_answers_to_one_read_leave_in_one_write(self) -> None:
        """A read with many frames causes one write."""
        connected = Connected(Shout)
        writes: list[bytes] = []
        connected.transport.write = writes.append  # type: ignore[method-assign]
        connected.receive(encode_frame(b"a") * 10)
        self.assertEqual(writes, [encode_frame(b"A") * 10])

    def test_a_frame_sent_outside_a_read_leaves_at_once(self) -> None:
        """A frame that is sent while nothing is being received does not wait for the next read."""
        connected = Connected(Shout)
        connected.protocol.send_frame(b"news")
        self.assertEqual(connected.sent(), encode_frame(b"news"))

    def test_a_length_above_the_limit_aborts_at_the_prefix(self) -> None:
        """
        The connection is aborted before a byte of the payload arrived, and one event reports it.
        """
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
        """The abort follows the answers to earlier frames."""
        connected = Connected(Shout, max_payload=5)
        connected.receive(encode_frame(b"a") + b"\xff\xff\xff\xff")
        self.assertEqual(connected.sent(), encode_frame(b"A"))

    def test_the_limit_of_a_subclass_holds(self) -> None:
        """A subclass has its own limit if the factory names none."""

        class Small(FrameRecorder):
            max_payload = 1

        connected = Connected(Small)
        connected.receive(b"\x00\x00\x00\x02")
        self.assertTrue(connected.transport.disconnected)

    def test_sending_before_the_connection_is_a_local_error(self) -> None:
        """`send_frame` of a protocol that is not connected raises `LocalProtocolError`."""
        self.assertRaises(LocalProtocolError, Shout().send_frame, b"early")

    def test_sending_after_close_is_refused(self) -> None:
        """The frame is not dropped in silence."""
        connected = Connected(Shout)
        connected.protocol.close()
        self.assertRaises(ClosedError, connected.protocol.send_frame, b"late")

    def test_a_class_without_a_handler_logs_the_missing_method(self) -> None:
        """The log names the method, and the connection ends."""
        connected = Connected(FrameProtocol)
        connected.receive(encode_frame(b"a"))
        (failure,) = self.flushLoggedErrors(NotImplementedError)
        self.assertIn("frame_received", str(failure.value))
        self.assertTrue(connected.transport.disconnected)
