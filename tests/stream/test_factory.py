"""A `StreamServerFactory` passes limits to its connections, and limits their number."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.stream.connections import Connected, FrameRecorder
from twsock.protocols import StreamServerFactory


class FactoryTests(SynchronousTestCase):
    """`StreamServerFactory` on its own."""

    def setUp(self) -> None:
        self.events: list[Any] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(self.events.append)
        self.addCleanup(publisher.removeObserver, self.events.append)

    def limit_events(self) -> int:
        """Count the events that report the limit on connections."""
        return len([event for event in self.events if "limit" in event])

    def test_a_factory_provides_twisteds_interface(self) -> None:
        """It provides `IProtocolFactory`, so any endpoint can use it."""
        factory = StreamServerFactory(MemoryReactorClock(), FrameRecorder)
        self.assertTrue(verifyObject(IProtocolFactory, factory))

    def test_a_connection_above_the_limit_is_refused(self) -> None:
        """
        Without a gate, a connection above the limit is refused and counted; one event reports the
        limit.
        """
        connected = Connected(FrameRecorder, max_connections=1)
        for attempt in range(3):
            self.assertIsNone(connected.factory.buildProtocol(None), f"{attempt=}")
        self.assertEqual(connected.factory.counters.refused, 3)
        self.assertEqual(self.limit_events(), 1)

    def test_an_address_above_its_limit_is_refused(self) -> None:
        """One more connection from an address is refused, counted and logged."""
        connected = Connected(FrameRecorder, max_connections_per_address=1)
        peer, other = (IPv4Address("TCP", host, 7) for host in ("192.168.1.1", "192.168.1.2"))
        self.assertIsNone(connected.factory.buildProtocol(peer))
        self.assertIsNotNone(connected.factory.buildProtocol(other))
        self.assertIsNotNone(connected.factory.buildProtocol(None))
        self.assertEqual(connected.factory.counters.refused, 1)
        self.assertEqual(self.limit_events(), 1)
        connected.lose()
        self.assertIsNotNone(connected.factory.buildProtocol(peer))

    def test_a_lost_connection_makes_room_for_another(self) -> None:
        """The next connection is accepted."""
        connected = Connected(FrameRecorder, max_connections=1)
        connected.lose()
        self.assertIsNotNone(connected.factory.buildProtocol(None))

    def test_each_time_the_limit_is_reached_is_logged_once(self) -> None:
        """A limit that is reached again, after connections had ended, is a new event."""
        connected = Connected(FrameRecorder, max_connections=1)
        connected.factory.buildProtocol(None)
        connected.lose()
        again = connected.factory.buildProtocol(None)
        assert again is not None
        again.makeConnection(connected.transport)
        connected.factory.buildProtocol(None)
        self.assertEqual(self.limit_events(), 2)

    def test_listening_in_memory_returns_the_port(self) -> None:
        """A port without a socket of its own can be listened on too."""
        reactor = MemoryReactorClock()
        factory = StreamServerFactory(reactor, FrameRecorder)
        port = self.successResultOf(factory.listen(TCP4ServerEndpoint(reactor, 1337)))
        self.assertEqual(reactor.tcpServers[0][:2], (1337, factory))
        self.assertIsNotNone(port.getHost())

    def test_limits_of_the_factory_reach_the_protocol(self) -> None:
        """A limit of None leaves the protocol's own."""
        factory = StreamServerFactory(MemoryReactorClock(), FrameRecorder, close_timeout=1.5)
        built = factory.buildProtocol(None)
        assert built is not None
        self.assertEqual((built.max_payload, built.close_timeout), (None, 1.5))

    def test_limits_out_of_bounds_are_refused_by_the_constructor(self) -> None:
        """A wrong limit raises an error before the first connection."""
        for limits in (
            {"max_connections": 0},
            {"max_connections_per_address": 0},
            {"max_buffered": 0},
            {"max_unsent": 0},
            {"idle_timeout": -1.0},
            {"max_payload": -1},
            {"close_timeout": -1.0},
        ):
            arguments: Any = limits
            self.assertRaises(
                ValueError, StreamServerFactory, MemoryReactorClock(), FrameRecorder, **arguments
            )
