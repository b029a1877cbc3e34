"""Hosts and services become addresses with ports, best first."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers, lists
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, fail, succeed
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
    IResolver,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.error import DNSNameError, DNSQueryRefusedError
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from typing_extensions import override
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twsock.errors import SocketError, SocketErrorStatus
from twsock.names import HostName
from twsock.sockets.resolving import RemoteAddress, find_port, interleave, resolve

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
A6, B6 = "2001:db8::1", "2001:db8::2"


def at(host: str, port: int = 80) -> RemoteAddress:
    """Return the address of a host."""
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


@implementer(IHostResolution)
class FakeResolution:
    """A pending lookup; records whether it was cancelled."""

    is_cancelled = False

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        self.is_cancelled = True
        # As Twisted's own does (26.10).
        raise NotImplementedError


@implementer(IHostnameResolver)
class FakeNameResolver:
    """Finds some hosts, never finishes the lookup of others, and finds nothing for the rest."""

    def __init__(self) -> None:
        self.hosts: dict[str, list[str]] = {}
        self.slow: dict[str, FakeResolution] = {}
        self.scope = 0
        self.asked: list[tuple[str, object, str]] = []
        self.receivers: list[IResolutionReceiver] = []

    def resolveHostName(
        self,
        receiver: IResolutionReceiver,
        name: str,
        port: int = 0,
        types: Sequence[type[IAddress]] | None = None,
        semantics: str = "TCP",
    ) -> IHostResolution:
        self.asked.append((name, types, semantics))
        self.receivers.append(receiver)
        resolution = self.slow.get(name) or FakeResolution(name)
        receiver.resolutionBegan(resolution)
        for host in self.hosts.get(name, []):
            found = at(host, port)
            if self.scope:
                found = IPv6Address("TCP", host, port, scopeID=self.scope)
            receiver.addressResolved(found)
        if name not in self.slow:
            receiver.resolutionComplete()
        return resolution


Answer = tuple[list[dns.RRHeader], list[dns.RRHeader], list[dns.RRHeader]]


class FakeServiceResolver(ResolverBase):
    """Returns one answer for every lookup of a service."""

    def __init__(self, answer: Deferred[Answer]) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[str] = []

    @override
    def lookupService(self, name: str, timeout: Sequence[int] | None = None) -> Deferred[Answer]:
        self.asked.append(name)
        return self.answer


def record(target: str, port: int = 80, priority: int = 0, weight: int = 0) -> dns.RRHeader:
    """Return an SRV record."""
    payload = dns.Record_SRV(priority, weight, port, target.encode())
    return dns.RRHeader(b"_x._tcp.example.com", dns.SRV, payload=payload)


def answering(*records: dns.RRHeader) -> FakeServiceResolver:
    return FakeServiceResolver(succeed((list(records), [], [])))


class PortTests(SynchronousTestCase):
    """Services that need no DNS."""

    def test_a_number_is_a_port(self) -> None:
        """From 0 to 65535; leading zeros are ignored."""
        ports = {text: find_port(text) for text in ("0", "80", "65535", "00000000080")}
        self.assertEqual(ports, {"0": 0, "80": 80, "65535": 65535, "00000000080": 80})

    def test_a_number_above_65535_is_refused(self) -> None:
        """A port has 16 bits. The message is short for a number of any length."""
        for text in ("65536", "99999", "9" * 100_000):
            with self.assertRaises(ValueError) as caught:
                find_port(text)
            self.assertLess(len(str(caught.exception)), 100, text)

    def test_a_name_is_looked_up_in_the_services_file(self) -> None:
        """For TCP by default."""
        try:
            expected = socket.getservbyname("domain", "tcp")
        except OSError:
            raise SkipTest("no services file") from None
        self.assertEqual((find_port("domain"), find_port("domain", "udp")), (expected, expected))

    def test_an_unknown_name_has_no_port(self) -> None:
        """It may be that of an SRV record; so may text that only resembles a number."""
        for text in ("no-such-service", "name._sub", "-1", "80 ", "+80", "8_0", "٨٠"):
            self.assertIsNone(find_port(text), text)


class ResolvingTestCase(SynchronousTestCase):
    """Looks up hosts with a resolver made for the test."""

    def setUp(self) -> None:
        self.names = FakeNameResolver()
        self.reactor = MemoryReactorClock()
        self.reactor.installNameResolver(self.names)

    def look_up(
        self, host: str, service: str = "80", resolver: Any = None
    ) -> Deferred[list[RemoteAddress]]:
        return ensureDeferred(resolve(self.reactor, HostName(host), service, resolver))

    def assert_status(
        self, looking: Deferred[list[RemoteAddress]], status: SocketErrorStatus
    ) -> SocketError:
        error = self.failureResultOf(looking, SocketError).value
        assert isinstance(error, SocketError)
        self.assertIs(error.status, status, f"{error.status}: {error}")
        return error


class HostTests(ResolvingTestCase):
    """A host and a port number."""

    def test_the_fake_resolver_provides_the_interface(self) -> None:
        """It has all methods of Twisted's resolver."""
        verifyObject(IHostnameResolver, self.names)
        verifyObject(IHostResolution, FakeResolution("example.com"))

    def test_an_address_is_not_looked_up(self) -> None:
        """A literal is its own result, in canonical form, with its zone."""
        for literal, host in ((A, A), ("2001:DB8::1", A6), ("fe80::1%eth0", "fe80::1%eth0")):
            self.assertEqual(
                self.successResultOf(self.look_up(literal)), [at(host)], (literal, host)
            )
        self.assertEqual(self.names.asked, [])

    def test_a_name_is_looked_up_for_both_families(self) -> None:
        """The reactor's resolver gets the canonical name, and is asked for TCP."""
        self.names.hosts["example.com"] = [A]
        self.successResultOf(self.look_up("Example.COM."))
        self.assertEqual(self.names.asked, [("example.com", [IPv4Address, IPv6Address], "TCP")])

    def test_addresses_keep_the_order_of_the_resolver(self) -> None:
        """All addresses are returned, with the port."""
        self.names.hosts["example.com"] = [A6, A, B6, B]
        found = self.successResultOf(self.look_up("example.com", "443"))
        self.assertEqual(found, [at(host, 443) for host in (A6, A, B6, B)])

    def test_a_name_without_addresses_is_not_found(self) -> None:
        """The error has the display name of the host."""
        looking = self.look_up("xn--bcher-kva.example")
        error = self.assert_status(looking, SocketErrorStatus.HOST_NOT_FOUND)
        self.assertIn("bücher.example", str(error))

    def test_a_link_local_address_keeps_its_interface(self) -> None:
        """The host gets the zone, since Twisted's endpoints use the host only."""
        self.names.hosts["printer"] = ["fe80::1"]
        self.names.scope = socket.if_nametoindex("lo")
        self.assertEqual(self.successResultOf(self.look_up("printer")), [at("fe80::1%lo")])

    def test_a_zone_is_not_added_twice(self) -> None:
        """An address that has a zone is not changed."""
        self.names.hosts["printer"] = ["fe80::1%eth0"]
        self.names.scope = 2
        (found,) = self.successResultOf(self.look_up("printer"))
        self.assertEqual(found.host, "fe80::1%eth0")

    def test_a_bluetooth_address_cannot_be_resolved(self) -> None:
        """Only IP is supported."""
        looking = self.look_up("(01:23:45:67:89:AB)")
        self.assert_status(looking, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)

    def test_cancelling_cancels_the_resolution(self) -> None:
        """The resolver does not continue."""
        resolution = self.names.slow["example.com"] = FakeResolution("example.com")
        looking = self.look_up("example.com")
        self.assertNoResult(looking)
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.assertTrue(resolution.is_cancelled)

    def test_late_results_of_a_cancelled_resolution_are_dropped(self) -> None:
        """Twisted's resolver cannot be cancelled; its late results cause no error."""
        self.names.slow["example.com"] = FakeResolution("example.com")
        self.names.hosts["example.com"] = [A]
        looking = self.look_up("example.com")
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        (receiver,) = self.names.receivers
        receiver.addressResolved(at(A, 80))
        receiver.resolutionComplete()


