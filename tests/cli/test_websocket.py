"""A conversation with an echo of WebSockets, and with servers that refuse, close or break rules."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import skipIf

import trustme
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import (
    AUTHORITY,
    PATIENCE,
    SERVER,
    command,
    environment,
    run,
    running_command,
    serve,
)
from tests.cli.test_tls import Files
from tests.services.processes import twistd
from tests.sockets.test_resolving import FakeNameResolver
from tests.sockets.websocket.connected import Served, binary, close, text
from tests.tls import peer
from twsock import Certificate, HostName, MessageWebSocket
from twsock.cli.arguments import parse_echo
from twsock.cli.endpoints import parse_uri
from twsock.cli.output import CommandError, Output, UsageError
from twsock.cli.texts import ListedTexts
from twsock.cli.tls import prepare_proxy_security
from twsock.cli.websocket import (
    echo_messages,
    prepare_websocket,
    read_headers,
    read_proxy_credential,
)
from twsock.sockets.websocket.credential import PasswordCredential
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.http import ServerHttp
from twsock.websocket.http_message import Request
from twsock.websocket.messages import MessageDecoder

try:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.server import ServerConnection
    from websockets.sync.server import serve as serve_websockets
except Exception as error:  # noqa: BLE001 - whatever stops the import is the reason to skip
    _WHY_NOT: str | None = f"websockets cannot be imported here: {error}"
else:
    _WHY_NOT = None

#: The authority of a proxy that the test plays.
ROOT = Certificate.from_pem(peer.AUTHORITY.cert_pem.bytes())

FIVE_LINES = [
    "client is trying to connect...",
    "client connected",
    'client sent the request: "Hello"',
    'client received the response: "Hello"',
    "client closed its socket",
]


class Conversation(Served[MessageWebSocket]):
    """The command against a server that the test plays."""

    def __init__(
        self,
        *words: str,
        uri: str = "ws://127.0.0.1:1338/chat",
        **options: Any,
    ) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.installNameResolver(FakeNameResolver())
        self.decoder = MessageDecoder(is_server=True, max_message_size=1 << 30)
        self.raw = b""
        arguments = parse_echo([uri, *words])
        self.output = io.BytesIO()
        self.done: Deferred[None] = Deferred.fromCoroutine(
            echo_messages(
                self.reactor,
                parse_uri(arguments.endpoint),
                arguments,
                ListedTexts(len(arguments.texts), arguments.texts),
                Output(self.output, quiet=arguments.quiet, notes=io.StringIO()),
                self.reactor.seconds,
                **options,
            )
        )

    def refuse(self, status: str, *fields: str) -> None:
        """Answer the request with another status than 101."""
        self.answer_tcp()
        self.receive("\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1"))

    def finish(self) -> None:
        """Answer the close frame, and end the connection."""
        self.receive(close(1000))
        self.lose()

    @property
    def lines(self) -> list[str]:
        """What is on standard output."""
        return self.output.getvalue().decode().splitlines()

    def fails(self, case: SynchronousTestCase) -> str:
        """
        Return the line for standard error, and make sure that the connection is aborted.

        An open WebSocket has half a second to end in order.
        """
        self.reactor.advance(0.5)
        line = str(case.failureResultOf(self.done, CommandError).value.line)
        case.assertTrue(self.transport.is_aborted, line)
        case.assertNotIn("\n", line)
        return line


class EchoTests(SynchronousTestCase):
    """The server does what it should."""

    def test_the_lines_are_those_of_the_other_echoes(self) -> None:
        """Five of them; the WebSocket ends with the code 1000."""
        conversation = Conversation("Hello")
        conversation.accept()
        self.assertEqual(conversation.frames(), [("text", "Hello")])
        conversation.receive(text("Hello"))
        conversation.turn()
        self.assertEqual(conversation.frames(), [("close", b"\x03\xe8")])
        conversation.finish()
        self.successResultOf(conversation.done)
        self.assertEqual(conversation.lines, FIVE_LINES)

    def test_one_message_goes_after_the_other(self) -> None:
        """Each text as often as the count says, each when the last has come back."""
        conversation = Conversation("a", "", "--count", "2", "--quiet")
        conversation.accept()
        for number, payload in enumerate(("a", "a", "", "")):
            self.assertEqual(conversation.frames(), [("text", payload)], f"{number=}")
            conversation.receive(text(payload))
            conversation.turn()
        conversation.frames()
        conversation.finish()
        self.successResultOf(conversation.done)
        self.assertEqual(conversation.lines, ["a", "a", "", ""])

    def test_binary_messages_are_sent_and_expected(self) -> None:
        """With ``--binary``; texts otherwise."""
        conversation = Conversation("grüße", "--binary", "--quiet")
        conversation.accept()
        self.assertEqual(conversation.frames(), [("binary", "grüße".encode())])
        conversation.receive(binary("grüße".encode()))
        conversation.turn()
        conversation.finish()
        self.successResultOf(conversation.done)
        self.assertEqual(conversation.lines, ["grüße"])

    def test_the_request_has_what_the_options_say(self) -> None:
        """Header fields and subprotocols, in their order."""
        conversation = Conversation(
            *("a", "--header", "Origin: https://example.com", "--header=X-Token:  one two "),
            *("--subprotocol", "first", "--subprotocol", "second"),
        )
        request = conversation.accept("Sec-WebSocket-Protocol: second")
        self.assertEqual(request.target, "/chat")
        self.assertEqual(request.header("Origin"), "https://example.com")
        self.assertEqual(request.header("X-Token"), "one two")
        self.assertEqual(request.subprotocols, ["first", "second"])
        self.assertIn("server chose the subprotocol: second", conversation.lines)
        conversation.done.addErrback(lambda _: None)
        conversation.done.cancel()

    def test_a_server_without_subprotocols_is_accepted(self) -> None:
        """A line says that it chose none."""
        conversation = Conversation("a", "--subprotocol", "chat")
        conversation.accept()
        self.assertIn("server chose the subprotocol: none", conversation.lines)
        conversation.done.addErrback(lambda _: None)
        conversation.done.cancel()

    def test_cancelling_closes_the_websocket(self) -> None:
        """With a close frame, and within half a second, with the figures so far."""
        conversation = Conversation("a", "--count", "3")
        conversation.accept()
        conversation.receive(text("a"))
        conversation.turn()
        conversation.done.cancel()
        self.assertIn(("close", b"\x03\xe8"), conversation.frames())
        self.assertFalse(conversation.transport.is_aborted)
        conversation.reactor.advance(0.5)
        self.assertTrue(conversation.transport.is_aborted)
        self.failureResultOf(conversation.done, CancelledError)
        self.assertRegex(conversation.lines[-1], "^1 echo, round trip ")

    def test_cancelling_ends_a_connect(self) -> None:
        """Before the server has answered."""
        conversation = Conversation("a")
        conversation.answer_tcp()
        conversation.done.cancel()
        self.failureResultOf(conversation.done, CancelledError)
        self.assertTrue(conversation.transport.is_aborted)


class ProxyTests(SynchronousTestCase):
    """A tunnel leads to the server."""

    def test_the_proxy_is_asked_for_the_server(self) -> None:
        """What follows is as without a proxy."""
        conversation = Conversation(
            *("Hello", "--proxy", "http://127.0.0.1:3128", "--header", "X-Token: secret"),
            uri="ws://server.example/",
        )
        conversation.answer_tcp()
        self.assertEqual(conversation.reactor.tcpClients[0][:2], ("127.0.0.1", 3128))
        asked = conversation.sent()
        self.assertTrue(asked.startswith(b"CONNECT server.example:80 HTTP/1.1\r\n"), asked)
        self.assertNotIn(b"secret", asked)
        conversation.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        request = conversation.request()
        self.assertEqual(request.header("Host"), "server.example")
        conversation.receive(conversation.response(request))
        self.assertEqual(conversation.frames(), [("text", "Hello")])
        conversation.receive(text("Hello"))
        conversation.turn()
        conversation.finish()
        self.successResultOf(conversation.done)
        self.assertEqual(conversation.lines, FIVE_LINES)

    def test_the_proxy_gets_its_credential(self) -> None:
        """The server does not."""
        conversation = Conversation(
            *("Hello", "--proxy", "http://127.0.0.1:3128"),
            proxy_credential=PasswordCredential("ada", "secret"),
        )
        conversation.answer_tcp()
        basic = b"Proxy-Authorization: Basic YWRhOnNlY3JldA=="
        self.assertIn(basic, conversation.sent())
        conversation.receive(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertIsNone(conversation.request().header("Proxy-Authorization"))
        conversation.done.addErrback(lambda _: None)
        conversation.done.cancel()

    def test_a_refusal_of_the_proxy_is_named(self) -> None:
        """It is not that of the server."""
        conversation = Conversation("a", "--proxy", "http://127.0.0.1:3128")
        conversation.refuse("407 Proxy Authentication Required")
        self.assertEqual(
            conversation.fails(self),
            "the proxy refused the WebSocket: 407 Proxy Authentication Required"
            "; see --proxy-credential",
        )


class SecureProxyTests(SynchronousTestCase):
    """The command reaches the proxy with TLS."""

    def converse(self, *words: str, **options: Any) -> peer.ServerPeer:
        """Connect to a proxy; return it when the handshake is over, or has failed."""
        self.conversation = conversation = Conversation(
            *("Hello", "--proxy", "https://127.0.0.1:3129", *words), **options
        )
        conversation.answer_tcp()
        proxy = peer.ServerPeer()
        with contextlib.suppress(ssl.SSLError):  # The alert of the client.
            self.asked = self.exchange(proxy)
        return proxy

    def exchange(self, proxy: peer.ServerPeer) -> bytes:
        """Pass all bytes on; return what the proxy received."""
        conversation = self.conversation
        conversation.turn()
        while sent := conversation.sent():
            conversation.receive(proxy.take(sent))
            conversation.turn()
        received, proxy.received = proxy.received, b""
        return received

    def test_the_proxy_gets_its_credential_encrypted(self) -> None:
        """The rest is as with another proxy."""
        credential = PasswordCredential("ada", "secret")
        security = prepare_proxy_security(None, HostName("127.0.0.1"))
        trusting = dataclasses.replace(security, trust_roots=[ROOT])
        proxy = self.converse(proxy_credential=credential, proxy_security=trusting)
        self.assertIn(b"Proxy-Authorization: Basic YWRhOnNlY3JldA==", self.asked)
        self.conversation.receive(proxy.say(b"HTTP/1.1 200 OK\r\n\r\n"))
        request = ServerHttp().feed(self.exchange(proxy))
        assert isinstance(request, Request), request
        self.conversation.receive(proxy.say(self.conversation.response(request)))
        self.assertEqual(self.conversation.lines[:2], FIVE_LINES[:2])
        self.conversation.done.addErrback(lambda _: None)
        self.conversation.done.cancel()

    def test_the_certificate_of_the_proxy_is_judged_by_its_own_option(self) -> None:
        """The lines name that option."""
        security = prepare_proxy_security(None, HostName("127.0.0.1"))
        for roots, words in ((None, "--proxy-ca FILE"), ([], "is not in --proxy-ca")):
            self.converse(proxy_security=dataclasses.replace(security, trust_roots=roots))
            self.conversation.lose()
            error = self.failureResultOf(self.conversation.done, CommandError).value
            self.assertIn("the certificate of 127.0.0.1 is refused", error.line)
            self.assertIn(words, error.details[0])

    def test_a_proxy_without_tls_is_named(self) -> None:
        """It is not the server that did not answer with TLS."""
        security = prepare_proxy_security(None, HostName("127.0.0.1"))
        conversation = Conversation(
            *("Hello", "--proxy", "https://127.0.0.1:3129"), proxy_security=security
        )
        conversation.answer_tcp()
        conversation.receive(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        conversation.lose()
        line = self.failureResultOf(conversation.done, CommandError).value.line
        self.assertTrue(line.startswith("connect failed: "), line)
        self.assertIn("proxy: ", line)
        self.assertIn("the proxy did not answer with TLS", line)

    def test_a_proxy_that_waits_is_named(self) -> None:
        """It may expect the request without TLS."""
        security = prepare_proxy_security(None, HostName("127.0.0.1"))
        conversation = Conversation(
            *("Hello", "--proxy", "https://127.0.0.1:3129"), proxy_security=security
        )
        conversation.answer_tcp()
        conversation.reactor.advance(10)
        line = self.failureResultOf(conversation.done, CommandError).value.line
        self.assertTrue(line.endswith("; perhaps the proxy does not offer TLS (http://)"), line)


class RefusedTests(SynchronousTestCase):
    """The server does not accept the WebSocket; the line says why, and what to do."""

    def test_a_refusal_has_its_status_and_a_hint(self) -> None:
        """The hint depends on the status and on the fields of the response."""
        for status, fields, end in (
            ("403 Forbidden", (), "403 Forbidden; the server may expect another --header 'Origin"),
            ("401 Unauthorized", (), "401 Unauthorized; give credentials with --header 'Auth"),
            ("404 Not Found", (), "404 Not Found; there is no WebSocket at /chat: check the path"),
            (
                "421 Misdirected Request",
                (),
                (
                    "421 Misdirected Request; it does not serve the host 127.0.0.1:1338: connect "
                    "with a name of the server, or start twsock-websocket with --host NAME"
                ),
            ),
            (
                "400 Bad Request",
                ("Sec-WebSocket-Protocol: chat",),
                "400 Bad Request; it has the subprotocols chat: see --subprotocol",
            ),
            ("400 Bad Request", (), "400 Bad Request"),
            ("426 Upgrade Required", (), "426 Upgrade Required; it does not support version 13"),
            (
                "302 Found",
                ("Location: wss://example.com/",),
                "302 Found; it redirects to wss://example.com/, and redirections are not followed",
            ),
            ("200 OK", (), "200 OK; a web server answered, without a WebSocket at /chat"),
            ("503 ", (), "503; try again later"),
            ("500 Oh no", (), "500 Oh no"),
        ):
            conversation = Conversation("a")
            conversation.refuse(status, *fields)
            line = conversation.fails(self)
            self.assertTrue(
                line.startswith(f"the server refused the WebSocket: {end}"), f"{status}: {line}"
            )
            self.assertEqual(conversation.lines, FIVE_LINES[:1], f"{status}")

    def test_another_host_header_is_named(self) -> None:
        """It is the one that the server has refused."""
        conversation = Conversation("a", "--header", "Host: example.com")
        conversation.refuse("421 Misdirected Request")
        self.assertIn("does not serve the host example.com:", conversation.fails(self))

    def test_a_long_or_odd_location_is_shortened_and_escaped(self) -> None:
        """It is the server's word, and a terminal obeys some characters."""
        conversation = Conversation("a")
        conversation.refuse("301 Moved", f"Location: \x9b31m{'a' * 1000}")
        line = conversation.fails(self)
        self.assertIn("it redirects to \\x9b31maaa", line)
        self.assertIn("…, and", line)
        self.assertLess(len(line), 450)

    def test_a_wrong_acceptance_is_no_refusal(self) -> None:
        """The line says what is wrong."""
        conversation = Conversation("a")
        conversation.accept("Sec-WebSocket-Protocol: other")
        self.assertEqual(
            conversation.fails(self),
            "handshake failed: the server opens the WebSocket wrongly: its subprotocol was not "
            "offered",
        )

    def test_another_server_is_no_refusal(self) -> None:
        """One that sends no HTTP, or ends the connection."""
        hint = "; perhaps no WebSocket server listens there, or one that expects TLS (wss://)"
        for data, part in (
            (b"220 hello\r\n\r\n", "HttpInvalidServerResponse"),
            (None, "the server ended the connection before it answered"),
        ):
            conversation = Conversation("a")
            conversation.answer_tcp()
            if data is None:
                conversation.end()
            else:
                conversation.receive(data)
            line = conversation.fails(self)
            self.assertTrue(line.startswith("handshake failed: "), line)
            self.assertIn(part, line)
            self.assertTrue(line.endswith(hint), line)

    def test_a_server_that_does_not_answer_is_left(self) -> None:
        """After the timeout, or after 10 s."""
        for words, seconds in ((("--timeout", "3"), 3.0), (("--timeout", "30"), 10.0)):
            conversation = Conversation("a", *words)
            conversation.answer_tcp()
            conversation.reactor.advance(seconds - 0.1)
            self.assertNoResult(conversation.done)
            conversation.reactor.advance(0.1)
            if not conversation.done.called:  # The loss of an aborted connection is reported later.
                conversation.lose(ConnectionAborted())
            line = conversation.fails(self)
            self.assertTrue(
                line.startswith("handshake failed: ConnectionTimedOut (3): "), f"{words=}, {line}"
            )


