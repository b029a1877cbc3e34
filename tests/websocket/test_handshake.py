"""A server accepts what RFC 6455 section 4.2 allows, and nothing that endangers its users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.handshake import (
    ANY_ORIGIN,
    Acceptance,
    Refusal,
    RequestRules,
    accept_key,
    refuse,
)
from twsock.websocket.http_message import Headers, Request

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
#: The request of RFC 6455 section 1.2, whose key is that of section 1.3.
EXAMPLE = Request(
    "GET",
    "/chat",
    (
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Origin", "http://example.com"),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("Sec-WebSocket-Version", "13"),
    ),
)


def changed(request: Request, *fields: tuple[str, str | Sequence[str] | None]) -> Request:
    """Return a request whose fields have other values; None or no value removes one."""
    headers = list(request.headers)
    for name, value in fields:
        headers = [field for field in headers if field[0] != name]
        values = [value] if isinstance(value, str) else value or ()
        headers += [(name, text) for text in values]
    return replace(request, headers=tuple(headers))


#: A request without an origin and without options.
PLAIN = changed(EXAMPLE, ("Origin", None), ("Sec-WebSocket-Protocol", None))


class JudgementTestCase(SynchronousTestCase):
    """Judges requests."""

    def accepted(
        self, request: Request, *, is_loopback: bool = False, **options: Any
    ) -> Acceptance:
        judgement = RequestRules(**options).judge(request, is_loopback=is_loopback)
        assert isinstance(judgement, Acceptance), judgement
        return judgement

    def assert_refused(
        self, status: int, request: Request, *, is_loopback: bool = False, **options: Any
    ) -> Refusal:
        judgement = RequestRules(**options).judge(request, is_loopback=is_loopback)
        assert isinstance(judgement, Refusal), f"{request=}"
        self.assertEqual(judgement.response.status, status, f"{request=}, {judgement=}")
        self.assertIn("close", judgement.response.tokens("Connection"))
        return judgement


class ExampleTests(JudgementTestCase):
    """The worked example of RFC 6455."""

    def test_the_example_is_answered_byte_for_byte(self) -> None:
        """Sections 1.2 and 1.3."""
        acceptance = self.accepted(EXAMPLE, origins=["http://example.com"], subprotocols=["chat"])
        self.assertEqual(
            acceptance.response.encode(),
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            b"Sec-WebSocket-Protocol: chat\r\n"
            b"\r\n",
        )

    def test_the_key_of_the_example(self) -> None:
        """Section 1.3."""
        self.assertEqual(accept_key(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")

    def test_the_least_request_is_accepted(self) -> None:
        """Without options the response has three fields."""
        self.assertEqual(len(self.accepted(PLAIN).response.headers), 3)

    def test_the_names_of_fields_have_any_case(self) -> None:
        """HTTP does not distinguish it; h11 returns lower case."""
        lower = tuple((name.lower(), value) for name, value in PLAIN.headers)
        self.accepted(replace(PLAIN, headers=lower))


class HostTests(JudgementTestCase):
    """``Host`` is checked first."""

    def with_host(self, host: str) -> Request:
        return changed(PLAIN, ("Host", host))

    def test_a_loopback_listener_is_this_machine_only(self) -> None:
        """421 for another name, or a page could reach the server by DNS rebinding."""
        for host in ("localhost", "LocalHost.:1338", "127.0.0.1:1338", "127.1.2.3", "[::1]:1338"):
            self.accepted(self.with_host(host), is_loopback=True)
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.1",
            "127.1",
            "[2001:db8::1]",
        ):
            self.assert_refused(421, self.with_host(host), is_loopback=True)

    def test_a_loopback_listener_has_the_names_of_the_user(self) -> None:
        """For a proxy on the same machine, which passes on the name of the site."""
        hosts = ["Example.COM", "2001:DB8::1", "b\u00fccher.example"]
        for host in ("example.com", "example.com:8080", "[2001:db8::1]", "xn--bcher-kva.example"):
            self.accepted(self.with_host(host), is_loopback=True, hosts=hosts)
        self.accepted(self.with_host("localhost"), is_loopback=True, hosts=hosts)
        self.assert_refused(421, self.with_host("a.example"), is_loopback=True, hosts=hosts)

    def test_another_listener_has_each_name(self) -> None:
        """If names are listed, only these are accepted; otherwise any name is."""
        self.accepted(self.with_host("evil.example"))
        self.accepted(self.with_host("a.example"), hosts=["a.example"])
        self.assert_refused(421, self.with_host("evil.example"), hosts=["a.example"])
        self.assert_refused(421, self.with_host("localhost"), hosts=["a.example"])

    def test_the_same_host_does_not_help_a_rebound_name(self) -> None:
        """Origin and Host of a rebound name agree; the name is refused all the same."""
        request = changed(PLAIN, ("Host", "evil.example"), ("Origin", "http://evil.example"))
        self.assert_refused(421, request, is_loopback=True)

    def test_host_is_checked_before_origin(self) -> None:
        """A request that fails both is answered with 421."""
        request = changed(PLAIN, ("Host", "evil.example"), ("Origin", "http://other.example"))
        self.assert_refused(421, request, is_loopback=True)

    def test_origin_is_checked_before_the_rest(self) -> None:
        """A page of another host learns nothing else: not the version, the paths, or the names."""
        foreign = ("Origin", "http://other.example")
        for wrong in (("Sec-WebSocket-Version", "8"), ("Upgrade", None)):
            self.assert_refused(403, changed(PLAIN, foreign, wrong))

    def test_a_missing_double_or_malformed_host_is_refused(self) -> None:
        """400 (RFC 9112 section 3.2)."""
        for value in (
            None,
            ("a.example", "a.example"),
            ("a.example", "b.example"),
            "",
            "a.example, b.example",
            "user@a.example",
            "a.example:port",
            "a.example:0",
            "::1",
            "a b",
            "[::1",
        ):
            self.assert_refused(400, changed(PLAIN, ("Host", value)))

    def test_an_absolute_target_has_to_name_the_same_host(self) -> None:
        """A request whose target contradicts its Host is refused."""
        request = self.with_host("a.example")
        for target in ("http://a.example/", "https://A.example:443/chat?x", "http://a.example"):
            self.accepted(replace(request, target=target))
        for target in (
            "http://b.example/",
            "http://a.example@b.example/",
            "http:///",
            "http://user@a.example/",
        ):
            self.assert_refused(400, replace(request, target=target))

    def test_an_absolute_target_is_no_way_around_the_names(self) -> None:
        """Neither the target nor ``Host`` may have a foreign name."""
        request = replace(self.with_host("evil.example"), target="http://localhost/")
        self.assert_refused(400, request, is_loopback=True)
        request = replace(self.with_host("localhost"), target="http://evil.example/")
        self.assert_refused(400, request, is_loopback=True)

    def test_wrong_names_of_the_user_are_refused(self) -> None:
        """A name has no port, and a list is no text."""
        for host in ("a.example:80", "", "a b", "[::1]:80", "http://a.example", "b\u00fc cher"):
            self.assertRaises(ValueError, RequestRules, hosts=[host])
        self.assertRaises(TypeError, RequestRules, hosts=cast(Any, "a.example"))


class OriginTests(JudgementTestCase):
    """``Origin`` is checked after ``Host`` (section 10.2)."""

    def with_origin(self, origin: str | Sequence[str]) -> Request:
        return changed(PLAIN, ("Host", "a.example:1338"), ("Origin", origin))

    def test_a_request_without_an_origin_is_accepted(self) -> None:
        """Such a request does not come from a page in a browser."""
        self.accepted(PLAIN)

    def test_the_same_host_is_accepted(self) -> None:
        """With any scheme of HTTP and any port: a site beside the server."""
        for origin in ("http://a.example", "https://A.example:1338", "http://a.example:8337"):
            self.accepted(self.with_origin(origin))

    def test_a_slash_at_the_end_is_no_part_of_an_origin(self) -> None:
        """Clients of golang.org/x/net/websocket send it."""
        self.accepted(self.with_origin("http://a.example/"))
        listed = ["https://page.example"]
        self.accepted(self.with_origin("https://page.example/"), origins=listed)
        self.assert_refused(403, self.with_origin("http://b.example/"))

    def test_another_origin_is_refused(self) -> None:
        """403, also for one that only looks like the same host."""
        for origin in (
            "http://b.example",
            "https://a.example.evil.example",
            "https://evil-a.example",
            "https://a.example@evil.example",
            "https://evil.example/a.example",
            "chrome-extension://a.example",
            "file://",
            "null",
            "a.example",
            "",
            "http://a.example/b",
            "http://a.example//",
            "http:///",
        ):
            self.assert_refused(403, self.with_origin(origin))

    def test_a_listed_origin_is_accepted(self) -> None:
        """The port counts there; the default one may be missing."""
        origins = ["https://Page.example:443", "http://page.example:8080", "app://Shell"]
        for origin in ("https://page.example", "http://page.example:8080", "app://shell"):
            self.accepted(self.with_origin(origin), origins=origins)
        for origin in ("http://page.example", "https://page.example:8443", "null"):
            self.assert_refused(403, self.with_origin(origin), origins=origins)
        self.accepted(self.with_origin("http://page.example"), origins=["http://page.example:80"])

    def test_an_origin_that_no_page_has_is_an_error(self) -> None:
        """It would never match; a path, a missing scheme and a part of a name are mistakes."""
        for origin in (
            "",
            "page.example",
            "https://page.example/",
            "https://page.example:x",
            "https://user@page.example",
            "https://*.page.example",
            "https:// page.example",
            "app://",
        ):
            with self.assertRaises(ValueError, msg=origin) as raised:
                RequestRules(origins=[origin])
            self.assertIn(f"{origin!r} is no origin: ", str(raised.exception))

    def test_null_is_accepted_only_if_it_is_listed(self) -> None:
        """Each page in a sandbox has it."""
        self.assert_refused(403, self.with_origin("null"), origins=["https://page.example"])
        self.accepted(self.with_origin("null"), origins=["null"])

    def test_every_origin_can_be_accepted(self) -> None:
        """For public feeds."""
        for origin in ("http://b.example", "null"):
            self.accepted(self.with_origin(origin), origins=[ANY_ORIGIN])

    def test_two_origins_are_refused(self) -> None:
        """400: one of them would pass, and the other one not."""
        self.assert_refused(400, self.with_origin(["http://a.example", "http://b.example"]))

    def test_a_text_is_no_list(self) -> None:
        """One ``str`` would be a list of letters."""
        self.assertRaises(TypeError, RequestRules, origins=cast(Any, "null"))


class UpgradeTests(JudgementTestCase):
    """Method, version, fields of the upgrade, key and body."""

    def test_another_method_is_refused(self) -> None:
        """405 with the method that is allowed; the method is case-sensitive."""
        for method in ("POST", "HEAD", "CONNECT", "get"):
            refused = self.assert_refused(405, replace(PLAIN, method=method))
            self.assertEqual(refused.response.values("Allow"), ["GET"], method)

    def test_an_old_version_of_http_is_refused(self) -> None:
        """505 for HTTP/1.0, and for what is no HTTP/1 at all."""
        for version in ("1.0", "0.9", "2.0"):
            self.assert_refused(505, replace(PLAIN, http_version=version))
        self.accepted(replace(PLAIN, http_version="1.2"))

    def test_other_forms_of_targets_are_refused(self) -> None:
        """400, also for a fragment (section 3)."""
        for target in ("*", "a.example:80", "chat", "ws://server.example.com/", "/a#b", "/\u00fc"):
            self.assert_refused(400, replace(PLAIN, target=target))

    def test_a_request_with_a_body_is_refused(self) -> None:
        """400: its bytes would be taken for frames."""
        for name, value in (
            ("Content-Length", "1"),
            ("Content-Length", "0, 5"),
            ("Content-Length", "-1"),
            ("Content-Length", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Transfer-Encoding", "identity"),
        ):
            self.assert_refused(400, changed(PLAIN, (name, value)))
        self.accepted(changed(PLAIN, ("Content-Length", "0")))

    def test_a_request_for_a_page_is_told_to_upgrade(self) -> None:
        """426, which says what is missing, as a browser shows it to people."""
        for name, value in (
            ("Upgrade", None),
            ("Upgrade", "h2c"),
            ("Connection", None),
            ("Connection", "keep-alive"),
        ):
            refusal = self.assert_refused(426, changed(PLAIN, (name, value)))
            self.assertIn(name, refusal.response.body.decode())
            self.assertTrue(refusal.response.has_token("Upgrade", "websocket"))
            self.assertTrue(refusal.response.has_token("Connection", "upgrade"))

    def test_lists_and_case_of_the_upgrade_do_not_matter(self) -> None:
        """Section 4.2.1, items 3 and 4: the fields contain the words."""
        self.accepted(
            changed(PLAIN, ("Upgrade", "h2c, WebSocket"), ("Connection", "keep-alive, upgrade"))
        )

    def test_another_version_is_told_the_right_one(self) -> None:
        """426 with ``Sec-WebSocket-Version: 13`` (section 4.4)."""
        for version in ("8", "14", "13, 8", "013", "", None):
            refusal = self.assert_refused(426, changed(PLAIN, ("Sec-WebSocket-Version", version)))
            self.assertEqual(refusal.response.header("Sec-WebSocket-Version"), "13")

    def test_a_wrong_key_is_refused(self) -> None:
        """400: missing, not base64, or not 16 bytes."""
        for key in (
            None,
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZWU=",
            "dGhlIHNhbXBsZSBub25 ZQ==",
            "dGhlIHNhbXBsZSBub25j\u00fcQ==",
            f"{KEY}, {KEY}",
        ):
            self.assert_refused(400, changed(PLAIN, ("Sec-WebSocket-Key", key)))

    def test_double_fields_are_refused(self) -> None:
        """400 (sections 11.3.1 and 11.3.5), also if both are the same."""
        for name, value in (("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Version", "13")):
            self.assert_refused(400, changed(PLAIN, (name, [value, value])))

    def test_malformed_lists_are_refused(self) -> None:
        """400 (section 9.1, and RFC 9110 section 5.6.1)."""
        for name, value in (
            ("Sec-WebSocket-Extensions", "a; b="),
            ("Sec-WebSocket-Protocol", "a b"),
            ("Connection", "upgrade, a b"),
            ("Upgrade", "websocket; a"),
        ):
            self.assert_refused(400, changed(PLAIN, (name, value)))

    def test_extensions_that_are_unknown_are_not_agreed_to(self) -> None:
        """The response has no such field."""
        request = changed(PLAIN, ("Sec-WebSocket-Extensions", "x-webkit-deflate-frame, a; b=1"))
        self.assertIsNone(self.accepted(request).response.header("Sec-WebSocket-Extensions"))

    def test_another_path_is_not_found(self) -> None:
        """404; the query does not matter."""
        self.accepted(replace(PLAIN, target="/chat?x"), path="/chat")
        self.accepted(replace(PLAIN, target="http://server.example.com/chat"), path="/chat")
        for target in ("/", "/chat/", "/Chat", "/chat%20"):
            self.assert_refused(404, replace(PLAIN, target=target), path="/chat")
        for path in ("", "chat", "/a?b", "/a b", "/\u00fc"):
            self.assertRaises(ValueError, RequestRules, path=path)

    @given(
        st.text("GETPOST ", max_size=4),
        st.text(max_size=6),
        st.lists(
            st.tuples(
                st.sampled_from([name for name, _ in EXAMPLE.headers]) | st.text(max_size=4),
                st.sampled_from([value for _, value in EXAMPLE.headers]) | st.text(max_size=6),
            ),
            max_size=12,
        ),
        st.booleans(),
    )
    def test_any_request_gets_a_judgement(
        self, method: str, target: str, headers: list[tuple[str, str]], is_loopback: bool
    ) -> None:
        """No request raises an error, whatever a parser lets pass; each refusal can be sent."""
        request = Request(method, target, tuple(headers))
        judgement = RequestRules(subprotocols=["chat"]).judge(request, is_loopback=is_loopback)
        self.assertTrue(judgement.response.encode().startswith(b"HTTP/1.1 "))


class SubprotocolTests(JudgementTestCase):
    """The server chooses one of the client's subprotocols (section 4.2.2, item 4)."""

    def with_offers(self, *offers: str) -> Request:
        return changed(PLAIN, ("Sec-WebSocket-Protocol", offers))

    def test_the_order_of_the_server_decides(self) -> None:
        """Offers may be in several fields."""
        request = self.with_offers("v1, v2", "v3")
        self.assertEqual(self.accepted(request, subprotocols=["v3", "v2"]).subprotocol, "v3")
        self.assertEqual(self.accepted(request, subprotocols=["v4", "v2"]).subprotocol, "v2")

    def test_without_subprotocols_of_the_server_none_is_chosen(self) -> None:
        """The application may still choose one."""
        acceptance = self.accepted(self.with_offers("v1, v2"))
        self.assertIsNone(acceptance.response.header("Sec-WebSocket-Protocol"))
        acceptance = replace(acceptance, subprotocol="v2")
        self.assertEqual(acceptance.response.header("Sec-WebSocket-Protocol"), "v2")

    def test_a_request_without_the_right_offer_is_told_what_there_is(self) -> None:
        """400 with the subprotocols of the server; their names are case-sensitive."""
        for request in (PLAIN, self.with_offers("v9"), self.with_offers("V1")):
            refusal = self.assert_refused(400, request, subprotocols=["v1", "v2"])
            self.assertEqual(refusal.response.header("Sec-WebSocket-Protocol"), "v1, v2")
            self.assertIn(b"v1, v2", refusal.response.body)

    def test_the_application_cannot_choose_what_is_not_offered(self) -> None:
        """A browser would fail the connection."""
        acceptance = self.accepted(self.with_offers("v1"))
        self.assertRaises(ValueError, replace, acceptance, subprotocol="v2")


