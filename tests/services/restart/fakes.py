"""The surroundings of a restart in memory: a reactor, the other process, services, a process."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed

from tests.stream.test_transport import IdleReactor
from twsock.restart.records import RestartPacket, encode_restart
from twsock.services.restart.channel import receive_packet
from twsock.stream.moving import GivenConnections

__all__ = [
    "FakeOwner",
    "FakeReactor",
    "FakeServed",
    "Peer",
    "count_descriptors",
    "no_free_descriptor",
]


def count_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def no_free_descriptor() -> Iterator[None]:
    """Let this process open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class FakeReactor(IdleReactor):
    """Calls readers and writers when the test says so."""

    def turn(self) -> None:
        """Call all readers and writers until nothing happens any more, at most a few times."""
        for _ in range(8):
            for writer in list(self.writers):
                writer.doWrite()  # type: ignore[attr-defined]
            for reader in list(self.readers):
                reader.doRead()  # type: ignore[attr-defined]
            self.advance(0)


class Peer:
    """
    The other process of a channel.

    :ivar theirs: the other end, for the object under test.
    """

    def __init__(self) -> None:
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(5)

    def send(self, packet: RestartPacket | bytes, *passed: socket.socket) -> None:
        """Send a packet, or other bytes."""
        data = packet if isinstance(packet, bytes) else encode_restart(packet)
        socket.send_fds(self.socket, [data], [each.fileno() for each in passed])

    def receive(self) -> RestartPacket | None:
        """Receive a packet, and close the socket beside it; return None at the end."""
        received = receive_packet(self.socket)
        if received is None:
            return None
        packet, passed = received
        if passed is not None:
            passed.close()
        return packet

    def receive_all(self) -> list[RestartPacket | None]:
        """Receive all packets that have arrived; None is the end."""
        self.socket.setblocking(False)
        found: list[RestartPacket | None] = []
        try:
            while not found or found[-1] is not None:
                found.append(self.receive())
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        """Close both ends."""
        self.socket.close()
        self.theirs.close()


class FakeServed:
    """
    The services.

    :ivar calls: what was done with them.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.connections = 2
        self.given = GivenConnections(3, 0)
        self.giving: Deferred[Any] = succeed(None)
        self.draining: Deferred[Any] = Deferred()
        self.offer: Callable[[str, socket.socket], None] | None = None
        self.factories: dict[str, Any] = {}

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    async def give(self, offer: Callable[[str, socket.socket], None]) -> GivenConnections:
        self.calls.append("give")
        self.offer = offer
        await self.giving
        return self.given

    def drain(self) -> Deferred[Any]:
        self.calls.append("drain")
        self.draining = Deferred()
        return self.draining

    def factory(self, key: str) -> Any:
        return self.factories.get(key)


class FakeOwner:
    """
    The process.

    :ivar calls: what it was told.
    :ivar reported: fires when the service manager knows the new process.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.reported: Deferred[None] = succeed(None)

    def restart_begins(self) -> None:
        self.calls.append("begins")

    def replaced(self, process: int) -> Deferred[None]:
        self.calls.append(f"replaced by {process}")
        return self.reported

    def lead(self) -> None:
        self.calls.append("leads")

    def serves_again(self) -> None:
        self.calls.append("serves again")

    def end(self) -> None:
        self.calls.append("end")
