"""Requests and responses are values whose fields are looked up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import RemoteProtocolError
from twsock.websocket.http import ClientHttp
from twsock.websocket.http_message import Request, Response

_NAMES = st.text("abcXYZ-", min_size=1, max_size=6).map("x{}".format)
_VALUES = st.text("a1,;= \t\xfc", max_size=9).map(str.strip)


class RequestTests(SynchronousTestCase):
    """What an application reads from a request."""

    def test_fields_are_found_in_any_case(self) -> None:
        """Several fields of one name are one list."""
        request = Request("GET", "/", (("X-A", "1"), ("x-a", "2"), ("Cookie", "c=d")))
        self.assertEqual(request.header("cookie"), "c=d")
        self.assertEqual(request.header("X-a"), "1, 2")
        self.assertEqual(request.values("X-A"), ["1", "2"])
        self.assertIsNone(request.header("Missing"))
        self.assertEqual(request.values("Missing"), [])

    def test_a_field_that_may_occur_once_is_refused_twice(self) -> None:
        """Two equal fields are refused, too."""
        request = Request("GET", "/", (("X", "1"), ("x", "1"), ("Y", "2")))
        self.assertEqual(request.only("y"), "2")
        self.assertIsNone(request.only("z"))
        self.assertRaises(RemoteProtocolError, request.only, "X")

    def test_tokens_of_a_list_are_compared_without_case(self) -> None:
        """An example is ``Connection: keep-alive, Upgrade``."""
        request = Request("GET", "/", (("Connection", "keep-alive"), ("connection", "UpGrade")))
        self.assertEqual(request.tokens("Connection"), ["keep-alive", "UpGrade"])
        self.assertTrue(request.has_token("Connection", "upgrade"))
        self.assertFalse(request.has_token("Connection", "close"))

    def test_path_and_query_are_as_sent(self) -> None:
        """An absolute target is split in the same way (section 4.2.1, item 1)."""
        for target, path, query in (
            ("/chat?a=%20?", "/chat", "a=%20?"),
            ("/", "/", ""),
            ("http://a.example/chat?b", "/chat", "b"),
            ("HTTPS://a.example?b", "/", "b"),
            ("http://a.example:80", "/", ""),
        ):
            request = Request("GET", target, ())
            self.assertEqual((request.path, request.query), (path, query), target)

    def test_a_parsed_request_has_every_byte(self) -> None:
        """Bytes above ASCII are characters of Latin-1."""
        request = Request.from_bytes(b"GET", b"/", [(b"x", b"\xe2\x82\xac")])
        self.assertEqual(request, Request("GET", "/", (("x", "\xe2\x82\xac"),)))

    def test_a_request_is_kept_as_one_string(self) -> None:
        """Each byte of a request comes back, also one that separates fields elsewhere."""
        request = Request("GET", "/?a=\xfc", (("x", 'a\n"b'), ("x", "\u20ac"), ("y", "")), "1.2")
        self.assertEqual(Request.from_json(request.to_json()), request)

    @given(
        st.text(max_size=9),
        st.text("htps:/?@a.", max_size=20) | st.text(max_size=9),
        st.lists(st.tuples(st.text(max_size=5), st.text(max_size=9)), max_size=4),
    )
    def test_any_request_can_be_kept_and_asked(
        self, method: str, target: str, headers: list[tuple[str, str]]
    ) -> None:
        """No text makes a look-up fail, and `from_json` returns an equal request."""
        request = Request(method, target, tuple(headers))
        self.assertEqual(Request.from_json(request.to_json()), request)
        resource = f"{request.path}?{request.query}" if "?" in request.resource else request.path
        self.assertEqual(resource, request.resource)
        for name, value in headers:
            self.assertIn(value, request.values(name.upper()) + request.values(name))

    def test_origin_and_subprotocols(self) -> None:
        """The offers of all fields, the preferred one first."""
        headers = (("Sec-WebSocket-Protocol", "b, a"), ("Sec-WebSocket-Protocol", "c"))
        request = Request("GET", "/", (*headers, ("Origin", "null")))
        self.assertEqual((request.subprotocols, request.origin), (["b", "a", "c"], "null"))
        self.assertIsNone(Request("GET", "/", ()).origin)


class ResponseTests(SynchronousTestCase):
    """The bytes of a response."""

    def test_a_response_is_encoded(self) -> None:
        """The phrase is that of the status, unless another one is given."""
        response = Response(404, (("X", "\xfc"),), b"body")
        self.assertEqual(response.encode(), b"HTTP/1.1 404 Not Found\r\nX: \xfc\r\n\r\nbody")
        self.assertEqual(Response(200, phrase="Fine").encode(), b"HTTP/1.1 200 Fine\r\n\r\n")

    def test_the_date_is_that_of_the_caller(self) -> None:
        """In the form of RFC 9110 section 5.6.7, whose example this is."""
        encoded = Response(101).encode(now=784_111_777.9)
        self.assertIn(b"\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", encoded)

    def test_a_date_of_the_response_is_kept(self) -> None:
        """RFC 9110 section 6.6.1 has one date in each response."""
        response = Response(403, (("date", "Sun, 06 Nov 1994 08:49:37 GMT"),))
        self.assertEqual(response.encode(now=0), response.encode())

    @given(
        st.sampled_from([101, 200, 407, 503]),
        st.lists(st.tuples(_NAMES, _VALUES), max_size=4),
    )
    def test_what_is_encoded_is_parsed(self, status: int, fields: list[tuple[str, str]]) -> None:
        """The parser of a client finds the status and each field."""
        proposed = (("Host", "a.example"), ("Connection", "Upgrade"), ("Upgrade", "websocket"))
        http = ClientHttp(Request("GET", "/", proposed))
        found = http.feed(Response(status, tuple(fields)).encode())
        assert found is not None
        self.assertEqual(found.status, status)
        for name, value in fields:
            self.assertIn(value, found.values(name))
