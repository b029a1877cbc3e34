"""The HTTP server of metrics and health, and clients that hold its connections."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.measurements import Kind, Measurement
from twsock.services.metrics import MetricsService
from twsock.services.metrics_page import (
    IDLE_TIME,
    MAX_CONNECTIONS,
    REQUEST_TIME,
    page_factory,
)

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"


class Client:
    """A client of the pages, in memory."""

    def __init__(self, factory: Any) -> None:
        self.transport = StringTransport()
        self.channel = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        self.channel.makeConnection(self.transport)

    def ask(self) -> bool:
        """Send a request; return whether it was answered."""
        self.transport.clear()
        self.channel.dataReceived(REQUEST)
        answer: bytes = self.transport.value()
        return answer.endswith(b"live\n")

    def lose(self) -> None:
        """Report the end of the connection."""
        self.channel.connectionLost(Failure(ConnectionDone()))


class PageTestCase(SynchronousTestCase):
    """A page in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        page = MetricsService(self.reactor, [], list, has_metrics=False)
        self.factory: Any = page_factory(self.reactor, page, has_metrics=False)
        self.clients: list[Client] = []

    def tearDown(self) -> None:
        for client in self.clients:
            client.lose()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def connect(self) -> Client:
        """Open a connection."""
        client = Client(self.factory)
        self.clients.append(client)
        return client


class NumberTests(PageTestCase):
    """Clients that open many connections."""

    def test_one_more_connection_aborts_that_with_the_oldest_answer(self) -> None:
        """So a load balancer is answered, whoever holds the other connections."""
        scraper, *others = [self.connect() for _ in range(MAX_CONNECTIONS)]
        self.assertTrue(scraper.ask())
        self.assertTrue(self.connect().ask())
        aborted = [client for client in self.clients if client.transport.disconnected]
        self.assertEqual(aborted, [others[0]])
        self.assertTrue(scraper.ask())

    def test_a_connection_that_ends_makes_room(self) -> None:
        """Nothing is aborted."""
        for _ in range(MAX_CONNECTIONS):
            self.connect()
        self.clients.pop().lose()
        self.connect()
        self.assertFalse(any(client.transport.disconnected for client in self.clients))


class PipelineTests(PageTestCase):
    """Clients that send requests before they have read the answers."""

    def test_only_the_first_of_many_requests_is_answered(self) -> None:
        """Its connection is closed: the answers of all of them would be held in memory."""
        client = self.connect()
        client.channel.dataReceived(REQUEST * 1000)
        answers = client.transport.value()
        self.assertEqual(answers.count(b"live\n"), 1)
        self.assertIn(b"connection: close", answers.lower())
        self.assertTrue(client.transport.disconnecting)

    def test_requests_one_after_the_other_are_answered(self) -> None:
        """In pieces as well."""
        client = self.connect()
        for split in range(1, len(REQUEST)):
            client.channel.dataReceived(REQUEST[:split])
            client.channel.dataReceived(REQUEST[split:])
        self.assertEqual(client.transport.value().count(b"live\n"), len(REQUEST) - 1)
        self.assertFalse(client.transport.disconnecting)


class DrainTests(PageTestCase):
    """The page at the end of its process."""

    def test_without_connections_it_ends_at_once(self) -> None:
        """It leaves no timer."""
        self.successResultOf(self.factory.drain())

    def test_a_client_that_waits_for_its_next_request_is_closed(self) -> None:
        """It has its answer."""
        client = self.connect()
        self.assertTrue(client.ask())
        draining = self.factory.drain()
        self.assertTrue(client.transport.disconnecting)
        self.assertNoResult(draining)
        self.clients.remove(client)
        client.lose()
        self.successResultOf(draining)

    def test_a_new_client_has_a_second_for_its_request(self) -> None:
        """The port has accepted it when it closed."""
        client, silent = self.connect(), self.connect()
        draining = self.factory.drain()
        self.reactor.advance(0.9)
        self.assertFalse(client.transport.disconnecting)
        self.assertTrue(client.ask())
        self.assertIn(b"connection: close", client.transport.value().lower())
        self.assertTrue(client.transport.disconnecting)
        self.assertNoResult(draining)
        self.reactor.advance(0.1)
        self.successResultOf(draining)
        self.assertFalse(silent.transport.disconnecting)


