"""UDP ports without a kernel for these tests: one like Twisted's, one that sends runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IUDPTransport
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from twsock.datagram.owner import IRunTransport
from twsock.datagram.runs import Run
from twsock.protocols import DatagramProtocol

Address = tuple[Any, ...]

#: Where these ports are bound, unless told otherwise.
HOST, PORT = "127.0.0.1", 1337


@implementer(IUDPTransport)
class PlainPort:
    """
    Behaves as a port of Twisted.

    :ivar written: what was sent, and where to.
    :ivar failure: raised by the next send, once.
    """

    def __init__(self, host: str = HOST, port: int = PORT) -> None:
        self._host = (IPv6Address if ":" in host else IPv4Address)("UDP", host, port)
        self.written: list[tuple[bytes, Address | None]] = []
        self.failure: Exception | None = None

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        self._fail()
        self.written.append((packet, addr))

    def connect(self, host: str, port: int) -> None:
        raise NotImplementedError

    def getHost(self) -> IPv4Address | IPv6Address:
        return self._host

    def stopListening(self) -> None:
        raise NotImplementedError

    def setBroadcastAllowed(self, enabled: bool) -> None:
        raise NotImplementedError

    def getBroadcastAllowed(self) -> bool:
        return False

    def _fail(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure


@implementer(IRunTransport)
class RunPort(PlainPort):
    """
    Behaves as a `DatagramPort`.

    :ivar replies: the runs that were sent back, and to which port.
    :ivar is_full: is set by the test.
    :ivar is_paused: whether it was asked to receive nothing.
    """

    def __init__(self, host: str = HOST, port: int = PORT) -> None:
        super().__init__(host, port)
        self.replies: list[tuple[Run, int | None]] = []
        self.is_full = False
        self.is_paused = False

    def send_run(self, data: bytes, segment_size: int, address: Address | None) -> None:
        raise NotImplementedError

    def reply(self, run: Run, *, port: int | None = None) -> None:
        self._fail()
        self.replies.append((run, port))
        source = run.source
        address = source if port is None else (source[0], port, *source[2:])
        for data in run.datagrams():
            self.written.append((data, address))

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False


class Recorder(DatagramProtocol):
    """
    Keeps what it is told.

    :ivar received: each datagram, with its source.
    :ivar events: everything else, by the name of its event.
    """

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Address]] = []
        self.events: list[str] = []

    def started(self) -> None:
        self.events.append("started")

    def datagram_received(self, data: bytes, source: Address) -> None:
        self.received.append((data, source))

    def stopped(self) -> None:
        self.events.append("stopped")


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """Collect the text of log events inside the ``with`` block."""
    lines: list[str] = []

    def note(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    publisher: Any = globalLogPublisher
    publisher.addObserver(note)
    try:
        yield lines
    finally:
        publisher.removeObserver(note)
