"""Errors of a watched UDP socket are reported, and the socket is watched again."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.datagram.fake_udp import PEER, FakeUdp
from twsock.datagram.descriptor import DatagramDescriptor
from twsock.datagram.network.membership import Memberships
from twsock.datagram.port import DatagramPort
from twsock.datagram.runs import DatagramCounters, RunReceiver
from twsock.datagram.send_queue import CountedRun, DatagramOutput
from twsock.datagram.udp_socket import DatagramOptions
from twsock.errors import ClosedError, SocketError, SocketErrorStatus

RESET = SocketErrorStatus.CONNECTION_RESET_BY_PEER


class Reactor(Clock):
    """A reactor that records the descriptors that it watches."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[str] = []

    def addReader(self, reader: Any) -> None:
        self.watched.append("read")

    def removeReader(self, reader: Any) -> None:
        self.watched.remove("read")

    def addWriter(self, writer: Any) -> None:
        self.watched.append("write")

    def removeWriter(self, writer: Any) -> None:
        self.watched.remove("write")


class Descriptor(DatagramDescriptor):
    """A descriptor that records the errors."""

    def __init__(self, reactor: Any, udp: Any) -> None:
        super().__init__(reactor, udp)
        self.refusals: list[SocketErrorStatus] = []
        self.closes = 0
        self.counters = DatagramCounters()
        self._receiver = RunReceiver(udp, None, DatagramOptions(), Memberships(udp), self.counters)
        self._output = DatagramOutput(udp, self, reactor, has_runs=False)

    def send(self, data: bytes) -> CountedRun:
        """Send a datagram."""
        item = CountedRun(self.counters, lambda error, item: None, data, len(data), PEER, None)
        self._output.push(item)
        return item

    def withdraw(self, item: CountedRun) -> None:
        self._output.withdraw(item)

    @override
    def refused(self, error: SocketError) -> None:
        self.refusals.append(error.status)

    @override
    def _close(self) -> None:
        self.closes += 1
        self._output.close(lambda: ClosedError("closed"))

    # Called by the queue.

    def output_drained(self) -> None:
        """Do nothing."""

    def output_ended(self) -> None:
        """Do nothing."""


class DescriptorTests(SynchronousTestCase):
    """The calls of the reactor; `tests.datagram.test_port` has the calls of applications."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.udp = FakeUdp()
        self.descriptor = Descriptor(self.reactor, self.udp)
        self.descriptor.resumeProducing()

    def end(self, *, of_input: bool) -> None:
        """Report an error as reactors on epoll do: they remove the descriptor first."""
        self.reactor.watched = []
        if of_input:
            self.descriptor.readConnectionLost(Failure(ConnectionDone()))
        else:
            self.descriptor.connectionLost(Failure(ConnectionLost()))

    def test_the_port_is_a_descriptor(self) -> None:
        """The reactor watches the port itself."""
        self.assertTrue(issubclass(DatagramPort, DatagramDescriptor))

    def test_pausing_and_resuming_twice_is_harmless(self) -> None:
        """The reactor is called once for each change."""
        self.descriptor.resumeProducing()
        self.assertEqual(self.reactor.watched, ["read"])
        for _ in range(2):
            self.descriptor.pauseProducing()
        self.assertEqual(self.reactor.watched, [])

    def test_an_error_does_not_end_the_watch(self) -> None:
        """The error is reported, and the socket is watched again."""
        for of_input in (True, False):
            self.descriptor.refusals.clear()
            self.udp.pending = [errno.ECONNREFUSED]
            self.end(of_input=of_input)
            self.assertEqual(self.descriptor.refusals, [RESET], of_input)
            self.assertEqual(self.reactor.watched, ["read"], of_input)
        self.assertEqual(self.descriptor.closes, 0)

    def test_a_queue_that_waits_is_watched_again(self) -> None:
        """A queue without items waits, too: it is full until the socket is writable."""
        self.udp.plan = [errno.EAGAIN]
        self.descriptor.withdraw(self.descriptor.send(b"a"))
        self.udp.pending = [errno.ECONNREFUSED]
        self.end(of_input=False)
        self.assertEqual(self.reactor.watched, ["read", "write"])
        self.descriptor.doWrite()
        self.assertEqual(self.reactor.watched, ["read"])

    def test_an_end_without_an_error_closes_the_port(self) -> None:
        """A reactor that stops makes this call."""
        self.end(of_input=False)
        self.assertEqual(self.descriptor.closes, 1)
