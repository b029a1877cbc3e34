"""A WebSocket beside a web site: the Site keeps HTTP, and the resource takes a connection over."""

from __future__ import annotations

import base64
import gzip
from typing import Any, cast

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.guard import BasicCredentialFactory, HTTPAuthSessionWrapper
from twisted.web.resource import EncodingResourceWrapper, Resource
from twisted.web.server import GzipEncoderFactory, Site
from twisted.web.vhost import NameVirtualHost

from tests.websocket.connections import END, REQUEST, Recorder, binary, close, text
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

    request: Any
    ends: list[Any]

    def render(self, request: Any) -> Any:
        self.request, self.ends = request, []
        request.notifyFinish().addBoth(self.ends.append)
        return super().render(request)


def unchunk(body: bytes) -> bytes:
    """Return the content of a body that was sent in chunks."""
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        content, body = content + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return content


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
        self.transport: Any = cast(Any, StringTransport(hostAddress=address))
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

    def test_late_write_to_the_request_does_not_reach_the_client(self) -> None:
        """A resource in front may still have the request; it gets the error of Twisted."""
        self.receive(REQUEST + END)
        self.sent()
        self.assertIsNone(self.resource.request.channel)
        self.assertRaises(RuntimeError, self.resource.request.write, b"late")
        self.assertEqual(self.sent(), b"")

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

    def test_stop_of_the_site_leaves_the_web_socket(self) -> None:
        """Its factory ends it, by `drain`; the Site and its port know nothing of it."""
        self.site.doStart()
        self.receive(REQUEST + END)
        self.sent()
        self.site.doStop()
        self.receive(text("on"))
        self.assertEqual(self.sent(), b"\x81\x02on")

    def test_drain_closes_a_request_that_was_being_judged(self) -> None:
        """Its WebSocket closes as soon as it has begun, with 1001."""
        choice: Deferred[None] = Deferred()
        self.choose(choice)
        self.receive(REQUEST + END)
        self.factory.drain(5)
        self.assertFalse(self.transport.disconnecting)
        choice.callback(None)
        self.assertTrue(self.sent().partition(b"\r\n\r\n")[2].startswith(b"\x88\x11\x03\xe9"))

    def test_connection_field_may_have_several_values(self) -> None:
        """In one line or in several, in any case; a Site passes all of them on."""
        field = b"Connection: Upgrade\r\n"
        for lines in (
            b"Connection: keep-alive, Upgrade\r\n",
            b"Connection: keep-alive\r\nConnection: Upgrade\r\n",
            b"connection: UPGRADE\r\nCONNECTION: keep-alive\r\n",
        ):
            self.open()
            self.receive(REQUEST.replace(field, lines) + END)
            self.assertIn(b" 101 ", self.sent().partition(b"\r\n")[0], lines)


