"""Endpoint strings of streams, with twsock's defaults for what they do not say."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis.strategies import sampled_from, text
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from twsock.errors import SocketErrorStatus
from twsock.ip.address_errors import EndpointError
from twsock.services.stream_endpoints import (
    DEFAULT_BACKLOG,
    StreamEndpointSettings,
    parse_server_endpoint,
)

#: The longest queue that Linux allows, unless an administrator changed it.
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


class ParsingTests(SynchronousTestCase):
    """Strings."""

    def parse(self, description: str, **settings: Any) -> Any:
        """Parse a string."""
        return parse_server_endpoint(
            MemoryReactorClock(), description, StreamEndpointSettings(**settings)
        )

    def listen(self, description: str, **settings: Any) -> Any:
        """Listen in memory; return the arguments that the reactor received."""
        memory = MemoryReactorClock()
        endpoint = parse_server_endpoint(
            memory, description, StreamEndpointSettings(**settings) if settings else None
        )
        self.successResultOf(endpoint.listen(Factory()))
        servers: list[Any] = [*memory.tcpServers, *memory.unixServers]
        (asked,) = servers
        return asked

    def test_a_string_becomes_an_endpoint(self) -> None:
        """Twisted's own parser makes it."""
        self.assertIsInstance(self.parse("tcp:1"), TCP4ServerEndpoint)

    def test_the_backlog_is_twsocks_unless_the_string_has_one(self) -> None:
        """By name or by position, for every kind of endpoint that has a backlog."""
        for description, backlog in (
            ("tcp:1", DEFAULT_BACKLOG),
            ("tcp:1:interface=127.0.0.1", DEFAULT_BACKLOG),
            ("tcp:1:127.0.0.1:60", 60),
            ("tcp:1:backlog=60", 60),
            ("tcp6:1", DEFAULT_BACKLOG),
            ("tcp6:1:60", 60),
            ("TCP:port=1", DEFAULT_BACKLOG),
        ):
            _, _, asked, _ = self.listen(description)
            self.assertEqual(asked, backlog, description)
        self.assertEqual(self.listen("tcp:1", backlog=7)[2], 7)
        for description, backlog in (("unix:/x", DEFAULT_BACKLOG), ("unix:/x:600:60", 60)):
            self.assertEqual(self.listen(description)[2], backlog, f"{description=}")

    def test_the_mode_is_twsocks_unless_the_string_has_one(self) -> None:
        """It is octal."""
        for description, mode in (
            ("unix:/x", 0o660),
            ("unix:/x:600", 0o600),
            ("unix:/x:mode=666:lockfile=0", 0o666),
        ):
            self.assertEqual(self.listen(description)[3], mode, f"{description=}")
        self.assertEqual(self.listen("unix:/x", socket_mode=0o606)[3], 0o606)

    def test_other_settings_reach_twisted_unchanged(self) -> None:
        """Colons, brackets and equal signs included."""
        self.assertEqual(self.listen("tcp:1:interface=\\:\\:1")[3], "::1")
        self.assertEqual(self.listen("tcp:1:interface=[::1]")[3], "::1")
        self.assertEqual(self.listen("unix:/a\\:b\\=c")[0], "/a:b=c")

    def test_a_mistake_has_one_plain_line_and_a_status(self) -> None:
        """The line has the string, the mistake and an example."""
        status = SocketErrorStatus
        for description, words, expected in (
            ("tcp:abc", "not 'abc'", status.CLASS_TYPE_NOT_FOUND),
            ("tcp:65536", "not '65536'", status.CLASS_TYPE_NOT_FOUND),
            ("tcp6:-1", "not '-1'", status.CLASS_TYPE_NOT_FOUND),
            (f"tcp:{'9' * 5000}", "a port is", status.CLASS_TYPE_NOT_FOUND),
            ("tcp:\u0661", "a port is", status.CLASS_TYPE_NOT_FOUND),
            ("ssl:x", "a port is", status.CLASS_TYPE_NOT_FOUND),
            ("tls:/x:y", "a port is", status.CLASS_TYPE_NOT_FOUND),
            ("pigeon:1", "pigeon", status.SOCKET_TYPE_NOT_SUPPORTED),
            ("udp:1", "run twsock-datagram", status.SOCKET_TYPE_NOT_SUPPORTED),
            ("multicast:224.3.0.5:1", "run twsock-multicast", status.SOCKET_TYPE_NOT_SUPPORTED),
            ("ssl:1:privateKey=/no/key", "/no/key", status.CERTIFICATE_IS_INVALID),
            ("tls:/no/folder:1", "/no/folder", status.CERTIFICATE_IS_INVALID),
            ("systemd:INET:0", "LISTEN_FDS", status.CANNOT_ASSIGN_REQUESTED_ADDRESS),
        ):
            error: Any = self.assertRaises(ValueError, self.parse, description)
            self.assertIs(error.status, expected, description)
            self.assertIn(words, str(error), f"{description=}: {error}")
            self.assertIn(
                f"cannot use the endpoint {description!r}: ", str(error), f"{description=}: {error}"
            )
            for foreign in ("\n", "int()", "Traceback", "argument is missing"):
                self.assertNotIn(foreign, str(error), f"{description=}, {foreign=}: {error}")

    def test_a_malformed_string_is_refused_with_an_example(self) -> None:
        """The error is one line that names the mistake."""
        for description, words in (
            ("", "begin with a kind"),
            ("tcp", "the port is missing"),
            ("tcp:", "the port is missing"),
            ("unix:", "the path is missing"),
            ("tcp:1\\", "backslash"),
            ("tcp:1:colour=red", "there is no colour= for tcp, which takes port, interface"),
            ("tcp:1:127.0.0.1:interface=::1", "interface"),
            ("tcp:1:127.0.0.1:50:60", "too many arguments; it takes port, interface, backlog"),
            ("tcp:1:backlog=many", "backlog is a number"),
            ("tcp:1:backlog=0", "backlog is a number"),
            ("unix:/x:mode=9", "a mode is an octal number"),
            ("unix:/x:mode=1777", "a mode is an octal number"),
        ):
            error = self.assertRaises(ValueError, self.parse, description)
            self.assertIn(words, str(error), f"{description=}: {error}")
            self.assertIn("tcp:1337:interface=127.0.0.1", str(error), f"{description=}: {error}")
            self.assertNotIn("\n", str(error), f"{description=}: {error}")

    @given(sampled_from(["tcp", "tcp6", "unix", "systemd", "ssl", "tls", "stdio", ""]), text())
    def test_any_text_is_an_endpoint_or_one_line(self, kind: str, words: str) -> None:
        """No other exception escapes."""
        try:
            self.parse(f"{kind}:{words}")
        except EndpointError as error:
            self.assertNotIn("\n", str(error))


class BacklogTests(TestCase):
    """The kernel's queue of connections that were not accepted."""

    def setUp(self) -> None:
        if int(_SOMAXCONN.read_text()) < 200:
            raise SkipTest("net.core.somaxconn is the smaller limit, so there is nothing to see")

    async def test_200_peers_connect_before_any_is_accepted(self) -> None:
        """Twisted's own backlog has room for 50."""
        paths = (f"unix:{self.mktemp()}", "tcp:0:interface=127.0.0.1")
        for description in paths:
            endpoint = parse_server_endpoint(reactor, description)
            port: Any = await endpoint.listen(Factory.forProtocol(Protocol))
            self.addCleanup(port.stopListening)
            where = port.socket.getsockname()
            # The reactor does not run meanwhile: this function waits for nothing.
            for _ in range(200):
                peer = socket.socket(port.socket.family)
                self.addCleanup(peer.close)
                peer.settimeout(60)
                peer.connect(where)