class CompressionTests(JudgementTestCase):
    """The server answers offers of compression (RFC 7692 section 5)."""

    def answer(self, offers: str | Sequence[str], settings: DeflateSettings) -> str | None:
        request = changed(PLAIN, ("Sec-WebSocket-Extensions", offers))
        acceptance = self.accepted(request, compression=settings)
        self.assertEqual(acceptance.response.status, 101)
        return acceptance.response.header("Sec-WebSocket-Extensions")

    def test_compression_is_off_by_default(self) -> None:
        """An offer alone agrees to nothing."""
        offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
        acceptance = self.accepted(changed(PLAIN, offer))
        self.assertIsNone(acceptance.compression)
        self.assertIsNone(acceptance.response.header("Sec-WebSocket-Extensions"))
        self.assertIsNone(self.accepted(PLAIN, compression=DeflateSettings()).compression)

    def test_the_offer_of_browsers_is_answered(self) -> None:
        """Without context takeover, and with windows of 4 KiB."""
        self.assertEqual(
            self.answer("permessage-deflate; client_max_window_bits", DeflateSettings()),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "client_max_window_bits=12",
        )

    def test_an_invalid_offer_is_declined(self) -> None:
        """An invalid offer is no error; a later offer may be accepted, also in another field."""
        invalid = "permessage-deflate; server_max_window_bits=16"
        self.assertIsNone(self.answer(invalid, DeflateSettings()))
        settings = DeflateSettings(context_takeover=True, max_window_bits=15)
        self.assertEqual(
            self.answer([f"{invalid}, foo", "permessage-deflate"], settings), "permessage-deflate"
        )

    def test_a_malformed_field_is_refused(self) -> None:
        """400, whether or not compression is wanted (section 9.1 of RFC 6455)."""
        request = changed(PLAIN, ("Sec-WebSocket-Extensions", "permessage-deflate; a=="))
        self.assert_refused(400, request, compression=DeflateSettings())
        self.assert_refused(400, request)


