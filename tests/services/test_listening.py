"""Endpoint strings become endpoints, and failures become one line."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.listening import (
    default_endpoints,
    describe_failure,
    describe_port,
    parse_server_endpoint,
)


class FakePort:
    """A port that has an address."""

    def __init__(self, host: object) -> None:
        self.host = host

    def getHost(self) -> Any:
        return self.host


class ListeningTests(SynchronousTestCase):
    """Between options and ports."""

    def test_defaults_are_loopback_only(self) -> None:
        """No other machine is served unless the user asks for it."""
        endpoints = default_endpoints(1337)
        self.assertEqual(endpoints[0], "tcp:1337:interface=127.0.0.1")
        self.assertIn(endpoints[1:], ([], ["tcp:1337:interface=\\:\\:1"]))

    def test_a_string_becomes_an_endpoint(self) -> None:
        """Twisted's own parser reads it."""
        endpoint = parse_server_endpoint(MemoryReactorClock(), "tcp:1")
        self.assertIsInstance(endpoint, TCP4ServerEndpoint)

    def test_what_is_no_endpoint_is_named_with_an_example(self) -> None:
        """Whatever Twisted's parsers raise, the user gets one line with the text and a way out."""
        for description in (
            "",
            "tcp",
            "tcp:port",
            "pigeon:1",
            "tcp:1:colour=red",
            "ssl:1:x=/no",
            "tcp:1\\",
        ):
            error = self.assertRaises(
                ValueError, parse_server_endpoint, MemoryReactorClock(), description
            )
            self.assertIn(repr(description), str(error))
            self.assertIn("tcp:1337:interface=127.0.0.1", str(error))
            self.assertNotIn("\n", str(error))

    def test_ports_are_described_as_what_a_client_connects_to(self) -> None:
        """The address can be pasted behind ``twsock echo``."""
        for host, described in [
            (IPv4Address("TCP", "127.0.0.1", 5), "tcp:127.0.0.1:5"),
            (IPv6Address("TCP", "::1", 5), "tcp:\\:\\:1:5"),
            (UNIXAddress(b"/run/x"), "unix:/run/x"),
        ]:
            port: Any = FakePort(host)
            self.assertEqual(describe_port(port), described)

    def test_a_failure_names_endpoint_and_status(self) -> None:
        """The line has the string, the status and what the system said."""
        error = CannotListenError("127.0.0.1", 5, OSError(errno.EADDRINUSE, "Address in use"))
        line = describe_failure("tcp:5", error)
        self.assertIn("cannot listen on tcp:5: AddressAlreadyInUse (10): ", line)
