"""A proxy is asked to connect to a server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock import PasswordCredential, RemoteProtocolError, WebErrorStatus, WebSocketError
from twsock.sockets.websocket.tunnel import Proxy, Tunnel
from twsock.websocket.client_handshake import HandshakeError
from twsock.websocket.http import ClientHttp
from twsock.websocket.uri import WebSocketUri


def tunnel(uri: str = "wss://server.example/a", **options: str) -> Tunnel:
    credential = PasswordCredential(**options) if options else None
    return Tunnel(WebSocketUri.parse(uri), credential, 1)


class ProxyTests(SynchronousTestCase):
    """URIs of proxies."""

    def test_host_and_port_are_given(self) -> None:
        """Names and addresses."""
        for text, host, port in (
            ("http://proxy.example:8080", "proxy.example", 8080),
            ("http://127.0.0.1:1/", "127.0.0.1", 1),
            ("http://[::1]:3128", "::1", 3128),
            ("https://proxy.example:443", "proxy.example", 443),
            ("HTTPS://proxy.example:443", "proxy.example", 443),
        ):
            proxy = Proxy.parse(text)
            self.assertEqual((proxy.host.canonical_name, proxy.port), (host, port), text)
            self.assertEqual(proxy.is_secure, text.lower().startswith("https:"), text)

    def test_other_forms_are_refused(self) -> None:
        """Without a port, with another scheme, a path, or a user name."""
        for text in (
            *("http://a", "https://a", "socks5://a:1", "a:1", "http://a:1/b", "http://u:p@a:1", ""),
            *("http://:1", "http://a:0", "http://a b:1"),
        ):
            with self.assertRaises(ValueError, msg=text):
                Proxy.parse(text)

    def test_a_user_name_is_refused_with_the_right_option(self) -> None:
        """The error names the option, and not the password."""
        with self.assertRaisesRegex(ValueError, "set proxy_credential") as caught:
            Proxy.parse("http://user:secret@proxy.example:8080")
        self.assertNotIn("secret", str(caught.exception))


class TunnelTests(SynchronousTestCase):
    """The request and its response."""

    def test_request_names_the_server_only(self) -> None:
        """RFC 9110, section 9.3.6; the target of the WebSocket is not in it."""
        for uri, authority in (
            ("wss://server.example/a", "server.example:443"),
            ("ws://server.example/a", "server.example:80"),
            ("ws://[::1]:5/", "[::1]:5"),
        ):
            sent = ClientHttp(tunnel(uri).request).request_bytes
            expected = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
            self.assertEqual(sent, expected.encode())

    def test_credential_is_for_the_proxy(self) -> None:
        """W4: As Basic."""
        request = tunnel(user_name="user", password="secret").request
        self.assertEqual(request.header("Proxy-Authorization"), "Basic dXNlcjpzZWNyZXQ=")

    def read(self, data: bytes) -> bool:
        """Read a response."""
        made = tunnel()
        return made.read_response(ClientHttp(made.request), data)

    def test_success_opens_the_tunnel(self) -> None:
        """Any status of success; more bytes may be needed."""
        self.assertFalse(self.read(b"HTTP/1.1 200 Connection"))
        self.assertTrue(self.read(b"HTTP/1.1 200 Connection established\r\n\r\n"))
        self.assertTrue(self.read(b"HTTP/1.0 204 Ok\r\n\r\n"))

    def test_refusal_has_its_status(self) -> None:
        """407 if it wants a credential."""
        for status, expected in (
            (407, WebErrorStatus.PROXY_AUTHENTICATION_REQUIRED),
            (502, WebErrorStatus.BAD_GATEWAY),
            (301, WebErrorStatus.MOVED_PERMANENTLY),
        ):
            with self.assertRaises(HandshakeError) as caught:
                self.read(f"HTTP/1.1 {status} No\r\n\r\n".encode())
            self.assertIs(WebSocketError.get_status(caught.exception), expected)
            self.assertIn("the proxy", str(caught.exception))
            self.assertTrue(caught.exception.is_from_proxy)

    def test_other_bytes_are_refused(self) -> None:
        """No HTTP, and bytes behind the response, which could pass as part of TLS."""
        for data in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 Ok\r\n\r\n\x16"):
            self.assertRaises(RemoteProtocolError, self.read, data)