class ResponseTests(JudgementTestCase):
    """What an application adds to a response, and what a refusal consists of."""

    def test_added_fields_are_sent(self) -> None:
        """After those of the handshake."""
        acceptance = replace(self.accepted(PLAIN), headers=(("Set-Cookie", "a=b"),))
        self.assertEqual(acceptance.response.headers[-1], ("Set-Cookie", "a=b"))

    def test_added_fields_cannot_break_the_response(self) -> None:
        """No line ends, and none of the fields that the handshake writes."""
        wrong: list[Headers] = [
            (("X", "a\r\nSet-Cookie: b"),),
            (("X\r\nY", "a"),),
            (("Sec-WebSocket-Extensions", "permessage-deflate"),),
            (("Sec-WebSocket-Protocol", "v1"),),
            (("Sec-WebSocket-Accept", "x"),),
            (("Upgrade", "x"),),
        ]
        for headers in wrong:
            self.assertRaises(ValueError, replace, self.accepted(PLAIN), headers=headers)

    def test_a_refusal_is_a_whole_response(self) -> None:
        """With a text for people, and the end of the connection."""
        self.assertEqual(
            refuse(403, "not today", [("Retry-After", "3600")]).response.encode(),
            b"HTTP/1.1 403 Forbidden\r\n"
            b"Retry-After: 3600\r\n"
            b"Connection: close\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: 10\r\n"
            b"X-Content-Type-Options: nosniff\r\n"
            b"\r\n"
            b"not today\n",
        )

    def test_a_refusal_cannot_be_broken(self) -> None:
        """Fields of the application are checked as in an acceptance; the status is a failure."""
        wrong: list[Headers] = [
            (("X", "a\r\nSet-Cookie: b"),),
            (("Content-Type", "text/html"),),
            (("Content-Length", "0"),),
            (("Connection", "keep-alive"),),
            (("Sec-WebSocket-Accept", "x"),),
        ]
        for headers in wrong:
            self.assertRaises(ValueError, refuse, 403, "no", headers)
        for status in (101, 200, 299, 600, 0):
            self.assertRaises(ValueError, refuse, status, "no")

    def test_a_refusal_quotes_little_of_the_request(self) -> None:
        """At most 100 characters, without control characters."""
        origin = "http://" + "\u00fc\x1b" * 5000
        refusal = self.assert_refused(403, changed(PLAIN, ("Origin", origin)))
        self.assertLess(len(refusal.reason), 500)
        self.assertTrue(refusal.reason.isascii() and refusal.reason.isprintable())
