"""Ports of a keeping reactor use the sockets of a table; inherited options are set again."""

from __future__ import annotations

import os
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import interfaces, reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from typing_extensions import override
from zope.interface.verify import verifyObject

from tests.tls.peer import SERVER, twisted_options
from twsock.datagram.endpoint import datagram_endpoint_from_string
from twsock.datagram.udp_socket import IReactorGroupSockets
from twsock.errors import SocketError, SocketErrorStatus
from twsock.protocols import DatagramEcho, FrameEchoFactory, MulticastEcho
from twsock.services.keeping_reactor import BindingReactor, KeepingReactor, plain_reactor
from twsock.services.listening_sockets import ListeningSockets, SocketName
from twsock.services.stream_endpoints import parse_server_endpoint
from twsock.stream.listening.unix_endpoint import IReactorUnixSockets


def option(of: socket.socket, level: int, name: int) -> int:
    """Return the value of a socket option."""
    return of.getsockopt(level, name)


class KeepingReactorTestCase(TestCase):
    """Two processes in one: the second has the sockets of the first."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "echo.sock"
        self.sockets = self.make_table()
        self.keeping = KeepingReactor(reactor, self.sockets)
        self.before = self.count_descriptors()

    def make_table(self) -> ListeningSockets:
        table = ListeningSockets()
        self.addCleanup(table.close)
        return table

    def count_descriptors(self) -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def next_process(self, *, shares_ports: bool = False) -> KeepingReactor:
        """Make the reactor of a process that has duplicates of all sockets."""
        table = self.make_table()
        table.inherit((name, each.dup()) for name, each in self.sockets.held())
        return KeepingReactor(reactor, table, shares_ports=shares_ports)

    async def listen(self, text: str, keeping: KeepingReactor | None = None) -> Any:
        """Listen on a stream endpoint until the end of the test."""
        endpoint = parse_server_endpoint(keeping or self.keeping, text)
        port: Any = await endpoint.listen(Factory.forProtocol(Protocol))
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def listen_datagrams(self, text: str, keeping: KeepingReactor | None = None) -> Any:
        """Listen on a datagram endpoint until the end of the test."""
        protocol: Any = MulticastEcho(reactor) if text.startswith("multicast") else DatagramEcho()
        endpoint = datagram_endpoint_from_string(keeping or self.keeping, text)
        port: Any = await endpoint.listen(protocol)
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    def names(self) -> list[str]:
        """Return the names of the table, as text."""
        return [str(name) for name, _ in self.sockets.held()]


class StreamTests(KeepingReactorTestCase):
    """Stream endpoints."""

    def test_it_provides_what_its_reactor_provides(self) -> None:
        """And forwards everything else."""
        for interface in (interfaces.IReactorTCP, interfaces.IReactorSSL, interfaces.IReactorUNIX):
            self.assertTrue(interface.providedBy(self.keeping), f"{interface=}")
        verifyObject(IReactorUnixSockets, self.keeping)
        verifyObject(IReactorGroupSockets, self.keeping)
        self.assertIs(self.keeping.threadpool, reactor.threadpool)  # type: ignore[attr-defined]
        self.assertIs(plain_reactor(self.keeping), reactor)
        self.assertIs(plain_reactor(reactor), reactor)

    async def test_every_kind_of_endpoint_is_kept(self) -> None:
        """Also with TLS or a PROXY header in front, or of IPv6."""
        for text, name in (
            ("tcp:0:interface=127.0.0.1", "tcp:127.0.0.1:0"),
            ("tcp:0:interface=\\:\\:1", "tcp:[::1]:0"),
            ("haproxy:tcp:0:interface=127.0.0.1", "tcp:127.0.0.1:0"),
            (f"unix:{self.path}", f"unix:{self.path}"),
            (f"haproxy:unix:{self.path}", f"unix:{self.path}"),
        ):
            port = await self.listen(text)
            self.assertEqual(self.names(), [name], text)
            self.assertTrue(self.keeping.keeps(port), text)
            await port.stopListening()
            self.assertEqual(self.names(), [], text)
        self.assertFalse(self.path.exists())

    async def test_tls_is_kept(self) -> None:
        """The endpoint ends in ``listenSSL``."""
        context = twisted_options(SERVER.private_key_and_cert_chain_pem.bytes())
        factory = Factory.forProtocol(Protocol)
        port: Any = self.keeping.listenSSL(0, factory, context, 50, "127.0.0.1")
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.assertEqual(self.names(), ["tcp:127.0.0.1:0"])

    async def test_an_endpoint_that_opens_its_socket_itself_is_known(self) -> None:
        """Workers cannot share it."""
        endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
        port: Any = await endpoint.listen(Factory.forProtocol(Protocol))
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.assertFalse(self.keeping.keeps(port))

    async def test_the_next_process_has_the_same_port(self) -> None:
        """Also a port that the system chose; the stop of the first leaves it open."""
        for text in ("tcp:0:interface=127.0.0.1", "tcp:0:interface=\\:\\:1", "tcp:0"):
            first = await self.listen(text)
            second = await self.listen(text, self.next_process())
            self.assertEqual(first.getHost(), second.getHost(), text)
            await first.stopListening()
            address = second.getHost()
            with socket.create_connection((address.host, address.port), timeout=10):
                pass
            await second.stopListening()

    async def test_all_descriptors_are_closed(self) -> None:
        """Of the port and of the table."""
        await (await self.listen("tcp:0:interface=127.0.0.1")).stopListening()  # Twisted's reserve.
        before = self.count_descriptors()
        for text in ("tcp:0:interface=127.0.0.1", f"unix:{self.path}"):
            port = await self.listen(text)
            second = await self.listen(text, self.next_process())
            await second.stopListening()
            await port.stopListening()
        for text in ("udp:0:interface=127.0.0.1", "multicast:224.3.0.5:0"):
            datagrams = await self.listen_datagrams(text)
            await datagrams.stopListening()
        self.assertEqual(self.count_descriptors(), before)

    async def test_a_failure_leaves_nothing(self) -> None:
        """Neither a descriptor nor an entry."""
        port = await self.listen("tcp:0:interface=127.0.0.1")
        number = port.getHost().port
        before = self.count_descriptors()
        with self.assertRaises(CannotListenError):
            await self.listen(f"tcp:{number}:interface=127.0.0.1")
        self.assertEqual(self.count_descriptors(), before)
        self.assertEqual(self.names(), ["tcp:127.0.0.1:0"])

    def test_a_factory_that_cannot_start_leaves_nothing(self) -> None:
        """The error is that of the factory."""

        class Failing(Factory):
            @override
            def startFactory(self) -> None:
                raise ZeroDivisionError

        for listen in (
            lambda: self.keeping.listenTCP(0, Failing(), 50, "127.0.0.1"),
            lambda: self.keeping.listenUNIX(str(self.path), Failing()),
        ):
            self.assertRaises(ZeroDivisionError, listen)
            self.assertEqual(self.names(), [])
            self.assertFalse(self.path.exists())

    async def test_a_port_may_be_opened_again_at_once(self) -> None:
        """Connections of the process before may still be in TIME_WAIT."""
        port = await self.listen("tcp:0:interface=127.0.0.1")
        self.assertEqual(option(port.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR), 1)

    async def test_a_path_can_be_removed_before_its_port_closes(self) -> None:
        """A process that cannot start ends before the reactor could close the port."""
        port = await self.listen(f"unix:{self.path}")
        port.remove_path()
        self.assertFalse(self.path.exists())

    async def test_the_backlog_is_set_again(self) -> None:
        """It is that of the shared socket."""
        port = await self.listen("tcp:0:interface=127.0.0.1:backlog=1")
        self.assertEqual(_backlog_of(port.socket), 1)
        await self.listen("tcp:0:interface=127.0.0.1:backlog=64", self.next_process())
        self.assertEqual(_backlog_of(port.socket), 64)

    async def test_the_path_gets_the_new_mode(self) -> None:
        """Also while the first process still listens there."""
        await self.listen(f"unix:{self.path}:mode=600")
        await self.listen(f"unix:{self.path}:mode=606", self.next_process())
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o606)

    async def test_a_failed_process_leaves_no_options(self) -> None:
        """The first process sets its own again."""
        port = await self.listen("tcp:0:interface=127.0.0.1:backlog=7")
        await self.listen(f"unix:{self.path}:mode=600")
        keeping = self.next_process()
        await self.listen("tcp:0:interface=127.0.0.1:backlog=64", keeping)
        await self.listen(f"unix:{self.path}:mode=606", keeping)
        self.sockets.renew()
        self.assertEqual(_backlog_of(port.socket), 7)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    async def test_the_path_is_removed_by_its_last_owner(self) -> None:
        """The first process gives it away."""
        first = await self.listen(f"unix:{self.path}")
        keeping = self.next_process()
        second = await self.listen(f"unix:{self.path}", keeping)
        self.sockets.owns_paths = False
        keeping.sockets.owns_paths = True
        await first.stopListening()
        self.assertTrue(self.path.exists())
        await second.stopListening()
        self.assertFalse(self.path.exists())

    async def test_a_socket_with_another_fixed_option_is_refused(self) -> None:
        """SO_REUSEPORT has to be set before the bind."""
        await self.listen("tcp:0:interface=127.0.0.1")
        keeping = self.next_process(shares_ports=True)
        with self.assertRaises(SocketError) as caught:
            await self.listen("tcp:0:interface=127.0.0.1", keeping)
        self.assertEqual(
            str(caught.exception),
            "the socket of the running process has SO_REUSEPORT 0 instead of 1, which cannot be "
            "changed: stop that process first",
        )
        self.assertEqual(keeping.sockets.held(), [])

    async def test_a_socket_of_another_address_is_refused(self) -> None:
        """The record of the other process is wrong."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            for name, words in (
                (SocketName("tcp", "127.0.0.1", 1), "is bound to 127.0.0.1 port"),
                (SocketName("tcp", "127.0.0.2", 0), "is bound to 127.0.0.1 port"),
                (SocketName("tcp", "::1", 0), "is of another family or type"),
            ):
                table = self.make_table()
                table.inherit([(name, other.dup())])
                keeping = KeepingReactor(reactor, table)
                interface = name.address.replace(":", "\\:")
                with self.assertRaises(SocketError) as caught:
                    await self.listen(f"tcp:{name.port}:interface={interface}", keeping)
                self.assertIn(words, str(caught.exception))
                self.assertIs(caught.exception.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)

    async def test_abstract_names_are_kept(self) -> None:
        """They have no path."""
        name = f"\0twsock-test-{os.getpid()}"
        port = self.keeping.listenUNIX(name, Factory.forProtocol(Protocol))
        self.assertEqual(self.names(), [f"unix:@{name[1:]}"])
        self.assertTrue(self.keeping.keeps(port))
        await maybeDeferred(port.stopListening)

    async def test_an_adopted_socket_is_kept(self) -> None:
        """The caller still owns its descriptor."""
        with socket.socket() as made:
            made.bind(("127.0.0.1", 0))
            made.listen()
            factory = Factory.forProtocol(Protocol)
            port = self.keeping.adoptStreamPort(made.fileno(), socket.AF_INET, factory)
            self.assertEqual(self.names(), ["adopted::0"])
            self.assertTrue(self.keeping.keeps(port))
            await maybeDeferred(port.stopListening)
            self.assertEqual(made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), 1)

    async def test_a_replaced_process_accepts_nothing_at_its_end(self) -> None:
        """The connection waits for the other process."""
        factory = FrameEchoFactory(reactor)
        endpoint = parse_server_endpoint(self.keeping, "tcp:0:interface=127.0.0.1")
        port: Any = await factory.listen(endpoint)
        ((_, other),) = self.next_process().sockets.held()
        self.sockets.owns_paths = False
        with socket.socket() as peer:
            peer.connect(("127.0.0.1", port.getHost().port))
            await port.stopListening()
            self.assertEqual(len(factory.group), 0)
            other.settimeout(10)
            other.accept()[0].close()

    async def test_a_stop_accepts_what_is_queued(self) -> None:
        """A client that has connected gets its answer."""
        factory = FrameEchoFactory(reactor)
        endpoint = parse_server_endpoint(self.keeping, "tcp:0:interface=127.0.0.1")
        port: Any = await factory.listen(endpoint)
        with socket.socket() as peer:
            peer.settimeout(10)
            peer.connect(("127.0.0.1", port.getHost().port))
            peer.sendall(b"\0\0\0\1x")
            await port.stopListening()
            self.assertEqual(self.names(), [])
            draining = factory.drain(10)
            await _turns()
            self.assertEqual(peer.recv(10), b"\0\0\0\1x")
            peer.close()
            self.assertEqual(await draining, 0)