class AnswerTests(SynchronousTestCase):
    """The server answers with something else; the line says with what."""

    def answered(self, data: bytes, *words: str) -> Conversation:
        """Return a conversation whose first request ``a`` is answered."""
        conversation = Conversation("a", *words)
        conversation.accept()
        conversation.frames()
        conversation.receive(data)
        conversation.turn()
        return conversation

    def test_another_message_is_a_difference(self) -> None:
        """Its sizes, and the first byte that differs."""
        for data, line in (
            (
                text("b"),
                (
                    "the response differs from the request: sent 1 bytes, received 1 bytes, first "
                    "difference at byte 1"
                ),
            ),
            (
                binary(b"a"),
                "the server sent a binary message of 1 bytes, and not a text; see --binary",
            ),
            (text("a") + text("a"), "the server sent a message of 1 bytes that was not requested"),
        ):
            self.assertEqual(self.answered(data).fails(self), line)

    def test_a_text_does_not_answer_a_binary_message(self) -> None:
        """Even with the same bytes."""
        self.assertEqual(
            self.answered(text("a"), "--binary").fails(self),
            "the server sent a text of 1 bytes, and not a binary message; see --binary",
        )

    def test_a_close_frame_is_shown_with_its_code(self) -> None:
        """The reason of the server is escaped, and the code may have a hint."""
        for data, end in (
            (
                close(1003, "no texts\x1b[2J"),
                (
                    '1003 (unsupported data), "no texts\\x1b[2J"; it does not accept messages of '
                    "this type, see --binary"
                ),
            ),
            (
                close(1009),
                "1009 (message too big); it does not accept messages of this size",
            ),
            (close(4711, "bye"), '4711, "bye"'),
            (encode_frame(Opcode.CLOSE, b""), "1005 (no status received)"),
        ):
            line = self.answered(data).fails(self)
            self.assertEqual(line, f"the server closed the WebSocket: {end}")

    def test_a_close_frame_behind_the_last_answer_is_in_order(self) -> None:
        """The server may end first."""
        conversation = self.answered(text("a") + close(1000))
        conversation.lose()
        self.successResultOf(conversation.done)

    def test_a_close_frame_precedes_the_end(self) -> None:
        """The code says whose error it is; the server's close frame is answered with its code."""
        for data, words, code in (
            (text("b"), (), 1001),
            (text("a" * 9), ("--max-frame", "8"), 1009),
            (b"\xff\xff", (), 1002),
            (close(4711, "bye"), (), 4711),
        ):
            conversation = self.answered(data, *words)
            ((name, payload),) = conversation.frames()
            assert isinstance(payload, bytes)
            self.assertEqual((name, int.from_bytes(payload[:2], "big")), ("close", code))
            self.assertFalse(conversation.is_aborted, f"{data=}")
            self.assertNoResult(conversation.done)
            conversation.lose()
            self.failureResultOf(conversation.done, CommandError)

    def test_cancelling_that_end_aborts_the_connection(self) -> None:
        """A second Ctrl-C does not wait."""
        conversation = self.answered(text("b"))
        conversation.done.cancel()
        self.failureResultOf(conversation.done, CancelledError)
        self.assertTrue(conversation.is_aborted)

    def test_a_violation_is_no_answer(self) -> None:
        """With the option that sets the limit, if it is too large."""
        line = self.answered(text("a" * 9), "--max-frame", "8").fails(self)
        self.assertRegex(line, r"^cannot read the response: .+ limit is 8 .+; see --max-frame$")
        line = self.answered(b"\xff\xff").fails(self)
        self.assertTrue(line.startswith("cannot read the response: "), line)
        self.assertNotIn("--max-frame", line)

    def test_a_lost_connection_is_one_line(self) -> None:
        """Without a close frame."""
        conversation = Conversation("a")
        conversation.accept()
        conversation.lose()
        line = str(self.failureResultOf(conversation.done, CommandError).value.line)
        self.assertTrue(line.startswith("connection lost: "), line)

    def test_no_answer_is_waited_for_until_the_timeout(self) -> None:
        """As for the other echoes."""
        conversation = Conversation("a", "--timeout", "2")
        conversation.accept()
        conversation.reactor.advance(2)
        self.assertEqual(
            conversation.fails(self),
            "no answer within 2 s: ConnectionTimedOut (3): the server sent nothing",
        )

    def test_what_is_sent_between_two_texts_was_not_requested(self) -> None:
        """Also while the interval runs."""
        conversation = Conversation("a", "--count", "2", "--interval", "5")
        conversation.accept()
        conversation.receive(text("a"))
        conversation.turn()
        self.assertNoResult(conversation.done)
        conversation.receive(text("news"))
        self.assertEqual(
            conversation.fails(self), "the server sent a message of 4 bytes that was not requested"
        )


