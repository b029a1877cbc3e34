"""Under a socket's streams, Twisted's events become theirs."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.sockets.stream.connected import InMemory, OnKernel
from twsock import BrokenError, ClosedError, StreamSocket
from twsock.sockets.stream.control import StreamSocketListenerControl
from twsock.stream.listening.buffer_limit import BufferLimit
from twsock.stream.transport import DEFAULT_CLOSE_TIMEOUT


class ConnectionTests(SynchronousTestCase):
    """One protocol, two streams."""

    def test_it_is_what_twisted_asks_for(self) -> None:
        """A protocol, whose halves can end one by one."""
        protocol = StreamSocket(Clock()).build_protocol()
        verifyObject(IProtocol, protocol)
        verifyObject(IHalfCloseableProtocol, protocol)

    def test_the_end_of_a_connection_that_never_was_is_no_event(self) -> None:
        """As where an endpoint gives up."""
        protocol = StreamSocket(Clock()).build_protocol()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertFalse(protocol.is_open)

    def test_a_full_receive_makes_the_next_one_larger(self) -> None:
        """Large messages cost less that way."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        size = connected.descriptor.bufferSize
        connected.protocol.dataReceived(bytes(size))
        self.assertGreater(connected.descriptor.bufferSize, size)

    def test_what_is_written_on_the_peers_end_leaves_together(self) -> None:
        """As after any receive."""
        connected = OnKernel()
        self.addCleanup(connected.close)

        async def answer() -> None:
            while await connected.socket.input_stream.receive_some():
                pass
            connected.output.write(b"good")
            connected.output.write(b"bye")

        answering = Deferred.fromCoroutine(answer())
        connected.protocol.readConnectionLost()
        self.successResultOf(answering)
        self.assertEqual(connected.kernel.sends, 1)

    def test_a_close_is_done_when_fin_is_sent(self) -> None:
        """The peer is waited for elsewhere, at the latest until the deadline."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        closing, gone = connected.socket.close(), connected.socket.wait_closed()
        self.assertNoResult(closing)
        connected.descriptor.doWrite()
        self.successResultOf(closing)
        self.successResultOf(connected.socket.close())
        self.assertEqual(connected.receive(), b"")
        self.assertNoResult(gone)
        connected.reactor.advance(DEFAULT_CLOSE_TIMEOUT)
        connected.next_turn()
        self.successResultOf(gone)
        self.successResultOf(connected.socket.wait_closed())

    def test_a_connection_that_ends_in_order_is_not_broken(self) -> None:
        """A later write meets a closed end."""
        connected = InMemory()
        connected.lose()
        self.failureResultOf(connected.output.write(b"late"), ClosedError)

    def test_a_reset_after_the_peers_end_leaves_the_end_of_the_input(self) -> None:
        """All of the input had come; only what is written is lost."""
        connected = InMemory()
        connected.receive(b"all")
        connected.end()
        connected.reset()
        self.assertEqual(self.successResultOf(connected.input.receive_some()), b"all")
        self.assertEqual(self.successResultOf(connected.input.receive_some()), b"")
        self.failureResultOf(connected.output.write(b"late"), BrokenError)

    def test_a_closed_input_holds_nothing(self) -> None:
        """What was received and not read is dropped at once."""
        connected = InMemory()
        connected.receive(b"unread")
        connected.input.close()
        self.assertEqual(connected.input.buffered, 0)

    def test_a_closed_output_stays_closed_when_the_connection_breaks(self) -> None:
        """It was this end that closed it."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.socket.close()
        connected.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(connected.output.write(b"late"), ClosedError)

    def test_a_write_behind_an_abort_is_refused_at_once(self) -> None:
        """The reactor reports the end in its next turn."""
        for end in ("socket", "output"):
            connected = OnKernel()
            self.addCleanup(connected.close)
            getattr(connected, end).abort()
            self.failureResultOf(connected.output.write(b"late"), ClosedError)

    def test_an_aborted_connection_is_not_open(self) -> None:
        """Though the reactor has not reported its end."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.socket.abort()
        self.assertFalse(connected.protocol.is_open)

    def test_what_was_not_read_is_dropped_by_a_late_end(self) -> None:
        """The connection is gone; its last bytes could be read until then."""
        for end in ("close", "abort"):
            connected = InMemory()
            connected.receive(b"unread")
            connected.lose()
            getattr(connected.protocol, end)()
            self.failureResultOf(connected.input.receive_some(), ClosedError)

    def test_the_end_of_the_output_fails_with_the_connection(self) -> None:
        """It waited for bytes that the peer did not take."""
        connected = OnKernel()
        self.addCleanup(connected.close)
        connected.kernel.error = BlockingIOError(errno.EAGAIN, "no room")
        connected.output.write(b"waits")
        closing = connected.output.close()
        self.assertNoResult(closing)
        connected.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(closing, BrokenError)

    def test_a_close_is_done_when_the_connection_is_gone(self) -> None:
        """Where there is no FIN to send; a wait that was called off is left alone."""
        connected = InMemory()
        closing, given_up = connected.socket.close(), connected.socket.close()
        given_up.addErrback(lambda _: None).cancel()
        self.assertNoResult(closing)
        connected.lose()
        self.successResultOf(closing)

    def test_the_time_a_close_may_take_can_be_set(self) -> None:
        """Per socket."""
        clock = Clock()
        socket = StreamSocket(clock, close_timeout=1.5)
        transport = StringTransport()
        socket.build_protocol().makeConnection(transport)
        socket.close()
        clock.advance(1.4)
        self.assertFalse(transport.disconnected)
        clock.advance(0.2)
        self.assertTrue(transport.disconnected)

    def test_what_comes_after_a_close_is_dropped(self) -> None:
        """It is received, so that no reset follows."""
        connected = InMemory()
        connected.socket.close()
        connected.receive(bytes(1 << 20))
        self.assertTrue(connected.is_reading)
        self.assertEqual(connected.input.buffered, 0)


class SumTests(SynchronousTestCase):
    """What a connection of a listener holds is noted with the limit of all of them."""

    def setUp(self) -> None:
        self.limit = BufferLimit(1000)
        self.clock = Clock()
        self.socket, self.transport = StreamSocket(self.clock), StringTransport()
        control = StreamSocketListenerControl(lambda: False)
        self.socket.observe(control, lambda *_: None, buffer_limit=self.limit)
        self.protocol = self.socket.build_protocol()
        self.protocol.makeConnection(self.transport)

    def test_what_was_received_is_noted_until_it_is_lost(self) -> None:
        """Or until less is there after the next receive."""
        self.protocol.dataReceived(bytes(100))
        self.assertEqual(self.limit.total, 100)
        self.successResultOf(self.socket.input_stream.receive_exactly(90))
        self.protocol.dataReceived(b"x")
        self.assertEqual(self.limit.total, 11)
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.limit.total, 0)

    def test_what_was_written_is_noted_until_it_has_left(self) -> None:
        """Handed on or not."""
        producer: Any = self.transport.producer
        producer.pauseProducing()
        writes = [self.socket.output_stream.write(bytes(100)) for _ in range(2)]
        self.clock.advance(0)
        writes.append(self.socket.output_stream.write(bytes(100)))
        self.clock.advance(0)
        self.assertEqual(self.limit.total, 300)
        producer.resumeProducing()
        self.assertEqual(self.limit.total, 0)
        for write in writes:
            self.assertEqual(self.successResultOf(write), 100)

    def test_the_largest_is_aborted(self) -> None:
        """Its read fails with the reason, and the bytes that it held are released."""
        reading = self.socket.input_stream.receive_exactly(2000)
        self.protocol.dataReceived(bytes(1001))
        self.assertTrue(self.transport.disconnected)
        self.assertEqual((self.limit.total, self.socket.input_stream.buffered), (0, 0))
        self.protocol.connectionLost(Failure(ConnectionAborted()))
        error = self.failureResultOf(reading, BrokenError).value
        self.assertIn("1001 of 1001 bytes", str(error))
