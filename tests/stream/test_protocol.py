"""A `StreamProtocol` handles one message after the other, bounds its buffers, and ends in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, FrameRecorder, P, Waiting
from tests.stream.test_transport import IdleReactor, tcp_pair
from tests.tls.peer import SERVER, Peer
from twsock.protocols import FrameEcho, FrameProtocol
from twsock.stream.descriptor import queued_bytes
from twsock.stream.listening.buffer_limit import DEFAULT_MAX_BUFFERED, BufferHolder, BufferLimit
from twsock.stream.protocol import MAX_BACKLOG
from twsock.stream.transport import HIGH_WATER
from twsock.stream.upgrade import UpgradeToSsl
from twsock.tls.certificates import Certificate
from twsock.tls.server import ServerOptions, ServerTls
from twsock.wire import encode_frame

FRAME = encode_frame(b"x" * 60)


class Descriptor(Connection):
    """A connection of Twisted without half-close."""

    def getHost(self) -> Any:
        return None

    def getPeer(self) -> Any:
        return None


class OnKernel:
    """A protocol on a real socket; the reactor is a clock."""

    def __init__(
        self,
        protocol: Callable[[], object] = Waiting,
        is_wrapped: bool = False,
        reactor: IdleReactor | None = None,
    ) -> None:
        self.reactor = reactor or IdleReactor()
        self.near, self.far = tcp_pair()
        self.near.setblocking(False)
        receiver: Any = protocol()
        self.protocol = receiver
        if is_wrapped:
            receiver = ProtocolWrapper(WrappingFactory(Factory()), self.protocol)
        descriptor: Any = Descriptor(self.near, receiver, self.reactor)  # type: ignore[arg-type]
        self.descriptor = descriptor
        descriptor.connected = 1
        receiver.makeConnection(descriptor)

    def send_all(self) -> int:
        """Let the peer read until nothing is queued; return the number of bytes it got."""
        received = 0
        while queued_bytes(self.descriptor):
            received += len(self.far.recv(1 << 20))
            self.descriptor.doWrite()
        return received

    def close(self) -> None:
        """Close both sockets."""
        self.far.close()
        self.near.close()


class HandlerTests(SynchronousTestCase):
    """Handlers: they are awaited in order, and their errors end one connection only."""

    def test_messages_wait_while_a_coroutine_handler_runs(self) -> None:
        """No other message is handled before the coroutine has ended."""
        connected = Connected(Waiting)
        connected.receive(encode_frame(b"1") + encode_frame(b"2"))
        self.assertEqual(connected.protocol.received, [b"1"])
        connected.protocol.go_on()
        self.assertEqual(connected.protocol.received, [b"1", b"2"])
        connected.protocol.go_on()
        self.assertEqual(connected.sent(), encode_frame(b"1") + encode_frame(b"2"))

    def test_a_handler_with_a_fired_deferred_costs_no_reactor_turn(self) -> None:
        """The next message is handled in the same turn."""

        class Ready(FrameRecorder):
            def frame_received(self, payload: bytes) -> Deferred[None]:
                super().frame_received(payload)
                done: Deferred[None] = Deferred()
                done.callback(None)
                return done

        connected = Connected(Ready)
        connected.receive(encode_frame(b"1") + encode_frame(b"2"))
        self.assertEqual(connected.protocol.received, [b"1", b"2"])

    def test_a_thousand_ready_handlers_do_not_nest(self) -> None:
        """Messages that were waiting are handled in a loop, not in each other's callbacks."""
        connected = Connected(Waiting)
        connected.receive(encode_frame(b"1"))
        waits = connected.protocol.waits

        class Fired(list[Deferred[None]]):
            def append(self, wait: Deferred[None]) -> None:
                wait.callback(None)

        connected.protocol.waits = Fired()
        connected.receive(encode_frame(b"2") * 2000)
        waits[0].callback(None)
        self.assertEqual(len(connected.protocol.received), 2001)

    def test_a_handler_with_a_wrong_result_logs_a_type_error(self) -> None:
        """The result may be None, a coroutine or a Deferred; the message says so."""

        class Strange(FrameProtocol):
            def frame_received(self, payload: bytes) -> None:
                return payload  # type: ignore[return-value]

        Connected(Strange).receive(encode_frame(b"1"))
        (failure,) = self.flushLoggedErrors(TypeError)
        self.assertIn("coroutine", str(failure.value))

    def test_closing_in_a_handler_ends_the_messages(self) -> None:
        """After `close` no further message is handled; the earlier answer is sent."""

        class Last(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                self.send_frame(payload)
                self.close()

        connected = Connected(Last)
        connected.receive(encode_frame(b"1") + encode_frame(b"2"))
        connected.receive(encode_frame(b"3"))
        self.assertEqual(connected.protocol.received, [b"1"])
        self.assertEqual(connected.sent(), encode_frame(b"1"))

    def test_after_a_close_the_running_handler_is_the_last(self) -> None:
        """Messages that were received behind its own are not handled."""

        class Slow(FrameRecorder):
            def frame_received(self, payload: bytes) -> Deferred[None]:
                super().frame_received(payload)
                return handling

        handling: Deferred[None] = Deferred()
        connected = Connected(Slow)
        connected.receive(encode_frame(b"1") + encode_frame(b"2"))
        connected.protocol.close()
        handling.callback(None)
        self.assertEqual(connected.protocol.received, [b"1"])

    def test_a_connection_made_hook_that_raises_ends_the_connection(self) -> None:
        """An error of `connection_made` is treated as an error of a handler."""

        class Stillborn(FrameProtocol):
            def connection_made(self) -> None:
                raise RuntimeError("a bug")

        connected = Connected(Stillborn)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(connected.transport.disconnected)


class ReentranceTests(SynchronousTestCase):
    """Calls from transports and handlers back into the protocol."""

    def test_bytes_that_arrive_within_a_write_keep_their_order(self) -> None:
        """
        A transport that delivers input while a handler sends loses, doubles or swaps no message.
        """

        class Talkative(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                if payload == b"1":
                    connected.receive(encode_frame(b"4") + b"\x00")

        connected = Connected(Talkative)
        connected.receive(encode_frame(b"1") + encode_frame(b"2") + encode_frame(b"3"))
        connected.receive(b"\x00\x00\x015")
        self.assertEqual(connected.protocol.received, [b"1", b"2", b"3", b"4", b"5"])

    def test_a_message_that_arrives_within_a_request_is_handled(self) -> None:
        """It is handled at once, and not only when more bytes arrive."""

        class Chain(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                if len(self.received) < 5:
                    connected.receive(encode_frame(b"answer"))

        connected = Connected(Chain)
        connected.receive(encode_frame(b"request"))
        self.assertEqual(connected.protocol.received, [b"request"] + [b"answer"] * 4)

    def test_a_handler_that_fills_the_output_ends_before_there_is_room(self) -> None:
        """The next message waits for the peer to read."""
        connected = Connected(Waiting)
        producer = connected.transport.producer
        assert producer is not None
        producer.pauseProducing()
        connected.receive(encode_frame(b"1") + encode_frame(b"2"))
        connected.protocol.go_on()
        self.assertEqual(connected.protocol.received, [b"1"])
        producer.resumeProducing()
        self.assertEqual(connected.protocol.received, [b"1", b"2"])

    def test_a_connection_lost_in_a_handler_holds_no_bytes(self) -> None:
        """What arrived within the handler is dropped, though the protocol is kept."""

        class Losing(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                connected.receive(FRAME)
                connected.lose()

        connected = Connected(Losing)
        connected.receive(FRAME)
        self.assertFalse(connected.protocol.held_bytes)

    def test_bytes_that_arrive_in_a_handler_wait_for_a_full_output(self) -> None:
        """The answer of that handler has filled it."""

        class Generous(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                if len(self.received) == 1:
                    connected.receive(encode_frame(b"2"))
                self.send_frame(bytes(HIGH_WATER))

        connected = Connected(Generous)
        producer = connected.transport.producer
        assert producer is not None
        producer.pauseProducing()
        connected.receive(encode_frame(b"1"))
        self.assertEqual(connected.protocol.received, [b"1"])
        producer.resumeProducing()
        self.assertEqual(connected.protocol.received, [b"1", b"2"])

    def test_bytes_that_arrive_as_a_handler_begins_wait_for_its_end(self) -> None:
        """Messages are handled one after the other, however they arrive."""

        class Talkative(Waiting):
            async def frame_received(self, payload: bytes) -> None:
                if not self.received:
                    connected.receive(encode_frame(b"2"))
                await super().frame_received(payload)

        connected = Connected(Talkative)
        connected.receive(encode_frame(b"1"))
        self.assertEqual(connected.protocol.received, [b"1"])
        connected.protocol.go_on()
        self.assertEqual(connected.protocol.received, [b"1", b"2"])

    def test_while_a_handler_continues_after_its_close_the_input_is_read(self) -> None:
        """It is dropped, however long it is, until the peer ends."""

        class Leaving(Waiting):
            async def frame_received(self, payload: bytes) -> None:
                self.close()
                await super().frame_received(payload)

        connected = Connected(Leaving)
        connected.receive(FRAME * (MAX_BACKLOG // len(FRAME) + 2))
        self.assertEqual(len(connected.protocol.received), 1)
        self.assertEqual(connected.transport.producerState, "producing")

    def test_closing_in_a_nested_writing_resumed_hook_ends_the_messages(self) -> None:
        """`writing_resumed` may be called within `writing_paused`."""

        class Leaving(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                self.send_frame(bytes(HIGH_WATER))

            def writing_paused(self) -> None:
                assert connected.transport.producer is not None
                connected.transport.producer.resumeProducing()

            def writing_resumed(self) -> None:
                self.close()

        connected = Connected(Leaving)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.receive(FRAME * 3)
        self.assertEqual(len(connected.protocol.received), 1)
        self.assertTrue(connected.transport.disconnecting)

    def test_after_a_nested_writing_resumed_hook_the_messages_continue(self) -> None:
        """`writing_resumed` was called within `writing_paused`."""

        class Draining(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                self.send_frame(bytes(HIGH_WATER))

            def writing_paused(self) -> None:
                assert connected.transport.producer is not None
                connected.transport.producer.resumeProducing()

        connected = Connected(Draining)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.receive(FRAME * 3)
        self.assertEqual(len(connected.protocol.received), 3)

    def test_closing_in_the_writing_paused_hook_ends_the_connection(self) -> None:
        """The connection is read from again, to see the peer's FIN."""

        class Impatient(FrameEcho):
            def writing_paused(self) -> None:
                self.close()

        connected = Connected(Impatient)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.receive(FRAME * (MAX_BACKLOG // len(FRAME) + 1) + FRAME[:-1])
        self.assertTrue(connected.transport.disconnecting)
        self.assertEqual(connected.transport.producerState, "producing")


class BackPressureTests(SynchronousTestCase):
    """Back-pressure: a peer that does not read is not read from."""

    def brake(self, connected: Connected[FrameEcho]) -> None:
        """Fill the transport's buffer."""
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()

    def release(self, connected: Connected[FrameEcho]) -> None:
        """Empty the transport's buffer."""
        assert connected.transport.producer is not None
        connected.transport.producer.resumeProducing()

    def test_at_the_high_water_mark_reading_pauses(self) -> None:
        """The transport is paused, and messages wait."""
        connected = Connected(FrameEcho)
        self.brake(connected)
        connected.receive(FRAME)
        self.assertEqual(connected.transport.producerState, "paused")
        connected.receive(FRAME)
        self.assertEqual(connected.sent(), FRAME)
        self.release(connected)
        self.assertEqual(connected.sent(), FRAME)
        self.assertEqual(connected.transport.producerState, "producing")

    def test_a_full_output_of_pushes_does_not_stop_reading(self) -> None:
        """Two ends that both only push would else wait for each other for ever."""

        class Pusher(FrameRecorder):
            pass

        connected = Connected(Pusher)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.protocol.send_frame(b"pushed")
        self.assertEqual(connected.protocol.brakes, ["paused"])
        self.assertEqual(connected.transport.producerState, "producing")
        connected.receive(FRAME)
        self.assertEqual(len(connected.protocol.received), 1)

    def test_pushes_below_a_wrapper_do_not_stop_reading(self) -> None:
        """A message without an answer adds nothing to the peer's unread bytes."""
        on_kernel = OnKernel(FrameRecorder, is_wrapped=True)
        self.addCleanup(on_kernel.close)
        protocol = on_kernel.protocol
        protocol.send_frame(bytes(8 << 20))
        self.assertTrue(protocol.is_full)
        on_kernel.descriptor.startReading()
        protocol.dataReceived(FRAME)
        self.assertIn(on_kernel.descriptor, on_kernel.reactor.readers)

    def test_the_output_is_full_until_the_kernel_has_every_byte(self) -> None:
        """
        Also below the high-water mark: programs that wait for `writing_resumed` read ``is_full``.
        """
        on_kernel = OnKernel(FrameRecorder)
        self.addCleanup(on_kernel.close)
        protocol = on_kernel.protocol
        on_kernel.descriptor.SEND_LIMIT = HIGH_WATER // 2
        protocol.send_frame(bytes(8 << 20))
        while queued_bytes(on_kernel.descriptor) >= HIGH_WATER:
            self.assertTrue(protocol.is_full, f"{queued_bytes(on_kernel.descriptor)=}")
            on_kernel.far.recv(1 << 20)
            on_kernel.descriptor.doWrite()
        self.assertGreater(protocol.unsent, 0)
        self.assertTrue(protocol.is_full)
        self.assertEqual(protocol.brakes, ["paused"])
        on_kernel.send_all()
        self.assertFalse(protocol.is_full)
        self.assertEqual(protocol.brakes, ["paused", "resumed"])

    def test_a_drain_without_a_full_output_is_not_reported(self) -> None:
        """A few bytes that wait in the queue are no event."""
        on_kernel = OnKernel(FrameRecorder)
        self.addCleanup(on_kernel.close)
        on_kernel.protocol.transport.write(b"raw")
        on_kernel.protocol.send_frame(b"behind it")
        self.assertGreater(on_kernel.protocol.unsent, 0)
        on_kernel.descriptor.doWrite()
        self.assertEqual(on_kernel.protocol.unsent, 0)
        self.assertEqual(on_kernel.protocol.brakes, [])

    def test_a_closing_connection_reports_no_drain(self) -> None:
        """Nothing more can be written."""
        on_kernel = OnKernel()
        self.addCleanup(on_kernel.close)
        on_kernel.protocol.send_frame(bytes(8 << 20))
        on_kernel.protocol.close()
        on_kernel.send_all()
        self.assertEqual(on_kernel.protocol.brakes, ["paused"])

    def test_reading_resumes_during_a_handler_once_the_output_drained(self) -> None:
        """A running handler does not keep the protocol from noticing a lost peer."""
        connected = Connected(Waiting)
        assert connected.transport.producer is not None
        connected.receive(FRAME)
        connected.transport.producer.pauseProducing()
        connected.protocol.send_frame(b"first part")
        self.assertEqual(connected.transport.producerState, "paused")
        connected.transport.producer.resumeProducing()
        self.assertEqual(connected.transport.producerState, "producing")

    def test_a_full_backlog_keeps_reading_paused_after_a_drain(self) -> None:
        """The messages of the backlog still wait for the handler that runs."""
        connected = Connected(Waiting)
        assert connected.transport.producer is not None
        connected.receive(FRAME)
        connected.transport.producer.pauseProducing()
        connected.protocol.send_frame(b"first part")
        connected.receive(FRAME * (MAX_BACKLOG // len(FRAME) + 1))
        connected.transport.producer.resumeProducing()
        self.assertEqual(connected.transport.producerState, "paused")

    def test_closing_in_the_writing_resumed_hook_ends_the_messages(self) -> None:
        """No further message is handled."""

        class Leaving(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                self.received.append(payload)
                self.send_frame(bytes(HIGH_WATER))

            def writing_resumed(self) -> None:
                self.close()

        connected = Connected(Leaving)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.receive(FRAME * 3)
        connected.transport.producer.resumeProducing()
        self.assertEqual(len(connected.protocol.received), 1)

    def test_a_hook_that_raises_aborts_its_connection(self) -> None:
        """The error is logged once, as an error of a handler."""
        for hook in ("writing_paused", "writing_resumed"):
            connected = Connected(FrameEcho)

            def fail() -> None:
                raise ZeroDivisionError("in a hook")

            setattr(connected.protocol, hook, fail)
            self.brake(connected)
            connected.receive(FRAME)
            if hook == "writing_resumed":
                self.release(connected)
            self.assertTrue(connected.transport.disconnected, f"{hook=}")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1, f"{hook=}")

    def test_high_and_low_water_are_reported_once_each(self) -> None:
        """Further writes between the marks report nothing."""

        class Flood(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                for _ in range(10):
                    self.send_frame(payload)

        connected = Connected(Flood)
        for expected in (["paused"], ["paused", "resumed"]):
            assert connected.transport.producer is not None
            if expected == ["paused"]:
                connected.transport.producer.pauseProducing()
                connected.receive(FRAME)
                connected.receive(FRAME)
            else:
                connected.transport.producer.resumeProducing()
            self.assertEqual(connected.protocol.brakes[: len(expected)], expected, f"{expected=}")
        self.assertEqual(connected.protocol.brakes.count("paused"), 1)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        for _ in range(3):
            connected.protocol.send_frame(b"pushed")
        self.assertEqual(connected.protocol.brakes.count("paused"), 2)

    def test_answers_above_the_mark_stop_the_messages(self) -> None:
        """Answers larger than their requests are not queued for a whole read of requests."""

        class Amplifier(FrameRecorder):
            high_water = 1000

            def frame_received(self, payload: bytes) -> None:
                super().frame_received(payload)
                self.send_frame(b"x" * 1000)
                producer = connected.transport.producer
                assert producer is not None
                producer.pauseProducing()

        connected = Connected(Amplifier)
        connected.receive(encode_frame(b"?") * 100)
        self.assertEqual(len(connected.protocol.received), 1)

    def test_input_during_a_handler_is_bounded(self) -> None:
        """
        While a handler runs, reading pauses at the backlog's limit, and resumes after the handler.
        """
        connected = Connected(Waiting)
        connected.receive(FRAME)
        connected.receive(FRAME * (MAX_BACKLOG // len(FRAME) - 1))
        self.assertEqual(connected.transport.producerState, "producing")
        connected.receive(FRAME)
        self.assertEqual(connected.transport.producerState, "paused")
        for _ in range(MAX_BACKLOG // len(FRAME) + 1):
            connected.protocol.go_on()
        self.assertEqual(connected.transport.producerState, "producing")

    def test_a_large_rest_behind_a_message_pauses_reading_at_once(self) -> None:
        """It came in one receive with the message whose handler runs."""
        connected = Connected(Waiting)
        connected.receive(FRAME * (MAX_BACKLOG // len(FRAME) + 2))
        self.assertEqual(len(connected.protocol.received), 1)
        self.assertEqual(connected.transport.producerState, "paused")

    def test_a_small_message_limit_lowers_the_backlog(self) -> None:
        """Undelivered bytes stay within the message limit and one read."""
        connected = Connected(Waiting, max_payload=100)
        connected.receive(FRAME)
        connected.receive(FRAME * 2)
        self.assertEqual(connected.transport.producerState, "paused")


class NotedSizes(BufferLimit):
    """Records what each connection reports to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[int] = []
        self.holders: set[BufferHolder] = set()

    def note(self, holder: BufferHolder, size: int) -> None:
        self.holders.add(holder)
        self.noted.append(size)
        super().note(holder, size)


class SharedLimitTests(SynchronousTestCase):
    """The limit on what all connections of a server hold together."""

    def connect_with_notes(self, protocol: type[P]) -> tuple[Connected[P], NotedSizes]:
        first, notes = Connected(protocol), NotedSizes()
        first.factory.group.buffer_limit = notes
        return self.another(first), notes

    def another(self, connected: Connected[P]) -> Connected[P]:
        """Connect once more to the same server."""
        return Connected(type(connected.protocol), factory=connected.factory)

    def test_an_aborted_connection_is_not_counted(self) -> None:
        """What it had received is dropped."""

        class Aborting(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                self.abort()

        connected, notes = self.connect_with_notes(Aborting)
        connected.receive(FRAME + FRAME[:10])
        self.assertEqual(notes.noted, [])

    def test_messages_answered_within_a_read_are_not_noted(self) -> None:
        """Whole messages that are answered at once cost no call to the limit."""
        for protocol in (FrameEcho, FrameRecorder):
            connected, notes = self.connect_with_notes(protocol)
            connected.receive(FRAME * 10)
            self.assertEqual(notes.noted, [], f"{protocol=}")

    def test_bytes_that_stay_are_noted_until_they_left(self) -> None:
        """
        A partial message, answers that the peer does not read, and input during a handler are
        noted.
        """
        connected, notes = self.connect_with_notes(FrameEcho)
        connected.receive(FRAME + FRAME[:10])
        connected.receive(FRAME[10:])
        self.assertEqual(notes.noted, [10, 0])
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.receive(FRAME)
        self.assertEqual(notes.total, len(FRAME))
        connected.transport.producer.resumeProducing()
        self.assertEqual(notes.total, 0)
        waiting, notes = self.connect_with_notes(Waiting)
        waiting.receive(FRAME * 2)
        self.assertEqual(notes.total, len(FRAME))
        waiting.protocol.go_on()
        self.assertEqual(notes.total, 0)

    def test_a_lost_connection_is_noted_with_nothing(self) -> None:
        """All that it held is freed."""
        connected, notes = self.connect_with_notes(FrameEcho)
        connected.receive(FRAME[:10])
        connected.reset()
        self.assertEqual(notes.total, 0)

    def test_an_aborted_connection_counts_once(self) -> None:
        """Its end takes a turn of the reactor; until then it may be chosen again as the largest."""
        large, notes = self.connect_with_notes(FrameRecorder)
        large.receive(FRAME[:10])
        (holder,) = notes.holders
        for _ in range(2):
            holder.abort_as_largest(900, 1001, 1000)
        self.assertEqual(large.factory.counters.buffer_limit_aborts, 1)

    def test_past_the_limit_the_largest_connection_is_aborted(self) -> None:
        """Another connection crossed the limit; one event has the numbers and the reason."""
        large = Connected(FrameRecorder, max_buffered=1000)
        small = self.another(large)
        large.receive(encode_frame(bytes(900))[:-100])
        small.receive(encode_frame(bytes(900))[:150])
        self.assertFalse(large.transport.disconnected)
        small.receive(bytes(47))
        self.assertTrue(large.transport.disconnected)
        self.assertEqual(large.protocol.buffered, 0)
        large.lose(ConnectionAborted())
        self.assertIn("804 of 1001 bytes", str(large.protocol.lost[0]))
        self.assertEqual(large.factory.counters.buffer_limit_aborts, 1)
        small.receive(bytes(707))
        self.assertEqual(len(small.protocol.received), 1)

    def test_one_push_past_the_limit_aborts_its_own_connection(self) -> None:
        """Nothing else is reported of that connection."""
        connected = Connected(FrameRecorder, max_buffered=1000)
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        connected.protocol.send_frame(bytes(2000))
        self.assertTrue(connected.transport.disconnected)
        self.assertEqual(connected.protocol.brakes, [])

    def test_a_push_past_the_limit_aborts_the_largest_connection(self) -> None:
        """Also if the largest is the connection that is written to."""
        one = Connected(FrameRecorder, max_buffered=1000)
        other = self.another(one)
        for connected, size in ((one, 396), (other, 596)):
            assert connected.transport.producer is not None
            connected.transport.producer.pauseProducing()
            connected.protocol.send_frame(bytes(size))
        self.assertFalse(other.transport.disconnected)
        one.protocol.send_frame(b"")
        self.assertEqual((one.transport.disconnected, other.transport.disconnected), (False, True))
        self.assertEqual(other.protocol.brakes, ["paused"])

    def test_a_closing_connection_counts_and_may_be_aborted(self) -> None:
        """Its unsent bytes are still in memory."""
        closing = Connected(FrameRecorder, max_buffered=1000)
        assert closing.transport.producer is not None
        closing.transport.producer.pauseProducing()
        closing.protocol.send_frame(bytes(900))
        closing.protocol.close()
        self.another(closing).receive(encode_frame(bytes(900))[:200])
        self.assertTrue(closing.transport.disconnected)

    def test_the_default_limit_leaves_room_for_the_largest_message(self) -> None:
        """A setting of the factory replaces the default."""
        for limits, expected in (
            ({}, DEFAULT_MAX_BUFFERED),
            ({"max_payload": DEFAULT_MAX_BUFFERED}, 2 * DEFAULT_MAX_BUFFERED),
            ({"max_payload": DEFAULT_MAX_BUFFERED, "max_buffered": 1000}, 1000),
        ):
            arguments: Any = limits
            limit = Connected(FrameRecorder, **arguments).factory.group.buffer_limit
            assert limit is not None
            self.assertEqual(limit.max_buffered, expected, f"{limits=}")
        self.assertRaises(ValueError, Connected, FrameRecorder, max_buffered=0)

    def test_without_a_factory_only_the_limits_of_the_connection_hold(self) -> None:
        """A protocol on its own has no limit that it shares."""
        protocol = FrameEcho()
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(FRAME[:10])
        self.assertEqual(protocol.buffered, 10)


class UpgradedTests(SynchronousTestCase):
    """A connection over sockets that became secure in its middle."""

    def test_room_is_reported_when_the_kernel_has_what_waited(self) -> None:
        """Not at the end of the handshake: then most of it is queued."""
        certificate = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())

        class Upgradable(FrameRecorder):
            upgrade = UpgradeToSsl(ServerTls(ServerOptions([certificate])))

        on_kernel = OnKernel(Upgradable)
        self.addCleanup(on_kernel.close)
        far, descriptor, peer = on_kernel.far, on_kernel.descriptor, Peer()
        protocol = on_kernel.protocol
        protocol.dataReceived(encode_frame(b"STARTTLS"))
        self.assertEqual(far.recv(100), encode_frame(b"OK"))
        protocol.send_frame(bytes(8 << 20))
        self.assertEqual(protocol.brakes, ["paused"])
        descriptor.protocol.dataReceived(peer.hello())
        descriptor.protocol.dataReceived(peer.take(far.recv(1 << 16)))
        self.assertTrue(protocol.is_secure)
        self.assertEqual(protocol.brakes, ["paused"])
        on_kernel.send_all()
        self.assertEqual(protocol.brakes, ["paused", "resumed"])
