"""A `ConnectionRegistry` counts, limits, times out and drains its connections."""

from __future__ import annotations

from weakref import ref

from hypothesis import given
from hypothesis.strategies import floats
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.stream.connections import Connected, FrameRecorder, Waiting
from twsock.protocols import ConnectionRegistry, FrameEcho
from twsock.wire import encode_frame


class IdleTests(SynchronousTestCase):
    """The idle timeout."""

    @given(floats(min_value=0.0, max_value=49.9))
    def test_an_idle_connection_ends_between_one_and_one_and_a_half_timeouts(
        self, offset: float
    ) -> None:
        """The bounds hold wherever the last frame falls between two ticks."""
        connected = Connected(FrameRecorder, idle_timeout=100.0, close_timeout=1000.0)
        connected.clock.advance(offset)
        connected.receive(encode_frame(b"x"))
        connected.clock.pump([1.0] * 99)
        self.assertFalse(connected.transport.disconnecting)
        connected.clock.pump([1.0] * 52)
        self.assertTrue(connected.transport.disconnecting)
        self.assertFalse(connected.transport.disconnected)
        self.assertEqual(connected.factory.counters.idle, 1)

    def test_single_bytes_do_not_extend_the_timeout(self) -> None:
        """Only whole frames count as activity."""
        connected = Connected(FrameRecorder, idle_timeout=10.0)
        connected.receive(b"\x00\x00\x10\x00")
        for _ in range(16):
            connected.clock.advance(1.0)
            connected.receive(b"x")
        self.assertTrue(connected.transport.disconnecting)

    def test_a_running_handler_keeps_the_connection(self) -> None:
        """A peer that waits for an answer is not idle; the timeout begins anew after the answer."""
        connected = Connected(Waiting, idle_timeout=10.0)
        connected.receive(encode_frame(b"x"))
        connected.clock.pump([1.0] * 60)
        self.assertFalse(connected.transport.disconnecting)
        connected.protocol.go_on()
        connected.clock.pump([1.0] * 9)
        self.assertFalse(connected.transport.disconnecting)
        connected.clock.pump([1.0] * 8)
        self.assertTrue(connected.transport.disconnecting)

    def test_a_handler_does_not_keep_the_connection_of_a_peer_that_ended(self) -> None:
        """At the timeout that connection is aborted and its handler cancelled."""
        connected = Connected(Waiting, idle_timeout=10.0)
        connected.receive(encode_frame(b"x"))
        connected.end()
        connected.clock.pump([1.0] * 9)
        self.assertFalse(connected.transport.disconnected)
        connected.clock.pump([1.0] * 7)
        self.assertTrue(connected.transport.disconnected)
        connected.lose()
        self.assertEqual(connected.protocol.ended, ["CancelledError"])
        self.assertEqual(connected.factory.counters.idle, 1)
        self.assertEqual(connected.clock.getDelayedCalls(), [])

    def test_without_a_timeout_no_connection_ends(self) -> None:
        """A timeout of None means for ever, and costs no delayed call."""
        connected = Connected(FrameRecorder, idle_timeout=None)
        self.assertEqual(connected.clock.getDelayedCalls(), [])

    def test_a_thousand_connections_share_one_delayed_call(self) -> None:
        """Watching more connections arms no more timers."""
        group = ConnectionRegistry(Clock(), idle_timeout=10.0)
        clock = group.clock
        for _ in range(1000):
            protocol = FrameRecorder()
            group.join(protocol)
        assert isinstance(clock, Clock)
        self.assertEqual(len(clock.getDelayedCalls()), 1)

    def test_settings_out_of_bounds_are_refused(self) -> None:
        """A timeout or limit that makes no sense raises an error."""
        self.assertRaises(ValueError, ConnectionRegistry, Clock(), idle_timeout=0.0)
        self.assertRaises(ValueError, ConnectionRegistry, Clock(), max_connections=0)


