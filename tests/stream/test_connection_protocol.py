"""A protocol reports the loss of its connection, and limits the unsent bytes."""

from __future__ import annotations

import gc
import select
import socket
import struct
import weakref
from typing import Any

from twisted.internet.address import IPv6Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.testing import StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.stream.connections import Connected, FrameRecorder, LineRecorder, Waiting
from tests.stream.test_protocol import OnKernel
from tests.stream.test_transport import IdleReactor, PausedPusher
from twsock.errors import BrokenError, LocalProtocolError, SocketError, SocketErrorStatus
from twsock.protocols import FrameEcho, FrameProtocol, LineEcho, StreamServerFactory
from twsock.stream.connection_protocol import LEAST_MAX_UNSENT
from twsock.stream.protocol import MAX_BACKLOG
from twsock.stream.transport import HIGH_WATER
from twsock.wire import encode_frame

FRAME = encode_frame(b"x" * 60)


class Producing(FrameRecorder):
    """Sends six messages of half a full output, as long as the output is not full."""

    left = 6
    resumed = 0

    def frame_received(self, payload: bytes) -> None:
        self.produce()

    def writing_resumed(self) -> None:
        self.resumed += 1
        self.produce()

    def produce(self) -> None:
        while self.left and not self.is_full:
            self.left -= 1
            self.send_frame(bytes(HIGH_WATER // 2))


class UnsentTests(SynchronousTestCase):
    """The number of unsent bytes is known and limited."""

    def brake(self, connected: Connected[Any]) -> None:
        """Fill the transport's buffer."""
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()

    def test_a_high_water_mark_above_the_default_bound_raises_it(self) -> None:
        """A connection that is not full is not aborted."""

        class Wide(FrameRecorder):
            high_water = LEAST_MAX_UNSENT + 100

        connected = Connected(Wide)
        self.brake(connected)
        connected.protocol.send_frame(bytes(LEAST_MAX_UNSENT))
        connected.protocol.send_frame(b"")
        self.assertFalse(connected.transport.disconnected)

    def test_before_and_after_the_connection_nothing_is_unsent(self) -> None:
        """The number is 0, and reading it raises no error."""
        self.assertEqual((FrameRecorder().unsent, FrameRecorder().is_full), (0, False))
        connected = Connected(FrameRecorder)
        self.brake(connected)
        connected.protocol.send_frame(b"lost")
        connected.reset()
        self.assertEqual((connected.protocol.unsent, connected.protocol.is_full), (0, False))

    def test_a_full_transport_in_memory_counts_as_unsent(self) -> None:
        """Bytes written while its buffer is full count until the buffer has room."""
        connected = Connected(FrameRecorder)
        protocol = connected.protocol
        protocol.send_frame(b"x" * 96)
        self.assertEqual((protocol.unsent, protocol.is_full), (0, False))
        self.brake(connected)
        protocol.send_frame(b"x" * 96)
        self.assertEqual((protocol.unsent, protocol.is_full), (100, True))
        assert connected.transport.producer is not None
        connected.transport.producer.resumeProducing()
        self.assertEqual((protocol.unsent, protocol.is_full), (0, False))

    def test_a_handler_sees_its_own_writes_as_unsent(self) -> None:
        """Written bytes count before the end of the read, when they are sent."""
        seen: list[tuple[int, bool]] = []

        class Looking(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                self.send_frame(bytes(HIGH_WATER // 2))
                seen.append((self.unsent, self.is_full))
                self.send_frame(bytes(HIGH_WATER // 2))
                seen.append((self.unsent, self.is_full))

        Connected(Looking).receive(encode_frame(b"?"))
        half = HIGH_WATER // 2 + 4
        self.assertEqual(seen, [(half, False), (2 * half, True)])

    def test_a_handler_that_fills_the_output_may_go_on(self) -> None:
        """
        The kernel takes all answers of the handler at once, so no event reports that.

        Otherwise a program that sends until the output is full would wait for ever.
        """
        connected = Connected(Producing)
        connected.receive(encode_frame(b"?"))
        self.assertEqual((connected.protocol.left, connected.protocol.resumed), (4, 0))
        for turn in range(1, 4):
            connected.clock.advance(0)
            self.assertEqual(connected.protocol.resumed, 1, f"{turn=}")
        self.assertEqual(connected.protocol.left, 0)
        self.assertEqual(len(connected.transport.value()), 6 * (HIGH_WATER // 2 + 4))

    def test_a_full_transport_reports_its_room_once(self) -> None:
        """Although the handler found it full, and has sent nothing."""
        connected = Connected(Producing)
        self.brake(connected)
        connected.receive(encode_frame(b"?"))
        connected.clock.advance(0)
        self.assertEqual(connected.protocol.resumed, 0)
        assert connected.transport.producer is not None
        connected.transport.producer.resumeProducing()
        connected.clock.advance(0)
        self.assertEqual((connected.protocol.resumed, connected.protocol.left), (1, 0))

    def test_no_report_of_room_outlives_the_connection(self) -> None:
        """Lost in the turn of the handler: no hook is called, and no delayed call is left."""
        connected = Connected(Producing)
        before = len(connected.clock.getDelayedCalls())
        connected.receive(encode_frame(b"?"))
        self.assertEqual(len(connected.clock.getDelayedCalls()), before + 1)
        connected.reset()
        self.assertEqual(connected.clock.getDelayedCalls(), [])
        connected.clock.advance(0)
        self.assertEqual(connected.protocol.resumed, 0)

    def test_a_push_above_the_limit_aborts(self) -> None:
        """The push that crosses the limit is queued; the next one aborts, and raises nothing."""
        for protocol in (FrameRecorder, LineRecorder):
            made: Any = protocol
            connected: Connected[Any] = Connected(made, max_unsent=100_000)
            is_frames = isinstance(connected.protocol, FrameProtocol)
            send = connected.protocol.send_frame if is_frames else connected.protocol.send_line
            self.brake(connected)
            for _ in range(2):
                send(b"x" * 60_000)
            self.assertFalse(connected.transport.disconnected, f"{protocol=}")
            sent = len(connected.sent())
            send(b"never")
            self.assertTrue(connected.transport.disconnected, f"{protocol=}")
            self.assertGreater(sent, 120_000, f"{protocol=}")
            self.assertEqual(connected.sent(), b"", f"{protocol=}")
            self.assertRaises(BrokenError, send, b"too late")
            connected.lose(ConnectionAborted())
            self.assertIn("limit is 100000", str(connected.protocol.lost[0]), f"{protocol=}")
            self.assertEqual(connected.factory.counters.unsent_limit_aborts, 1, f"{protocol=}")

    def test_answers_above_the_limit_pause_reading_and_do_not_abort(self) -> None:
        """Large answers and many requests abort no connection."""

        class Generous(FrameRecorder):
            max_unsent = HIGH_WATER + 1

            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                for _ in range(3):
                    self.send_frame(bytes(HIGH_WATER))

        connected = Connected(Generous)
        self.brake(connected)
        connected.receive(FRAME)
        connected.receive(FRAME)
        self.assertFalse(connected.transport.disconnected)
        self.assertEqual(connected.transport.producerState, "paused")
        self.assertEqual(len(connected.protocol.received), 1)

    def test_a_late_write_does_not_abort_a_closing_connection(self) -> None:
        """The write to its transport is dropped, and the queue is still sent."""
        connected = Connected(FrameRecorder, max_unsent=100_000)
        self.brake(connected)
        for _ in range(2):
            connected.protocol.send_frame(bytes(60_000))
        connected.protocol.close()
        connected.protocol.transport.write(b"late")
        self.assertFalse(connected.transport.disconnected)
        self.assertEqual(connected.factory.counters.unsent_limit_aborts, 0)

    def test_the_default_limit_is_above_the_message_limit(self) -> None:
        """A subclass or a factory may set another limit."""
        large = 2 * LEAST_MAX_UNSENT
        for limits, bound in (
            ({}, LEAST_MAX_UNSENT),
            ({"max_payload": large}, large),
            ({"max_payload": large, "max_unsent": 100_000}, 100_000),
        ):
            arguments: Any = limits
            connected = Connected(FrameRecorder, **arguments)
            self.brake(connected)
            connected.protocol.send_frame(bytes(bound - 5))
            connected.protocol.send_frame(b"")
            self.assertFalse(connected.transport.disconnected, f"{limits=}")
            connected.protocol.send_frame(b"")
            self.assertTrue(connected.transport.disconnected, f"{limits=}")

    def test_a_limit_below_the_high_water_mark_is_refused(self) -> None:
        """The limit must be above the high-water mark, on a class as in a factory."""

        class Narrow(FrameEcho):
            max_unsent = HIGH_WATER

        transport = StringTransport()
        self.assertRaises(ValueError, Narrow().makeConnection, transport)
        self.assertTrue(transport.disconnected)
        self.assertRaises(ValueError, Connected, FrameEcho, max_unsent=HIGH_WATER)


class EndTests(SynchronousTestCase):
    """Ends of connections."""

    def test_a_protocol_provides_half_close(self) -> None:
        """Twisted calls its half-close methods, so the peer's FIN does not end the connection."""
        self.assertTrue(verifyObject(IHalfCloseableProtocol, FrameEcho()))

    def test_after_a_peers_fin_its_answers_are_sent_first(self) -> None:
        """FIN arrives while a handler runs: all messages are answered, then the connection ends."""
        connected = Connected(Waiting)
        connected.receive(encode_frame(b"1") + encode_frame(b"2"))
        connected.end()
        connected.protocol.go_on()
        self.assertFalse(connected.transport.disconnecting)
        connected.protocol.go_on()
        self.assertEqual(connected.sent(), encode_frame(b"1") + encode_frame(b"2"))
        self.assertTrue(connected.transport.disconnecting)

    def test_a_fin_while_the_output_is_full_is_answered(self) -> None:
        """
        Messages that wait are handled when the output has drained, and then the connection ends.
        """
        connected = Connected(FrameEcho)
        producer = connected.transport.producer
        assert producer is not None
        producer.pauseProducing()
        connected.receive(encode_frame(b"1"))
        connected.receive(encode_frame(b"2"))
        connected.end()
        self.assertFalse(connected.transport.disconnecting)
        producer.resumeProducing()
        self.assertEqual(connected.sent(), encode_frame(b"1") + encode_frame(b"2"))
        self.assertTrue(connected.transport.disconnecting)

    def test_a_peers_fin_on_an_idle_connection_closes_it(self) -> None:
        """The protocol answers FIN with FIN."""
        connected = Connected(FrameEcho)
        connected.end()
        self.assertTrue(connected.transport.disconnecting)

    def test_a_failed_send_ends_the_connection(self) -> None:
        """Later messages could not be answered; the error is that of the send."""
        on_kernel = OnKernel()
        self.addCleanup(on_kernel.close)
        on_kernel.protocol.dataReceived(FRAME)
        linger = struct.pack("ii", 1, 0)
        on_kernel.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        on_kernel.far.close()
        select.select([on_kernel.near], [], [], 10)
        on_kernel.protocol.send_frame(b"answer")
        on_kernel.reactor.advance(0)
        (error,) = on_kernel.protocol.lost
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.assertEqual(on_kernel.protocol.ended, ["CancelledError"])

    def test_a_close_is_seen_at_the_transport(self) -> None:
        """The same holds over a socket on which only FIN was sent."""
        on_kernel = OnKernel(FrameRecorder)
        self.addCleanup(on_kernel.close)
        self.assertFalse(on_kernel.protocol.transport.disconnecting)
        on_kernel.protocol.close()
        self.assertTrue(on_kernel.protocol.transport.disconnecting)

    def test_a_partial_message_at_the_end_is_dropped(self) -> None:
        """The whole message before it is handled; the log has the size of the rest."""
        events: list[Any] = []
        note: Any = events.append
        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        connected = Connected(FrameRecorder)
        connected.receive(encode_frame(b"1") + b"\x00\x00")
        connected.end()
        (event,) = events
        self.assertIn("in the middle of a message: 2 bytes dropped", formatEvent(event))
        self.assertEqual(connected.protocol.received, [b"1"])
        self.assertTrue(connected.transport.disconnecting)

    def test_an_end_in_order_has_no_error(self) -> None:
        """`connection_lost` is called with None when both ends closed."""
        connected = Connected(FrameRecorder)
        connected.end()
        connected.lose()
        self.assertEqual(connected.protocol.lost, [None])

    def test_a_reset_after_the_peers_fin_has_an_error(self) -> None:
        """The answer of the handler is lost."""
        connected = Connected(Waiting)
        connected.receive(FRAME)
        connected.end()
        connected.reset()
        (error,) = connected.protocol.lost
        self.assertIsInstance(error, BrokenError)

    def test_a_lost_peer_during_a_handler_ends_with_the_idle_timeout(self) -> None:
        """
        Reading is paused while many bytes wait for the handler, so no other event reports the loss.
        """
        reactor = IdleReactor()
        factory = StreamServerFactory(reactor, Waiting, idle_timeout=10.0)
        for is_gone in (False, True):
            on_kernel = OnKernel(lambda: factory.buildProtocol(None), reactor=reactor)
            self.addCleanup(on_kernel.close)
            on_kernel.protocol.dataReceived(FRAME * (MAX_BACKLOG // len(FRAME) + 2))
            self.assertNotIn(
                on_kernel.descriptor, reactor.readers, f"{is_gone=}: {reactor.readers}"
            )
            if is_gone:
                linger = struct.pack("ii", 1, 0)
                on_kernel.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                on_kernel.far.close()
            reactor.pump([1.0] * 16)
            self.assertIs(
                on_kernel.protocol.is_open,
                not is_gone,
                f"{is_gone=}, {on_kernel.protocol.is_open=}",
            )
            on_kernel.protocol.connectionLost(Failure(ConnectionAborted()))
            self.assertEqual(on_kernel.protocol.ended, ["CancelledError"], f"{is_gone=}")
        self.assertEqual(factory.counters.idle, 1)

    def test_a_reset_has_an_error(self) -> None:
        """`connection_lost` is called with the reason when the connection broke."""
        connected = Connected(FrameRecorder)
        connected.reset()
        (error,) = connected.protocol.lost
        self.assertIsInstance(error, SocketError)

    def test_a_connection_lost_hook_that_raises_is_logged(self) -> None:
        """The running handler is cancelled nevertheless."""

        class Failing(Waiting):
            def connection_lost(self, error: SocketError | None) -> None:
                raise ZeroDivisionError

        connected = Connected(Failing)
        connected.receive(FRAME)
        connected.reset()
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        self.assertIn("in connection_lost", failure.getTraceback())
        self.assertIsNone(failure.value.__traceback__)
        self.assertEqual(connected.protocol.ended, ["CancelledError"])

    def test_after_the_loss_the_hang_up_watch_is_stopped(self) -> None:
        """No delayed call is left, although the end of the connection was reported twice."""
        on_kernel = OnKernel()
        self.addCleanup(on_kernel.close)
        on_kernel.protocol.dataReceived(FRAME)
        on_kernel.protocol.readConnectionLost()
        on_kernel.protocol.readConnectionLost()
        self.assertNotEqual(on_kernel.reactor.getDelayedCalls(), [])
        on_kernel.protocol.connectionLost(Failure(ConnectionAborted()))
        self.assertEqual(on_kernel.reactor.getDelayedCalls(), [])

    def test_a_reset_that_the_hang_up_watch_notices_is_reported_as_a_reset(self) -> None:
        """The peer resets after its FIN, and no other event reports the reset."""
        on_kernel = OnKernel()
        self.addCleanup(on_kernel.close)
        on_kernel.protocol.dataReceived(FRAME)
        on_kernel.protocol.readConnectionLost()
        linger = struct.pack("ii", 1, 0)
        on_kernel.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        on_kernel.far.close()
        on_kernel.reactor.pump([0.5, 0])
        (error,) = on_kernel.protocol.lost
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    def test_a_closing_connection_has_one_delayed_call(self) -> None:
        """The call is the deadline of the close; the hang-up watch has stopped."""
        on_kernel = OnKernel(FrameRecorder)
        self.addCleanup(on_kernel.close)
        # Twisted waits for it, so the connection is not lost at once.
        on_kernel.descriptor.registerProducer(PausedPusher(), True)
        on_kernel.protocol.readConnectionLost()
        self.assertTrue(on_kernel.descriptor.disconnecting)
        (deadline,) = on_kernel.reactor.getDelayedCalls()
        self.assertEqual(deadline.getTime(), on_kernel.protocol.close_timeout)

    def test_a_peer_that_ended_keeps_nothing_of_a_lost_connection(self) -> None:
        """The protocol is freed with the last reference to it."""
        on_kernel = OnKernel()
        self.addCleanup(on_kernel.close)
        on_kernel.protocol.dataReceived(FRAME)
        on_kernel.protocol.readConnectionLost()
        on_kernel.protocol.connectionLost(Failure(ConnectionAborted()))
        freed = weakref.ref(on_kernel.protocol)
        gc.disable()
        self.addCleanup(gc.enable)
        on_kernel.protocol = on_kernel.descriptor.protocol = None
        self.assertIsNone(freed())

    def test_calls_in_connection_lost_keep_nothing_of_the_connection(self) -> None:
        """The application uses the transport there for the first time, or drains."""

        class Late(FrameRecorder):
            def connection_lost(self, error: SocketError | None) -> None:
                super().connection_lost(error)
                self.transport.loseConnection()
                self.drain()

        on_kernel = OnKernel(Late)
        self.addCleanup(on_kernel.close)
        on_kernel.protocol.connectionLost(Failure(ConnectionAborted()))
        freed = weakref.ref(on_kernel.protocol)
        gc.disable()
        self.addCleanup(gc.enable)
        on_kernel.protocol = on_kernel.descriptor.protocol = None
        self.assertIsNone(freed())

    def test_a_close_keeps_its_deadline_after_the_peers_fin(self) -> None:
        """
        The hang-up of a peer that ended its output does not shorten a close that is under way.
        """
        on_kernel = OnKernel()
        self.addCleanup(on_kernel.close)
        on_kernel.protocol.dataReceived(FRAME)
        on_kernel.protocol.readConnectionLost()
        on_kernel.protocol.close()
        linger = struct.pack("ii", 1, 0)
        on_kernel.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        on_kernel.far.close()
        on_kernel.reactor.pump([0.5] * 9)
        self.assertEqual(on_kernel.protocol.lost, [])

    def test_a_lost_connection_holds_no_bytes(self) -> None:
        """A protocol that is kept holds neither undelivered input nor unsent output."""
        connected = Connected(FrameRecorder)
        connected.receive(encode_frame(bytes(1000))[:-1])
        self.assertTrue(connected.protocol.held_bytes)
        connected.reset()
        self.assertFalse(connected.protocol.held_bytes)
        self.assertEqual(connected.protocol.unsent, 0)

    def test_a_close_without_an_answer_aborts_at_its_deadline(self) -> None:
        """A peer that does not send FIN is aborted after the close timeout."""
        connected = Connected(FrameRecorder, close_timeout=2.0)
        connected.protocol.close()
        connected.clock.advance(1.9)
        self.assertFalse(connected.transport.disconnected)
        connected.clock.advance(0.2)
        self.assertTrue(connected.transport.disconnected)

    def test_a_lost_connection_leaves_nothing(self) -> None:
        """No delayed call is left, and the connection is in no registry."""
        connected = Connected(FrameRecorder)
        connected.protocol.close()
        connected.lose()
        self.assertEqual(connected.clock.getDelayedCalls(), [])
        self.assertEqual(len(connected.factory.group), 0)


class WithoutFactoryTests(SynchronousTestCase):
    """A protocol without a factory of twsock."""

    def test_a_protocol_made_by_hand_serves(self) -> None:
        """A protocol that a program connects to a transport itself serves."""
        protocol, transport = FrameEcho(), StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(FRAME)
        self.assertEqual(transport.value(), FRAME)

    def test_a_protocol_without_a_connection_has_no_peer(self) -> None:
        """Reading the peer raises `LocalProtocolError`."""
        self.assertRaises(LocalProtocolError, getattr, FrameEcho(), "peer")
        self.assertFalse(FrameEcho().is_secure)

    def test_a_wrong_limit_of_a_class_ends_the_connection(self) -> None:
        """Twisted by itself would log the error, and keep the connection for ever."""
        limits = [(FrameEcho, 1 << 32, ValueError), (FrameEcho, 1.5, TypeError)]
        for kind, limit, error in [
            *limits,
            (LineEcho, -1, ValueError),
            (LineEcho, True, TypeError),
        ]:
            echo, transport = kind(), StringTransport()
            echo.max_payload = limit  # type: ignore[assignment]
            self.assertRaises(error, echo.makeConnection, transport)
            self.assertTrue(transport.disconnected, f"{kind=}, {limit=}")
            echo.connection_lost = self.fail  # type: ignore[method-assign,assignment]
            echo.connectionLost()

    def test_a_wrong_close_timeout_of_a_class_ends_the_connection(self) -> None:
        """The error names the value, and no timer is started with it."""
        echo, transport = FrameEcho(), StringTransport()
        echo.close_timeout = -1.0
        with self.assertRaisesRegex(ValueError, "close_timeout is 0 seconds or more, not -1.0"):
            echo.makeConnection(transport)
        self.assertTrue(transport.disconnected)

    def test_an_address_is_named_as_host_and_port(self) -> None:
        """The log names a peer by its address."""
        connected = Connected(FrameEcho)
        self.assertEqual(connected.protocol.peer, "192.168.1.1:54321")

    def test_a_link_local_address_is_named_with_its_interface(self) -> None:
        """Machines on several links may have the same link-local address."""
        echo, scope = FrameEcho(), socket.if_nametoindex("lo")
        echo.makeConnection(StringTransport(None, IPv6Address("TCP", "fe80::1", 54321, 0, scope)))
        self.assertEqual(echo.peer, "[fe80::1%lo]:54321")
