"""A relay starts between two open sockets only, and keeps nothing after its end."""

from __future__ import annotations

import gc
import typing
import weakref
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.sockets.stream.connected import InMemory
from twsock import BrokenError, BusyError, ClosedError, RelayedBytes, StreamSocket, relay
from twsock.sockets.stream.input import READ_AHEAD_LIMIT


class InMemoryWithHalfClose(InMemory):
    """Its transport notes the end of the output."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[None] = []
        ends, transport = self._ends, typing.cast(Any, self.transport)
        transport.loseWriteConnection = lambda: ends.append(None)

    @property
    def ended(self) -> int:
        """How often the output was ended."""
        return len(self._ends)


class RelayTests(SynchronousTestCase):
    """Two sockets on transports in memory."""

    @override
    def setUp(self) -> None:
        self.left, self.right = InMemoryWithHalfClose(), InMemoryWithHalfClose()

    def start(self) -> Any:
        """Relay them."""
        return relay(self.left.socket, self.right.socket)

    def test_bytes_are_passed_on_as_they_arrive(self) -> None:
        """Both ways, and counted."""
        relaying = self.start()
        self.left.receive(b"request")
        self.right.receive(b"an ", b"answer")
        self.assertEqual((self.right.sent(), self.left.sent()), (b"request", b"an answer"))
        self.assertEqual(relaying.relayed, RelayedBytes(7, 9))
        self.assertNoResult(relaying)

    def test_it_ends_when_both_peers_have_ended(self) -> None:
        """Each end is passed on when it arrives."""
        relaying = self.start()
        self.left.receive(b"request")
        self.left.end()
        self.assertEqual((self.left.ended, self.right.ended), (0, 1))
        self.right.receive(b"answer")
        self.assertNoResult(relaying)
        self.right.end()
        self.assertEqual(self.left.sent(), b"answer")
        self.assertEqual(self.successResultOf(relaying), RelayedBytes(7, 6))
        self.assertEqual(relaying.relayed, RelayedBytes(7, 6))

    def test_an_end_that_came_before_is_passed_on(self) -> None:
        """Behind the bytes that were received."""
        self.left.receive(b"request")
        self.left.end()
        self.start()
        self.assertEqual((self.right.sent(), self.right.ended), (b"request", 1))

    def test_without_half_close_the_end_is_passed_on_at_last(self) -> None:
        """An engine of ``startTLS`` closes both directions at once."""
        self.right = InMemory()  # type: ignore[assignment]
        relaying = self.start()
        self.left.end()
        self.assertFalse(self.right.transport.disconnecting)
        self.right.receive(b"answer")
        self.right.end()
        self.assertEqual(self.successResultOf(relaying), RelayedBytes(0, 6))
        self.assertTrue(self.right.transport.disconnecting)

    def test_a_full_target_pauses_the_source(self) -> None:
        """What was received meanwhile waits, and leaves first."""
        self.start()
        producer = self.right.producer
        producer.pauseProducing()
        self.left.receive(b"1")
        self.left.receive(b"2")
        self.assertFalse(self.left.is_reading)
        self.assertEqual(self.left.input.buffered, 1)
        producer.resumeProducing()
        self.assertEqual(self.right.sent(), b"12")
        self.assertTrue(self.left.is_reading)

    def test_a_lost_connection_aborts_the_other_socket(self) -> None:
        """The relay names it, and keeps the numbers."""
        for name in ("left", "right"):
            self.setUp()
            lost = getattr(self, name)
            other = self.right if lost is self.left else self.left
            relaying = self.start()
            lost.receive(b"some")
            lost.reset()
            self.failureResultOf(relaying, BrokenError)
            self.assertIs(relaying.failed_socket, lost.socket, name)
            self.assertEqual(sum(relaying.relayed), 4, name)
            self.assertTrue(other.transport.disconnected, name)

    def test_cancelling_keeps_both_sockets(self) -> None:
        """Unread bytes can be read, and both can be written."""
        relaying = self.start()
        self.right.producer.pauseProducing()
        self.left.receive(b"1")
        self.left.receive(b"2")
        relaying.cancel()
        self.failureResultOf(relaying, CancelledError)
        self.assertEqual(self.successResultOf(self.left.input.read(1)), b"2")
        self.assertTrue(self.left.is_reading)
        write = self.right.output.write(b"3")
        self.right.producer.resumeProducing()
        self.right.clock.advance(0)
        self.assertEqual(self.successResultOf(write), 1)
        self.assertEqual(self.right.sent(), b"13")

    def test_a_socket_cannot_be_relayed_to_itself(self) -> None:
        """It is a mistake of the caller."""
        self.assertRaises(ValueError, relay, self.left.socket, self.left.socket)

    def test_a_socket_that_is_not_open_is_refused(self) -> None:
        """Not connected, closed, or with one stream closed; the other socket is not touched."""
        input_closed, output_closed = InMemoryWithHalfClose(), InMemoryWithHalfClose()
        input_closed.input.close()
        output_closed.output.close()
        for other in (
            StreamSocket(self.left.clock),
            input_closed.socket,
            output_closed.socket,
        ):
            for pair in ((self.left.socket, other), (other, self.left.socket)):
                self.failureResultOf(relay(*pair), ClosedError)
        self.left.receive(b"x")
        self.assertEqual(self.successResultOf(self.left.input.read(1)), b"x")

    def test_a_pending_read_is_not_disturbed(self) -> None:
        """The relay is refused."""
        reading = self.right.input.read(1)
        self.failureResultOf(self.start(), BusyError)
        self.right.receive(b"x")
        self.assertEqual(self.successResultOf(reading), b"x")

    def test_many_bytes_at_once_are_passed_on_in_pieces(self) -> None:
        """A TLS engine may deliver more than one read."""
        data = bytes(range(256)) * (READ_AHEAD_LIMIT // 64)
        self.start()
        self.left.receive(data)
        self.assertEqual(self.right.sent() == data, True)

    def test_nothing_is_kept_after_the_end(self) -> None:
        """Without the garbage collector, although the application keeps the Deferred."""
        gc.disable()
        self.addCleanup(gc.enable)
        for end in (self.end_in_order, self.end_with_reset, self.end_by_cancel):
            self.setUp()
            relaying = self.start()
            sockets = [weakref.ref(each.socket) for each in (self.left, self.right)]
            end(relaying)
            del self.left, self.right
            self.assertEqual([each() for each in sockets], [None, None], end.__name__)

    def end_in_order(self, relaying: Any) -> None:
        for each in (self.left, self.right):
            each.end()
        self.successResultOf(relaying)
        for each in (self.left, self.right):
            each.lose()

    def end_with_reset(self, relaying: Any) -> None:
        self.left.reset()
        self.failureResultOf(relaying, BrokenError)
        relaying.failed_socket = None
        self.right.lose()

    def end_by_cancel(self, relaying: Any) -> None:
        relaying.cancel()
        self.failureResultOf(relaying, CancelledError)
        for each in (self.left, self.right):
            each.lose()
