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

#: The default address of these ports.
HOST, PORT = "127.0.0.1", 1337


@implementer(IUDPTransport)
class PlainPort:
    """
    A port that behaves as one of Twisted.

    :ivar written: sent datagrams with their addresses.
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
    A port that behaves as a `DatagramPort`.

    :ivar replies: runs passed to `reply`, with their port.
    :ivar is_full: set by the test.
    :ivar is_paused: whether the port is paused.
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
    A protocol that records its events.

    :ivar received: each datagram with its source.
    :ivar events: all other events, by name.
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