class TreeTests(SiteTestCase):
    """The resource at other places than below the root, and behind other resources."""

    def serve(self, resource: Any) -> None:
        """Serve another tree on a new connection."""
        self.site.resource = resource
        self.open()

    def test_resource_may_be_anywhere_in_the_tree(self) -> None:
        """The request has its whole path, also below the resource."""
        root, inner = Resource(), Resource()
        root.putChild(b"a", inner)
        inner.putChild(b"chat", self.resource)
        for path in ("/a/chat", "/a/chat/room/7?x=y"):
            self.serve(root)
            seen: list[str] = []
            self.patch(Chat, "accept", lambda _, request, seen=seen: seen.append(request.target))
            self.receive(REQUEST.replace(b"/chat", path.encode(), 1) + END + text("a"))
            self.assertTrue(self.sent().endswith(b"\x81\x01a"), path)
            self.assertEqual(seen, [path])

    def test_path_of_the_factory_is_the_whole_path(self) -> None:
        """Another path to the same resource is answered with 404."""
        self.connect(path="/a/chat")
        root = Resource()
        for name in (b"a", b"b"):
            inner = Resource()
            inner.putChild(b"chat", self.resource)
            root.putChild(name, inner)
        for name, status in ((b"/a", b" 101 "), (b"/b", b" 404 ")):
            self.serve(root)
            self.receive(REQUEST.replace(b"/chat", name + b"/chat", 1) + END)
            self.assertIn(status, self.sent().partition(b"\r\n")[0], name)

    def test_virtual_hosts_choose_the_resource(self) -> None:
        """By the field ``Host``."""
        hosts = NameVirtualHost()
        tree = Resource()
        tree.putChild(b"chat", self.resource)
        hosts.addHost(b"example.com", tree)
        hosts.default = cast(Any, Page(b"the page", "text/plain"))
        for host, expected in ((b"example.com", b" 101 "), (b"other.example", b" 200 ")):
            self.serve(hosts)
            self.receive(REQUEST.replace(b"example.com", host) + END)
            self.assertIn(expected, self.sent().partition(b"\r\n")[0], host)

    def test_compression_of_pages_does_not_touch_the_web_socket(self) -> None:
        """A refusal is a page, which the wrapper may compress."""
        self.serve(EncodingResourceWrapper(self.resource, [GzipEncoderFactory()]))
        accepting = b"Accept-Encoding: gzip\r\n"
        self.receive(REQUEST + accepting + END + text("a"))
        sent = self.sent()
        self.assertIn(b" 101 ", sent.partition(b"\r\n")[0])
        self.assertNotIn(b"Content-Encoding", sent)
        self.assertTrue(sent.endswith(b"\r\n\r\n\x81\x01a"))
        self.open()
        self.receive(REQUEST + accepting + b"Origin: https://other.example\r\n" + END)
        head, _, body = self.sent().partition(b"\r\n\r\n")
        self.assertIn(b" 403 ", head.partition(b"\r\n")[0])
        self.assertIn(b"gzip", head)
        self.assertIn(b"may not connect", gzip.decompress(unchunk(body)))


