"""
Datagram sockets and their streams with a real kernel below and a clock for a reactor.
"""

from __future__ import annotations

import errno
import select
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.test_resolving import FakeNameResolver, FakeResolution
from tests.stream.test_transport import IdleReactor
from twsock import (
    DatagramSocket,
    DatagramSocketMessageReceivedEventArgs,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.datagram.network.packet_info import request_runs
from twsock.datagram.port import DatagramPort
from twsock.datagram.udp_socket import DatagramOptions, OpenedSocket
from twsock.protocols import DatagramProtocol
from twsock.sockets.datagram.output import DatagramOutputStream

LOCALHOST = "127.0.0.1"

Message = DatagramSocketMessageReceivedEventArgs

#: Seconds to wait for a datagram that must arrive.
PATIENCE = 120


class FillableSocket(socket.socket):
    """A real UDP socket that counts its sends, has room for so many more, and may cut no runs."""

    calls: int
    room: float
    has_runs: bool

    def send(self, *arguments: Any) -> int:
        self.take_room()
        return super().send(*arguments)

    def sendto(self, *arguments: Any) -> int:
        self.take_room()
        return super().sendto(*arguments)

    def sendmsg(self, buffers: Any, messages: Any = (), *arguments: Any) -> int:
        self.take_room()
        if messages and not self.has_runs:
            raise OSError(errno.EIO, "Input/output error")
        return super().sendmsg(buffers, messages, *arguments)

    def take_room(self) -> None:
        """Count a call, or raise the error of a socket without room."""
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.room -= 1
        self.calls += 1


def plain_socket(host: str = LOCALHOST) -> socket.socket:
    """Make a socket of Python, bound to a free port."""
    peer = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    peer.bind((host, 0))
    peer.settimeout(PATIENCE)
    return peer


def receive(peer: socket.socket, count: int) -> list[bytes]:
    """Receive this many datagrams, or fewer if they do not arrive; report surplus ones."""
    received: list[bytes] = []
    try:
        while len(received) < count:
            received.append(peer.recv(65_535))
        peer.setblocking(False)
        received.append(b"surplus: " + peer.recv(65_535))
    except (BlockingIOError, TimeoutError):
        pass
    finally:
        peer.settimeout(PATIENCE)
    return received


class ConnectedStream:
    """
    An output stream on a port that is connected to a plain socket.

    :ivar pending: the streams that asked for a turn.
    :ivar unawaited: the errors of failed writes that nobody awaited.
    :ivar has_runs: whether the kernel cuts runs.
    """

    def __init__(self) -> None:
        self.reactor = IdleReactor()
        self.peer = plain_socket()
        self.kernel = FillableSocket(socket.AF_INET, socket.SOCK_DGRAM)
        self.kernel.calls, self.kernel.room = 0, float("inf")
        self.kernel.setblocking(False)
        self.kernel.bind((LOCALHOST, 0))
        self.has_runs = self.kernel.has_runs = request_runs(self.kernel)
        opened = OpenedSocket(self.kernel, self.has_runs, False)
        self.port = DatagramPort(self.reactor, DatagramProtocol(), opened, DatagramOptions())
        self.port.connect(*self.peer.getsockname())
        self.port.startListening()
        self.pending: list[DatagramOutputStream] = []
        self.unawaited: list[SocketError] = []
        self.output = self.make_output()
        self.output.opened(self.port)

    def make_output(self) -> DatagramOutputStream:
        """Make a stream that was not opened."""
        return DatagramOutputStream(
            self.reactor,
            lambda: LocalProtocolError("not open"),
            self.pending.append,
            self.unawaited.append,
        )

    def next_turn(self) -> None:
        """Call the streams as the socket does in the reactor's next turn."""
        pending = list(self.pending)
        self.pending.clear()
        for output in pending:
            output.next_turn()

    def make_room(self, calls: float = float("inf")) -> None:
        """Let the kernel take this many sends, and report the socket as writable."""
        self.kernel.room = calls
        self.port.doWrite()

    def received(self, count: int) -> list[bytes]:
        """Receive this many datagrams at the other end, and no others."""
        return receive(self.peer, count)

    def close(self) -> None:
        """Close both sockets."""
        self.port.stopListening()
        self.peer.close()


class LookingUpReactor(IdleReactor):
    """A clock that finds the hosts it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = FakeNameResolver()


class DatagramSocketCase(SynchronousTestCase):
    """Makes sockets, lets them receive when told to, and looks at what they leave behind."""

    def setUp(self) -> None:
        self.reactor = LookingUpReactor()
        self.sockets: list[DatagramSocket] = []

    def tearDown(self) -> None:
        for one in self.sockets:
            one.close()
        self.assertEqual(self.reactor.readers | self.reactor.writers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def make(self) -> DatagramSocket:
        """Make a socket, to be bound or connected."""
        made = DatagramSocket(self.reactor)
        self.sockets.append(made)
        return made

    def bind(self, made: DatagramSocket | None = None, host: str = LOCALHOST) -> DatagramSocket:
        """Bind a socket to a free port."""
        made = made or self.make()
        self.successResultOf(made.bind_endpoint(host, ""))
        return made

    def peer(self, host: str = LOCALHOST) -> socket.socket:
        """Make a plain socket."""
        made = plain_socket(host)
        self.addCleanup(made.close)
        return made

    def connect(self, peer: socket.socket, made: DatagramSocket | None = None) -> DatagramSocket:
        """Connect a socket to a plain one."""
        made = made or self.make()
        self.successResultOf(made.connect(*peer.getsockname()[:2]))
        return made

    def address(self, made: DatagramSocket) -> tuple[str, int]:
        """Return the address that a socket is bound to."""
        host = made.information.local_address
        assert host is not None
        return host.canonical_name, int(made.information.local_port)

    def pump(self) -> None:
        """Wait for a datagram, and let all readable sockets receive."""
        readers: Any = self.reactor.readers
        ready, _, _ = select.select(list(readers), [], [], PATIENCE)
        self.assertTrue(ready, "nothing came")
        while ready:
            for reader in ready:
                if reader in readers:
                    reader.doRead()
            ready, _, _ = select.select(list(readers), [], [], 0)

    def send(self, peer: socket.socket, made: DatagramSocket, *datagrams: bytes) -> None:
        """Send from a plain socket to a socket, and let it receive."""
        for data in datagrams:
            peer.sendto(data, self.address(made))
        self.pump()


class SocketCase(DatagramSocketCase):
    """Checks outcomes, and fills sockets with datagrams."""

    def assert_refused(self, operation: Deferred[Any], status: SocketErrorStatus) -> None:
        error: SocketError = self.failureResultOf(operation, SocketError).value
        self.assertIs(error.status, status, f"{error.status}: {error}")

    def take(self, made: DatagramSocket) -> bytes:
        """Receive a datagram that has arrived."""
        return self.successResultOf(made.receive_from())[0]

    def listen(self, made: DatagramSocket | None = None) -> tuple[DatagramSocket, list[Message]]:
        """Bind a socket whose handler records the messages."""
        made = made or self.make()
        messages: list[Message] = []
        made.message_received.add(lambda _, message: messages.append(message))
        return self.bind(made), messages

    def flood(self, peer: socket.socket, made: DatagramSocket) -> None:
        """Send until the socket stops reading."""
        for _ in range(100):
            self.send(peer, made, *[b"x"] * 32)
            if not self.reactor.readers:
                return
        self.fail("it still reads")

    def run_to(self, made: DatagramSocket, *datagrams: bytes) -> None:
        """Send datagrams; those of one size are received as one run."""
        other = self.make()
        self.successResultOf(other.connect(*self.address(made)))
        for data in datagrams:
            other.output_stream.write(data)
        self.successResultOf(other.output_stream.flush())
        self.pump()

    def slow_host(self, name: str) -> None:
        """Let the lookup of a name never end."""
        self.reactor.nameResolver.slow[name] = FakeResolution(name)
