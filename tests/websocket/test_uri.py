"""URIs of WebSockets are split strictly; hosts are compared in one form."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.names import HostName
from twsock.websocket.uri import (
    WebSocketUri,
    canonical_host,
    is_loopback_host,
    split_authority,
)


def split(text: str) -> tuple[bool, str, int, str, str]:
    uri = WebSocketUri.parse(text)
    return uri.is_secure, uri.host.canonical_name, uri.port, uri.target, uri.authority


class WebSocketUriTests(SynchronousTestCase):
    """URIs that a client connects to (:rfc:`6455` section 3)."""

    def test_default_ports_are_not_in_host(self) -> None:
        """80 belongs to ``ws``, 443 to ``wss``."""
        self.assertEqual(split("ws://a.example"), (False, "a.example", 80, "/", "a.example"))
        self.assertEqual(split("wss://a.example/"), (True, "a.example", 443, "/", "a.example"))
        self.assertEqual(split("WSS://a.example:443/x")[2:], (443, "/x", "a.example"))
        self.assertEqual(split("ws://a.example:/x")[2:], (80, "/x", "a.example"))

    def test_other_ports_are_in_host(self) -> None:
        """``Host`` has the port; Twisted's own client leaves it out."""
        self.assertEqual(split("ws://a.example:1338/x")[2:], (1338, "/x", "a.example:1338"))
        self.assertEqual(split("ws://a.example:443")[4], "a.example:443")
        self.assertEqual(split("wss://a.example:80")[4], "a.example:80")

    def test_target_is_path_and_query(self) -> None:
        """A missing path is ``/``."""
        self.assertEqual(split("ws://a/b/c?d=e&f?/")[3], "/b/c?d=e&f?/")
        self.assertEqual(split("ws://a?d")[3], "/?d")

    def test_addresses_of_ipv6_are_in_brackets(self) -> None:
        """A zone is for this machine only, so ``Host`` has none (RFC 6874)."""
        self.assertEqual(split("ws://[::1]:8080/")[1:], ("::1", 8080, "/", "[::1]:8080"))
        self.assertEqual(split("ws://[2001:DB8::0:1]")[4], "[2001:db8::1]")
        zoned = WebSocketUri.parse("ws://[fe80::1%25eth0]/")
        self.assertEqual(zoned.host, HostName("fe80::1%eth0"))
        self.assertEqual(zoned.authority, "[fe80::1]")

    def test_international_names_are_encoded(self) -> None:
        """The host by IDNA, as everywhere in twsock; path and query as UTF-8 in percents."""
        self.assertEqual(
            split("ws://B\u00fccher.example/\u20ac?\u00fc=%20"),
            (False, "xn--bcher-kva.example", 80, "/%E2%82%AC?%C3%BC=%20", "xn--bcher-kva.example"),
        )

    def test_wrong_uris_are_refused(self) -> None:
        """Relative ones, a wrong scheme, host, port or byte, a fragment, and a user are refused."""
        for text in (
            "",
            "/path",
            "a.example",
            "ws:a.example",
            "//a.example/",
            "http://a.example/",
            "ws://a.example/#",
            "ws://a.example/#x",
            "ws://a.example#x",
            "ws://user@a.example/",
            "ws://user:password@a.example/",
            "ws://",
            "ws:///x",
            "ws://:80/",
            "ws://a.example:0/",
            "ws://a.example:65536/",
            "ws://a.example:-1/",
            "ws://a.example:http/",
            "ws://a b/",
            "ws://a..b/",
            "ws://1.2.3/",
            "ws://%61/",
            "ws://::1/",
            "ws://[::1",
            "ws://[a.example]/",
            "ws://[127.0.0.1]/",
            "ws://[fe80::1%eth0]/",
            "ws://[::1]x/",
            "ws://a.example/ x",
            "ws://a.example/%x",
            "ws://a.example/\r\nX: 1",
            " ws://a.example/",
            "ws://a.example/\n",
            "ws://a.example\\b/",
            "ws://a.example/\ud800",
        ):
            with self.assertRaises(ValueError, msg=f"{text!r}"):
                WebSocketUri.parse(text)

    def test_a_password_is_not_in_the_error(self) -> None:
        """Errors are logged."""
        with self.assertRaises(ValueError) as caught:
            WebSocketUri.parse("ws://user:secret@a.example/")
        self.assertNotIn("secret", str(caught.exception))

    def test_other_types_are_refused(self) -> None:
        """Bytes and None are no URI."""
        for wrong in (b"ws://a/", None):
            self.assertRaises(TypeError, WebSocketUri.parse, cast(Any, wrong))

    @given(st.text(max_size=20))
    def test_any_text_is_a_uri_or_a_value_error(self, text: str) -> None:
        """What is accepted has a target and an authority of visible ASCII."""
        try:
            uri = WebSocketUri.parse(f"ws://a.example/{text}")
        except ValueError:
            return
        self.assertRegex(uri.target + uri.authority, r"\A[!-~]+\Z")


class HostTests(SynchronousTestCase):
    """Hosts of header fields."""

    def test_authorities_are_split(self) -> None:
        """The port is optional; brackets stay."""
        self.assertEqual(split_authority("a.example"), ("a.example", None))
        self.assertEqual(split_authority("a.example:80"), ("a.example", 80))
        self.assertEqual(split_authority("a.example:"), ("a.example", None))
        self.assertEqual(split_authority("[::1]:80"), ("[::1]", 80))

    def test_wrong_authorities_are_refused(self) -> None:
        """Users, empty hosts, and ports out of range."""
        for text in ("", ":80", "u@a", "a:0", "a:65536", "a:1:2", "a:x", "[::1", "::1", "a:123456"):
            self.assertRaises(ValueError, split_authority, text)

    def test_hosts_have_one_form(self) -> None:
        """Case, a last dot and the spelling of addresses do not matter."""
        self.assertEqual(canonical_host("A.Example."), "a.example")
        self.assertEqual(canonical_host("[0:0::1]"), "::1")
        self.assertEqual(canonical_host("[::ffff:127.0.0.1]"), "::ffff:127.0.0.1")
        self.assertEqual(canonical_host("xn--i-7iq.example"), "xn--i-7iq.example")

    def test_wrong_hosts_are_refused(self) -> None:
        """No spaces, commas or zones, and no name in brackets."""
        for text in ("", "a b", "a,b", "[::1", "[fe80::1%eth0]", "[a]", "\u00fc", "a/b", "[]"):
            self.assertRaises(ValueError, canonical_host, text)

    def test_loopback_hosts_are_this_machine(self) -> None:
        """``localhost``, 127.0.0.0/8, ::1, and nothing that only looks like one."""
        for host in ("localhost", "127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(is_loopback_host(host), host)
        for host in ("a.localhost", "127.1", "0x7f.1", "2130706433", "0.0.0.0", "::", "localhosts"):
            self.assertFalse(is_loopback_host(host), host)
