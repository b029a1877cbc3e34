"""The HTTP server of metrics and health."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.metrics import MetricsService
from twsock.services.metrics_page import MAX_CONNECTIONS, page_factory


class PageTests(SynchronousTestCase):
    """The HTTP server of the pages."""

    def test_connections_above_the_limit_are_closed(self) -> None:
        """One that ends makes room."""
        reactor = MemoryReactorClock()
        page = MetricsService(reactor, [], list, has_metrics=False)
        factory: Any = page_factory(reactor, page, has_metrics=False)
        address = IPv4Address("TCP", "127.0.0.1", 1)
        built = [factory.buildProtocol(address) for _ in range(MAX_CONNECTIONS)]
        for protocol in built:
            protocol.makeConnection(StringTransport())
        self.assertIsNone(factory.buildProtocol(address))
        built[0].connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(factory.buildProtocol(address))
        for protocol in built[1:]:
            protocol.connectionLost(Failure(ConnectionDone()))