class PrepareTests(Files):
    """What can be checked before there is a connection."""

    def fails(self, uri: str, *words: str) -> str:
        """Return the line."""
        with self.assertRaises(UsageError) as caught:
            prepare_websocket(MemoryReactorClock(), parse_echo([uri, "a", *words]))
        self.assertNotIn("\n", caught.exception.line)
        return str(caught.exception.line)

    def test_a_bad_uri_is_bad_usage(self) -> None:
        """The line names it, with the reason and an example."""
        for uri, reason in (
            ("http://h/", "the scheme of a WebSocket URI is ws or wss, not http"),
            ("HTTPS://h/", "the scheme of a WebSocket URI is ws or wss, not https"),
            ("ws://h/#a", "a WebSocket URI has no fragment (#)"),
            ("ws://user:secret@h/", "a WebSocket URI has no user name"),
            ("ws:///path", "the URI has no host"),
            ("ws://h:99999/", "'h:99999' is not the host of a URI"),
        ):
            line = self.fails(uri)
            self.assertTrue(line.startswith(f"cannot use the endpoint {uri!r}: {reason}"), line)
            self.assertTrue(line.endswith("give one such as ws://127.0.0.1:1338/"), line)

    def test_bad_values_are_bad_usage(self) -> None:
        """The line names the option."""
        for words, line in (
            (("--subprotocol", "a b"), "--subprotocol: 'a b' is no name of a subprotocol"),
            (("--proxy", "h:1"), "--proxy: a proxy is given as http://host:port or https://host"),
            (
                ("--proxy", "https://h"),
                "--proxy: a proxy is given with its port: https://host:port",
            ),
            (
                ("--proxy", "http://a:b@h:1"),
                "--proxy: it has no user name; put USER:PASSWORD into a file",
            ),
            (
                ("--proxy", "http://h:1", "--proxy-credential", "missing"),
                "--proxy-credential: cannot read missing: No such file",
            ),
            (("--header", "Origin"), "--header takes 'NAME: VALUE', not 'Origin'"),
            (("--header", "a b: c"), "--header: "),
            (("--header", "A: b\r\nC: d"), "--header: "),
            (("--header", "Upgrade: h2c"), "--header: the header Upgrade is set by the handshake"),
            (
                ("--header", "X-A: b", "--header", "x-a: c"),
                "--header x-a is given twice: put both values into one",
            ),
        ):
            shown = self.fails("ws://h/", *words)
            self.assertTrue(shown.startswith(line), f"{words=}: {shown}")

    def test_headers_are_split_at_the_first_colon(self) -> None:
        """Blanks around the value are no part of it."""
        self.assertEqual(
            read_headers(["Origin: http://h:1", "X:", "Y:\t z"]),
            [("Origin", "http://h:1"), ("X", ""), ("Y", "z")],
        )

    def test_files_are_read_before_there_is_a_connection(self) -> None:
        """A missing one is bad usage."""
        self.assertIn("cannot read missing.pem", self.fails("wss://h/", "--ca", "missing.pem"))
        words = ("--proxy", "https://h:1", "--proxy-ca", "missing.pem")
        self.assertIn("cannot read missing.pem", self.fails("ws://h/", *words))


