"""The ENDPOINT argument becomes an endpoint of Twisted, or one line."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.endpoints import (
    GroupTarget,
    PeerTarget,
    check_size,
    find_host,
    name_address,
    parse_endpoint,
    parse_target,
    parse_uri,
)
from twsock.cli.output import UsageError
from twsock.datagram.network.interfaces import find_interface
from twsock.names import HostName


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
            self.assertIsInstance(endpoint, HostnameEndpoint, f"{description=}")
            self.assertEqual(repr(endpoint), f"<HostnameEndpoint {shown}>", f"{description=}")

    def test_any_client_endpoint_string_is_taken(self) -> None:
        """What is not a plain host and port is Twisted's to read."""
        self.assertIsInstance(parse("unix:/run/echo.sock"), UNIXClientEndpoint)
        self.assertIsInstance(parse("unix:path=/run/echo.sock:timeout=3"), UNIXClientEndpoint)
        for description in (
            "tcp:127.0.0.1:1:timeout=3",
            "tls:example.com:443",
        ):
            self.assertTrue(IStreamClientEndpoint.providedBy(parse(description)), description)

    def test_anything_else_is_bad_usage(self) -> None:
        """The line names the string and the reason, in the words of the command line."""
        for description, reason in (
            ("udp:127.0.0.1:1337", "unknown endpoint type: 'udp'"),
            ("multicast:224.3.0.5:22113", "unknown endpoint type: 'multicast'"),
            ("localhost", "unknown endpoint type: 'localhost'"),
            ("", "it does not begin with a kind"),
            ("tcp:127.0.0.1", "the port is missing"),
            ("tcp:::1:1337", "too many arguments: '1'"),
            ("tcp:h:1:speed=3", "an argument is missing, or not known"),
            ("tcp:h\\", "it ends with a backslash"),
            ("ssl:h:1:certKey=/nonexistent", "[Errno 2] No such file or directory"),
            ("tcp::1337", "the host is missing"),
            ("tcp:[]:1337", "the host is missing"),
            ("tcp:h:http", "the port is a number, 1 to 65535, not 'http'"),
            ("tcp:h:0", "the port is a number, 1 to 65535, not '0'"),
            ("tcp:h:65536", "the port is a number, 1 to 65535, not '65536'"),
            ("tcp:h:-1", "the port is a number, 1 to 65535, not '-1'"),
            ("unix:", "a path has 1 to 107 bytes, not 0"),
            ("unix:/" + "a" * 200, "a path has 1 to 107 bytes, not 201"),
        ):
            error = self.assertRaises(UsageError, parse, description)
            self.assertIn(
                f"cannot use the endpoint {description!r}: {reason}",
                error.line,
                f"{description=}, {reason=}: {error.line}",
            )
            self.assertNotIn("\n", error.line, f"{description=}: {error.line!r}")


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
            self.assertEqual(find_host(description), host, f"{description=}")
            self.assertTrue(IStreamClientEndpoint.providedBy(parse(description)), description)

    def test_no_other_endpoint_has_one(self) -> None:
        """A path names nobody, and what a plugin means only the plugin knows."""
        for description in ("unix:/run/echo.sock", "unix:path=h", "onion:h:1"):
            self.assertIsNone(find_host(description), f"{description=}")


