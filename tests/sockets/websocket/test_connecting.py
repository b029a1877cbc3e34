"""A connect goes through its steps, and ends whatever the other end does."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.connected import Served, text
from twsock import (
    ClosedError,
    LocalProtocolError,
    MessageWebSocket,
    PasswordCredential,
    RemoteProtocolError,
    SocketError,
    WebErrorStatus,
    WebSocketError,
)

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


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
