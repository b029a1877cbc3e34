"""The HTTP server of services."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
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
