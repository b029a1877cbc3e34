"""A connection limits its input, counts its bytes, and continues above TLS."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.stream.test_transport import KernelCase, Pusher
from twsock.errors import (
    SocketErrorStatus,
)


class ConnectionTests(KernelCase):
    """A connection over a plain socket."""

    def test_the_receive_size_doubles_up_to_128000_bytes(self) -> None:
        """It grows while reads come back full."""
        for _ in range(10):
            self.stream.note_read(self.descriptor.bufferSize)
        self.assertEqual(self.descriptor.bufferSize, 128_000)

    def test_unread_input_is_noticed_and_stays(self) -> None:
        """The look at the kernel's buffer takes no bytes from it."""
        self.assertFalse(self.stream.has_unread_input)
        self.peer.send(b"x")
        self.assertTrue(self.stream.has_unread_input)
        self.assertEqual(self.socket.recv(10), b"x")

    def test_held_bytes_leave_in_their_order(self) -> None:
        """
        Bytes of a producer, bytes written meanwhile, then bytes that the resumed producer writes.
        """
        self.descriptor.registerProducer(Pusher(self.descriptor), True)
        lower = self.stream.hold()
        self.assertTrue(self.stream.is_held)
        self.stream.write(b"second ")
        engine: Any = StringTransport()
        engine.transport = lower
        self.stream.rebind(engine)
        self.assertEqual(engine.value(), b"first second last")
        self.assertRaises(BlockingIOError, self.peer.recv, 1)

    def test_after_a_handshake_a_failed_send_is_the_reason_of_the_end(self) -> None:
        """The connection ends with the error that the engine's own send met."""
        lower = self.stream.hold()
        engine: Any = StringTransport()
        engine.transport = lower
        self.stream.rebind(engine)
        self.socket.error = OSError(errno.EHOSTUNREACH, "No route to host")
        lower.write(b"answer")
        error = self.lost(Failure(ConnectionLost()))
        assert error is not None
        self.assertIs(error.status, SocketErrorStatus.UNREACHABLE_HOST)

    def test_records_that_the_engine_queues_by_itself_count(self) -> None:
        """A TLS engine answers its peer without a call of the application."""
        lower = self.stream.hold()
        engine: Any = StringTransport()
        engine.transport = lower
        self.stream.rebind(engine)
        self.assertTrue(self.stream.send())
        lower.write(bytes(1 << 24))
        self.assertFalse(self.stream.send())
        self.assertTrue(self.stream.is_full)

    def test_small_messages_before_a_handshake_take_little_more_than_their_bytes(self) -> None:
        """Messages that wait for a handshake are joined as in a full queue."""
        self.stream.hold()
        self.assertLess(self.push_small(), 2)
        self.assertEqual(self.stream.unsent, len(self.pushed))
        engine: Any = StringTransport()
        engine.transport = self.descriptor
        self.stream.rebind(engine)
        self.assertEqual(engine.value(), self.pushed)