class DatagramTests(KeepingReactorTestCase):
    """UDP ports and groups."""

    async def test_a_port_is_kept(self) -> None:
        """Its name is that of the endpoint."""
        port = await self.listen_datagrams("udp:0:interface=127.0.0.1")
        self.assertEqual(self.names(), ["udp:127.0.0.1:0"])
        self.assertTrue(self.keeping.keeps(port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(10)
            peer.sendto(b"x", ("127.0.0.1", port.getHost().port))
            await _turns()
            self.assertEqual(peer.recv(10), b"x")

    async def test_a_group_has_its_name(self) -> None:
        """So that the memberships of the socket are those of its endpoint."""
        await self.listen_datagrams("multicast:224.3.0.5:0")
        await self.listen_datagrams("multicast:232.3.0.5:0:source=127.0.0.1")
        names = ["udp:224.3.0.5%lo:0", "udp:232.3.0.5%lo,127.0.0.1:0"]
        self.assertEqual(self.names(), names)

    async def test_a_group_that_was_joined_before_stays_joined(self) -> None:
        """The socket is shared, so the kernel refuses the second join."""
        await self.listen_datagrams("multicast:224.3.0.5:0")
        port = await self.listen_datagrams("multicast:224.3.0.5:0", self.next_process())
        self.assertEqual([each.group for each in port.memberships], ["224.3.0.5"])

    async def changed(self, level: int, name: int, first: str, second: str) -> tuple[int, int]:
        """Listen with an option, then in the next process without it; return both values."""
        port = await self.listen_datagrams(first)
        before = option(self.sockets.held()[-1][1], level, name)
        keeping = self.next_process()
        again = await self.listen_datagrams(second, keeping)
        after = option(keeping.sockets.held()[-1][1], level, name)
        await again.stopListening()
        await port.stopListening()
        return before, after

    async def test_options_are_set_again(self) -> None:
        """To other values, and to the defaults when the string has none any more."""
        fresh = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(fresh.close)
        received = option(fresh, socket.SOL_SOCKET, socket.SO_RCVBUF)
        sent = option(fresh, socket.SOL_SOCKET, socket.SO_SNDBUF)
        v4, v6 = "udp:0:interface=127.0.0.1", "udp:0:interface=[::1]"
        group, group6 = "multicast:224.3.0.5:0", "multicast:[ff15::1]:0"
        ip, ipv6, general = socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.SOL_SOCKET
        for kind, text, level, name, with_it, without in (
            (v4, "receiveBuffer=100000", general, socket.SO_RCVBUF, 200_000, received),
            (v4, "sendBuffer=90000", general, socket.SO_SNDBUF, 180_000, sent),
            (v4, "ttl=7", ip, socket.IP_TTL, 7, 128),
            (v6, "ttl=7", ipv6, socket.IPV6_UNICAST_HOPS, 7, 128),
            (v4, "dontFragment=yes", ip, _IP_MTU_DISCOVER, 2, 0),
            (v6, "dontFragment=yes", ipv6, _IPV6_MTU_DISCOVER, 2, 0),
            (v6, "dontFragment=yes", ipv6, _IPV6_DONTFRAG, 1, 0),
            (group, "ttl=9", ip, socket.IP_MULTICAST_TTL, 9, 1),
            (group, "loopback=no", ip, socket.IP_MULTICAST_LOOP, 0, 1),
            (group6, "ttl=9", ipv6, socket.IPV6_MULTICAST_HOPS, 9, 1),
            (group6, "loopback=no", ipv6, socket.IPV6_MULTICAST_LOOP, 0, 1),
        ):
            there = await self.changed(level, name, kind, f"{kind}:{text}")
            self.assertEqual(there, (without, with_it), f"{kind}:{text}")
            back = await self.changed(level, name, f"{kind}:{text}", kind)
            self.assertEqual(back, (with_it, without), f"{kind}:{text}")

    async def test_a_queued_datagram_is_answered_by_the_next_process(self) -> None:
        """It is in the buffer of the shared socket."""
        first = await self.listen_datagrams("udp:0:interface=127.0.0.1")
        keeping = self.next_process()
        first.pauseProducing()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(10)
            peer.sendto(b"x", ("127.0.0.1", first.getHost().port))
            await first.stopListening()
            await self.listen_datagrams("udp:0:interface=127.0.0.1", keeping)
            await _turns()
            self.assertEqual(peer.recv(10), b"x")


class BindingReactorTests(KeepingReactorTestCase):
    """The parent of workers binds for all of them."""

    def setUp(self) -> None:
        super().setUp()
        self.tables = [self.make_table() for _ in range(3)]
        self.binding: Any = BindingReactor(reactor, self.tables)

    def addresses(self) -> list[Any]:
        """Return the local address of each worker's only socket."""
        return [table.held()[0][1].getsockname() for table in self.tables]

    def inodes(self) -> set[int]:
        """Return the numbers of the sockets of all workers."""
        return {os.fstat(table.held()[0][1].fileno()).st_ino for table in self.tables}

    async def test_each_worker_has_a_tcp_socket_of_its_own(self) -> None:
        """On the one port that the system chose."""
        port = await self.listen("tcp:0:interface=127.0.0.1", self.binding)
        self.assertTrue(verifyObject(interfaces.IListeningPort, port))
        host = port.getHost()
        self.assertEqual(self.addresses(), [(host.host, host.port)] * 3)
        self.assertEqual(len(self.inodes()), 3)
        names = {str(name) for table in self.tables for name, _ in table.held()}
        self.assertEqual(names, {"tcp:127.0.0.1:0"})
        await maybeDeferred(port.stopListening)
        self.assertEqual([table.held() for table in self.tables], [[], [], []])

    async def test_each_worker_has_a_udp_socket_of_its_own(self) -> None:
        """The parent does not read from any."""
        port = await self.listen_datagrams("udp:0:interface=127.0.0.1", self.binding)
        self.assertEqual(len(set(self.addresses())), 1)
        self.assertEqual(len(self.inodes()), 3)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.sendto(b"x", self.addresses()[0])
            await _turns()
        self.assertEqual(port.counters.received, 0)
        await port.stopListening()
        self.assertEqual([table.held() for table in self.tables], [[], [], []])

    async def test_workers_share_the_socket_of_a_path(self) -> None:
        """The path is removed once."""
        port = await self.listen(f"unix:{self.path}", self.binding)
        self.assertEqual(port.getHost().name, os.fsencode(self.path))
        self.assertEqual(len(self.inodes()), 1)
        await maybeDeferred(port.stopListening)
        self.assertFalse(self.path.exists())

    async def test_a_worker_accepts_from_its_socket(self) -> None:
        """With the names of its table."""
        await self.listen("tcp:0:interface=127.0.0.1", self.binding)
        table = self.make_table()
        table.inherit((name, each.dup()) for name, each in self.tables[1].held())
        worker = KeepingReactor(reactor, table, shares_ports=True)
        await self.listen("tcp:0:interface=127.0.0.1", worker)
        self.assertEqual(table.held()[0][1].getsockname(), self.addresses()[0])

    async def test_a_worker_starts_although_the_path_was_removed(self) -> None:
        """Its parent keeps the socket."""
        tables = [ListeningSockets(checks_paths=False) for _ in range(2)]
        binding: Any = BindingReactor(reactor, tables[:1])
        port = await self.listen(f"unix:{self.path}", binding)
        self.path.unlink()
        tables[1].inherit((name, each.dup()) for name, each in tables[0].held())
        self.addCleanup(tables[1].close)
        worker = await self.listen(f"unix:{self.path}", KeepingReactor(reactor, tables[1]))
        self.assertEqual(worker.getHost(), port.getHost())
        self.assertFalse(self.path.exists())

    async def test_a_failure_leaves_nothing(self) -> None:
        """Another program has the port."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            number = other.getsockname()[1]
            before = self.count_descriptors()
            with self.assertRaises(CannotListenError):
                await self.listen(f"tcp:{number}:interface=127.0.0.1", self.binding)
            self.assertEqual([table.held() for table in self.tables], [[], [], []])
            self.assertEqual(self.count_descriptors(), before)


#: <linux/in.h> and <linux/in6.h>.
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_IPV6_DONTFRAG = 62


def _backlog_of(listening: socket.socket) -> int:
    """Return the size of the accept queue: ``tcpi_sacked`` of a listening socket."""
    information = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    return int.from_bytes(information[28:32], sys.byteorder)


async def _turns() -> None:
    """Let the reactor handle events for a moment."""
    for _ in range(3):
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.01, waiting.callback, None)
        await waiting
