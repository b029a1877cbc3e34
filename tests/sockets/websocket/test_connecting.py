"""A connect goes through its steps, and ends whatever the other end does."""

from __future__ import annotations

import contextlib
import ssl

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.connected import Served, text
from tests.tls.peer import AUTHORITY, ServerPeer, issue
from twsock import (
    Certificate,
    ChainValidationResult,
    ClosedError,
    LocalProtocolError,
    MessageWebSocket,
    OperationNotSupported,
    PasswordCredential,
    RemoteProtocolError,
    SocketError,
    WebErrorStatus,
    WebSocketError,
)
from twsock.tls import CertificateError, SocketProtectionLevel
from twsock.websocket.http import ServerHttp
from twsock.websocket.http_message import Request

ROOT = Certificate.from_pem(AUTHORITY.cert_pem.bytes())

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def parse_request(data: bytes) -> Request:
    """Parse a request that was sent in a tunnel."""
    found = ServerHttp().feed(data)
    assert isinstance(found, Request), found
    return found


class TunnelTests(SynchronousTestCase):
    """WebSockets through a proxy."""

    def setUp(self) -> None:
        self.made = Served(MessageWebSocket)
        self.control = self.made.socket.control
        self.control.ping_interval = None
        self.control.proxy = "http://192.0.2.1:8080"

    def test_request_goes_through_the_tunnel(self) -> None:
        """The request follows the response of the proxy; the information is about the server."""
        connecting = self.made.connect("ws://server.example:81/a")
        self.assertEqual(self.made.reactor.tcpClients[-1][:2], ("192.0.2.1", 8080))
        self.made.answer_tcp()
        asked = self.made.sent()
        self.assertEqual(asked.split(b"\r\n")[0], b"CONNECT server.example:81 HTTP/1.1")
        self.made.receive(ESTABLISHED, 1)
        request = self.made.request()
        self.assertEqual((request.method, request.target), ("GET", "/a"))
        self.assertIsNone(request.header("Proxy-Authorization"))
        self.made.reactor.advance(9)
        self.made.receive(self.made.response(request) + text("a"))
        self.successResultOf(connecting)
        self.assertEqual(self.successResultOf(self.made.socket.receive()), "a")
        self.assertEqual(str(self.made.socket.information.remote_host_name), "server.example")

    def test_credential_goes_to_the_proxy_only(self) -> None:
        """W4: And only if it may be sent without TLS."""
        self.control.proxy_credential = PasswordCredential("user", "secret")
        for uri in ("ws://server.example/", "wss://server.example/"):
            self.failureResultOf(self.made.connect(uri), LocalProtocolError)
        self.assertEqual(self.made.reactor.tcpClients, [])
        self.control.sends_credentials_unencrypted = True
        self.made.connect("ws://server.example/")
        self.made.answer_tcp()
        self.assertIn(b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=", self.made.sent())
        self.made.receive(ESTABLISHED)
        self.assertNotIn(b"Basic", self.made.sent())

    def test_credential_without_a_proxy_is_not_sent(self) -> None:
        """A connect without a proxy accepts the option, and sends no credential."""
        self.control.proxy = None
        self.control.proxy_credential = PasswordCredential("user", "secret")
        connecting = self.made.connect()
        self.made.accept()
        self.successResultOf(connecting)

    def test_tls_begins_in_the_tunnel(self) -> None:
        """Nothing of the WebSocket is sent in plaintext."""
        self.made.connect("wss://server.example/a")
        self.made.answer_tcp()
        self.assertEqual(self.made.sent().split(b" ")[1], b"server.example:443")
        self.made.receive(ESTABLISHED)
        self.made.turn()
        self.assertEqual(self.made.sent()[:1], b"\x16")

    def test_refusal_of_the_proxy_fails_the_connect(self) -> None:
        """The object stays usable."""
        connecting = self.made.connect()
        self.made.answer_tcp()
        self.made.receive(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        failure = self.failureResultOf(connecting, SocketError)
        status = WebSocketError.get_status(failure)
        self.assertIs(status, WebErrorStatus.PROXY_AUTHENTICATION_REQUIRED)
        self.assertTrue(self.made.is_aborted)
        self.control.proxy = None
        connecting = self.made.connect()
        self.made.accept()
        self.successResultOf(connecting)

    def test_connect_fires_whatever_the_proxy_does(self) -> None:
        """The proxy hangs up, resets, is silent, or sends too much."""
        for end in ("end", "lose", "reset"):
            connecting = self.made.connect()
            self.made.answer_tcp()
            getattr(self.made, end)()
            self.failureResultOf(connecting, SocketError)
        connecting = self.made.connect()
        self.made.answer_tcp()
        self.made.reactor.advance(10)
        failure = self.failureResultOf(connecting, SocketError)
        self.assertIs(WebSocketError.get_status(failure), WebErrorStatus.TIMEOUT)
        connecting = self.made.connect()
        self.made.answer_tcp()
        self.made.receive(ESTABLISHED + b"a")
        self.failureResultOf(connecting, RemoteProtocolError)

    def test_cancelled_connect_aborts(self) -> None:
        """A close during the connect aborts the connection, too."""
        connecting = self.made.connect()
        self.made.answer_tcp()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.made.is_aborted)
        connecting = self.made.connect()
        self.made.answer_tcp()
        self.made.socket.close()
        self.failureResultOf(connecting, ClosedError)
        self.assertTrue(self.made.is_aborted)


class SecureServerTests(SynchronousTestCase):
    """WebSockets of servers that are reached with TLS."""

    def test_name_and_level_of_the_options(self) -> None:
        """The certificate must have that name, and the request has the host of the URI."""
        made = Served(MessageWebSocket)
        control = made.socket.control
        control.ping_interval = None
        control.trust_roots = [ROOT]
        control.server_name = "localhost"
        control.max_protection_level = SocketProtectionLevel.TLS12
        connecting = made.connect("wss://192.0.2.1/")
        made.answer_tcp()
        server = ServerPeer()
        made.turn()
        while sent := made.sent():
            made.receive(server.take(sent))
            made.turn()
        request = parse_request(server.received)
        self.assertEqual(request.header("Host"), "192.0.2.1")
        made.receive(server.say(made.response(request)))
        self.successResultOf(connecting)
        self.assertEqual(made.socket.information.negotiated_version, "TLSv1.2")
        self.assertEqual(server.server_name, "localhost")

    def test_levels_that_exclude_each_other_fail_the_connect(self) -> None:
        """Nothing is connected."""
        made = Served(MessageWebSocket)
        made.socket.control.max_protection_level = SocketProtectionLevel.TLS12
        made.socket.control.min_protection_level = SocketProtectionLevel.TLS13
        self.failureResultOf(made.connect("wss://192.0.2.1/"), OperationNotSupported)
        self.assertEqual(made.reactor.tcpClients, [])


class SecureProxyTests(SynchronousTestCase):
    """WebSockets through a proxy that is reached with TLS."""

    def setUp(self) -> None:
        self.made = Served(MessageWebSocket)
        self.control = self.made.socket.control
        self.control.ping_interval = None
        self.control.proxy = "https://127.0.0.1:8443"
        self.control.proxy_trust_roots = [ROOT]
        self.proxy, self.server = ServerPeer(), ServerPeer()

    def exchange(self) -> bytes:
        """Let the client and the proxy send all they have; return what the proxy received."""
        self.made.turn()
        while sent := self.made.sent():
            self.made.receive(self.proxy.take(sent))
            self.made.turn()
        received, self.proxy.received = self.proxy.received, b""
        return received

    def say(self, data: bytes) -> bytes:
        """Let the proxy send bytes; return what it then receives."""
        self.made.receive(self.proxy.say(data))
        return self.exchange()

    def relay(self, data: bytes) -> None:
        """Let the proxy pass bytes to the server and back, until nothing is left."""
        while answer := self.server.take(data):
            data = self.say(answer)

    def open_tunnel(self, uri: str) -> tuple[Deferred[None], bytes]:
        """Connect to the proxy; return the connect and the first bytes in the tunnel."""
        connecting = self.made.connect(uri)
        self.assertEqual(self.made.reactor.tcpClients[-1][:2], ("127.0.0.1", 8443))
        self.made.answer_tcp()
        self.asked = self.exchange()
        return connecting, self.say(ESTABLISHED)

    def test_tls_runs_inside_the_tls_of_the_proxy(self) -> None:
        """The request to the proxy is encrypted, and all else is so twice."""
        self.control.trust_roots = [ROOT]
        connecting, hello = self.open_tunnel("wss://localhost/a")
        self.assertEqual(self.asked.split(b"\r\n")[0], b"CONNECT localhost:443 HTTP/1.1")
        self.assertEqual(hello[:1], b"\x16")
        self.relay(hello)
        request = parse_request(self.server.received)
        self.assertEqual(request.target, "/a")
        self.relay(self.say(self.server.say(self.made.response(request) + text("a"))))
        self.successResultOf(connecting)
        websocket = self.made.socket
        self.assertEqual(self.successResultOf(websocket.receive()), "a")
        self.assertTrue(websocket.is_secure)
        self.assertEqual(websocket.information.negotiated_version, "TLSv1.3")
        # More than the high-water mark, which all layers have to pass on.
        sending = websocket.send(bytes(300_000))
        self.relay(self.exchange())
        self.assertGreater(len(self.server.received), 300_000)
        self.successResultOf(sending)

    def test_plain_websocket_is_not_secure(self) -> None:
        """TLS ends at the proxy: the information is about the server."""
        connecting, sent = self.open_tunnel("ws://server.example/a")
        request = parse_request(sent)
        self.assertEqual(request.header("Host"), "server.example")
        self.say(self.made.response(request))
        self.successResultOf(connecting)
        self.assertFalse(self.made.socket.is_secure)
        information = self.made.socket.information
        self.assertEqual(information.negotiated_version, "")
        self.assertIsNone(information.server_certificate)

    def test_credential_for_the_proxy_needs_no_permission(self) -> None:
        """TLS protects it; the server's does not, with ``ws``."""
        self.control.proxy_credential = PasswordCredential("user", "secret")
        _, sent = self.open_tunnel("ws://server.example/")
        self.assertIn(b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=", self.asked)
        self.assertNotIn(b"Basic", sent)
        self.made = Served(MessageWebSocket)
        self.made.socket.control.proxy = "https://127.0.0.1:8443"
        self.made.socket.control.server_credential = PasswordCredential("user", "secret")
        error = self.failureResultOf(self.made.connect(), LocalProtocolError).value
        self.assertIn("server_credential", str(error))

    def test_refused_certificate_of_the_proxy_fails_the_connect(self) -> None:
        """The options for the server's certificate do not apply to the proxy."""
        for what, options in (
            ("another authority", {"proxy_trust_roots": []}),
            ("the server's authority", {"proxy_trust_roots": None, "trust_roots": [ROOT]}),
            ("another name", {"proxy": "https://127.0.0.2:8443"}),
        ):
            self.setUp()
            self.control.ignorable_server_certificate_errors.extend(ChainValidationResult)
            for name, value in options.items():
                setattr(self.control, name, value)
            connecting = self.made.connect("wss://localhost/")
            self.made.answer_tcp()
            with contextlib.suppress(ssl.SSLError):  # The alert of the client.
                self.exchange()
            self.made.lose()
            error = self.failureResultOf(connecting, CertificateError).value
            self.assertTrue(str(error).startswith("proxy: the certificate of "), what)
            self.assertEqual(self.proxy.received, b"", what)
            self.assertTrue(self.made.transport.disconnecting, what)
            # It can be connected again, without the proxy.
            self.control.proxy = None
            connecting = self.made.connect()
            self.made.accept()
            self.successResultOf(connecting)

    def test_certificate_of_the_client_is_not_for_the_proxy(self) -> None:
        """A proxy that requests one gets none."""
        self.control.client_certificate = Certificate.from_pem(issue())
        self.control.trust_roots = [ROOT]
        self.proxy = ServerPeer(requests_certificate=True)
        self.server = ServerPeer(requests_certificate=True)
        _, hello = self.open_tunnel("wss://localhost/")
        self.relay(hello)
        self.assertIsNone(self.proxy.certificate)
        self.assertIsNotNone(self.server.certificate)

    def test_lowest_version_is_also_that_of_the_proxy(self) -> None:
        """Nothing is sent to a proxy with an older one."""
        self.control.min_protection_level = SocketProtectionLevel.TLS13
        self.proxy = ServerPeer(highest=ssl.TLSVersion.TLSv1_2)
        connecting = self.made.connect("ws://server.example/")
        self.made.answer_tcp()
        with contextlib.suppress(ssl.SSLError):  # No version in common.
            self.exchange()
        self.assertFalse(self.proxy.is_done)
        self.made.lose()
        self.failureResultOf(connecting, SocketError)

    def test_connect_fires_whatever_the_proxy_does(self) -> None:
        """It speaks no TLS, hangs up, resets, or is silent, before and after the handshake."""
        for end in ("end", "lose", "reset"):
            connecting = self.made.connect()
            self.made.answer_tcp()
            getattr(self.made, end)()
            if end == "end":
                self.made.lose()
            error = self.failureResultOf(connecting, SocketError).value
            self.assertTrue(str(error).startswith("proxy: "), error)
        connecting = self.made.connect()
        self.made.answer_tcp()
        self.made.receive(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        self.made.lose()
        self.failureResultOf(connecting, SocketError)
        connecting = self.made.connect()
        self.made.answer_tcp()
        self.made.reactor.advance(10)
        failure = self.failureResultOf(connecting, SocketError)
        self.assertIs(WebSocketError.get_status(failure), WebErrorStatus.TIMEOUT)
        connecting = self.made.connect()
        self.made.answer_tcp()
        self.exchange()
        self.made.reactor.advance(10)
        failure = self.failureResultOf(connecting, SocketError)
        self.assertIs(WebSocketError.get_status(failure), WebErrorStatus.TIMEOUT)

    def test_cancelled_connect_aborts(self) -> None:
        """In the handshake with the proxy, and in that with the server."""
        connecting = self.made.connect()
        self.made.answer_tcp()
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.made.is_aborted)
        connecting, _ = self.open_tunnel("wss://localhost/")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.made.is_aborted)
