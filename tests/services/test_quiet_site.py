"""The HTTP server of services."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http

from tests.websocket.pages import Page
from twsock.services.quiet_site import MAX_BODY, QuietSite


class ProtocolTests(SynchronousTestCase):
    """What a TLS endpoint of Twisted offers for these sites (ALPN)."""

    def test_a_client_that_offers_http_2_gets_http_1_1(self) -> None:
        """A Site of Twisted takes HTTP/2 if the packages for it are installed."""
        self.patch(http, "H2_ENABLED", True)
        site = QuietSite(Page(b"", "text/plain"), Clock())
        self.assertEqual(site.acceptableProtocols(), [b"http/1.1"])


class BodyTests(SynchronousTestCase):
    """Bodies of requests."""

    def test_bodies_are_dropped_and_large_ones_are_aborted(self) -> None:
        """A body is dropped up to 64 KiB."""
        self.assertEqual(MAX_BODY, 65_536)
        for size, expected in ((MAX_BODY, False), (MAX_BODY + 1, True)):
            clock = Clock()
            channel: Any = QuietSite(Page(b"", "text/plain"), clock).buildProtocol(
                IPv4Address("TCP", "127.0.0.1", 1)
            )
            transport = StringTransport()
            channel.makeConnection(transport)
            channel.dataReceived(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
            (request,) = channel.requests
            channel.dataReceived(b"x" * size)
            self.assertEqual(transport.disconnected, expected, size)
            self.assertEqual(request.content.getvalue(), b"", size)
            channel.connectionLost(Failure(ConnectionDone()))


class PipelineTests(SynchronousTestCase):
    """Clients that send requests before they have read the answers."""

    def test_only_the_first_of_many_requests_is_answered(self) -> None:
        """Other connections would wait for thousands of answers."""
        transport = StringTransport()
        channel: Any = QuietSite(Page(b"page", "text/plain"), Clock()).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 1)
        )
        channel.makeConnection(transport)
        channel.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        answers = transport.value()
        self.assertEqual(answers.count(b"\r\n\r\npage"), 1)
        self.assertIn(b"connection: close", answers.lower())
        self.assertTrue(transport.disconnecting)
        channel.connectionLost(Failure(ConnectionDone()))


class HeadTests(SynchronousTestCase):
    """Requests for the head of a page, as monitors send them."""

    def test_head_has_the_length_and_logs_nothing(self) -> None:
        """The head is that of GET; the next request on the connection is answered."""
        transport = StringTransport()
        channel: Any = QuietSite(Page(b"page", "text/plain"), Clock()).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 1)
        )
        channel.makeConnection(transport)
        heads = []
        with capturedLogs() as events:
            for method in (b"HEAD", b"GET", b"HEAD"):
                channel.dataReceived(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
                head, _, body = transport.value().partition(b"\r\n\r\n")
                self.assertEqual(body, b"page" if method == b"GET" else b"", method)
                heads.append(sorted(head.lower().split(b"\r\n")))
                transport.clear()
        self.assertEqual(events, [])
        self.assertIn(b"content-length: 4", heads[0])
        names = [[line.partition(b":")[0] for line in head] for head in heads]
        self.assertEqual(names[0], names[1])
        self.assertEqual(names[0], names[2])
        channel.connectionLost(Failure(ConnectionDone()))
