"""A client sends the request of RFC 6455 section 4.1, and accepts only what answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import SocketErrorStatus, WebErrorStatus
from twsock.websocket.client_handshake import (
    Agreement,
    ClientHandshake,
    HandshakeError,
    check_request_header,
)
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.handshake import Acceptance, RequestRules
from twsock.websocket.http import ClientHttp, ServerHttp
from twsock.websocket.http_message import Request, Response
from twsock.websocket.uri import WebSocketUri

#: The key of RFC 6455 section 1.3.
KEY = b"the sample nonce"
URI = "ws://server.example.com/chat"
#: The response of RFC 6455 section 1.3, without a subprotocol.
OPENED = Response(
    101,
    (
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    ),
    phrase="Switching Protocols",
)


def handshake(uri: str = URI, **options: Any) -> ClientHandshake:
    return ClientHandshake(WebSocketUri.parse(uri), **{"key": KEY, **options})


def opened(*fields: tuple[str, str | Sequence[str] | None]) -> Response:
    """Return the response with other values of fields; None or no value removes one."""
    headers = list(OPENED.headers)
    for name, value in fields:
        headers = [field for field in headers if field[0] != name]
        values = [value] if isinstance(value, str) else value or ()
        headers += [(name, text) for text in values]
    return replace(OPENED, headers=tuple(headers))


class RequestTests(SynchronousTestCase):
    """What the client sends."""

    def test_the_example_is_sent_byte_for_byte(self) -> None:
        """The request of section 1.2, with the fields in the order of this client."""
        client = handshake(
            subprotocols=["chat", "superchat"], headers=[("Origin", "http://example.com")]
        )
        self.assertEqual(
            ClientHttp(client.request).request_bytes,
            b"GET /chat HTTP/1.1\r\n"
            b"Host: server.example.com\r\n"
            b"Upgrade: websocket\r\n"
            b"Connection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: chat, superchat\r\n"
            b"Origin: http://example.com\r\n"
            b"\r\n",
        )

    def test_host_has_the_port(self) -> None:
        """``Host`` omits the port only if it is that of the scheme."""
        self.assertEqual(handshake("ws://a.example:1338/").request.header("Host"), "a.example:1338")
        self.assertEqual(handshake("wss://[::1]:443/").request.header("Host"), "[::1]")

    def test_host_can_be_replaced(self) -> None:
        """The field stays the first; a server may be reached by its address."""
        request = handshake(headers=[("X", "1"), ("host", "b.example:80")]).request
        self.assertEqual(request.headers[0], ("Host", "b.example:80"))
        self.assertEqual(request.headers[-1], ("X", "1"))
        for hosts in (["a b"], ["a", "b"], [""], ["http://a"]):
            headers = [("Host", host) for host in hosts]
            self.assertRaises(ValueError, handshake, headers=headers)

    def test_compression_is_offered_if_it_is_wanted(self) -> None:
        """By default nothing is offered."""
        self.assertIsNone(handshake().request.header("Sec-WebSocket-Extensions"))
        offer = handshake(compression=DeflateSettings()).request.header("Sec-WebSocket-Extensions")
        self.assertEqual(
            offer,
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "client_max_window_bits=12",
        )

    def test_fields_that_must_not_be_set_are_refused(self) -> None:
        """Line ends, fields of the handshake, credentials of a proxy."""
        for name, value in (
            ("X", "a\r\nY: b"),
            ("X\n", "a"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Sec-WebSocket-Key", "a"),
            ("Connection", "close"),
            ("Proxy-Authorization", "Basic dTpw"),
        ):
            self.assertRaises(ValueError, check_request_header, name, value)
            self.assertRaises(ValueError, handshake, headers=[(name, value)])
        self.assertRaises(TypeError, check_request_header, "X", cast(Any, None))

    def test_wrong_subprotocols_and_keys_are_refused(self) -> None:
        """A name is a token and occurs once; a key has 16 bytes."""
        self.assertRaises(ValueError, handshake, subprotocols=["a", "a"])
        self.assertRaises(ValueError, handshake, subprotocols=["a b"])
        self.assertRaises(TypeError, handshake, subprotocols="chat")
        self.assertRaises(ValueError, handshake, key=bytes(15))


class JudgementTests(SynchronousTestCase):
    """Which responses open the WebSocket."""

    def assert_refused(
        self, response: Response, web_status: WebErrorStatus, **options: Any
    ) -> HandshakeError:
        with self.assertRaises(HandshakeError, msg=f"{response=}") as caught:
            handshake(**options).judge(response)
        error: HandshakeError = caught.exception
        self.assertEqual(error.web_status, web_status, f"{response=}")
        self.assertIs(error.response, response)
        return error

    def assert_invalid(self, response: Response, **options: Any) -> None:
        invalid = WebErrorStatus.ERROR_HTTP_INVALID_SERVER_RESPONSE
        error = self.assert_refused(response, invalid, **options)
        self.assertEqual(error.hresult, 0x80072F78)
        self.assertEqual(error.status, SocketErrorStatus.HTTP_INVALID_SERVER_RESPONSE)

    def test_the_response_of_the_example_opens(self) -> None:
        """Section 1.3."""
        self.assertEqual(handshake().judge(OPENED), Agreement(OPENED))
        response = opened(("sec-websocket-protocol", "chat"))
        agreement = handshake(subprotocols=["superchat", "chat"]).judge(response)
        self.assertEqual(agreement, Agreement(response, "chat"))

    def test_another_status_is_the_error(self) -> None:
        """Redirections are not followed."""
        for status, web_status, hresult in (
            (403, WebErrorStatus.FORBIDDEN, 0x80190193),
            (404, WebErrorStatus.NOT_FOUND, 0x80190194),
            (301, WebErrorStatus.MOVED_PERMANENTLY, 0x8019012D),
            (308, WebErrorStatus.UNEXPECTED_REDIRECTION, 0x80190003),
            (421, WebErrorStatus.UNEXPECTED_CLIENT_ERROR, 0x80190004),
            (599, WebErrorStatus.UNEXPECTED_SERVER_ERROR, 0x80190005),
            (200, WebErrorStatus.UNEXPECTED_STATUS_CODE, 0x80190001),
            (999, WebErrorStatus.UNEXPECTED_STATUS_CODE, 0x80190001),
        ):
            error = self.assert_refused(replace(OPENED, status=status), web_status)
            self.assertEqual(error.hresult, hresult, f"{status=}")
            self.assertIn(str(status), str(error))

    def test_the_versions_of_the_server_are_in_the_error(self) -> None:
        """Section 4.4."""
        response = Response(426, (("Sec-WebSocket-Version", "14, 8"),))
        error = self.assert_refused(response, WebErrorStatus.UNEXPECTED_CLIENT_ERROR)
        self.assertIn("14, 8", str(error))

    def test_wrong_fields_of_the_upgrade_are_refused(self) -> None:
        """Section 4.1: missing, different, or double ones."""
        for fields in (
            ("upgrade", None),
            ("upgrade", "h2c"),
            ("upgrade", "websocket, h2c"),
            ("connection", None),
            ("connection", "close"),
            ("sec-websocket-accept", None),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO="),
            ("sec-websocket-accept", "S3PPLMBITXAQ9KYGZZHZRBK+XOO="),
            ("sec-websocket-accept", ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="] * 2),
        ):
            self.assert_invalid(opened(fields))
        self.assert_invalid(replace(OPENED, http_version="1.0"))

    def test_the_case_of_the_upgrade_does_not_matter(self) -> None:
        """The words are compared without it; Connection is a list."""
        fields = (("upgrade", "WebSocket"), ("connection", "keep-alive, UPGRADE"))
        handshake().judge(opened(*fields))

    def test_a_subprotocol_that_was_not_offered_is_refused(self) -> None:
        """Item 6; also two of them, and one in another case."""
        for protocol in ("mqtt", "Chat", "chat, superchat", "", ["chat", "superchat"]):
            response = opened(("sec-websocket-protocol", protocol))
            self.assert_invalid(response, subprotocols=["chat", "superchat"])
        self.assert_invalid(opened(("sec-websocket-protocol", "chat")))

    def test_a_server_may_choose_no_subprotocol(self) -> None:
        """The application finds out."""
        self.assertIsNone(handshake(subprotocols=["chat"]).judge(OPENED).subprotocol)

    def test_extensions_that_were_not_offered_are_refused(self) -> None:
        """Item 5, and section 9.1 for what is malformed."""
        answer = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12"
        self.assert_invalid(opened(("sec-websocket-extensions", answer)))
        for extensions in (
            answer.replace("permessage", "x"),
            f"{answer}, {answer}",
            f"{answer}, x-foo",
            "a; b=",
            ["x", answer],
        ):
            response = opened(("sec-websocket-extensions", extensions))
            self.assert_invalid(response, compression=DeflateSettings())

    def test_compression_is_agreed_or_fails(self) -> None:
        """RFC 7692 section 7: a wrong answer fails the connection; none means no compression."""
        client = handshake(compression=DeflateSettings())
        self.assertIsNone(client.judge(OPENED).compression)
        answer = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10"
        agreement = client.judge(opened(("sec-websocket-extensions", answer))).compression
        assert agreement is not None
        self.assertEqual((agreement.server_window, agreement.client_window), (10, 12))
        response = opened(("sec-websocket-extensions", "permessage-deflate; foo"))
        self.assert_invalid(response, compression=DeflateSettings())

    def test_an_error_can_be_copied(self) -> None:
        """Several waits may receive it."""
        error = self.assert_refused(replace(OPENED, status=404), WebErrorStatus.NOT_FOUND)
        self.assertFalse(error.is_from_proxy)
        copy = error.copy()
        self.assertEqual((copy.web_status, str(copy)), (error.web_status, str(error)))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([name for name, _ in OPENED.headers])
                | st.just("sec-websocket-extensions")
                | st.text(max_size=4),
                st.sampled_from([value for _, value in OPENED.headers]) | st.text(max_size=6),
            ),
            max_size=8,
        )
    )
    def test_any_response_opens_or_is_the_documented_error(
        self, headers: list[tuple[str, str]]
    ) -> None:
        """No response of a parser raises another error."""
        client = handshake(compression=DeflateSettings())
        try:
            client.judge(Response(101, tuple(headers)))
        except HandshakeError:
            pass


class BothSidesTests(SynchronousTestCase):
    """Both sides of the handshake understand each other."""

    @given(
        st.binary(min_size=16, max_size=16),
        st.lists(st.sampled_from("abcd"), unique=True),
        st.lists(st.sampled_from("abcd"), unique=True),
        st.booleans(),
        st.booleans(),
    )
    def test_what_the_server_accepts_the_client_accepts(
        self,
        key: bytes,
        offered: list[str],
        known: list[str],
        client_deflates: bool,
        server_deflates: bool,
    ) -> None:
        """Through the bytes of both; a refusal comes only from a missing subprotocol."""
        client = handshake(
            key=key,
            subprotocols=offered,
            compression=DeflateSettings() if client_deflates else None,
        )
        rules = RequestRules(
            subprotocols=known, compression=DeflateSettings() if server_deflates else None
        )
        sender, receiver = ClientHttp(client.request), ServerHttp()
        request = receiver.feed(sender.request_bytes)
        assert isinstance(request, Request)
        judgement = rules.judge(request, is_loopback=False)
        response = sender.feed(judgement.response.encode(now=0))
        assert response is not None
        if not isinstance(judgement, Acceptance):
            self.assertFalse(set(offered) & set(known))
            self.assertRaises(HandshakeError, client.judge, response)
            return
        agreement = client.judge(response)
        self.assertEqual(agreement.subprotocol, judgement.subprotocol)
        self.assertEqual(agreement.compression is not None, client_deflates and server_deflates)
        self.assertEqual(response.header("Date"), "Thu, 01 Jan 1970 00:00:00 GMT")
