"""A WebSocket beside a web site: the Site keeps HTTP, and the resource takes a connection over."""

from __future__ import annotations

import typing
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.websocket.connections import END, REQUEST, Recorder, close, text
from tests.websocket.pages import Page
from twsock.websocket.factory import WebSocketFactory
from twsock.websocket.handshake import refuse
from twsock.websocket.http_message import Request
from twsock.websocket.resource import WebSocketResource

PAGE = b"GET /page HTTP/1.1\r\nHost: example.com\r\n\r\n"


class Chat(Recorder):
    """Is found by the test; decides as the test says."""

    made: list[Chat] = []
    choice: Any = None

    def accept(self, request: Request) -> Any:
        self.made.append(self)
        return self.choice


class CountingSite(Site):
    """Keeps the status of each logged request."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logged: list[int] = []

    def log(self, request: Any) -> None:
        self.logged.append(request.code)


class Watched(WebSocketResource):
    """Waits for the end of each request."""

    ends: list[Any]

    def render(self, request: Any) -> Any:
        self.ends = []
        request.notifyFinish().addBoth(self.ends.append)
        return super().render(request)


class SiteTestCase(SynchronousTestCase):
    """One connection to a Site in memory, with a page and a WebSocket."""

    def setUp(self) -> None:
        self.choose(None)
        self.connect()

    def choose(self, choice: Any) -> None:
        Chat.made = []
        Chat.choice = choice

    def connect(self, **settings: Any) -> None:
        self.clock = Clock()
        self.factory = WebSocketFactory(self.clock, Chat, **settings)
        self.resource = Watched(self.factory)
        root = Resource()
        root.putChild(b"chat", self.resource)
        root.putChild(b"page", Page(b"the page", "text/plain"))
        self.site = CountingSite(root, reactor=self.clock, timeout=60)
        self.logged = self.site.logged
        self.open()

    def open(self) -> None:
        address = IPv4Address("TCP", "192.0.2.1", 80)
        self.transport: Any = typing.cast(Any, StringTransport(hostAddress=address))
        channel: Any = self.site.buildProtocol(None)
        channel.callLater = self.clock.callLater
        self.transport.protocol = channel
        channel.makeConnection(self.transport)

    def receive(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)

    def sent(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def refused(self, request: bytes) -> bytes:
        """Send a request that is refused; return the response. HTTP continues afterwards."""
        self.receive(request)
        response = self.sent()
        self.assertEqual(Chat.made, [])
        return response


class TakeOverTests(SiteTestCase):
    """An accepted request."""

    def test_accepted_request_opens_a_web_socket(self) -> None:
        """The response is that of the handshake alone; then messages are echoed."""
        self.receive(REQUEST + END)
        head = self.sent()
        self.assertTrue(head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"))
        self.assertNotIn(b"Transfer-Encoding", head)
        self.assertNotIn(b"Server:", head)
        self.receive(text("Hello"))
        self.assertEqual(self.sent(), b"\x81\x05Hello")

    def test_frame_in_the_read_of_the_request_is_delivered(self) -> None:
        """A client need not wait for the response."""
        self.receive(REQUEST + END + text("early"))
        self.assertEqual(Chat.made[0].events, ["made", "early"])

    def test_requests_before_are_answered_first(self) -> None:
        """A page, the WebSocket and a message may arrive in one read."""
        self.receive(PAGE + REQUEST + END + text("early"))
        sent = self.sent()
        self.assertLess(sent.index(b"the page"), sent.index(b" 101 "))
        self.assertTrue(sent.endswith(b"\x81\x05early"))

    def test_timeout_of_http_no_longer_fires(self) -> None:
        """Only the pings of the WebSocket are left on the clock."""
        self.connect(ping_interval=None)
        self.receive(REQUEST + END)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_producer_of_http_is_replaced(self) -> None:
        """The channel of HTTP is no longer paused by the transport."""
        before = self.transport.producer
        self.receive(REQUEST + END)
        self.assertIsNot(self.transport.producer, before)
        self.assertEqual(self.transport.producerState, "producing")

    def test_site_logs_the_request_once(self) -> None:
        """The access log has one line with 101."""
        self.receive(REQUEST + END + close())
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.logged, [101])

    def test_request_is_finished_when_it_is_answered(self) -> None:
        """``notifyFinish`` fires with None, as for other responses."""
        self.receive(REQUEST + END)
        self.assertEqual(self.resource.ends, [None])

    def test_loss_before_the_answer_fails_the_request(self) -> None:
        """``notifyFinish`` fails, and nothing is logged by the Site."""
        self.choose(Deferred())
        self.receive(REQUEST + END)
        self.assertEqual(self.resource.ends, [])
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertIsInstance(self.resource.ends[0].value, ConnectionLost)
        self.assertEqual(self.logged, [])

    def test_drain_closes_the_web_socket(self) -> None:
        """The connection belongs to the factory, whose drain closes with 1001."""
        self.receive(REQUEST + END)
        self.sent()
        self.factory.drain(5)
        self.assertTrue(self.sent().startswith(b"\x88\x11\x03\xe9"))

    def test_refusal_of_the_application_is_logged(self) -> None:
        """The response has the status that `accept` returned."""
        self.choose(refuse(403, "no"))
        self.receive(REQUEST + END)
        self.assertTrue(self.sent().startswith(b"HTTP/1.1 403 "))
        self.assertEqual(self.logged, [403])
        self.assertTrue(self.transport.disconnecting)

    def test_accept_that_raises_is_answered_with_500(self) -> None:
        """The error is logged."""
        self.choose("not offered")
        self.receive(REQUEST + END)
        self.assertTrue(self.sent().startswith(b"HTTP/1.1 500 "))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class RefusalTests(SiteTestCase):
    """HTTP continues after a refusal."""

    def test_ordinary_request_is_refused_with_426(self) -> None:
        """The response names the protocol, and the next request is answered."""
        response = self.refused(b"GET /chat HTTP/1.1\r\nHost: example.com\r\n\r\n")
        self.assertTrue(response.startswith(b"HTTP/1.1 426 "))
        self.assertIn(b"Upgrade: websocket\r\n", response)
        self.assertIn(b"\r\nsec-websocket-version: 13\r\n", response.lower())
        self.receive(PAGE)
        self.assertIn(b"the page", self.sent())
        self.assertEqual(self.logged, [426, 200])

    def test_rules_of_the_factory_hold(self) -> None:
        """Origin, Host, version, and a body are judged as without a Site."""
        for line, status in (
            (b"Origin: https://other.example\r\n", b"403"),
            (b"Host: other.example\r\n", b"400"),
            (b"Content-Length: 1\r\n", b"400"),
            (b"Transfer-Encoding: chunked\r\n", b"400"),
        ):
            self.open()
            body = {b"C": b"x", b"T": b"0\r\n\r\n"}.get(line[:1], b"")
            response = self.refused(REQUEST + line + END + body)
            self.assertTrue(response.startswith(b"HTTP/1.1 " + status), (line, response))
        self.open()
        response = self.refused(REQUEST.replace(b"Version: 13", b"Version: 8") + END)
        self.assertTrue(response.startswith(b"HTTP/1.1 426 "))

    def test_foreign_host_is_refused(self) -> None:
        """A server with names refuses others."""
        self.connect(hosts=["other.example"])
        self.assertTrue(self.refused(REQUEST + END).startswith(b"HTTP/1.1 421 "))

    def test_limit_of_connections_is_answered_with_503(self) -> None:
        """The next WebSocket above ``max_connections`` is refused."""
        self.connect(max_connections=1)
        self.receive(REQUEST + END)
        Chat.made = []
        self.open()
        self.assertTrue(self.refused(REQUEST + END).startswith(b"HTTP/1.1 503 "))

    def test_other_channel_is_refused(self) -> None:
        """A request of HTTP/2 is refused with 505."""
        resource = self.resource

        class Http2(Resource):
            isLeaf = True  # noqa: N815 - Twisted reads it

            def render(self, request: Any) -> Any:
                request.clientproto = b"HTTP/2"
                return resource.render(request)

        self.site.resource = Http2()
        self.assertIn(b" 505 ", self.refused(REQUEST + END).partition(b"\r\n")[0])

    def test_factory_with_tls_of_its_own_is_an_error(self) -> None:
        """TLS is that of the Site's endpoint."""
        tls: Any = object()
        self.factory.upgrade = tls
        with self.assertRaisesRegex(ValueError, "endpoint of the Site"):
            WebSocketResource(self.factory)