class DrainTests(SynchronousTestCase):
    """A drain: each connection is closed, or aborted at the deadline."""

    def test_idle_connections_close_at_once(self) -> None:
        """A connection with nothing under way is closed when the drain begins."""
        connected = Connected(FrameRecorder)
        connected.receive(encode_frame(b"x"))
        drained = connected.factory.drain(10.0)
        self.assertTrue(connected.transport.disconnecting)
        connected.lose()
        self.assertEqual(self.successResultOf(drained), 0)

    def test_received_messages_are_answered_first(self) -> None:
        """A connection with a running handler closes when it has answered."""
        connected = Connected(Waiting)
        connected.receive(encode_frame(b"1") + encode_frame(b"2"))
        drained = connected.factory.drain(10.0)
        connected.protocol.go_on()
        self.assertFalse(connected.transport.disconnecting)
        connected.protocol.go_on()
        self.assertEqual(connected.sent(), encode_frame(b"1") + encode_frame(b"2"))
        self.assertTrue(connected.transport.disconnecting)
        connected.lose()
        self.assertEqual(self.successResultOf(drained), 0)

    def test_a_partial_message_is_awaited_and_answered(self) -> None:
        """Its rest may arrive until the deadline."""
        connected = Connected(FrameEcho)
        frame = encode_frame(b"request")
        connected.receive(frame[:5])
        drained = connected.factory.drain(10.0)
        connected.clock.advance(9.0)
        self.assertFalse(connected.transport.disconnecting)
        connected.receive(frame[5:])
        self.assertEqual(connected.sent(), frame)
        self.assertTrue(connected.transport.disconnecting)
        connected.lose()
        self.assertEqual(self.successResultOf(drained), 0)

    def test_connections_left_at_the_deadline_are_aborted(self) -> None:
        """The result of the drain counts them."""
        connected = Connected(Waiting)
        connected.receive(encode_frame(b"1"))
        drained = connected.factory.drain(10.0)
        connected.clock.advance(9.9)
        self.assertFalse(connected.transport.disconnected)
        connected.clock.advance(0.2)
        self.assertTrue(connected.transport.disconnected)
        connected.lose()
        self.assertEqual(self.successResultOf(drained), 1)

    def test_a_drain_without_connections_ends_at_once(self) -> None:
        """Also a second time."""
        connected = Connected(FrameRecorder)
        connected.lose()
        self.assertEqual(self.successResultOf(connected.factory.drain(10.0)), 0)
        self.assertEqual(self.successResultOf(connected.factory.drain(10.0)), 0)
        self.assertEqual(connected.clock.getDelayedCalls(), [])

    def test_a_drain_in_a_handler_lets_the_handler_answer(self) -> None:
        """The answer is sent before the connection ends."""

        class Last(FrameRecorder):
            def frame_received(self, payload: bytes) -> None:
                self.drain()
                self.send_frame(b"bye")

        connected = Connected(Last)
        connected.receive(encode_frame(b"x"))
        self.assertEqual(connected.sent(), encode_frame(b"bye"))
        self.assertTrue(connected.transport.disconnecting)

    def test_a_cancelled_drain_leaves_no_timer(self) -> None:
        """Connections that end later raise no error."""
        connected = Connected(Waiting, idle_timeout=None)
        connected.receive(encode_frame(b"x"))
        draining = connected.factory.drain(5)
        draining.addErrback(lambda _: None).cancel()
        self.assertEqual(connected.clock.getDelayedCalls(), [])
        connected.lose()
        self.assertEqual(len(connected.factory.group), 0)

    def test_a_connection_that_raises_does_not_keep_the_others(self) -> None:
        """It is aborted, and the error logged, at a drain and at a tick."""

        class Stubborn(FrameRecorder):
            def drain(self) -> None:
                raise ZeroDivisionError("at a drain")

            def end_if_idle(self) -> None:
                raise ZeroDivisionError("at a tick")

        for act in ("drain", "tick"):
            connected = Connected(Stubborn, idle_timeout=1.0)
            other = StringTransport()
            built = connected.factory.buildProtocol(None)
            assert built is not None
            built.makeConnection(other)
            if act == "drain":
                connected.factory.drain(5).addErrback(lambda _: None)
            else:
                connected.clock.pump([0.5] * 3)
            self.assertTrue(connected.transport.disconnected and other.disconnected, f"{act=}")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2, f"{act=}")


