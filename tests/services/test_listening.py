"""Services listen on their endpoints; a failure becomes one line."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.datagram.fake_ports import log_lines
from twsock.datagram.endpoint import IDatagramEndpoint
from twsock.protocols import DatagramProtocol
from twsock.services.datagram_listening import DatagramListeningService
from twsock.services.listening import (
    default_endpoints,
    describe_failure,
    describe_port,
)
from twsock.services.listening_sockets import ListeningSockets, SocketName


class FakePort:
    """A port that has an address."""

    def __init__(self, host: object) -> None:
        self.host = host

    def getHost(self) -> Any:
        return self.host


class ListeningTests(SynchronousTestCase):
    """Endpoint strings, addresses and failures in words."""

    def test_the_default_endpoints_are_loopback_only(self) -> None:
        """Other machines are served only if the user says so."""
        endpoints = default_endpoints(1337)
        self.assertEqual(endpoints[0], "tcp:1337:interface=127.0.0.1")
        self.assertIn(endpoints[1:], ([], ["tcp:1337:interface=\\:\\:1"]))
        of_datagrams = [text.replace("tcp:", "udp:") for text in endpoints]
        self.assertEqual(default_endpoints(1337, "udp"), of_datagrams)

    def test_a_port_is_described_by_the_string_that_a_client_connects_to(self) -> None:
        """The string can be pasted behind ``twsock echo``."""
        for host, described in [
            (IPv4Address("TCP", "127.0.0.1", 5), "tcp:127.0.0.1:5"),
            (IPv6Address("TCP", "::1", 5), "tcp:\\:\\:1:5"),
            (IPv4Address("UDP", "127.0.0.1", 5), "udp:127.0.0.1:5"),
            (IPv6Address("UDP", "::", 5), "udp:\\:\\::5"),
            (
                IPv6Address("TCP", "fe80::1", 8, 0, socket.if_nametoindex("lo")),
                "tcp:fe80\\:\\:1%lo:8",
            ),
            (UNIXAddress(b"/run/x"), "unix:/run/x"),
        ]:
            port: Any = FakePort(host)
            self.assertEqual(describe_port(port), described, f"{described=}")

    def test_a_failure_has_the_endpoint_and_the_status(self) -> None:
        """The line has the string, the status and the system's message."""
        error = CannotListenError("127.0.0.1", 5, OSError(errno.EADDRINUSE, "Address in use"))
        line = describe_failure("tcp:5", error)
        self.assertIn("cannot listen on tcp:5: AddressAlreadyInUse (10): ", line)


@implementer(IDatagramEndpoint)
class LateEndpoint:
    """An endpoint that listens when its Deferred fires."""

    def __init__(self) -> None:
        self.listening: Deferred[Any] = Deferred()

    def listen(self, protocol: Any) -> Deferred[Any]:
        return self.listening


class ClosingPort(FakePort):
    """A port that records that it was closed."""

    is_open = True
    unsent = 0

    def stopListening(self) -> None:
        self.is_open = False


@dataclass
class Seen:
    """The counters of the service."""

    sheep_of_others: int = 3


class CountingService(DatagramListeningService[DatagramProtocol]):
    """A service that counts."""

    def count(self) -> Seen:
        return Seen()


class ListeningServiceTests(SynchronousTestCase):
    """What all datagram services share."""

    def setUp(self) -> None:
        self.endpoint = LateEndpoint()
        self.reactor = MemoryReactorClock()
        self.service = CountingService(self.reactor, [("late:1", self.endpoint)], DatagramProtocol)
        self.port = ClosingPort(IPv4Address("UDP", "127.0.0.1", 5))
        self.service.startService()
        self.addCleanup(lambda: self.service.running and self.service.stopService())

    def test_a_port_is_logged_when_the_reactor_runs(self) -> None:
        """With the endpoint string that it was made from."""
        with log_lines() as lines:
            self.endpoint.listening.callback(self.port)
            self.assertEqual(lines, [])
            self.reactor.run()
        self.assertEqual(lines, ["listening on udp:127.0.0.1:5 (late:1)"])
        self.assertEqual(self.service.ports, (self.port,))

    def test_an_endpoint_that_fails_late_is_logged(self) -> None:
        """The process runs already, so the failure is one line of its log."""
        with log_lines() as lines:
            self.endpoint.listening.errback(OSError(errno.EADDRINUSE, "Address in use"))
        (line,) = lines
        self.assertIn("cannot listen on late:1: AddressAlreadyInUse (10)", line)

    def test_a_port_whose_socket_is_not_kept_is_known(self) -> None:
        """Its endpoint opened the socket without our reactor."""
        table = ListeningSockets()
        self.addCleanup(table.close)
        self.endpoint.listening.callback(self.port)
        self.assertEqual(self.service.unkept_endpoints(table), ["late:1"])
        kept = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        kept.bind(("127.0.0.1", 0))
        table.inherit([(SocketName("udp", "127.0.0.1"), kept)])
        self.port.host = IPv4Address("UDP", *kept.getsockname())
        self.assertEqual(self.service.unkept_endpoints(table), [])

    def test_a_port_that_opens_after_the_stop_is_closed(self) -> None:
        """The service does not use it any more."""
        self.successResultOf(self.service.stopService())
        self.endpoint.listening.callback(self.port)
        self.assertFalse(self.port.is_open)
        self.assertEqual(self.service.ports, ())
        self.assertEqual(self.service.opened, ())

    def test_an_endpoint_that_fails_at_once_stops_the_start(self) -> None:
        """The service does not start, and no other port stays open."""
        first, second = LateEndpoint(), LateEndpoint()
        first.listening.callback(self.port)
        second.listening.errback(OSError(errno.EADDRINUSE, "Address in use"))
        endpoints = [("late:1", first), ("late:2", second)]
        service = CountingService(self.reactor, endpoints, DatagramProtocol)
        error = self.assertRaises(SystemExit, service.startService)
        self.assertIn("cannot listen on late:2", str(error))
        self.assertFalse(self.port.is_open)
        self.assertEqual(service.ports, ())

    def test_a_stop_closes_the_ports_and_logs_the_counts(self) -> None:
        """The line has each count of the service with its name."""
        self.endpoint.listening.callback(self.port)
        with log_lines() as lines:
            self.successResultOf(self.service.stopService())
        self.assertFalse(self.port.is_open)
        self.assertEqual(lines, ["stopped: 3 sheep of others"])

    def test_a_drain_waits_for_unsent_datagrams(self) -> None:
        """Another process has the port, and this one ends after that."""
        self.endpoint.listening.callback(self.port)
        self.successResultOf(Deferred.fromCoroutine(self.service.drain_rest()))
        self.port.unsent = 9
        draining = Deferred.fromCoroutine(self.service.drain_rest())
        self.reactor.pump([0.01] * 3)
        self.assertNoResult(draining)
        self.port.unsent = 0
        self.reactor.advance(0.01)
        self.successResultOf(draining)

    def test_a_drain_ends_without_the_network(self) -> None:
        """Five seconds at most; one line says that datagrams are lost."""
        self.endpoint.listening.callback(self.port)
        self.port.unsent = 9
        draining = Deferred.fromCoroutine(self.service.drain_rest())
        with log_lines() as lines:
            self.reactor.pump([0.01] * 499)
            self.assertNoResult(draining)
            self.reactor.advance(0.01)
        self.successResultOf(draining)
        self.assertEqual(lines, ["the kernel did not take all queued datagrams in time"])