class CredentialTests(Files):
    """Files with the credential for a proxy."""

    def test_a_file_has_one_line(self) -> None:
        """The password may have colons; the end of the line is no part of it."""
        for data, expected in (
            (b"ada:secret\n", ("ada", "secret")),
            (b"ada:a:b\r\n", ("ada", "a:b")),
            ("ada:\u20ac".encode(), ("ada", "\u20ac")),
        ):
            found = read_proxy_credential(self.write("credential", data))
            assert found is not None
            self.assertEqual((found.user_name, found.password), expected)
        self.assertIsNone(read_proxy_credential(None))

    def test_other_files_are_bad_usage(self) -> None:
        """The line does not repeat what is in them."""
        for data in (b"", b"secret", b"a:secret\nb", b"a:\xff", b"a:" + b"secret" * 2000):
            path = self.write("credential", data)
            error = self.assertRaises(UsageError, read_proxy_credential, path)
            self.assertTrue(error.line.startswith(f"--proxy-credential: {path}"), error.line)
            self.assertNotIn("secret", error.line.replace(path, ""))


@contextlib.contextmanager
def websockets_server(
    handle: Callable[[ServerConnection], None],
    issued: trustme.LeafCert | None = None,
    **options: Any,
) -> Iterator[str]:
    """Run a server of the package ``websockets``; gives the URI."""
    context = None
    if issued is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
    with serve_websockets(handle, "127.0.0.1", 0, ssl=context, **options) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            scheme = "ws" if issued is None else "wss"
            yield f"{scheme}://127.0.0.1:{server.socket.getsockname()[1]}/"
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def echo_all(connection: ServerConnection) -> None:
    """Send each message back, with its type."""
    for message in connection:
        connection.send(message)