class Plain:
    """A connection without an idle timeout; the test decides when it ends."""

    __slots__ = ("aborts", "drains", "registry")

    def __init__(self, registry: ConnectionRegistry[Plain]) -> None:
        self.registry = registry
        self.aborts = self.drains = 0

    def drain(self) -> None:
        self.drains += 1

    def abort(self) -> Deferred[None]:
        self.aborts += 1
        self.registry.leave(self)
        return succeed(None)


class MemberTests(SynchronousTestCase):
    """Members of a registry without an idle timeout."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry: ConnectionRegistry[Plain] = ConnectionRegistry(self.clock)
        self.members = [Plain(self.registry) for _ in range(3)]
        for member in self.members:
            self.registry.join(member)

    def test_members_need_no_activity(self) -> None:
        """They need no ``active_tick``, and the registry has no delayed call."""
        self.assertEqual(set(self.registry.members), set(self.members))
        self.assertEqual(self.registry.counters.accepted, 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_drain_in_two_steps_aborts_after_the_wait(self) -> None:
        """The caller may act between the deadline and the abort."""
        waiting = self.registry.drain_within(5)
        self.registry.leave(self.members[0])
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.successResultOf(waiting)
        self.assertEqual([member.drains for member in self.members], [1, 1, 1])
        self.assertEqual([member.aborts for member in self.members], [0, 0, 0])
        self.assertEqual(self.successResultOf(ensureDeferred(self.registry.abort_all())), 2)
        self.assertEqual([member.aborts for member in self.members], [0, 1, 1])

    def test_a_drain_ends_with_the_last_member(self) -> None:
        """No delayed call is left; a timeout of 0 ends at once and drains nothing."""
        self.successResultOf(self.registry.drain_within(0))
        self.assertEqual([member.drains for member in self.members], [0, 0, 0])
        waiting = self.registry.drain_within(5)
        for member in self.members:
            self.assertNoResult(waiting)
            self.registry.leave(member)
        self.successResultOf(waiting)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Port:
    """A port, as transports refer to it."""


class PortTests(SynchronousTestCase):
    """Counters of ports."""

    def setUp(self) -> None:
        self.registry: ConnectionRegistry[Plain] = ConnectionRegistry(Clock())

    def test_each_port_has_its_own_counters(self) -> None:
        """Other connections have those of the registry, and sums have all of them."""
        ports = [Port(), Port()]
        for number, port in enumerate(ports, 1):
            self.registry.add_port(port, f"tcp:127.0.0.1:{number}")
        for accepting in (ports[0], ports[1], ports[1], Port(), None):
            counters = self.registry.counters_of(accepting)
            member = Plain(self.registry)
            self.registry.join(member, None, counters)
            self.registry.leave(member, counters)
        counted = {name: each.accepted for name, each in self.registry.by_endpoint().items()}
        self.assertEqual(counted, {"tcp:127.0.0.1:1": 1, "tcp:127.0.0.1:2": 2, "": 2})
        total = self.registry.count()
        self.assertEqual((total.accepted, total.ended), (5, 5))

    def test_a_port_that_is_opened_again_continues_to_count(self) -> None:
        """A counter never falls, and the closed port is freed."""
        port = Port()
        before = self.registry.add_port(port, "tcp:127.0.0.1:1")
        before.accepted = 3
        gone = ref(port)
        del port
        self.assertIsNone(gone())
        again = self.registry.add_port(Port(), "tcp:127.0.0.1:1")
        self.assertIs(again, before)

    def test_a_refusal_is_counted_for_its_port(self) -> None:
        """One address is at its limit."""
        registry: ConnectionRegistry[Plain] = ConnectionRegistry(
            Clock(), max_connections_per_address=1
        )
        port = Port()
        counters = registry.add_port(port, "tcp:127.0.0.1:1")
        registry.join(Plain(registry), "192.0.2.1", counters)
        self.assertFalse(registry.admits("192.0.2.1", counters))
        self.assertEqual((counters.refused, registry.counters.refused), (1, 0))
