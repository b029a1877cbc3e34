"""A WebSocket connects, closes and fails, with the statements W1 to W11 and W23 to W25 of WinRT."""

from __future__ import annotations

import errno
import inspect
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.connected import Served, close, ping, served, text
from twsock import (
    BrokenError,
    BusyError,
    ClosedError,
    ConnectError,
    LocalProtocolError,
    MessageWebSocket,
    PasswordCredential,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
    StreamWebSocket,
    WebErrorStatus,
    WebSocketClosedError,
    WebSocketError,
)
from twsock.websocket import CloseCode, DeflateSettings
from twsock.websocket.client_handshake import HandshakeError

CREDENTIAL = PasswordCredential("user", "secret")


def made() -> Served[MessageWebSocket]:
    """Return a WebSocket that was not connected."""
    found = Served(MessageWebSocket)
    found.socket.control.ping_interval = None
    return found


class ConnectTests(SynchronousTestCase):
    """The opening handshake."""

    def test_request_is_sent_and_the_response_awaited(self) -> None:
        """`connect` fires once the server has accepted; the facts are in ``information``."""
        one = made()
        one.socket.control.supported_protocols += ["a", "b"]
        connecting = one.connect("ws://127.0.0.1:1338/chat?a=b")
        self.assertEqual(one.reactor.tcpClients[-1][:2], ("127.0.0.1", 1338))
        one.answer_tcp()
        request = one.request()
        self.assertEqual(request.target, "/chat?a=b")
        self.assertEqual(request.header("Host"), "127.0.0.1:1338")
        self.assertIsNone(request.origin)
        self.assertNoResult(connecting)
        self.assertFalse(one.socket.is_open)
        self.assertIsNone(one.socket.information.protocol)
        one.receive(one.response(request, "Sec-WebSocket-Protocol: b", "X-A: c"), 1)
        self.assertIsNone(self.successResultOf(connecting))
        self.assertTrue(one.socket.is_open)
        self.assertFalse(one.socket.is_secure)
        self.assertEqual(str(one.socket.information.local_address), "127.0.0.1")
        response = one.socket.information.response
        assert response is not None
        self.assertEqual(response.header("X-A"), "c")

    def test_each_request_has_a_new_key(self) -> None:
        """It is random (:rfc:`6455`, section 4.1, item 7), so that no cache answers it."""
        keys = set()
        for _ in range(5):
            one = made()
            one.connect()
            one.answer_tcp()
            keys.add(one.request().header("Sec-WebSocket-Key"))
        self.assertEqual(len(keys), 5)

    def test_five_addresses_have_60_seconds_each(self) -> None:
        """W8: Further addresses of the host are not tried."""
        one = made()
        hosts = [f"192.0.2.{number}" for number in range(1, 9)]
        one.reactor.nameResolver.hosts["server.example"] = hosts
        connecting = one.connect("ws://server.example/")
        for number in range(5):
            host, port, factory, timeout, _ = one.reactor.tcpClients[number]
            self.assertEqual((host, port, timeout), (hosts[number], 80, 60.0))
            factory.clientConnectionFailed(
                one.reactor.connectors[number], Failure(ConnectionRefusedError())
            )
            one.reactor.advance(0)
        error = self.failureResultOf(connecting, ConnectError).value
        self.assertEqual([each.address for each in error.attempts], hosts[:5])
        self.assertEqual(len(one.reactor.tcpClients), 5)

    def test_receive_has_no_limit_of_its_own(self) -> None:
        """W8: WinRT has 30 s. Here pings find a dead server, and `receive` has a timeout."""
        one = made()
        one.connect()
        one.accept()
        waiting = one.socket.receive()
        one.reactor.advance(3600)
        self.assertNoResult(waiting)
        one.receive(text("late"))
        self.assertEqual(self.successResultOf(waiting), "late")
        limited = one.socket.receive(timeout=30)
        one.reactor.advance(30)
        error = self.failureResultOf(limited, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_codes_with_a_name_are_members(self) -> None:
        """Whichever end has closed, in the event and in the error; others are plain integers."""
        for code, kind in ((1001, CloseCode), (4000, int)):
            for is_here in (True, False):
                one = served(MessageWebSocket)
                waiting = one.socket.receive()
                if is_here:
                    one.socket.close(code)
                    self.failureResultOf(waiting)
                    failed = one.socket.receive()
                else:
                    one.receive(close(code))
                    failed = waiting
                error: Any = self.failureResultOf(failed, WebSocketClosedError).value
                ((found, _),) = one.closed
                for each in (found, error.code):
                    self.assertEqual((each, type(each)), (code, kind), is_here)

    def test_agreed_subprotocol_is_in_the_information(self) -> None:
        """W2: ``information.protocol`` is the value that was agreed."""
        one = made()
        one.socket.control.supported_protocols.append("chat")
        one.connect()
        one.accept("Sec-WebSocket-Protocol: chat")
        self.assertEqual(one.socket.information.protocol, "chat")

    def test_uri_is_checked_at_once(self) -> None:
        """W6: It is absolute, ``ws`` or ``wss``, and without a fragment."""
        one = made()
        for uri in ("127.0.0.1", "/chat", "http://a.example/", "ws://a.example/#b", "ws://", ""):
            self.assertRaises(ValueError, one.socket.connect, uri)
        self.assertEqual(one.reactor.tcpClients, [])
        self.assertRaises(ValueError, one.socket.connect, "ws://127.0.0.1/", timeout=-1)

    def test_headers_are_set_before_connect_only(self) -> None:
        """W7: Later it is an error; ``Sec-WebSocket-Extensions`` cannot be set."""
        one = made()
        one.socket.set_request_header("X-A", "1")
        one.socket.set_request_header("x-a", "2")
        one.socket.set_request_header("Origin", "http://a.example")
        for name in ("Sec-WebSocket-Extensions", "Connection", "Proxy-Authorization", "a b"):
            self.assertRaises(ValueError, one.socket.set_request_header, name, "x")
        self.assertRaises(ValueError, one.socket.set_request_header, "X-A", "a\r\nb: c")
        one.connect()
        with self.assertRaises(LocalProtocolError) as caught:
            one.socket.set_request_header("X-B", "1")
        self.assertEqual(caught.exception.hresult, 0x8000_000E)
        request = one.accept()
        self.assertEqual(request.values("X-A"), ["2"])
        self.assertEqual(request.origin, "http://a.example")

    def test_subprotocols_are_offered_in_their_order(self) -> None:
        """W9: Additions after a failure count, and those after a success are ignored."""
        one = made()
        one.socket.control.supported_protocols += ["b", "a"]
        failing = one.connect()
        one.answer_tcp()
        self.assertEqual(one.request().subprotocols, ["b", "a"])
        one.receive(b"HTTP/1.1 404 Not Found\r\n\r\n")
        self.failureResultOf(failing, HandshakeError)
        one.socket.control.supported_protocols.append("c")
        one.connect()
        request = one.accept("Sec-WebSocket-Protocol: c")
        self.assertEqual(request.subprotocols, ["b", "a", "c"])
        one.socket.control.supported_protocols.append("d")
        self.assertEqual(one.socket.information.protocol, "c")

    def test_missing_subprotocol_names_what_is_expected(self) -> None:
        """W3: The response of the server, with what it expects, is in the error."""
        one = made()
        connecting = one.connect()
        one.answer_tcp()
        one.receive(b"HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Protocol: chat\r\n\r\n")
        error: Any = self.failureResultOf(connecting, HandshakeError).value
        self.assertEqual(error.response.header("Sec-WebSocket-Protocol"), "chat")

    def test_refusals_have_their_http_status(self) -> None:
        """W5: `WebSocketError` returns it, as a `WebErrorStatus`; the HRESULT has it, too."""
        for status, expected in (
            (404, WebErrorStatus.NOT_FOUND),
            (401, WebErrorStatus.UNAUTHORIZED),
            (302, WebErrorStatus.FOUND),
            (418, WebErrorStatus.UNEXPECTED_CLIENT_ERROR),
            (200, WebErrorStatus.UNEXPECTED_STATUS_CODE),
        ):
            one = made()
            connecting = one.connect()
            one.answer_tcp()
            one.receive(f"HTTP/1.1 {status} No\r\nLocation: /a\r\n\r\n".encode())
            failure = self.failureResultOf(connecting, HandshakeError)
            self.assertIs(WebSocketError.get_status(failure), expected, status)
            self.assertTrue(one.is_aborted, status)

    def test_malformed_responses_fail(self) -> None:
        """Of bytes that are no HTTP, of a wrong key, and of a head above its limit."""
        wrong_key = (
            b"HTTP/1.1 101 Ok\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: AAAA\r\n\r\n"
        )
        too_long = b"HTTP/1.1 101 Ok\r\nX-A: " + b"a" * 20_000
        for response in (b"SSH-2.0-x\r\n\r\n", wrong_key, too_long):
            one = made()
            connecting = one.connect()
            one.answer_tcp()
            one.receive(response)
            failure = self.failureResultOf(connecting, RemoteProtocolError)
            status = WebSocketError.get_status(failure)
            self.assertIs(status, WebErrorStatus.ERROR_HTTP_INVALID_SERVER_RESPONSE, response[:9])
            self.assertTrue(one.is_aborted, response[:9])

    def test_connect_fires_whatever_the_server_does(self) -> None:
        """A hang-up before and within the response, in order and with a reset."""
        for sent in (b"", b"HTTP/1.1 101 Swit"):
            for end in ("end", "lose", "reset"):
                one = made()
                connecting = one.connect()
                one.answer_tcp()
                one.receive(sent)
                getattr(one, end)()
                self.failureResultOf(connecting, SocketError)

    def test_silent_server_fails_the_connect(self) -> None:
        """The server has 10 s to answer, which single bytes do not extend."""
        one = made()
        connecting = one.connect()
        one.answer_tcp()
        for byte in b"HTTP/1.1 1":
            self.assertNoResult(connecting)
            one.receive(bytes([byte]))
            one.reactor.advance(1)
        self.assertTrue(one.is_aborted)
        one.reset()
        failure = self.failureResultOf(connecting, SocketError)
        self.assertIs(WebSocketError.get_status(failure), WebErrorStatus.TIMEOUT)

    def test_timeout_limits_all_of_it(self) -> None:
        """The attempts to connect are limited, too."""
        one = made()
        connecting = one.connect(timeout=3)
        one.reactor.advance(3)
        failure = self.failureResultOf(connecting, SocketError)
        self.assertIs(SocketError.get_status(failure), SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_failed_connect_leaves_the_object_usable(self) -> None:
        """W10: Also one that was cancelled, at any time."""
        one = made()
        refused = one.connect()
        factory = one.reactor.tcpClients[-1][2]
        error = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        factory.clientConnectionFailed(one.reactor.connectors[-1], Failure(error))
        one.reactor.advance(0)
        failure = self.failureResultOf(refused, ConnectError)
        self.assertIs(WebSocketError.get_status(failure), WebErrorStatus.CANNOT_CONNECT)
        cancelled = one.connect()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        unanswered = one.connect()
        one.answer_tcp()
        unanswered.cancel()
        self.failureResultOf(unanswered, CancelledError)
        self.assertTrue(one.is_aborted)
        one.reset()
        connecting = one.connect()
        one.accept()
        self.successResultOf(connecting)
        one.socket.send("a")
        self.assertEqual(one.frames(), [("text", "a")])
        one.receive(text("b"))
        self.assertEqual(self.successResultOf(one.socket.receive()), "b")

    def test_second_connect_fails(self) -> None:
        """While one is pending, when it is connected, and once it was closed."""
        one = made()
        connecting = one.connect()
        self.failureResultOf(one.connect(), BusyError)
        one.accept()
        self.successResultOf(connecting)
        self.failureResultOf(one.connect(), LocalProtocolError)
        one.socket.close()
        self.failureResultOf(one.connect(), ClosedError)

    def test_bytes_before_the_request_fail_the_connect(self) -> None:
        """No byte may arrive before the request was sent, such as within a TLS validation."""
        one = made()
        connecting = one.connect("wss://127.0.0.1/")
        one.answer_tcp()
        self.assertNoResult(connecting)
        one.lose()
        self.failureResultOf(connecting, SocketError)

    def test_no_resolver_is_taken(self) -> None:
        """A URI has a port, so there is no service to look up."""
        for kind in (MessageWebSocket, StreamWebSocket):
            self.assertNotIn("resolver", inspect.signature(kind).parameters, kind.__name__)

    def test_endpoint_may_make_the_connection(self) -> None:
        """The URI has the target and the host."""

        class Endpoint:
            def connect(self, factory: Any) -> Any:
                one.protocol = factory.buildProtocol(None)
                one.transport = StringTransport()
                one.protocol.makeConnection(one.transport)
                return Deferred()

        one = made()
        endpoint: Any = Endpoint()
        connecting = one.socket.connect_endpoint(endpoint, "ws://server.example/a")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)

    def test_endpoint_does_not_bypass_the_proxy(self) -> None:
        """With a proxy the connect fails, and the endpoint is not used; without one it is."""
        used: list[Any] = []

        class Endpoint:
            def connect(self, factory: Any) -> Any:
                used.append(factory)
                return Deferred()

        one = made()
        endpoint: Any = Endpoint()
        one.socket.control.proxy = "http://192.0.2.1:8080"
        one.socket.control.proxy_credential = CREDENTIAL
        failed = one.socket.connect_endpoint(endpoint, "ws://server.example/")
        error = self.failureResultOf(failed, LocalProtocolError).value
        self.assertIn("control.proxy", str(error))
        self.assertEqual(used, [])
        one.socket.control.proxy = None
        self.assertNoResult(one.socket.connect_endpoint(endpoint, "ws://server.example/"))
        self.assertEqual(len(used), 1)


class CredentialTests(SynchronousTestCase):
    """User name and password of the server."""

    def test_credential_is_sent_if_so_set(self) -> None:
        """W4: Over plain TCP only if ``sends_credentials_unencrypted`` is set."""
        one = made()
        one.socket.control.server_credential = CREDENTIAL
        self.failureResultOf(one.connect(), LocalProtocolError)
        self.assertEqual(one.reactor.tcpClients, [])
        one.socket.control.sends_credentials_unencrypted = True
        one.connect()
        self.assertEqual(one.accept().header("Authorization"), "Basic dXNlcjpzZWNyZXQ=")

    def test_header_of_the_application_replaces_it(self) -> None:
        """For other schemes, such as tokens."""
        one = made()
        one.socket.control.server_credential = CREDENTIAL
        one.socket.control.sends_credentials_unencrypted = True
        one.socket.set_request_header("authorization", "Bearer abc")
        one.connect()
        self.assertEqual(one.accept().values("Authorization"), ["Bearer abc"])


class ControlTests(SynchronousTestCase):
    """When options can be set."""

    def test_options_are_fixed_by_connect(self) -> None:
        """W11: An error afterwards; the buffer size is ignored."""
        one = made()
        one.connect()
        options = {
            "max_message_size": 1,
            "server_credential": CREDENTIAL,
            "proxy_credential": CREDENTIAL,
            "no_delay": False,
            "ping_interval": 1.0,
            "compression": DeflateSettings(),
        }
        for name, value in options.items():
            with self.assertRaises(LocalProtocolError, msg=name) as caught:
                setattr(one.socket.control, name, value)
            self.assertEqual(caught.exception.hresult, 0x8000_000E, name)
        one.socket.control.outbound_buffer_size_in_bytes = 1000
        self.assertIsNone(one.socket.control.outbound_buffer_size_in_bytes)

    def test_compression_is_offered_if_so_set(self) -> None:
        """Messages are compressed if the server agrees."""
        one = made()
        one.socket.control.compression = DeflateSettings()
        one.connect()
        request = one.accept(
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover;"
            " client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12"
        )
        self.assertIn("permessage-deflate", request.header("Sec-WebSocket-Extensions") or "")
        self.assertTrue(one.socket.information.is_compressed)
        one.socket.send("a" * 1000)
        one.turn()
        sent = one.sent()
        self.assertEqual(sent[0], 0xC1)
        self.assertLess(len(sent), 100)


class CloseTests(SynchronousTestCase):
    """The end of a WebSocket."""

    def test_close_sends_an_empty_frame_or_code_and_reason(self) -> None:
        """W23: The codes and the length of the reason are checked at once."""
        one = served(MessageWebSocket)
        for code, reason in ((1004, ""), (1006, ""), (999, ""), (5000, ""), (1005, "a")):
            self.assertRaises(ValueError, one.socket.close, code, reason)
        self.assertRaises(ValueError, one.socket.close, 1000, "a" * 124)
        self.assertTrue(one.socket.is_open)
        one.socket.close()
        self.assertEqual(one.frames(), [("close", b"")])
        one = served(MessageWebSocket)
        one.socket.close(4000, "a" * 123)
        self.assertEqual(one.frames(), [("close", b"\x0f\xa0" + b"a" * 123)])

    def test_closed_is_raised_by_both_sides(self) -> None:
        """W24: At the close frame of the server, or at the local close; once."""
        one = served(MessageWebSocket)
        one.receive(close(4000, "bye"))
        self.assertEqual(one.closed, [(4000, "bye")])
        self.assertEqual(one.frames(), [("close", b"\x0f\xa0bye")])
        one.lose()
        self.assertEqual(one.closed, [(4000, "bye")])
        one = served(MessageWebSocket)
        one.socket.close(1000, "enough")
        self.assertEqual(one.closed, [(1000, "enough")])
        one.receive(close(1000, "enough"))
        one.lose()
        self.assertEqual(one.closed, [(1000, "enough")])

    def test_closed_is_not_raised_by_a_lost_connection(self) -> None:
        """W24: Neither by a reset nor by an end without a close frame, nor by `abort`."""
        for end in ("end", "lose", "reset"):
            one = served(MessageWebSocket)
            receiving = one.socket.receive()
            getattr(one, end)()
            failure = self.failureResultOf(receiving, BrokenError)
            self.assertEqual(failure.value.hresult, 0x8007_2EFE, end)
            self.assertEqual(one.closed, [], end)
        one = served(MessageWebSocket)
        one.socket.abort()
        one.lose()
        self.assertEqual(one.closed, [])

    def test_pending_operations_end_as_cancelled(self) -> None:
        """W25: A receive at the close; of an abort, a ping, too, and later calls."""
        one = served(MessageWebSocket)
        receiving, pinging = one.socket.receive(), one.socket.ping()
        one.socket.close()
        for pending in (receiving, pinging, one.socket.send("a"), one.socket.receive()):
            failure = self.failureResultOf(pending, ClosedError)
            status = WebSocketError.get_status(failure)
            self.assertIs(status, WebErrorStatus.OPERATION_CANCELED)
        one = served(MessageWebSocket)
        receiving = one.socket.receive()
        one.socket.abort()
        failure = self.failureResultOf(receiving, ClosedError)
        self.assertIs(WebSocketError.get_status(failure), WebErrorStatus.OPERATION_CANCELED)
        self.assertTrue(one.is_aborted)

    def test_queued_messages_precede_the_close_frame(self) -> None:
        """Queued messages are sent, and their waits fire."""
        one = served(MessageWebSocket)
        writing = one.socket.output_stream.write(b"a")
        one.socket.close(1000)
        self.assertEqual(one.frames(), [("binary", b"a"), ("close", b"\x03\xe8")])
        self.assertEqual(self.successResultOf(writing), 1)

    def test_close_waits_for_the_server(self) -> None:
        """A close waits for the server's close frame and end, and drops messages until then."""
        one = served(MessageWebSocket)
        one.receive(text("held"))
        closing = one.socket.close(1000)
        one.receive(text("late") + ping() + close(1000))
        self.assertTrue(one.is_reading)
        self.assertNoResult(closing)
        self.assertFalse(one.transport.disconnecting)
        one.end()
        self.assertTrue(one.transport.disconnecting)
        one.lose()
        self.successResultOf(closing)
        self.failureResultOf(one.socket.receive(), WebSocketClosedError)

    def test_close_ends_at_the_deadline(self) -> None:
        """5 s by default, which no traffic extends; then in order, and at last with a reset."""
        one = served(MessageWebSocket)
        closing = one.socket.close(1000)
        for _ in range(5):
            self.assertFalse(one.transport.disconnecting or one.is_aborted)
            one.receive(text("more"))
            one.reactor.advance(1)
        self.assertTrue(one.transport.disconnecting or one.is_aborted)
        one.lose()
        self.successResultOf(closing)

    def test_second_close_changes_nothing(self) -> None:
        """One close frame is sent; the first code counts."""
        one = served(MessageWebSocket)
        one.socket.close(1000)
        one.socket.close(4000)
        self.assertEqual(one.frames(), [("close", b"\x03\xe8")])
        one = served(MessageWebSocket)
        one.receive(close(1001))
        one.socket.close(4000)
        self.assertEqual(one.frames(), [("close", b"\x03\xe9")])

    def test_close_cancels_a_pending_connect(self) -> None:
        """The connect fails with `ClosedError`; nothing is left open."""
        for steps in (0, 1):
            one = made()
            connecting = one.connect()
            if steps:
                one.answer_tcp()
            closing = one.socket.close()
            self.failureResultOf(connecting, ClosedError)
            if steps:
                self.assertTrue(one.is_aborted)
                one.reset()
            self.successResultOf(closing)
            self.assertEqual(one.closed, [])

    def test_unconnected_websocket_may_be_closed(self) -> None:
        """Later calls fail with `ClosedError`."""
        for end in ("close", "abort"):
            one = made()
            self.successResultOf(getattr(one.socket, end)())
            self.successResultOf(one.socket.wait_closed())
            self.failureResultOf(one.connect(), ClosedError)
            self.failureResultOf(one.socket.receive(), ClosedError)
            self.failureResultOf(one.socket.send("a"), ClosedError)

    def test_block_closes_with_1000_or_aborts(self) -> None:
        """``async with`` awaits the end; with an error the connection is reset."""

        async def use(one: Served[MessageWebSocket], error: Exception | None) -> None:
            async with one.socket:
                if error is not None:
                    raise error

        one = served(MessageWebSocket)
        using = Deferred.fromCoroutine(use(one, None))
        self.assertEqual(one.frames(), [("close", b"\x03\xe8")])
        one.lose()
        self.successResultOf(using)
        one = served(MessageWebSocket)
        using = Deferred.fromCoroutine(use(one, ValueError("wrong")))
        self.assertTrue(one.is_aborted)
        one.reset()
        self.failureResultOf(using, ValueError)

    def test_handler_of_closed_that_fails_is_logged(self) -> None:
        """The others are called, too."""

        async def fail(*_: object) -> None:
            raise ValueError("wrong")

        one = served(MessageWebSocket)
        one.socket.closed.add(fail)
        misfit: Any = lambda: None  # noqa: E731
        one.socket.closed.add(misfit)
        one.receive(close())
        self.assertEqual(len(self.flushLoggedErrors(ValueError, TypeError)), 2)

    def test_both_kinds_connect(self) -> None:
        """W1: `StreamWebSocket` as `MessageWebSocket`; over TLS in the tests with a kernel."""
        for kind in (MessageWebSocket, StreamWebSocket):
            one: Any = Served(kind)
            connecting = one.connect()
            one.accept()
            self.successResultOf(connecting)
            one.socket.close()
            one.lose()
