"""A listener opens its ports through its reactor."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from twsock import SocketError, SocketErrorStatus, StreamSocket, StreamSocketListener
from twsock.sockets.stream.ports import BACKLOG


class Divided(MemoryReactorClock):
    """
    A reactor whose machine keeps the families apart: ``::`` serves IPv6 alone.

    :ivar taken: addresses at which the next attempts find the port taken.
    :ivar lacking: the errno with which IPv6 is refused; 0 where it is there.
    """

    def __init__(self, lacking: int = 0) -> None:
        super().__init__()
        self.taken: list[str] = []
        self.lacking = lacking
        self.listening: list[tuple[int, str]] = []
        self.numbers = iter(range(1000, 2000))

    @override
    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        number = self.lacking if ":" in interface else 0
        if interface in self.taken:
            self.taken.remove(interface)
            number = errno.EADDRINUSE
        if number:
            raise CannotListenError(interface, port, OSError(number, os.strerror(number)))
        return _Port(self, port or next(self.numbers), interface)


class _Port:
    """One port of such a machine; it is also the socket."""

    def __init__(self, reactor: Divided, number: int, interface: str) -> None:
        self.socket = self
        self._where = (number, interface)
        self._listening = reactor.listening
        self._listening.append(self._where)

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return 1

    def getHost(self) -> IPv6Address:
        return IPv6Address("TCP", self._where[1], self._where[0])

    def stopListening(self) -> Deferred[None]:
        self._listening.remove(self._where)
        return succeed(None)


class ListeningTests(SynchronousTestCase):
    """The reactor opens every port."""

    def test_a_reactor_in_memory_records_the_ports(self) -> None:
        """One address, or all of both families, with the backlog; no socket is opened."""
        for host, interface in (("127.0.0.1", "127.0.0.1"), ("::1", "::1"), (None, "::")):
            reactor = MemoryReactorClock()
            listener = StreamSocketListener(reactor)
            self.successResultOf(listener.bind_endpoint(host, 1337))
            [(port, _, backlog, where)] = reactor.tcpServers
            self.assertEqual((port, backlog, where), (1337, BACKLOG, interface), (host, interface))
            self.assertEqual(reactor.adoptedPorts, [], (host, interface))
            self.assertEqual(reactor.readers, set(), (host, interface))
            self.assertEqual(listener.information.local_port, "1337", (host, interface))
            self.successResultOf(listener.close())

    def test_connections_of_a_reactor_in_memory_reach_handlers(self) -> None:
        """As those of other reactors."""
        reactor = MemoryReactorClock()
        listener = StreamSocketListener(reactor)
        taken: list[StreamSocket] = []
        listener.connection_received.add(lambda _, args: taken.append(args.socket))
        self.successResultOf(listener.bind_service_name(1337))
        factory: Any = reactor.tcpServers[0][1]
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(b"Hello")
        received = taken[0].input_stream.receive_some()
        self.assertEqual(self.successResultOf(received), b"Hello")


class DividedTests(SynchronousTestCase):
    """A system on which one socket does not serve both families."""

    def bind(self, reactor: Divided, service: str = "") -> Deferred[None]:
        return StreamSocketListener(reactor).bind_service_name(service)

    def test_two_ports_serve_both_families(self) -> None:
        """With the same number."""
        reactor = Divided()
        self.successResultOf(self.bind(reactor))
        self.assertEqual(reactor.listening, [(1000, "::"), (1000, "0.0.0.0")])

    def test_a_number_that_is_taken_in_one_family_is_not_used(self) -> None:
        """The next number that is free in both is."""
        reactor = Divided()
        reactor.taken = ["0.0.0.0"] * 2
        self.successResultOf(self.bind(reactor))
        self.assertEqual(reactor.listening, [(1002, "::"), (1002, "0.0.0.0")])

    def test_the_search_for_a_number_ends(self) -> None:
        """Then no port is open."""
        reactor = Divided()
        reactor.taken = ["0.0.0.0"] * 100
        self.assert_taken(self.bind(reactor))
        self.assertEqual(reactor.listening, [])

    def test_a_given_number_is_not_changed(self) -> None:
        """The call fails, and the first port is closed."""
        reactor = Divided()
        reactor.taken = ["0.0.0.0"]
        self.assert_taken(self.bind(reactor, "1337"))
        self.assertEqual(reactor.listening, [])

    def test_without_ipv6_ipv4_is_served(self) -> None:
        """For each error with which a system reports it; other errors are raised."""
        for number in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            reactor = Divided(lacking=number)
            self.successResultOf(self.bind(reactor))
            self.assertEqual(reactor.listening, [(1000, "0.0.0.0")], number)
        refused = self.bind(Divided(lacking=errno.EACCES))
        status = self.failureResultOf(refused, SocketError).value.status
        self.assertNotEqual(status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)

    def assert_taken(self, binding: Deferred[None]) -> None:
        status = self.failureResultOf(binding, SocketError).value.status
        self.assertIs(status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