class ServiceTests(ResolvingTestCase):
    """Services with SRV records."""

    def setUp(self) -> None:
        super().setUp()
        self.names.hosts = {"a.example": [A], "b.example": [B], "c.example": [C, A6]}

    def test_the_fake_client_provides_the_interface(self) -> None:
        """It has all methods of a DNS client."""
        verifyObject(IResolver, answering())

    def test_the_name_of_the_query_is_made_of_service_and_host(self) -> None:
        """The first label gets an underscore; further labels are given with theirs."""
        for service, name in (
            ("x", "_x._tcp.example.com"),
            ("name._sub", "_name._sub._tcp.example.com"),
        ):
            resolver = answering(record("a.example"))
            self.successResultOf(self.look_up("EXAMPLE.com", service, resolver))
            self.assertEqual(resolver.asked, [name], (service, name))

    def test_a_known_port_asks_no_dns_server(self) -> None:
        """A number is not looked up as a service."""
        resolver = answering(record("b.example"))
        found = self.successResultOf(self.look_up("a.example", "81", resolver))
        self.assertEqual((found, resolver.asked), ([at(A, 81)], []))

    def test_each_target_has_a_port_of_its_own(self) -> None:
        """Addresses of one service may have different ports."""
        resolver = answering(record("a.example", 1001, 1), record("c.example", 1002, 2))
        found = self.successResultOf(self.look_up("example.com", "x", resolver))
        self.assertEqual(found, [at(A, 1001), at(C, 1002), at(A6, 1002)])

    def test_the_lowest_priority_comes_first(self) -> None:
        """Whatever the order of the records."""
        resolver = answering(record("b.example", priority=20), record("a.example", priority=10))
        found = self.successResultOf(self.look_up("example.com", "x", resolver))
        self.assertEqual(found, [at(A), at(B)])

    def test_other_records_are_ignored(self) -> None:
        """An answer may contain the alias of the queried name."""
        alias = dns.RRHeader(b"_x._tcp.example.com", dns.CNAME, payload=dns.Record_CNAME(b"y"))
        looking = self.look_up("example.com", "x", answering(alias, record("a.example")))
        self.assertEqual(self.successResultOf(looking), [at(A)])

    def test_a_target_that_is_the_root_means_no_service(self) -> None:
        """With it, a host states that it does not offer the service (RFC 2782)."""
        for root in (".", ""):
            looking = self.look_up("example.com", "x", answering(record(root)))
            error = self.assert_status(looking, SocketErrorStatus.CLASS_TYPE_NOT_FOUND)
            self.assertIn("_x._tcp.example.com", str(error), root)

    def test_an_answer_without_records_means_no_service(self) -> None:
        """The name may have other records."""
        looking = self.look_up("example.com", "x", answering())
        self.assert_status(looking, SocketErrorStatus.CLASS_TYPE_NOT_FOUND)

    def test_an_unknown_name_means_no_service(self) -> None:
        """NXDOMAIN is the cause of the error."""
        looking = self.look_up("example.com", "x", FakeServiceResolver(fail(DNSNameError())))
        error = self.assert_status(looking, SocketErrorStatus.CLASS_TYPE_NOT_FOUND)
        self.assertIsInstance(error.__cause__, DNSNameError)

    def test_a_server_that_does_not_answer_is_a_timeout(self) -> None:
        """The error names the query."""
        looking = self.look_up("example.com", "x", FakeServiceResolver(fail(ConnectTimeout())))
        error = self.assert_status(looking, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertIn("_x._tcp.example.com", str(error))

    def test_any_other_failure_of_the_lookup_is_reported(self) -> None:
        """A server that refuses, for example, has no status of its own; the cause says more."""
        refusal = DNSQueryRefusedError()
        looking = self.look_up("example.com", "x", FakeServiceResolver(fail(refusal)))
        error = self.assert_status(looking, SocketErrorStatus.UNKNOWN)
        self.assertIs(error.__cause__, refusal)

    def test_a_target_that_is_unknown_is_skipped(self) -> None:
        """Other targets are still used."""
        resolver = answering(record("gone.example", priority=1), record("b.example", priority=2))
        looking = self.look_up("example.com", "x", resolver)
        self.assertEqual(self.successResultOf(looking), [at(B)])

    def test_targets_that_are_all_unknown_are_not_found(self) -> None:
        """The service exists, but its hosts do not."""
        looking = self.look_up("example.com", "x", answering(record("gone.example")))
        self.assert_status(looking, SocketErrorStatus.HOST_NOT_FOUND)

    def test_an_address_has_no_services_by_name(self) -> None:
        """There is no name to query."""
        for literal in (A, A6):
            resolver = answering(record("a.example"))
            looking = self.look_up(literal, "no-such-service", resolver)
            self.assert_status(looking, SocketErrorStatus.CLASS_TYPE_NOT_FOUND)
            self.assertEqual(resolver.asked, [], literal)

    def test_a_malformed_target_is_left_out(self) -> None:
        """The well-formed targets beside it are used."""
        for bad in ("bad name.example", "-x.example", "a..example", "10.1"):
            found = self.look_up(
                "example.com", "x", answering(record(bad), record("a.example", priority=1))
            )
            self.assertEqual(
                self.successResultOf(found), [at(self.names.hosts["a.example"][0])], bad
            )
            none = self.look_up("example.com", "x", answering(record(bad)))
            error = self.failureResultOf(none, SocketError).value
            self.assertIs(error.status, SocketErrorStatus.CLASS_TYPE_NOT_FOUND, bad)

    def test_cancelling_cancels_the_query(self) -> None:
        """The DNS client does not continue."""
        cancelled: list[object] = []
        looking = self.look_up("example.com", "x", FakeServiceResolver(Deferred(cancelled.append)))
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.assertEqual(len(cancelled), 1)

    def test_cancelling_cancels_the_resolution_of_a_target(self) -> None:
        """No further target is looked up."""
        resolution = self.names.slow["slow.example"] = FakeResolution("slow.example")
        resolver = answering(record("slow.example", priority=1), record("b.example", priority=2))
        looking = self.look_up("example.com", "x", resolver)
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.assertTrue(resolution.is_cancelled)


class FakeUDPPort:
    """A UDP socket in memory."""

    is_listening = True

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []

    def write(self, datagram: bytes, address: tuple[str, int]) -> None:
        self.sent.append((datagram, address))

    def stopListening(self) -> None:
        self.is_listening = False


class DatagramReactor(MemoryReactorClock):
    """Opens UDP sockets in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[tuple[FakeUDPPort, Any]] = []

    def listenUDP(self, _port: int, protocol: Any, **_: object) -> FakeUDPPort:  # noqa: N802 - Twisted's
        port = FakeUDPPort()
        protocol.makeConnection(port)
        self.ports.append((port, protocol))
        return port


class DefaultClientTests(ResolvingTestCase):
    """Without a resolver argument, a lookup queries the DNS servers of this machine."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor: DatagramReactor = DatagramReactor()
        self.reactor.installNameResolver(self.names)
        self.names.hosts["a.example"] = [A]

    def test_the_query_is_one_for_srv_records(self) -> None:
        """It goes to the port of DNS."""
        self.look_up("example.com", "x")
        datagram, (_host, port) = self.reactor.ports[0][0].sent[0]
        query = dns.Message()
        query.fromStr(datagram)
        self.assertEqual(port, 53)
        self.assertEqual(query.queries, [dns.Query(b"_x._tcp.example.com", dns.SRV)])

    def test_the_targets_of_the_answer_are_resolved(self) -> None:
        """The socket of the query is closed."""
        looking = self.look_up("example.com", "x")
        port, protocol = self.reactor.ports[0]
        datagram, server = port.sent[0]
        message = dns.Message()
        message.fromStr(datagram)
        message.answer, message.answers = 1, [record("a.example", 81)]
        protocol.datagramReceived(message.toStr(), server)
        self.assertEqual(self.successResultOf(looking), [at(A, 81)])
        self.assertFalse(port.is_listening)

    def test_servers_that_do_not_answer_end_the_lookup(self) -> None:
        """Each is queried a few times; then nothing stays open."""
        looking = self.look_up("example.com", "x")
        while self.reactor.getDelayedCalls():
            self.reactor.advance(1)
        self.assert_status(looking, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.assertFalse(any(port.is_listening for port, _ in self.reactor.ports))


class InterleaveTests(SynchronousTestCase):
    """Alternating between the address families."""

    def test_the_first_family_comes_first(self) -> None:
        """Each family keeps its order; the longer one has its remaining addresses at the end."""
        for given_hosts, expected in (
            ([A6, B6, A, B], [A6, A, B6, B]),
            ([A, B, C, A6], [A, A6, B, C]),
            ([A, A6, B6], [A, A6, B6]),
        ):
            found = interleave([at(host) for host in given_hosts])
            self.assertEqual([address.host for address in found], expected, (given_hosts, expected))

    def test_one_family_keeps_its_order(self) -> None:
        """An empty list stays empty."""
        self.assertEqual(interleave([at(A), at(B)]), [at(A), at(B)])
        self.assertEqual(interleave([]), [])

    @given(lists(integers(0, 1)))
    def test_any_mixture_is_a_permutation(self, kinds: list[int]) -> None:
        """No address is lost or repeated."""
        addresses = [at(A6 if kind else A, port) for port, kind in enumerate(kinds)]
        mixed = interleave(addresses)
        self.assertEqual(sorted(mixed, key=lambda each: each.port), addresses)