@skipIf(_WHY_NOT is not None, _WHY_NOT or "")
class WebsocketsTests(Files):
    """Whole runs against servers of the package ``websockets``."""

    def echoes(self, uri: str, *words: str, stdin: bytes = b"") -> list[str]:
        """Return the lines of a run that succeeds."""
        result = run("echo", uri, *words, stdin=stdin)
        self.assertEqual((result.stderr, result.returncode), (b"", 0))
        return result.stdout.decode().splitlines()

    def test_the_five_lines(self) -> None:
        """As a text, and as a binary message."""
        with websockets_server(echo_all) as uri:
            for words in ((), ("--binary",)):
                self.assertEqual(self.echoes(uri, "Hello", *words), FIVE_LINES, f"{words=}")

    def test_standard_input_is_one_message_a_line(self) -> None:
        """Byte for byte on standard output."""
        lines = "".join(f"{number} ☺\n" for number in range(300)).encode() + b"\nlast\n"
        with websockets_server(echo_all) as uri:
            self.assertEqual(self.echoes(uri, "--quiet", stdin=lines), lines.decode().splitlines())

    def test_a_size_makes_up_the_messages(self) -> None:
        """Their bytes are not shown; figures end the run."""
        with websockets_server(echo_all) as uri:
            lines = self.echoes(uri, "--size", "70000", "--count", "3")
        self.assertEqual(lines[2], "client sent the request: 70000 bytes")
        self.assertTrue(lines[-1].startswith("3 echoes, round trip "), lines[-1])

    def test_subprotocol_and_headers_arrive(self) -> None:
        """The server chooses one of those offered."""
        seen: list[str | None] = []

        def handle(connection: ServerConnection) -> None:
            assert connection.request is not None
            seen.append(connection.request.headers.get("X-Token"))
            echo_all(connection)

        with websockets_server(handle, subprotocols=["second"]) as uri:
            lines = self.echoes(
                *(uri, "a", "--header", "X-Token: 42"),
                *("--subprotocol", "first", "--subprotocol", "second"),
            )
        self.assertEqual(seen, ["42"])
        self.assertEqual(lines[2], "server chose the subprotocol: second")

    def test_tls_is_verified(self) -> None:
        """A line says so before the first text."""
        with websockets_server(echo_all, SERVER) as uri:
            lines = self.echoes(uri, "Hello", "--ca", self.authority)
        self.assertEqual(lines[:2] + lines[3:], FIVE_LINES)
        self.assertEqual(lines[2], "client is secure: TLSv1.3, certificate verified for 127.0.0.1")

    def test_name_and_level_are_those_of_the_options(self) -> None:
        """The certificate need not name the host of the URI."""
        other = AUTHORITY.issue_cert("other.example")
        words = ("--ca", self.authority, "--name", "Other.example", "--level", "tls12")
        with websockets_server(echo_all, other) as uri:
            lines = self.echoes(uri, "Hello", *words)
        self.assertEqual(
            lines[2], "client is secure: TLSv1.2, certificate verified for other.example"
        )

    def test_a_refused_certificate_is_explained(self) -> None:
        """No text is sent; the certificate is shown if asked for."""
        other = AUTHORITY.issue_cert("other.example")
        for issued, words, pattern in (
            (
                SERVER,
                ("--show-certificate",),
                (
                    r"\Athe server sent a certificate:\n(  .+\n)+twsock: the certificate of "
                    r"127\.0\.0\.1 is refused: CertificateUntrustedRoot \(24\)\n  [^\n]+ name a "
                    r"trusted authority with --ca FILE\n\Z"
                ),
            ),
            (
                other,
                ("--ca", self.authority),
                (
                    r"\Atwsock: the certificate of 127\.0\.0\.1 is refused: "
                    r"CertificateCommonNameIsIncorrect \(25\)\n  InvalidName: it is for "
                    r"other\.example; write one of these names in the URI, or set it with "
                    r"--name HOST\n\Z"
                ),
            ),
        ):
            with websockets_server(echo_all, issued) as uri:
                result = run("echo", uri, "a", *words)
            self.assertRegex(result.stderr.decode(), pattern, f"{words=}")
            self.assertEqual(result.returncode, 1, f"{words=}")
            self.assertEqual(result.stdout, b"client is trying to connect...\n", f"{words=}")

    def test_a_close_code_is_one_line(self) -> None:
        """With the reason of the server."""

        def handle(connection: ServerConnection) -> None:
            connection.recv()
            connection.close(1008, "not today")

        with websockets_server(handle) as uri:
            result = run("echo", uri, "a")
        self.assertEqual(
            result.stderr.decode(),
            'twsock: the server closed the WebSocket: 1008 (policy violation), "not today"\n',
        )
        self.assertEqual(result.returncode, 1)

    def test_a_server_learns_what_it_broke(self) -> None:
        """The close code of the client arrives."""
        codes: queue.Queue[int | None] = queue.Queue()

        def handle(connection: ServerConnection) -> None:
            with contextlib.suppress(ConnectionClosed):
                for message in connection:
                    connection.send(message * 2)
            codes.put(connection.close_code)

        with websockets_server(handle) as uri:
            for words, code in (((), 1001), (("--max-frame", "8"), 1009)):
                self.assertEqual(run("echo", uri, "Hello", *words).returncode, 1, f"{code=}")
                self.assertEqual(codes.get(timeout=PATIENCE), code)

    def test_ctrl_c_closes_the_websocket_and_exits_with_130(self) -> None:
        """The server sees the code 1000, and no reset."""
        codes: list[int | None] = []
        ended = threading.Event()

        def handle(connection: ServerConnection) -> None:
            echo_all(connection)
            codes.append(connection.close_code)
            ended.set()

        with (
            websockets_server(handle) as uri,
            running_command("echo", uri, "a", "--interval", "60", "--count", "2") as running,
        ):
            process, output, errors = running
            self.assertTrue(any(line.startswith(b"client received") for line in output))
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(), 130)
            self.assertTrue(ended.wait(PATIENCE))
            self.assertEqual(errors.read(), b"")
        self.assertEqual(codes, [1000])


