"""A stream socket lets go of its connection; see tests/loopback/test_handover.py, too."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.stream.connected import InMemory, OnKernel
from twsock import ClosedError, LocalProtocolError, SocketError, StreamSocket


class DetachingTests(SynchronousTestCase):
    """``StreamSocket.detach`` over a plain socket."""

    def setUp(self) -> None:
        self.pair = OnKernel()
        self.addCleanup(self.pair.close)
        self.socket = self.pair.socket

    def detach(self) -> Any:
        """Detach the socket; the test closes the value."""
        detached = self.socket.detach()
        self.addCleanup(detached.close)
        return detached

    def test_received_bytes_are_unread(self) -> None:
        """Those that no read has taken."""
        self.pair.protocol.dataReceived(b"first second")
        self.successResultOf(self.socket.input_stream.receive_exactly(6))
        self.assertEqual(self.detach().unread, b"second")

    def test_bytes_of_send_all_are_unsent(self) -> None:
        """Its caller was answered, so nothing is pending, and the bytes are not lost."""
        self.pair.kernel.error = BlockingIOError(errno.EAGAIN, "full")
        self.pair.output.is_held = True
        self.successResultOf(self.pair.output.send_all(b"one "))
        self.successResultOf(self.pair.output.send_all(b"two"))
        self.assertEqual(self.detach().unsent, b"one two")

    def test_bytes_that_have_begun_are_unsent(self) -> None:
        """A cancelled write that has begun is sent to its end, by the next owner."""
        data = bytes(range(256)) * 65_536
        writing = self.pair.output.write(data)
        self.pair.next_turn()
        self.socket.cancel_io()
        self.failureResultOf(writing, SocketError)
        unsent = self.detach().unsent
        received = bytearray()
        while len(received) + len(unsent) < len(data):
            received += self.pair.far.recv(1 << 20)
        self.assertEqual(bytes(received) + unsent, data)
        self.assertRaises(BlockingIOError, self.pair.far.recv, 1)

    def test_pending_operations_keep_the_connection(self) -> None:
        """After ``cancel_io`` it can go."""
        reading = self.socket.input_stream.receive_some()
        self.assertRaisesRegex(LocalProtocolError, "cancel_io", self.socket.detach)
        self.socket.cancel_io()
        self.failureResultOf(reading, SocketError)
        writing = self.pair.output.write(b"data")
        self.assertRaisesRegex(LocalProtocolError, "cancel_io", self.socket.detach)
        self.socket.cancel_io()
        self.failureResultOf(writing, SocketError)
        self.assertEqual(self.detach().unsent, b"")

    def test_a_closed_direction_keeps_the_connection(self) -> None:
        """Bytes may have been dropped, or FIN sent."""
        self.socket.input_stream.close()
        self.assertRaisesRegex(LocalProtocolError, "one direction", self.socket.detach)

    def test_the_peers_end_keeps_the_connection(self) -> None:
        """The reactor has read FIN, and the next owner would wait for it."""
        self.pair.protocol.readConnectionLost()
        self.assertRaises(LocalProtocolError, self.socket.detach)

    def test_the_socket_is_closed_afterwards(self) -> None:
        """As after ``close``; no timer, reader or writer is left."""
        self.successResultOf(self.pair.output.send_all(b"sent"))
        ending = self.socket.wait_closed()
        self.detach()
        self.successResultOf(ending)
        self.assertFalse(self.socket.is_open)
        self.assertFalse(self.socket.was_lost)
        for call in (self.socket.input_stream.receive_some, self.pair.output.flush):
            self.failureResultOf(call(), ClosedError)
        self.assertRaises(ClosedError, self.socket.detach)
        self.successResultOf(self.socket.close())
        self.assertEqual(self.pair.reactor.getDelayedCalls(), [])
        self.assertEqual(self.pair.reactor.readers | self.pair.reactor.writers, set())

    def test_an_unconnected_socket_has_nothing_to_detach(self) -> None:
        """That is a mistake of the caller."""
        self.assertRaises(LocalProtocolError, StreamSocket(Clock()).detach)

    def test_a_transport_in_memory_cannot_be_detached(self) -> None:
        """It has no socket."""
        self.assertRaises(LocalProtocolError, InMemory().socket.detach)
