"""The ENDPOINT argument becomes an endpoint of Twisted, or one line."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.endpoint import find_host, parse_endpoint
from twsock.cli.failure import UsageError


def parse(description: str) -> IStreamClientEndpoint:
    return parse_endpoint(reactor, description, 10.0)


class EndpointTests(SynchronousTestCase):
    """Strings that name one, and strings that don't."""

    def test_a_host_and_a_port_try_every_address(self) -> None:
        """Names and addresses go to the endpoint that knows IPv6 and IPv4."""
        for description, shown in (
            ("tcp:localhost:1337", "localhost:1337"),
            ("TCP:127.0.0.1:1", "127.0.0.1:1"),
            ("tcp:[::1]:65535", "[::1]:65535"),
            (r"tcp:\:\:1:1337", "[::1]:1337"),
            ("tcp:my_service:1", "my_service:1"),
        ):
            endpoint = parse(description)
            self.assertIsInstance(endpoint, HostnameEndpoint)
            self.assertEqual(repr(endpoint), f"<HostnameEndpoint {shown}>")

    def test_any_client_endpoint_string_is_taken(self) -> None:
        """What is not a plain host and port is Twisted's to read."""
        self.assertIsInstance(parse("unix:/run/echo.sock"), UNIXClientEndpoint)
        self.assertIsInstance(parse("unix:path=/run/echo.sock:timeout=3"), UNIXClientEndpoint)
        for description in (
            "tcp:host=h:port=1",
            "tcp:127.0.0.1:1:timeout=3",
            "tls:example.com:443",
        ):
            self.assertTrue(IStreamClientEndpoint.providedBy(parse(description)), description)

    def test_anything_else_is_bad_usage(self) -> None:
        """The line names the string and the reason, in the words of the command line."""
        for description, reason in (
            ("udp:127.0.0.1:1337", "unknown endpoint type: 'udp'"),
            ("multicast:224.3.0.5:22113", "unknown endpoint type: 'multicast'"),
            ("localhost:1337", "unknown endpoint type: 'localhost'"),
            ("", "unknown endpoint type: ''"),
            ("tcp:127.0.0.1", "an argument is missing, or not known"),
            ("tcp:::1:1337", "an argument is missing, or not known"),
            ("tcp:h:1:speed=3", "an argument is missing, or not known"),
            ("tcp:h\\", "it ends with a backslash"),
            ("ssl:h:1:certKey=/nonexistent", "[Errno 2] No such file or directory"),
            ("tcp::1337", "the host is missing"),
            ("tcp:[]:1337", "the host is missing"),
            ("tcp:h:http", "the port is a number, 1 to 65535, not 'http'"),
            ("tcp:h:0", "the port is a number, 1 to 65535, not '0'"),
            ("tcp:h:65536", "the port is a number, 1 to 65535, not '65536'"),
            ("tcp:h:-1", "the port is a number, 1 to 65535, not '-1'"),
            ("unix:", "the path has 0 bytes"),
            ("unix:/" + "a" * 200, "the path has 201 bytes"),
        ):
            error = self.assertRaises(UsageError, parse, description)
            self.assertIn(f"cannot use the endpoint {description!r}: {reason}", error.line)
            self.assertNotIn("\n", error.line)


class HostTests(SynchronousTestCase):
    """Whom an endpoint string leads to."""

    def test_a_tcp_endpoint_has_a_host(self) -> None:
        """However it is written."""
        for description, host in (
            ("tcp:localhost:1337", "localhost"),
            ("TCP:127.0.0.1:1", "127.0.0.1"),
            ("tcp:[::1]:1", "::1"),
            (r"tcp:\:\:1:1337", "::1"),
            ("tcp:h:1:timeout=3", "h"),
            ("tcp:host=h:port=1", "h"),
            ("tcp:port=1:host=h", "h"),
            (r"tcp:port=1:host=\:\:1", "::1"),
        ):
            self.assertEqual(find_host(description), host)
            self.assertTrue(IStreamClientEndpoint.providedBy(parse(description)), description)

    def test_no_other_endpoint_has_one(self) -> None:
        """A path names nobody, and what a plugin means only the plugin knows."""
        for description in ("unix:/run/echo.sock", "unix:path=h", "onion:h:1"):
            self.assertIsNone(find_host(description))