class ProcessTests(SynchronousTestCase):
    """Whole runs against our service, and against servers without WebSockets."""

    def test_the_service_echoes(self) -> None:
        """Both types; a request for another host, from another origin or path is refused."""
        listen = ("--endpoint", "tcp:0:interface=127.0.0.1", "--path", "/echo")
        with twistd("twsock-websocket", *listen) as service:
            uri = f"ws://127.0.0.1:{service.wait_for_ports()[0]}/echo"
            for options in ([], ["--binary"]):
                result = run("echo", uri, "Hello", *options)
                self.assertEqual((result.stderr, result.returncode), (b"", 0), f"{options=}")
                self.assertEqual(result.stdout.decode().splitlines(), FIVE_LINES, f"{options=}")
            for target, words, status in (
                (uri, ("--header", "Host: example.com"), "421 Misdirected Request; it does not"),
                (uri, ("--header", "Origin: https://example.com"), "403 Forbidden; the server"),
                (f"{uri}/other", (), "404 Not Found; there is no WebSocket at /echo/other"),
            ):
                result = run("echo", target, "Hello", *words)
                self.assertRegex(
                    result.stderr.decode(),
                    rf"\Atwsock: the server refused the WebSocket: {status}[^\n]*\n\Z",
                )
                self.assertEqual(result.returncode, 1, f"{words=}")

    def test_a_server_without_tls_is_named(self) -> None:
        """It answers ``wss`` with something else."""

        def handle(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(b"220 hello\r\n")

        with serve(handle) as endpoint:
            uri = endpoint.replace("tcp:", "wss://")
            result = run("echo", uri, "a")
        self.assertRegex(
            result.stderr.decode(), r"\Atwsock: TLS failed: [^\n]+did not answer with TLS\n\Z"
        )
        self.assertEqual(result.returncode, 1)

    def test_a_refused_connection_is_one_line(self) -> None:
        """As for the other echoes."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        result = run("echo", f"ws://127.0.0.1:{port}/", "a")
        self.assertRegex(
            result.stderr.decode(),
            r"\Atwsock: connect failed: ConnectionRefused \(12\): [^\n]+\n\Z",
        )
        self.assertEqual(result.returncode, 1)

    def test_bad_usage_loads_no_reactor_of_its_own(self) -> None:
        """A wrong option ends before Twisted is imported, and a new process runs the five lines."""
        program = (
            "import sys; from twsock.cli import main\n"
            "try:\n    main(['echo', 'ws://h/', 'a', '--tls'])\n"
            "except SystemExit as ended:\n"
            "    print(ended.code, 'twisted' in sys.modules, 'h11' in sys.modules)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            timeout=PATIENCE,
            check=True,
            env=environment(),
        )
        self.assertEqual(result.stdout, b"2 False False\n")
        self.assertIn(b"--tls is not for WebSockets", result.stderr)

    def test_a_process_of_its_own_prints_the_five_lines(self) -> None:
        """Without anything that was imported before."""
        with twistd("twsock-websocket", "-e", "tcp:0:interface=127.0.0.1") as service:
            result = subprocess.run(
                command("echo", f"ws://127.0.0.1:{service.wait_for_ports()[0]}/", "Hello"),
                capture_output=True,
                timeout=PATIENCE,
                check=True,
                env=environment(),
            )
        self.assertEqual(result.stdout.decode().splitlines(), FIVE_LINES)
        self.assertEqual(result.stderr, b"")
