"""Ports on sockets that listen already."""

from __future__ import annotations

import shutil
import socket
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.loopback.contract import OnEveryReactor, turns
from twsock.errors import LocalProtocolError, SocketError
from twsock.stream.listening.accept_gate import AcceptGate
from twsock.stream.listening.adopted_port import (
    check_listening,
    copy_listening,
    leave_ports,
    listen_on,
)
from twsock.stream.listening.unix_endpoint import UnixEndpoint


class Answering(Protocol):
    """Sends a byte, and closes."""

    def connectionMade(self) -> None:
        self.transport.write(b"!")  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


def answering() -> Any:
    """Make a factory."""
    factory = Factory.forProtocol(Answering)
    factory.noisy = False
    return factory


def listening_tcp(host: str = "127.0.0.1") -> socket.socket:
    """Listen on a free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family)


def connected_to(listening: socket.socket) -> socket.socket:
    """Connect to a listening socket."""
    made = socket.socket(listening.family, socket.SOCK_STREAM)
    made.settimeout(60)
    made.connect(listening.getsockname())
    return made


def backlog_of(listening: socket.socket) -> int:
    """Return how many connections the kernel queues."""
    # ``tcpi_sacked`` of ``struct tcp_info``, which has this meaning for a listening socket.
    information = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    backlog: int = struct.unpack_from("=I", information, 28)[0]
    return backlog


def mode_of(path: Path) -> int:
    """Return the permissions of a path, which has to exist."""
    return stat.S_IMODE(path.stat().st_mode)


class PortTests(OnEveryReactor):
    """`listen_on`, `copy_listening` and `leave_ports`."""

    def short_path(self) -> Path:
        """Return a path that is not too long for a UNIX socket."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return Path(folder, "s")

    def listening_unix(self) -> socket.socket:
        """Listen on a path."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(str(self.short_path()))
        made.listen()
        return made

    def test_a_port_moves_without_a_lost_connection(self) -> None:
        """Connections that the kernel queues meanwhile are accepted by the next owner."""

        async def work(reactor: Any) -> None:
            for listening in (listening_tcp(), listening_tcp("::1"), self.listening_unix()):
                with listening:
                    port: Any = listen_on(reactor, listening, answering(), 100)
                    AcceptGate(port, reactor, lambda: True)
                    copies = copy_listening([port])
                    if listening.family != socket.AF_UNIX:
                        self.assertEqual(backlog_of(copies[0]), 100)
                    early = connected_to(listening)
                    leave_ports([port])
                    late = connected_to(listening)
                    await turns(reactor)
                    again: Any = listen_on(reactor, copies[0], answering(), 100)
                    copies[0].close()
                    await turns(reactor, 20)
                    for client in (early, late, connected_to(listening)):
                        with client:
                            await turns(reactor)
                            self.assertEqual(client.recv(9), b"!", listening)
                    await turns(reactor)
                    await again.stopListening()
                    # The socket still listens for its other owner.
                    connected_to(listening).close()

        self.conduct(work)

    def test_the_path_of_a_unix_socket_does_not_change(self) -> None:
        """Neither its permissions nor its existence; the owner removes it."""

        async def work(reactor: Any) -> None:
            path = self.short_path()
            endpoint = UnixEndpoint(reactor, str(path), backlog=9, mode=0o600)
            port: Any = await endpoint.listen(answering())
            copies = copy_listening([port])
            leave_ports([port])
            self.assertEqual(mode_of(path), 0o600)
            again: Any = listen_on(reactor, copies[0], answering(), 100)
            self.assertEqual(mode_of(path), 0o600)
            self.assertIn(path.name, str(again.getHost()))
            await again.stopListening()
            self.assertEqual(mode_of(path), 0o600)
            copies[0].close()

        self.conduct(work)


class ArgumentTests(SynchronousTestCase):
    """What cannot be adopted or left."""

    def test_a_socket_that_does_not_listen_is_refused(self) -> None:
        """A connected one, and one for datagrams."""
        near, far = socket.socketpair()
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with near, far, udp:
            for wrong in (near, udp):
                with self.assertRaisesRegex(ValueError, "a listening stream socket"):
                    check_listening(wrong)

    def test_a_port_in_memory_cannot_be_left(self) -> None:
        """It has no socket; the copies of others are closed."""
        reactor = MemoryReactorClock()
        port = reactor.listenTCP(0, answering())
        with self.assertRaisesRegex(LocalProtocolError, "not a socket of the reactor"):
            copy_listening([port])

    def test_a_reactor_in_memory_records_the_socket(self) -> None:
        """As one that was adopted."""
        reactor = MemoryReactorClock()
        with listening_tcp() as listening:
            listen_on(reactor, listening, answering(), 9)
            self.assertEqual(reactor.adoptedPorts[0][0], listening.fileno())


class FullTests(OnEveryReactor):
    """A process without a free descriptor."""

    def test_without_a_descriptor_nothing_changes(self) -> None:
        """The error has the reason, and the port goes on."""

        async def work(reactor: Any) -> None:
            with listening_tcp() as listening:
                port: Any = listen_on(reactor, listening, answering(), 9)
                held, port.socket = port.socket, NoCopies()
                with self.assertRaisesRegex(SocketError, "Too many open files"):
                    copy_listening([port])
                port.socket = held
                await port.stopListening()

        self.conduct(work)


class NoCopies:
    """A socket of a process that has no descriptor left."""

    def dup(self) -> socket.socket:
        raise OSError(24, "Too many open files")


globals().update(PortTests.makeTestCaseClasses())
globals().update(FullTests.makeTestCaseClasses())
