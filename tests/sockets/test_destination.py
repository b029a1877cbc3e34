"""Hosts and services of a call are checked before any lookup."""

from __future__ import annotations

import socket

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from twsock import EndpointPair, HostName
from twsock.sockets.destination import local_binding, make_pair

REMOTE = HostName("example.com")


class PairTests(SynchronousTestCase):
    """A host and a service, or an endpoint pair."""

    def test_a_host_is_text_or_a_host_name(self) -> None:
        """Both give the same pair, without a local end."""
        for host in ("example.com", REMOTE):
            pair = make_pair(host, "http")
            self.assertEqual(pair.remote_host_name, REMOTE, host)
            self.assertEqual(pair.remote_service_name, "http", host)
            self.assertEqual((pair.local_host_name, pair.local_service_name), (None, ""), host)

    def test_a_service_may_be_a_number(self) -> None:
        """0 as well."""
        self.assertEqual(make_pair("example.com", 1337).remote_service_name, "1337")
        self.assertEqual(make_pair("example.com", 0).remote_service_name, "0")

    def test_a_pair_is_used_unchanged(self) -> None:
        """It has a service of its own."""
        pair = EndpointPair(None, "", REMOTE, "80")
        self.assertIs(make_pair(pair, None), pair)
        self.assertRaises(ValueError, make_pair, pair, "80")

    def test_a_missing_host_or_service_is_refused(self) -> None:
        """Both are needed."""
        for host, service in (("", "80"), ("example.com", None), ("example.com", "")):
            self.assertRaises(ValueError, make_pair, host, service)

    def test_a_negative_port_is_refused(self) -> None:
        """Otherwise it would count as the name of a service."""
        error = self.assertRaises(ValueError, make_pair, "example.com", -1)
        self.assertIn("-1", str(error))

    def test_a_malformed_name_is_refused(self) -> None:
        """At the call."""
        self.assertRaises(ValueError, make_pair, "exa mple", "80")


class LocalBindingTests(SynchronousTestCase):
    """The local end of a pair."""

    def local(self, host: str | None, service: str, protocol: str = "tcp") -> object:
        name = None if host is None else HostName(host)
        return local_binding(EndpointPair(name, service, REMOTE, "80"), protocol)

    def test_a_pair_without_a_local_end_has_no_binding(self) -> None:
        """Nor has one with port 0."""
        self.assertIsNone(self.local(None, ""))
        self.assertIsNone(self.local(None, "0"))

    def test_a_local_end_has_an_address_a_port_or_both(self) -> None:
        """The system chooses the other."""
        self.assertEqual(self.local("127.0.0.1", ""), ("127.0.0.1", 0))
        self.assertEqual(self.local("::1", "1336"), ("::1", 1336))
        self.assertEqual(self.local(None, "1336"), ("", 1336))

    def test_a_name_is_no_local_address(self) -> None:
        """It is not looked up."""
        self.assertRaises(ValueError, self.local, "localhost", "")

    def test_an_unknown_service_is_refused(self) -> None:
        """So is an invalid port."""
        self.assertRaises(ValueError, self.local, None, "no-such-service")
        self.assertRaises(ValueError, self.local, None, "65536")

    def test_a_service_is_looked_up_for_its_protocol(self) -> None:
        """Trivial file transfer is a service of UDP only."""
        try:
            port = socket.getservbyname("tftp", "udp")
        except OSError:
            raise SkipTest("the services file of this machine has no tftp") from None
        self.assertEqual(self.local(None, "tftp", "udp"), ("", port))
