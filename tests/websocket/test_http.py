"""Heads of HTTP are parsed strictly, within limits, and alike however their bytes are cut."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.websocket.test_handshake import EXAMPLE
from twsock.errors import RemoteProtocolError
from twsock.websocket.handshake import Refusal
from twsock.websocket.http import MAX_FIELDS, MAX_HEAD, ClientHttp, ServerHttp
from twsock.websocket.http_message import Request, Response

EXAMPLE_BYTES = (
    b"GET /chat HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: http://example.com\r\n"
    b"Sec-WebSocket-Protocol: chat, superchat\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
RESPONSE_BYTES = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"\r\n"
)
FRAME = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
#: A line end and what hides in it; the rest of a head; bytes of frames.
PIECES = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" x",
    b"Host: a",
    b"X:1\r\n",
    b"\xfc",
    b"GET / HTTP/1.1",
    FRAME,
)


def cuts(data: bytes, step: int) -> list[bytes]:
    return [data[place : place + step] for place in range(0, len(data), step)]


def serve(data: bytes, step: int) -> tuple[Request | Refusal | None, bytes]:
    """Feed the bytes in steps; return the result, and all bytes behind the request."""
    http = ServerHttp()
    pieces = iter(cuts(data, step))
    for piece in pieces:
        result = http.feed(piece)
        if result is not None:
            return result, http.leftover + b"".join(pieces)
    return None, http.leftover


def head(*lines: bytes) -> bytes:
    """Make a request with further lines."""
    return b"\r\n".join((b"GET / HTTP/1.1", b"Host: a", *lines, b"", b""))


class ServerHttpTests(SynchronousTestCase):
    """Requests."""

    def assert_refused(self, status: int, data: bytes) -> None:
        for step in (len(data), 1):
            result, leftover = serve(data, step)
            assert isinstance(result, Refusal), f"{data[:99]!r}, {step=}, {result=}"
            self.assertEqual(result.response.status, status, f"{data[:99]!r}, {step=}, {result=}")
            if step > 1:
                self.assertEqual(leftover, b"", f"{data[:99]!r}")

    def test_the_example_is_parsed_at_any_cut(self) -> None:
        """The request of section 1.2; the names of fields are in lower case."""
        headers = tuple((name.lower(), value) for name, value in EXAMPLE.headers)
        for step in range(1, len(EXAMPLE_BYTES) + 1):
            result, leftover = serve(EXAMPLE_BYTES, step)
            self.assertEqual(result, Request("GET", "/chat", headers), f"{step=}")
            self.assertEqual(leftover, b"", f"{step=}")

    def test_bytes_behind_the_request_are_kept(self) -> None:
        """These bytes are frames of a client that did not wait for the response."""
        for step in (1, 7, len(EXAMPLE_BYTES), len(EXAMPLE_BYTES) + 1, 1000):
            result, leftover = serve(EXAMPLE_BYTES + FRAME, step)
            self.assertIsInstance(result, Request, f"{step=}")
            self.assertEqual(leftover, FRAME, f"{step=}")

    def test_a_part_of_a_request_has_no_result(self) -> None:
        """More bytes are needed."""
        self.assertEqual(serve(EXAMPLE_BYTES[:-1], 1000), (None, b""))
        self.assertIsNone(ServerHttp().feed(b""))

    def test_a_control_character_is_refused_at_once(self) -> None:
        """The first byte of TLS is refused, too: that client does not wait for the deadline."""
        for data in (
            b"\x16\x03\x01\x02\x00",
            b"GET /\0",
            b"GET / HTTP/1.1\r\nX: a\x0bb",
            b"GET / HTTP/1.1\r\nX: a\x7f",
        ):
            self.assert_refused(400, data)

    def test_half_of_a_line_end_is_refused_at_once(self) -> None:
        """A proxy may read another request in it."""
        for data in (
            b"GET / HTTP/1.1\n",
            b"GET / HTTP/1.1\r\nX: a\rb",
            b"GET / HTTP/1.1\r\nX: a\n",
            b"GET / HTTP/1.1\r\r\n",
            head(b"X: a\nTransfer-Encoding: chunked"),
        ):
            self.assert_refused(400, data)

    def test_a_continued_line_is_refused(self) -> None:
        """obs-fold of RFC 9112 section 5.2, which hides a field from some parsers."""
        for line in (b"X: a\r\n b", b"X: a\r\n\tb", b"X: a\r\n "):
            self.assert_refused(400, head(line))

    def test_malformed_heads_are_refused(self) -> None:
        """What h11 finds."""
        for data in (
            b"\r\n\r\n",
            b"\r\n" + EXAMPLE_BYTES,
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET /\xfc HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            head(b"Host: a"),
            head(b"Host: b"),
            head(b"X"),
            head(b"X : a"),
            head(b": a"),
            head(b"\xfc: a"),
            head(b"Content-Length: x"),
            head(b"Content-Length: 1", b"Content-Length: 2"),
        ):
            self.assert_refused(400, data)

    def test_a_refusal_repeats_nothing_of_a_malformed_head(self) -> None:
        """The head may be secret, and long."""
        result, _ = serve(head(b"Cookie secret" * 500), 100_000)
        assert isinstance(result, Refusal)
        self.assertNotIn("secret", result.reason)
        self.assertLess(len(result.reason), 100)

    def test_the_largest_head_is_16_kib(self) -> None:
        """One byte more is refused as soon as it is sure that the end is not in them."""
        spare = MAX_HEAD - len(head(b"X: "))
        self.assertEqual(MAX_HEAD, 16_384)
        largest = head(b"X: " + b"x" * spare)
        for step in (1, 4096, MAX_HEAD, 2 * MAX_HEAD):
            result, leftover = serve(largest + FRAME, step)
            self.assertIsInstance(result, Request, f"{step=}")
            self.assertEqual(leftover, FRAME, f"{step=}")
        self.assert_refused(431, head(b"X: " + b"x" * (spare + 1)))
        self.assert_refused(431, b"GET /" + b"x" * (MAX_HEAD - 5))
        self.assertIsNone(ServerHttp().feed(b"GET /" + b"x" * (MAX_HEAD - 6)))

    def test_a_head_has_at_most_100_fields(self) -> None:
        """The one with ``Host`` included."""
        self.assertEqual(MAX_FIELDS, 100)
        self.assertIsInstance(serve(head(*[b"X: 1"] * 99), 100_000)[0], Request)
        self.assert_refused(431, head(*[b"X: 1"] * 100))

    @given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), st.integers(1, 9))
    @example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\n", 1)
    def test_any_cut_gives_the_same_result(self, data: bytes, step: int) -> None:
        """Request or refusal, and the same bytes behind it; only documented errors escape."""
        result, leftover = serve(data, max(len(data), 1))
        other, behind = serve(data, step)
        self.assertEqual(other, result)
        if not isinstance(result, Refusal):
            self.assertEqual(behind, leftover)

    @given(st.binary(max_size=200), st.integers(1, 50))
    def test_garbage_behind_a_request_is_untouched(self, data: bytes, step: int) -> None:
        """No bytes behind the head become a part of it."""
        result, leftover = serve(EXAMPLE_BYTES + data, step)
        self.assertIsInstance(result, Request)
        self.assertEqual(leftover, data)


class ClientHttpTests(SynchronousTestCase):
    """Responses."""

    def receive(self, data: bytes, step: int = 100_000) -> tuple[Response | None, bytes]:
        http = ClientHttp(EXAMPLE)
        pieces = iter(cuts(data, step))
        for piece in pieces:
            response = http.feed(piece)
            if response is not None:
                return response, http.leftover + b"".join(pieces)
        return None, http.leftover

    def test_the_request_is_sent_as_it_is(self) -> None:
        """Byte for byte that of RFC 6455 section 1.2."""
        self.assertEqual(ClientHttp(EXAMPLE).request_bytes, EXAMPLE_BYTES)

    def test_a_response_is_parsed_at_any_cut(self) -> None:
        """The frames behind it are kept."""
        for step in range(1, len(RESPONSE_BYTES) + 2):
            response, leftover = self.receive(RESPONSE_BYTES + FRAME, step)
            assert response is not None, f"{step=}"
            self.assertEqual(response.status, 101)
            self.assertEqual(response.phrase, "Switching Protocols")
            self.assertEqual(response.http_version, "1.1")
            self.assertEqual(response.header("Upgrade"), "websocket")
            self.assertEqual(leftover, FRAME, f"{step=}")

    def test_a_refusal_of_the_server_is_parsed(self) -> None:
        """Its body is left over."""
        response, leftover = self.receive(b"HTTP/1.0 403 \r\nContent-Length: 2\r\n\r\nno")
        self.assertEqual(
            response, Response(403, (("content-length", "2"),), phrase="", http_version="1.0")
        )
        self.assertEqual(leftover, b"no")

    def test_interim_responses_are_skipped(self) -> None:
        """RFC 9110 section 15.2. The limit counts all of them."""
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
        data = hints + b"HTTP/1.1 100 \r\n\r\n" + hints + RESPONSE_BYTES + FRAME
        for step in range(1, len(data) + 1):
            response, leftover = self.receive(data, step)
            assert response is not None, f"{step=}"
            self.assertEqual((response.status, leftover), (101, FRAME), f"{step=}")
        self.assertRaises(RemoteProtocolError, self.receive, hints * 1000)

    def test_a_continued_line_is_joined(self) -> None:
        """RFC 9112 section 5.2: a user agent has to replace it by a space."""
        response, _ = self.receive(RESPONSE_BYTES.replace(b"\r\n\r\n", b"\r\nX: a\r\n b\r\n\r\n"))
        assert response is not None
        self.assertEqual(response.header("X"), "a b")

    def test_what_is_no_http_is_refused(self) -> None:
        """Heads above the limits are refused, too."""
        for data in (
            b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
            b"\x16\x03\x01",
            b"HTTP/1.1 101 x\n",
            b"HTTP/1.1 1010\r\n\r\n",
            b"HTTP/1.1 099 x\r\n\r\n",
            b"HTTP/1.1 200 x\r\nX\r\n\r\n",
            b"HTTP/1.1 200 x\r\nX: a\0b\r\n\r\n",
            b"HTTP/1.1 200 x\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
            b"HTTP/1.1 200 " + b"x" * MAX_HEAD,
        ):
            self.assertRaises(RemoteProtocolError, self.receive, data, 1)
            self.assertRaises(RemoteProtocolError, self.receive, data)

    def test_another_protocol_is_refused_at_its_first_bytes(self) -> None:
        """It may never send the end of a head. The same holds behind an interim response."""
        for data in (b"S", b"220", b"\x16\x03\x01", b"HTTQ", b"http/1.1", b"\r\n", b" HTTP"):
            for before in (b"", b"HTTP/1.1 100 Continue\r\n\r\n"):
                with self.assertRaises(RemoteProtocolError) as caught:
                    self.receive(before + data)
                self.assertEqual(str(caught.exception), "the response is not HTTP", data)
        self.assertEqual(self.receive(b"HTT"), (None, b""))

    def test_the_tunnel_of_a_proxy_is_asked_for(self) -> None:
        """``CONNECT`` (RFC 9110 section 9.3.6)."""
        http = ClientHttp(Request("CONNECT", "a.example:443", (("Host", "a.example:443"),)))
        self.assertEqual(
            http.request_bytes, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
        )
        response = http.feed(b"HTTP/1.0 200 Connection established\r\n\r\n")
        assert response is not None
        self.assertEqual((response.status, http.leftover), (200, b""))

    @given(st.binary(max_size=60))
    def test_garbage_raises_only_the_documented_error(self, data: bytes) -> None:
        """With the beginning of a response, and without."""
        for beginning in (b"", b"HTTP/1.1 101 \r\n"):
            try:
                self.receive(beginning + data + b"\r\n\r\n")
            except RemoteProtocolError:
                pass