class TargetTests(SynchronousTestCase):
    """Strings that name a peer or a group, and strings that don't."""

    def test_a_peer_has_a_host_and_a_port(self) -> None:
        """Names and addresses, IPv6 in brackets or with its colons escaped."""
        for description, target in (
            ("udp:127.0.0.1:1337", PeerTarget(HostName("127.0.0.1"), 1337)),
            ("UDP:localhost:1", PeerTarget(HostName("localhost"), 1)),
            ("udp:[::1]:65535", PeerTarget(HostName("::1"), 65535)),
            (r"udp:\:\:1:1337", PeerTarget(HostName("::1"), 1337)),
            ("udp:[fe80::1%eth0]:1337", PeerTarget(HostName("fe80::1%eth0"), 1337)),
            ("udp:host=h:port=1337", PeerTarget(HostName("h"), 1337)),
        ):
            self.assertEqual(parse_target(description), target, f"{description=}")

    def test_a_group_stays_on_this_machine_unless_told_otherwise(self) -> None:
        """By the loopback interface, and one hop far."""
        lo = find_interface("lo")
        for description, target in (
            ("multicast:224.3.0.5:22113", GroupTarget("224.3.0.5", 22113, lo, 1)),
            ("multicast:224.3.0.5:22113:lo:7", GroupTarget("224.3.0.5", 22113, lo, 7)),
            (
                f"multicast:[ff15::1]:22113:ttl=0:interface={lo.index}",
                GroupTarget("ff15::1", 22113, lo, 0),
            ),
            ("multicast:[ff15::1%lo]:22113", GroupTarget("ff15::1", 22113, lo, 1)),
            ("multicast:[ff15::1%lo]:22113:lo", GroupTarget("ff15::1", 22113, lo, 1)),
            (
                "multicast:224.3.0.5:22113:interface=127.0.0.1:ttl=255",
                GroupTarget("224.3.0.5", 22113, lo, 255),
            ),
        ):
            self.assertEqual(parse_target(description), target, f"{description=}")

    def test_anything_else_is_bad_usage(self) -> None:
        """The line names the string and the reason."""
        for description, reason in (
            ("udp:127.0.0.1", "the port is missing"),
            ("udp:", "the port is missing"),
            ("udp", "the host is missing"),
            ("udp::1337", "the host is missing"),
            ("udp:h:0", "the port is a number, 1 to 65535, not '0'"),
            ("udp:h:echo", "the port is a number, 1 to 65535, not 'echo'"),
            ("udp:h:65536", "the port is a number, 1 to 65535, not '65536'"),
            ("udp:h:1:2", "too many arguments: '2'"),
            ("udp:h:1:interface=lo", "unknown argument 'interface'"),
            ("udp:h:1:port=1", "'port' is given twice"),
            ("udp:h:1\\", "it ends with a backslash"),
            ("udp:[::1:1", "the bracket of"),
            ("udp:224.3.0.5:22113", "224.3.0.5 is a group: use multicast:224.3.0.5:22113"),
            ("udp:[ff15::1]:22113", "ff15::1 is a group: use multicast:[ff15::1]:22113"),
            ("multicast:127.0.0.1:1", "'127.0.0.1' is not a multicast address"),
            ("multicast:localhost:1", "'localhost' is not a multicast address"),
            ("multicast:224.3.0.5:1:ttl=256", "the ttl is a number, 0 to 255, not '256'"),
            ("multicast:224.3.0.5:1:interface=no such", "there is no interface 'no such'"),
        ):
            error = self.assertRaises(UsageError, parse_target, description)
            self.assertIn(
                f"cannot use the endpoint {description!r}: {reason}",
                error.line,
                f"{description=}, {reason=}: {error.line}",
            )
            self.assertRegex(error.line, r"; give one such as \S+\Z", f"{description=}")
            self.assertNotIn("\n", error.line, f"{description=}: {error.line!r}")


class AddressTests(SynchronousTestCase):
    """What is said of addresses, and how much they carry."""

    def test_addresses_are_written_as_in_endpoints(self) -> None:
        """IPv6 ones in brackets, with their zones."""
        self.assertEqual(name_address("192.0.2.1", 7), "192.0.2.1:7")
        self.assertEqual(name_address("fe80::1%eth0", 7), "[fe80::1%eth0]:7")

    def test_each_family_has_its_limit(self) -> None:
        """The header of IPv4 counts in its 65,535 bytes."""
        for address, largest in (("127.0.0.1", 65_507), ("::1", 65_527)):
            check_size(b"a" * largest, address)
            error = self.assertRaises(UsageError, check_size, b"a" * (largest + 1), address)
            self.assertIn(
                f"a TEXT has {largest + 1} bytes",
                error.line,
                f"{address=}: {error.line}",
            )
            self.assertIn(f"has at most {largest}", error.line, f"{address=}: {error.line}")


class UriTests(SynchronousTestCase):
    """The URI of a WebSocket."""

    def test_its_parts_are_read(self) -> None:
        """Host, port and target; the scheme decides on TLS and on the port."""
        uri = parse_uri("wss://[::1]/a?b=c")
        self.assertEqual((uri.host, uri.port), (HostName("::1"), 443))
        self.assertEqual((uri.is_secure, uri.target), (True, "/a?b=c"))

    def test_anything_else_is_bad_usage(self) -> None:
        """The line has the reason and an example."""
        error = self.assertRaises(UsageError, parse_uri, "http://h/")
        self.assertEqual(
            error.line,
            "cannot use the endpoint 'http://h/': the scheme of a WebSocket URI is ws or wss, "
            "not http; give one such as ws://127.0.0.1:1338/",
        )
