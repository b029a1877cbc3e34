"""A transfer has its place among the writes of a stream, and its turn."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.sockets.stream.connected import InMemory
from twsock import ClosedError, SocketError
from twsock.sockets import OutputStream
from twsock.sockets.stream.transfers import Transfer
from twsock.stream.connection import Connection


class Steps(Transfer):
    """Sends one piece each time that it may proceed."""

    def __init__(self, stream: OutputStream, *pieces: bytes) -> None:
        super().__init__(stream)
        self.pieces = list(pieces)
        self.released = 0

    @override
    def proceed(self, transport: Connection) -> bool:
        if self.pieces:
            self.stream.pass_on(self.pieces.pop(0))
        return not self.pieces

    @override
    def release(self) -> None:
        self.released += 1


class TransferTests(SynchronousTestCase):
    """A stream on a transport in memory."""

    @override
    def setUp(self) -> None:
        self.connected = InMemory()
        self.output = self.connected.output

    def queue(self, *pieces: bytes) -> Steps:
        """Queue a transfer."""
        steps = Steps(self.output, *pieces)
        self.output.queue_transfer(steps)
        return steps

    def test_writes_wait_for_their_turn(self) -> None:
        """Those before a transfer are sent first, those behind it when it is done."""
        self.output.write(b"1")
        steps = self.queue(b"2", b"3")
        behind = self.output.write(b"4")
        second = self.queue(b"5")
        last = self.output.write(b"6")
        self.connected.clock.advance(0)
        self.assertEqual(self.connected.sent(), b"12")
        self.assertTrue(self.output.is_transferring and self.output.is_full)
        self.output.proceed()
        self.connected.clock.advance(0)
        self.assertEqual(self.connected.sent(), b"3456")
        for each in (steps, behind, second, last):
            self.assertTrue(each.called)
        self.assertFalse(self.output.is_transferring or self.output.is_pending)

    def test_room_lets_the_transfer_proceed(self) -> None:
        """The kernel's room is first for the transfer."""
        steps = self.queue(b"1", b"2")
        self.connected.protocol.output_drained()
        self.assertEqual(self.connected.sent(), b"12")
        self.successResultOf(steps)

    def test_the_next_turn_lets_the_transfer_proceed(self) -> None:
        """Asked for twice, it proceeds once."""
        self.queue(b"1", b"2", b"3")
        self.output.proceed_next_turn()
        self.output.proceed_next_turn()
        self.connected.clock.advance(0)
        self.assertEqual(self.connected.sent(), b"12")

    def test_a_cancelled_transfer_makes_way(self) -> None:
        """Queued or begun, it is released."""
        begun, queued = self.queue(b"1", b"2"), self.queue(b"3")
        behind = self.output.write(b"4")
        for each in (queued, begun):
            each.cancel()
            self.failureResultOf(each, CancelledError)
            self.assertEqual(each.released, 1)
        self.connected.clock.advance(0)
        self.assertEqual(self.connected.sent(), b"14")
        self.successResultOf(behind)

    def test_bytes_of_a_cancelled_transfer_come_before_later_writes(self) -> None:
        """The transport has no room for them yet."""
        steps = self.queue(b"1", b"2")
        self.connected.producer.pauseProducing()
        self.output.proceed()
        third = self.queue(b"3")
        steps.addErrback(lambda _: None).cancel()
        behind = self.output.write(b"4")
        self.connected.clock.advance(0)
        self.assertNoResult(behind)
        self.connected.producer.resumeProducing()
        self.connected.clock.advance(0)
        self.assertEqual(self.connected.sent(), b"1234")
        self.successResultOf(third)

    def test_cancel_io_ends_transfers(self) -> None:
        """The stream stays usable."""
        transfers = [self.queue(b"1", b"2"), self.queue(b"3")]
        self.connected.socket.cancel_io()
        for each in transfers:
            self.failureResultOf(each, SocketError)
            self.assertGreaterEqual(each.released, 1)
        self.output.write(b"4")
        self.connected.clock.advance(0)
        self.assertEqual(self.connected.sent(), b"14")

    def test_an_abort_ends_transfers(self) -> None:
        """As it ends writes."""
        transfers = [self.queue(b"1", b"2"), self.queue(b"3")]
        self.connected.socket.abort()
        self.connected.lose()
        for each in transfers:
            self.failureResultOf(each, ClosedError)
            self.assertGreaterEqual(each.released, 1)
        self.assertFalse(self.output.pass_on(b"x"))
        self.output.proceed()
        self.assertEqual(self.connected.sent(), b"1")

    def test_close_waits_for_transfers(self) -> None:
        """What arrives meanwhile is dropped."""
        steps = self.queue(b"1", b"2")
        closing: Any = self.connected.socket.close()
        self.connected.receive(b"x")
        self.assertEqual(self.connected.input.buffered, 0)
        self.assertFalse(self.connected.transport.disconnecting)
        self.output.proceed()
        self.successResultOf(steps)
        self.assertEqual(self.connected.sent(), b"12")
        self.assertTrue(self.connected.transport.disconnecting)
        self.connected.lose()
        self.successResultOf(closing)

    def test_close_waits_no_longer_than_its_deadline(self) -> None:
        """The connection is aborted: the peer has not got everything."""
        steps = self.queue(b"1", b"2")
        self.connected.socket.close()
        self.connected.clock.advance(5)
        self.connected.lose()
        self.failureResultOf(steps, ClosedError)
        self.assertTrue(self.connected.transport.disconnected)