class TimeTests(PageTestCase):
    """Clients that are slow."""

    def test_a_request_that_arrives_byte_by_byte_has_one_deadline(self) -> None:
        """The first one of a connection, and a later one; no byte extends the time."""
        for has_asked in (False, True):
            client = self.connect()
            if has_asked:
                self.assertTrue(client.ask())
                self.reactor.advance(IDLE_TIME - 1)
            for _ in range(REQUEST_TIME):
                self.assertFalse(client.transport.disconnected, f"{has_asked=}")
                client.channel.dataReceived(b"G")
                self.reactor.advance(1)
            self.assertTrue(client.transport.disconnected, f"{has_asked=}")

    def test_a_client_that_sends_nothing_is_aborted(self) -> None:
        """After the time of a request."""
        client = self.connect()
        self.reactor.advance(REQUEST_TIME - 1)
        self.assertFalse(client.transport.disconnected)
        self.reactor.advance(1)
        self.assertTrue(client.transport.disconnected)

    def test_a_connection_between_requests_is_closed_in_order(self) -> None:
        """After more than a minute, and without a log line; aborted if its answer is not read."""
        client = self.connect()
        with capturedLogs() as events:
            for _ in range(3):
                self.assertTrue(client.ask())
                self.reactor.advance(60)
            self.reactor.advance(IDLE_TIME - 60)
            self.assertTrue(client.transport.disconnecting)
            self.assertFalse(client.transport.disconnected)
            self.reactor.advance(REQUEST_TIME)
        self.assertTrue(client.transport.disconnected)
        self.assertEqual(events, [])

    def test_a_body_has_to_arrive_in_the_same_time(self) -> None:
        """A body is dropped, but awaited."""
        client = self.connect()
        client.channel.dataReceived(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n")
        for _ in range(REQUEST_TIME):
            client.channel.dataReceived(b"x")
            self.reactor.advance(1)
        self.assertTrue(client.transport.disconnected)


class Counting:
    """A process whose numbers are counted in other processes."""

    is_ready = True

    def __init__(self) -> None:
        self.arriving: Deferred[None] = Deferred()
        self.count = 3

    def refresh(self) -> Deferred[None]:
        return self.arriving

    def measure(self) -> list[Measurement]:
        return [Measurement("twsock_connections", "Accepted.", Kind.COUNTER, {}, self.count)]


class WaitTests(SynchronousTestCase):
    """Numbers that other processes count."""

    def setUp(self) -> None:
        self.source = Counting()
        self.reactor = MemoryReactorClock()
        source: Any = self.source
        self.client = Client(page_factory(self.reactor, source, has_metrics=True))
        self.client.channel.dataReceived(REQUEST.replace(b"/health/live", b"/metrics"))

    def test_the_answer_waits_for_them(self) -> None:
        """It has what has arrived by then, and its length."""
        self.assertEqual(self.client.transport.value(), b"")
        self.source.count = 4
        self.source.arriving.callback(None)
        head, _, body = self.client.transport.value().partition(b"\r\n\r\n")
        self.assertIn(b"twsock_connections_total 4.0", body)
        self.assertIn(b"Content-Length: %d\r\n" % len(body), head + b"\r\n")
        self.client.lose()

    def test_requests_before_the_answer_get_none(self) -> None:
        """The connection ends after the first answer."""
        for _ in range(100):
            self.client.channel.dataReceived(REQUEST)
        self.source.arriving.callback(None)
        self.assertNotIn(b"live", self.client.transport.value())
        self.assertTrue(self.client.transport.disconnecting)
        self.client.lose()

    def test_a_client_that_does_not_wait_gets_none(self) -> None:
        """Nothing is written to its connection."""
        self.client.lose()
        self.source.arriving.callback(None)
        self.assertEqual(self.client.transport.value(), b"")
