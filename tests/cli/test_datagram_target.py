"""The ENDPOINT argument of datagrams becomes whom to send to, or one line."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.datagram_target import (
    GroupTarget,
    PeerTarget,
    is_datagram_endpoint,
    parse_target,
)
from twsock.cli.failure import UsageError
from twsock.datagram.network.interfaces import find_interface


class TargetTests(SynchronousTestCase):
    """Strings that name a peer or a group, and strings that don't."""

    def test_a_peer_has_a_host_and_a_port(self) -> None:
        """Names and addresses, IPv6 in brackets or with its colons escaped."""
        for description, target in (
            ("udp:127.0.0.1:1337", PeerTarget("127.0.0.1", 1337)),
            ("UDP:localhost:1", PeerTarget("localhost", 1)),
            ("udp:[::1]:65535", PeerTarget("::1", 65535)),
            (r"udp:\:\:1:1337", PeerTarget("::1", 1337)),
            ("udp:[fe80::1%eth0]:1337", PeerTarget("fe80::1%eth0", 1337)),
            ("udp:host=h:port=1337", PeerTarget("h", 1337)),
        ):
            self.assertTrue(is_datagram_endpoint(description))
            self.assertEqual(parse_target(description), target)

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
            self.assertTrue(is_datagram_endpoint(description))
            self.assertEqual(parse_target(description), target)

    def test_other_endpoints_are_not_for_datagrams(self) -> None:
        """They are somebody else's to read."""
        for description in ("tcp:h:1", "unix:/udp", "udp6:h:1", "", "u"):
            self.assertFalse(is_datagram_endpoint(description))

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
            ("udp:h:1:2", "there is no place for '2'"),
            ("udp:h:1:interface=lo", "there is no 'interface' in it"),
            ("udp:h:1:port=1", "'port' is given twice"),
            ("udp:h:1\\", "it ends with a backslash"),
            ("udp:[::1:1", "the bracket of"),
            ("udp:224.3.0.5:22113", "224.3.0.5 is a group: multicast:224.3.0.5:22113"),
            ("udp:[ff15::1]:22113", "ff15::1 is a group: multicast:[ff15::1]:22113"),
            ("multicast:127.0.0.1:1", "'127.0.0.1' is not a multicast address"),
            ("multicast:localhost:1", "'localhost' is not a multicast address"),
            ("multicast:224.3.0.5:1:ttl=256", "the ttl is a number, 0 to 255, not '256'"),
            ("multicast:224.3.0.5:1:interface=no such", "there is no interface 'no such'"),
        ):
            error = self.assertRaises(UsageError, parse_target, description)
            self.assertIn(f"cannot use the endpoint {description!r}: {reason}", error.line)
            self.assertRegex(error.line, r"; give one such as \S+\Z")
            self.assertNotIn("\n", error.line)