class GuardTests(SiteTestCase):
    """The resource behind a login of ``twisted.web``."""

    def setUp(self) -> None:
        super().setUp()
        self.logins: list[Deferred[Any]] = []
        self.logouts = 0
        self.is_slow = False
        portal = Portal(cast(Any, self), [cast(Any, self)])
        self.site.resource = HTTPAuthSessionWrapper(portal, [BasicCredentialFactory("chat")])
        self.transport.protocol.connectionLost(Failure(ConnectionDone()))
        self.open()

    # Called by the portal.

    credentialInterfaces = (IUsernamePassword,)  # noqa: N815 - Twisted reads it

    def requestAvatarId(self, credentials: Any) -> Any:  # noqa: N802 - Twisted calls it
        """Check a password, at once or when the test says."""
        login: Deferred[Any] = Deferred()
        if credentials.checkPassword(b"secret"):
            self.logins.append(login)
            if not self.is_slow:
                login.callback(b"user")
        else:
            login.errback(UnauthorizedLogin())
        return login

    def requestAvatar(self, _name: Any, _mind: Any, *interfaces: Any) -> Any:  # noqa: N802
        """Return the resource of a user."""
        return interfaces[0], self.resource, self.log_out

    def log_out(self) -> None:
        self.logouts += 1

    def request(self, password: bytes = b"secret") -> bytes:
        """Return a request with credentials."""
        encoded = base64.b64encode(b"user:" + password)
        return REQUEST + b"Authorization: Basic " + encoded + b"\r\n" + END

    def test_user_is_logged_in_before_the_web_socket_begins(self) -> None:
        """The session of the portal ends with the request."""
        self.receive(self.request() + text("a"))
        self.assertTrue(self.sent().endswith(b"\r\n\r\n\x81\x01a"))
        self.assertEqual(self.logouts, 1)

    def test_user_with_a_wrong_password_is_refused(self) -> None:
        """As for any page; nothing of the application runs."""
        for request in (REQUEST + END, self.request(b"wrong")):
            self.open()
            self.assertIn(b" 401 ", self.refused(request).partition(b"\r\n")[0])

    def test_frames_wait_for_a_slow_login(self) -> None:
        """Those in the read of the request, and later ones."""
        self.is_slow = True
        self.receive(self.request() + text("a"))
        self.receive(text("b"))
        self.assertEqual(self.sent(), b"")
        self.logins[0].callback(b"user")
        sent = self.sent()
        self.assertIn(b" 101 ", sent.partition(b"\r\n")[0])
        self.assertTrue(sent.endswith(b"\r\n\r\n\x81\x01a\x81\x01b"), sent)
        self.receive(text("c"))
        self.assertEqual(self.sent(), b"\x81\x01c")
        self.assertEqual(self.transport.producerState, "producing")

    def test_reading_continues_after_a_slow_login(self) -> None:
        """The Site pauses the transport when many bytes wait behind the request."""
        self.is_slow = True
        self.receive(self.request())
        self.receive(binary(bytes(20_000)))
        self.assertEqual(self.transport.producerState, "paused")
        self.logins[0].callback(b"user")
        self.assertTrue(self.sent().endswith(bytes(20_000)))
        self.assertEqual(self.transport.producerState, "producing")

    def test_loss_during_a_login_leaves_nothing(self) -> None:
        """The login that succeeds later finds no connection, and no error is logged."""
        self.is_slow = True
        self.receive(self.request())
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))
        self.logins[0].callback(b"user")
        self.assertEqual(Chat.made, [])
        self.assertEqual(len(self.factory.group), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class LossTests(SiteTestCase):
    """The connection may be lost in each state."""

    def test_loss_in_each_state_leaves_nothing(self) -> None:
        """Within the request, while it is judged, when it is open, within a message, closing."""
        states: dict[str, tuple[Any, bytes]] = {
            "request": (None, REQUEST),
            "judging": (Deferred(), REQUEST + END + text("early")),
            "open": (None, REQUEST + END),
            "message": (None, REQUEST + END + text("abc")[:-1]),
            "closing": (None, REQUEST + END + close()),
            "violation": (None, REQUEST + END + b"\xff\xff"),
            "refused": (refuse(403, "no"), REQUEST + END),
        }
        for state, (choice, received) in states.items():
            self.choose(choice)
            self.connect(ping_interval=None)
            self.receive(received)
            self.transport.protocol.connectionLost(Failure(ConnectionLost()))
            self.assertEqual(len(self.factory.group), 0, state)
            self.assertEqual(self.clock.getDelayedCalls(), [], state)
            for each in Chat.made:
                was_open = state not in ("judging", "refused")
                self.assertEqual(len(each.lost), int(was_open), state)


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
        self.assertEqual(self.factory.counters.refused_requests, {426: 1})

    def test_refusal_does_not_say_that_the_connection_closes(self) -> None:
        """The Site decides about it; Upgrade is named, as :rfc:`9110`, section 7.8, asks for."""
        foreign = b"Origin: https://other.example\r\n"
        for request, named in (
            (b"GET /chat HTTP/1.1\r\nHost: example.com\r\n\r\n", [b"upgrade"]),
            (REQUEST + foreign + END, []),
        ):
            head = self.refused(request).partition(b"\r\n\r\n")[0].lower()
            fields = [line.split(b": ") for line in head.split(b"\r\n")[1:]]
            found = [value for name, value in fields if name == b"connection"]
            self.assertEqual(found, named)
            self.assertEqual(len([name for name, _ in fields if name == b"content-length"]), 1)

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

    def test_channel_of_another_kind_is_refused(self) -> None:
        """Also if its requests look like HTTP/1.1: it may not have a transport to take over."""
        resource = self.resource

        class Other:
            """A channel that is no channel of HTTP/1.1."""

            def __init__(self, channel: Any) -> None:
                self.channel = channel

            def __getattr__(self, name: str) -> Any:
                return getattr(self.channel, name)

        class Wrapping(Resource):
            isLeaf = True  # noqa: N815 - Twisted reads it

            def render(self, request: Any) -> Any:
                request.channel = Other(request.channel)
                return resource.render(request)

        self.site.resource = Wrapping()
        self.assertIn(b" 505 ", self.refused(REQUEST + END).partition(b"\r\n")[0])

    def test_factory_with_tls_of_its_own_is_an_error(self) -> None:
        """TLS is that of the Site's endpoint."""
        tls: Any = object()
        self.factory.upgrade = tls
        with self.assertRaisesRegex(ValueError, "endpoint of the Site"):
            WebSocketResource(self.factory)
