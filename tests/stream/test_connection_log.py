"""One line at the end of each connection."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_ports import log_lines
from tests.stream.connections import Connected
from tests.stream.test_upgrade import Connection
from twsock.protocols import FrameEcho, FrameEchoFactory
from twsock.stream.connection_log import ConnectionLog
from twsock.wire.frames import encode_frame


class ConnectionLogTests(SynchronousTestCase):
    """The line of a connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.factory = FrameEchoFactory(self.clock)
        self.factory.group.connection_log = ConnectionLog(self.clock)

    def test_an_end_in_order_is_one_line(self) -> None:
        """With the time, the messages, and the bytes of both directions."""
        connected = Connected(FrameEcho, self.clock, self.factory)
        connected.receive(encode_frame(b"hello") * 2 + b"\0")
        self.clock.advance(1.5)
        with log_lines() as lines:
            connected.lose()
        (line,) = lines
        self.assertIn(
            " ended after 1.500 s: plaintext, 2 messages, 19 bytes in, 18 bytes out, in order", line
        )

    def test_a_loss_has_its_reason(self) -> None:
        """In the words of its error."""
        connected = Connected(FrameEcho, self.clock, self.factory)
        with log_lines() as lines:
            connected.reset()
        (line,) = lines
        self.assertIn("0 bytes out, Connection reset by peer", line)

    def test_the_version_of_tls_is_logged(self) -> None:
        """Messages from before and after an upgrade count."""
        connection = Connection(protocol=FrameEcho)
        log = connection.factory.group.connection_log = ConnectionLog(connection.clock)
        log.begin(connection.protocol)
        connection.receive(encode_frame(b"a"))
        connection.sent()
        connection.shake_hands()
        connection.ask(encode_frame(b"b"))
        with log_lines() as lines:
            connection.protocol.connectionLost()
        (line,) = lines
        self.assertIn(": TLSv1.3, 2 messages, ", line)
        self.assertIn(" 10 bytes out, ", line)

    def test_a_connection_that_leaves_is_forgotten(self) -> None:
        """One that was detached does not end here."""
        connected = Connected(FrameEcho, self.clock, self.factory)
        self.factory.group.leave(connected.protocol)
        with log_lines() as lines:
            connected.lose()
        self.assertEqual(lines, [])

    def test_a_connection_from_before_the_log_has_no_line(self) -> None:
        """The log does not know when it began."""
        connected = Connected(FrameEcho, self.clock)
        connected.factory.group.connection_log = ConnectionLog(self.clock)
        with log_lines() as lines:
            connected.lose()
        self.assertEqual(lines, [])
